"""The homes that keep the current revision of each object, in a file `o<oid>.d`.

A newer revision replaces the file by renaming, so at every moment one of both is there, whole. Only
revisions that no snapshot is older than come here (the flusher sees to it), so replacing takes nothing from
anybody.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from objstore.contracts import Filesystem, Finding, Format, History, Removal
from objstore.engine.homefiles import HomeFiles, is_outdated
from objstore.engine.homescan import find_minimal_damage
from objstore.formats import records
from objstore.formats.layouts import DataName, data_name
from objstore.ids import Oid, Tid
from objstore.revisions import Revision, RevisionSummary, Transaction


class MinimalHome:
    """A `contracts.Home` of History.MINIMAL in a classic format."""

    def __init__(self, filesystem: Filesystem, path: str, format: Format) -> None:
        self._files = HomeFiles(filesystem, path, format)

    @property
    def history(self) -> History:
        return History.MINIMAL

    @property
    def keeps_superseded(self) -> bool:
        return False

    def prepare(self) -> None:
        """Nothing: directories are made as they are needed."""

    def _summary(self, oid: Oid) -> RevisionSummary | None:
        return self._files.summary(f"{self._files.directory(oid)}/{data_name(oid)}", oid)

    def current(self, oid: Oid) -> Tid | None:
        summary = self._summary(oid)
        return summary.tid if summary is not None else None

    def load(self, oid: Oid, upto: Tid) -> Revision | None:
        revision = self._files.revision(f"{self._files.directory(oid)}/{data_name(oid)}", oid)
        return revision if revision is not None and revision.tid <= upto else None

    def record(self, oid: Oid, upto: Tid) -> tuple[bytes | None, Tid] | None:
        revision = self.load(oid, upto)
        return (revision.data, revision.tid) if revision is not None else None

    def revision(self, oid: Oid, tid: Tid) -> Revision | None:
        found = self.load(oid, tid)
        return found if found is not None and found.tid == tid else None

    def summaries(self, oid: Oid) -> Iterator[RevisionSummary]:
        summary = self._summary(oid)
        if summary is not None:
            yield summary

    def oids(self) -> Iterator[Oid]:
        for at, name in self._files.names():
            if isinstance(name, DataName) and at == self._files.directory(name.oid):
                yield name.oid

    def transaction(self, tid: Tid) -> Transaction | None:  # noqa: ARG002
        return None

    def transactions(self, upto: Tid) -> Iterator[Transaction]:  # noqa: ARG002
        return iter(())

    def apply(self, batch: Iterable[tuple[Transaction, Sequence[Revision]]]) -> None:
        changes = self._files.batch()
        for _, revisions in batch:
            for revision in revisions:
                directory = self._files.directory(revision.oid)
                if is_outdated(self, revision.oid, revision.tid):
                    changes.write(directory, data_name(revision.oid), records.encode(revision))
                else:
                    changes.keep(directory)
        changes.finish()

    def maintain(self, horizon: Tid) -> None:
        """Nothing: files of one revision each have nothing to merge."""

    def remove(self, removals: Sequence[Removal]) -> int:
        changes = self._files.batch()
        freed = sum(
            changes.unlink(self._files.directory(removal.oid), data_name(removal.oid))
            for removal in removals
            if removal.whole
        )
        changes.finish()
        return freed

    def remove_transactions(self, tids: Sequence[Tid]) -> int:  # noqa: ARG002
        return 0

    def refresh(self, flushed: Tid) -> None:
        """Nothing: each look goes to the files."""

    def findings(self) -> Iterator[Finding]:
        return find_minimal_damage(self._files)

    def close(self) -> None:
        """Nothing: a file is open only while it is read or written."""
