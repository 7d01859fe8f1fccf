"""What leads from object to object: references to what does not exist, and objects that nothing leads to.

All that exists is listed first. Then references are followed, twice at most:

- From the root, over the revisions that count: of each object those after the time of the last pack, and the
  newest before it; in Minimal, where that time is now, the newest. What they refer to must exist, and so must
  the details of their transactions. No pack takes away any of this, so it holds while one runs, and after one
  was interrupted. Of other revisions, and of what cannot be reached, a pack may have removed a part.
- Over the others as well, if something was not reached: what history leads to is no finding, nor what the two
  newest transactions lead to, which a pack keeps whole.

It takes two bits for each object, and eight bytes for each transaction and each object yet to be visited.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice

from objstore.contracts import Finding, Format, History, Progress
from objstore.engine.journal import Waiting
from objstore.engine.marks import OIDS, Marks
from objstore.engine.store import DirectoryStore
from objstore.errors import CorruptionError, SerializationError
from objstore.formats import pickles
from objstore.formats.layouts import (
    current_name,
    data_name,
    object_directory,
    revision_name,
    transaction_directory,
    transaction_name,
)
from objstore.ids import NO_TID, ROOT, Oid, Tid, number, oid_from, oid_numbers, tid_from
from objstore.revisions import RevisionSummary
from objstore.upkeep.blobs import BlobCheck
from objstore.upkeep.pack import PROTECTED
from objstore.upkeep.reachable import Marker, OidSet
from objstore.upkeep.tidset import TidSet

STEP = 1000
"""Objects between two calls of the progress function."""


class Connections:
    """Follows references through a store.

    `waiting` is what the journal holds, `headless` the objects of which only revisions stand in a Full home,
    `snapshot` the newest transaction that counts; `damaged` says that damage was told already. A view of
    `snapshot` is open meanwhile, and was before the journal was looked at.
    """

    def __init__(
        self,
        store: DirectoryStore,
        waiting: Iterable[Waiting],
        headless: OidSet,
        snapshot: Tid,
        damaged: bool,
        progress: Progress,
        blobs: BlobCheck,
    ) -> None:
        self._store = store
        self._blobs = blobs
        self._waiting = waiting
        self._headless = headless
        self._snapshot = snapshot
        self._damaged = damaged
        self._progress = progress
        self._full = store.history_mode is History.FULL
        self._packed = store.packed_upto()
        self._protected: set[Tid] = set()
        self._flushed = store.flushed
        self._existing = OidSet()
        self._greatest = 0
        self._unread = 0
        self._transactions = TidSet()  # those that the home must have the details of
        self._told: deque[Finding] = deque()

    def findings(self) -> Iterator[Finding]:
        """Tell what is wrong. Where something cannot be read, tell that less could be found out."""
        try:
            self._list()
        except (CorruptionError, OSError) as error:
            self._tell_damage(error)
            yield from self._drained()
            yield self._incomplete("the objects of the store could not be listed, so references were not followed")
            return
        yield from self._mark_findings()
        live = Marker(self._visit)
        live.add(number(ROOT))
        yield from self._followed(live)
        if self._unread:
            yield from self._headless_findings(self._existing)
            yield self._incomplete(
                f"{self._unread:,} objects could not be read, so unreachable ones were not looked for"
            )
            return
        yield from self._details_findings()
        yield from self._unreachable_findings(live.live)

    # --- what there is ---

    def _list(self) -> None:
        for waiting in self._waiting:
            for oid in waiting.transaction.oids:
                self._add(oid)
        for done, oid in enumerate(self._store.home.oids()):
            if done % STEP == 0:
                self._progress("listing objects", done, None)
            self._add(oid)

    def _add(self, oid: Oid) -> None:
        at = number(oid)
        self._existing.add(at)
        self._greatest = max(self._greatest, at)

    def _mark_findings(self) -> Iterator[Finding]:
        """New objects must not take the oids of old ones."""
        marks = Marks(self._store.filesystem, self._store.directory.marks)
        marks.read()
        reserved = number(marks.get(OIDS))
        if len(self._existing) and self._greatest >= reserved:
            yield Finding(
                "mark",
                self._store.directory.marks,
                f"oids_{reserved:016x} says that this object does not exist, so another may take its oid",
                oid_from(self._greatest),
            )

    # --- following ---

    def _followed(self, marker: Marker) -> Iterator[Finding]:
        total = len(self._existing)
        finished = False
        while not finished:
            self._progress("following references", marker.visits, total)
            finished = marker.run(STEP)
            yield from self._drained()
        self._progress("following references", marker.visits, total)

    def _drained(self) -> Iterator[Finding]:
        while self._told:
            yield self._told.popleft()

    def _visit(self, at: int) -> bytes:
        """The references of an object's revisions that count; what they refer to must exist."""
        found = []
        missing: set[int] = set()
        for summary in self._counting(self._summaries(at)):
            if summary.tid <= self._flushed:
                self._transactions.add(number(summary.tid))
            references = self._references(summary)
            found.append(references)
            if summary.blob is not None and not summary.deleted:
                self._told.extend(self._blobs.revision(summary))
            if summary.tid <= self._snapshot:
                for to in oid_numbers(references):
                    if to not in self._existing and to not in missing and not self._exists(to):
                        missing.add(to)
                        self._tell_dangling(summary, oid_from(to))
        return b"".join(found)

    def _exists(self, at: int) -> bool:
        """Whether an object is there after all: another process flushed it, and this one has not heard of it."""
        if self._summaries(at):
            self._existing.add(at)
        return at in self._existing

    def _counting(self, summaries: Iterable[RevisionSummary]) -> Iterator[RevisionSummary]:
        # Asked after they were read: a pack moves the time on before it removes anything.
        settled = self._store.packed_upto() if self._full else self._snapshot
        for summary in summaries:
            yield summary
            if summary.tid <= settled:
                return

    def _visit_all(self, at: int) -> bytes:
        """The references of all revisions of an object, in Minimal of those that are not to be dropped."""
        summaries = self._summaries(at)
        kept = summaries if self._full else list(self._counting(summaries))
        others = [summary for summary in summaries[len(kept) :] if summary.tid in self._protected]
        return b"".join(map(self._references, kept + others))

    def _summaries(self, at: int) -> list[RevisionSummary]:
        try:
            return list(self._store.committed(oid_from(at)))
        except (CorruptionError, OSError) as error:
            self._unread += 1
            self._tell_damage(error)
            return []

    def _references(self, summary: RevisionSummary) -> bytes:
        """What a revision refers to, taken from the record where the header does not tell."""
        if summary.references is not None or summary.deleted:
            return summary.references or b""
        try:
            revision = self._store.load(summary.oid, summary.tid)
            if revision is None or revision.data is None:
                return b""  # replaced by now
            return pickles.references(revision.data)
        except SerializationError as error:
            self._unread += 1
            path = self._path(summary.oid, summary.tid)
            self._told.append(Finding("record", path, str(error), summary.oid, summary.tid))
        except (CorruptionError, OSError) as error:
            self._unread += 1
            self._tell_damage(error)
        return b""

    # --- what nothing leads to ---

    def _unreachable_findings(self, live: OidSet) -> Iterator[Finding]:
        yield from self._headless_findings(live)
        if len(self._existing - live - self._headless):
            over_all = Marker(self._visit_all)
            for at in self._roots():
                over_all.add(at)
            yield from self._followed(over_all)
            live = over_all.live
        for at in self._existing - live - self._headless:
            summaries = self._summaries(at)
            if not summaries or summaries[0].tid > self._snapshot:
                continue  # a pack has removed it since, or somebody has just written it
            newest = summaries[0]
            path = self._path(newest.oid, newest.tid)
            yield Finding("unreachable", path, "nothing leads to this object", newest.oid, newest.tid)
            self._visit(at)
            if newest.tid > self._store.packed_upto():  # else a pack may have removed what it refers to
                yield from self._drained()
            self._told.clear()

    def _roots(self) -> Iterator[int]:
        """The root, and what the newest transactions wrote, which a pack keeps whole."""
        yield number(ROOT)
        try:
            for transaction in islice(self._store.transactions(), PROTECTED):
                self._protected.add(transaction.tid)
                yield from map(number, transaction.oids)
        except (CorruptionError, OSError) as error:
            self._tell_damage(error)

    def _headless_findings(self, live: OidSet) -> Iterator[Finding]:
        """Revisions without a `.c`: left by an interrupted pack if nothing leads to them, else damage."""
        for at in self._headless:
            oid = oid_from(at)
            if at in live:
                message = "no .c file says which of this object's revisions is current"
                yield Finding("pointer", self._path(oid), message, oid)
            else:
                yield Finding(
                    "unreachable", self._path(oid), "an interrupted pack left revisions of this object", oid
                )

    def _details_findings(self) -> Iterator[Finding]:
        """Each transaction that wrote a kept revision must have its details (Full)."""
        if not self._full:
            return
        try:
            there = (number(transaction.tid) for transaction in self._store.home.transactions(self._flushed))
            for tid in _missing(self._transactions.descending(), there):
                if self._store.packed_upto() != self._packed:
                    return  # a pack has begun to remove revisions that were seen here, and then such details
                directory = transaction_directory(self._store.settings.format, tid)
                name = "" if self._store.settings.format is Format.SEGMENTED else transaction_name(tid)
                path = "/".join(part for part in (self._store.directory.home, directory, name) if part)
                yield Finding("details", path, "the details of this transaction are missing", tid=tid)
        except (CorruptionError, OSError) as error:
            self._tell_damage(error)
            yield from self._drained()

    # --- telling ---

    def _tell_dangling(self, summary: RevisionSummary, missing: Oid) -> None:
        path = self._path(summary.oid, summary.tid)
        message = f"it refers to {missing.hex()}, which does not exist"
        self._told.append(Finding("dangling", path, message, summary.oid, summary.tid))

    def _tell_damage(self, error: CorruptionError | OSError) -> None:
        """Tell of damage, unless the files were found damaged before."""
        if self._damaged:
            return
        if isinstance(error, CorruptionError):
            self._told.append(Finding("checksum", error.path, error.reason, error.oid, error.tid))
        else:
            path = str(error.filename or self._store.name)
            self._told.append(Finding("unreadable", path, error.strerror or str(error)))

    def _incomplete(self, message: str) -> Finding:
        return Finding("incomplete", self._store.name, message)

    def _path(self, oid: Oid, tid: Tid = NO_TID) -> str:
        """Where an object, or the revision of a transaction, stands."""
        store = self._store
        if tid > self._flushed:
            return store.directory.journal
        if store.settings.format is Format.SEGMENTED:
            name = ""
        elif store.history_mode is History.MINIMAL:
            name = data_name(oid)
        else:
            name = revision_name(oid, tid) if tid != NO_TID else current_name(oid)
        directory = object_directory(store.settings.format, oid)
        return "/".join(part for part in (store.directory.home, directory, name) if part)


def _missing(wanted: Iterator[int], there: Iterator[int]) -> Iterator[Tid]:
    """Those of `wanted` that are not `there`; both descend."""
    at = next(there, None)
    for tid in wanted:
        while at is not None and at > tid:
            at = next(there, None)
        if at != tid:
            yield tid_from(tid)
