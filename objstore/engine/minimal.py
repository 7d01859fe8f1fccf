"""The homes that keep the current revision of each object, in a file `o<oid>.d`.

A newer revision replaces the file by renaming, so at every moment one of both is there, whole. Only
revisions that no snapshot is older than come here (the flusher sees to it), so replacing takes nothing from
anybody.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from objstore.contracts import Filesystem, Finding, Format, History, Removal
from objstore.engine.homefiles import Batch, RevisionFiles, files
from objstore.engine.homescan import find_minimal_damage
from objstore.errors import CorruptionError
from objstore.formats import records
from objstore.formats.layouts import DataName, data_name, object_directory, parse_home_name
from objstore.ids import Oid, Tid
from objstore.revisions import Revision, RevisionSummary, Transaction


class MinimalHome:
    """A `contracts.Home` of History.MINIMAL in a classic format."""

    def __init__(self, filesystem: Filesystem, path: str, format: Format) -> None:
        self._files = RevisionFiles(filesystem, path, format)
        self._filesystem = filesystem
        self._path = path
        self._format = format

    @property
    def history(self) -> History:
        return History.MINIMAL

    @property
    def keeps_superseded(self) -> bool:
        return False

    def prepare(self) -> None:
        """Nothing: directories are made as they are needed."""

    def _directory(self, oid: Oid) -> str:
        return self._files.below(object_directory(self._format, oid))

    def _summary(self, oid: Oid) -> RevisionSummary | None:
        return self._files.summary(f"{self._directory(oid)}/{data_name(oid)}", oid)

    def current(self, oid: Oid) -> Tid | None:
        summary = self._summary(oid)
        return summary.tid if summary is not None else None

    def load(self, oid: Oid, upto: Tid) -> Revision | None:
        revision = self._files.revision(f"{self._directory(oid)}/{data_name(oid)}", oid)
        return revision if revision is not None and revision.tid <= upto else None

    def summaries(self, oid: Oid) -> Iterator[RevisionSummary]:
        summary = self._summary(oid)
        if summary is not None:
            yield summary

    def oids(self) -> Iterator[Oid]:
        for place, name in files(self._filesystem, self._path):
            match parse_home_name(name):
                case DataName(oid) if place == self._directory(oid):  # else it is a copy that somebody made
                    yield oid
                case _:
                    continue

    def transaction(self, tid: Tid) -> Transaction | None:  # noqa: ARG002
        return None

    def transactions(self, upto: Tid) -> Iterator[Transaction]:  # noqa: ARG002
        return iter(())

    def apply(self, batch: Iterable[tuple[Transaction, Sequence[Revision]]]) -> None:
        changes = Batch(self._filesystem, self._path)
        for _, revisions in batch:
            for revision in revisions:
                directory = self._directory(revision.oid)
                if self._is_outdated(revision.oid, revision.tid):
                    changes.write(directory, data_name(revision.oid), records.encode(revision))
                else:
                    changes.keep(directory)
        changes.finish()

    def _is_outdated(self, oid: Oid, tid: Tid) -> bool:
        try:
            current = self.current(oid)
        except CorruptionError:  # what cannot be read any more is best replaced by what can
            return True
        return current is None or current < tid

    def maintain(self, horizon: Tid) -> None:
        """Nothing: files of one revision each have nothing to merge."""

    def remove(self, removals: Sequence[Removal]) -> int:
        changes = Batch(self._filesystem, self._path)
        freed = sum(
            changes.unlink(self._directory(removal.oid), data_name(removal.oid))
            for removal in removals
            if removal.whole
        )
        changes.finish()
        return freed

    def remove_transactions(self, tids: Sequence[Tid]) -> int:  # noqa: ARG002
        return 0

    def findings(self) -> Iterator[Finding]:
        return find_minimal_damage(self._files)

    def close(self) -> None:
        """Nothing: a file is open only while it is read or written."""
