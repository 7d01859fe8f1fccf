"""The homes that keep every revision, each in a file of its own.

`o<oid>.<tid>` holds a revision, `o<oid>.c` the current serial, `t<tid>` a transaction's details. A batch is
applied in this order: 1. the revisions and the details are written; 2. their directories are synced; 3. the
`.c` files are replaced; 4. the directories are synced. So where a `.c` is durable, what it names is too.

A removal goes the other way: 1. the `.c` files of objects that go as a whole; 2. sync; 3. revisions, but for the
newest of each object that stays; 4. sync; 5. these; 6. sync. An object's revisions are found by following them
from the newest on. So while any is left of those that were to go, the newest of them is, and is named by the
next pack, which takes along what stands before it and is no longer led to.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from objstore.contracts import Filesystem, Finding, Format, History, Removal
from objstore.engine.homefiles import HomeFiles, is_outdated
from objstore.engine.homescan import find_full_damage
from objstore.errors import CorruptionError
from objstore.formats import records
from objstore.formats.layouts import (
    CurrentName,
    RevisionName,
    TransactionName,
    current_name,
    parse_home_name,
    revision_name,
    transaction_name,
)
from objstore.formats.transactions import decode_details, encode_details
from objstore.ids import NO_TID, Oid, Tid
from objstore.revisions import Revision, RevisionSummary, Transaction


class FullHome:
    """A `contracts.Home` of History.FULL in a classic format."""

    def __init__(self, filesystem: Filesystem, path: str, format: Format) -> None:
        self._files = HomeFiles(filesystem, path, format)

    @property
    def history(self) -> History:
        return History.FULL

    @property
    def keeps_superseded(self) -> bool:
        return True

    def prepare(self) -> None:
        """Nothing: directories are made as they are needed."""

    # --- looking up ---

    def current(self, oid: Oid) -> Tid | None:
        path = f"{self._files.directory(oid)}/{current_name(oid)}"
        content = self._files.content(path)
        if content is None:
            return None
        if len(content) != 8:
            raise CorruptionError(path, "a current serial has 8 bytes", oid=oid)
        return Tid(content)

    def load(self, oid: Oid, upto: Tid) -> Revision | None:
        while (current := self.current(oid)) is not None:
            tid = current if current <= upto else self._newest(oid, upto)
            if tid is None:
                return None
            path = f"{self._files.directory(oid)}/{revision_name(oid, tid)}"
            revision = self._files.revision(path, oid, tid)
            if revision is not None:
                return revision
            self._require_moved(oid, current, path)
        return None

    def _newest(self, oid: Oid, upto: Tid) -> Tid | None:
        """The newest serial <= `upto`, found by following the revisions' predecessors."""
        return next((summary.tid for summary in self.summaries(oid) if summary.tid <= upto), None)

    def record(self, oid: Oid, upto: Tid) -> tuple[bytes | None, Tid] | None:
        revision = self.load(oid, upto)
        return (revision.data, revision.tid) if revision is not None else None

    def revision(self, oid: Oid, tid: Tid) -> Revision | None:
        return self._files.revision(f"{self._files.directory(oid)}/{revision_name(oid, tid)}", oid, tid)

    def summaries(self, oid: Oid) -> Iterator[RevisionSummary]:
        while (current := self.current(oid)) is not None:
            path = f"{self._files.directory(oid)}/{revision_name(oid, current)}"
            summary = self._files.summary(path, oid, current)
            if summary is not None:
                yield from self._chain(summary)
                return
            self._require_moved(oid, current, path)

    def _chain(self, summary: RevisionSummary | None) -> Iterator[RevisionSummary]:
        """A revision and those before it, as far as they were not packed away."""
        while summary is not None:
            yield summary
            oid, previous = summary.oid, summary.previous
            path = f"{self._files.directory(oid)}/{revision_name(oid, previous)}"
            summary = self._files.summary(path, oid, previous) if previous != NO_TID else None

    def _require_moved(self, oid: Oid, current: Tid, path: str) -> None:
        """A revision was not there: damage, unless a flush and a pack came between two looks at the `.c`."""
        if self.current(oid) == current:
            raise CorruptionError(path, "a revision is missing", oid=oid, tid=current)

    def oids(self) -> Iterator[Oid]:
        last = None
        for at, name in self._files.names():
            match name:
                case CurrentName(oid) | RevisionName(oid, _) if oid != last and at == self._files.directory(oid):
                    last = oid
                    yield oid
                case _:
                    continue

    def transaction(self, tid: Tid) -> Transaction | None:
        path = f"{self._files.details_directory(tid)}/{transaction_name(tid)}"
        content = self._files.content(path)
        if content is None:
            return None
        transaction = decode_details(content, path)
        if transaction.tid != tid:
            raise CorruptionError(path, "the file holds another transaction than its name says", tid=tid)
        return transaction

    def transactions(self, upto: Tid) -> Iterator[Transaction]:
        nested = self._files.format in (Format.BUSHY, Format.CHUNKY)
        top = "t" if nested else ""
        if not self._files.filesystem.exists(self._files.below(top)):
            return
        for at, name in self._files.names(top, newest_first=True, deep=nested):
            match name:
                case TransactionName(tid) if tid <= upto and at == self._files.details_directory(tid):
                    transaction = self.transaction(tid)
                    if transaction is not None:
                        yield transaction
                case _:
                    continue

    # --- changing ---

    def apply(self, batch: Iterable[tuple[Transaction, Sequence[Revision]]]) -> None:
        changes = self._files.batch()
        newest: dict[Oid, Tid] = {}
        for transaction, revisions in batch:
            for revision in revisions:
                oid, tid = revision.oid, revision.tid
                changes.write(self._files.directory(oid), revision_name(oid, tid), records.encode(revision))
                newest[oid] = tid
            name = transaction_name(transaction.tid)
            changes.write(self._files.details_directory(transaction.tid), name, encode_details(transaction))
        changes.finish()
        for oid, tid in newest.items():
            if is_outdated(self, oid, tid):
                changes.write(self._files.directory(oid), current_name(oid), tid)
            else:
                changes.keep(self._files.directory(oid))
        changes.finish()

    def maintain(self, horizon: Tid) -> None:
        """Nothing: files of one revision each have nothing to merge."""

    def remove(self, removals: Sequence[Removal]) -> int:
        changes = self._files.batch()
        freed = 0
        for removal in removals:
            if removal.whole:
                freed += changes.unlink(self._files.directory(removal.oid), current_name(removal.oid))
        changes.finish()
        newest: list[tuple[Oid, Tid]] = []
        for oid, tids, whole in self._revisions_to_remove(removals):
            if tids and not whole:
                newest.append((oid, tids.pop()))
            for tid in tids:
                freed += changes.unlink(self._files.directory(oid), revision_name(oid, tid))
        changes.finish()
        for oid, tid in newest:
            freed += changes.unlink(self._files.directory(oid), revision_name(oid, tid))
        changes.finish()
        return freed

    def _revisions_to_remove(self, removals: Sequence[Removal]) -> Iterator[tuple[Oid, list[Tid], bool]]:
        """The revisions that go, object by object, oldest first, and whether the object goes as a whole."""
        at, listed = None, {}
        for removal in removals:
            directory = self._files.directory(removal.oid)
            if directory != at:
                at, listed = directory, self._listed(directory)
            there = listed.get(removal.oid, [])
            tids = there if removal.whole else self._lost_before(removal, there) | set(removal.tids)
            yield removal.oid, sorted(tids), removal.whole

    def _lost_before(self, removal: Removal, there: Sequence[Tid]) -> set[Tid]:
        """What an interrupted removal left behind the oldest revision that goes: nothing leads to it."""
        oldest = min(removal.tids, default=NO_TID)
        older = {tid for tid in there if tid < oldest}
        if older:
            path = f"{self._files.directory(removal.oid)}/{revision_name(removal.oid, oldest)}"
            summary = self._files.summary(path, removal.oid, oldest)
            if summary is None or summary.previous in older:
                return set()
        return older

    def _listed(self, directory: str) -> dict[Oid, list[Tid]]:
        found: dict[Oid, list[Tid]] = {}
        if self._files.filesystem.exists(directory):
            for entry in self._files.filesystem.entries(directory):
                match parse_home_name(entry.name):
                    case RevisionName(oid, tid):
                        found.setdefault(oid, []).append(tid)
                    case _:
                        continue
        return found

    def remove_transactions(self, tids: Sequence[Tid]) -> int:
        changes = self._files.batch()
        freed = sum(changes.unlink(self._files.details_directory(tid), transaction_name(tid)) for tid in tids)
        changes.finish()
        return freed

    def refresh(self, flushed: Tid) -> None:
        """Nothing: each look goes to the files."""

    def findings(self) -> Iterator[Finding]:
        return find_full_damage(self._files, self)

    def close(self) -> None:
        """Nothing: a file is open only while it is read or written."""
