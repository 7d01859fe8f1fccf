"""What leads from object to object: references to what does not exist, and objects that nothing leads to.

All that exists is listed first. Then references are followed, twice at most:

- Over the *kept* revisions, those that a pack to the time of the last one would keep: of each object the newest
  up to then, those after it, and those of the two newest transactions. The roots are oid 0 and what these two
  wrote. What they refer to must exist. Other revisions, and what cannot be reached, are what an interrupted
  pack has left: it may have removed already what they refer to. In Minimal the time that counts is now: a
  superseded revision is only waiting to be dropped.
- Over all revisions, where there are others, in Full: what history leads to is no finding.

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
from objstore.revisions import RevisionSummary, Transaction
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
    ) -> None:
        self._store = store
        self._waiting = waiting
        self._headless = headless
        self._snapshot = snapshot
        self._damaged = damaged
        self._progress = progress
        self._full = store.history_mode is History.FULL
        self._packed = store.packed_upto()
        self._settled = self._packed if self._full else snapshot
        """Of the revisions up to this, the newest counts."""
        self._protected: list[Transaction] = []
        self._protected_tids: frozenset[Tid] = frozenset()
        self._flushed = store.flushed
        self._existing = OidSet()
        self._greatest = 0
        self._older = False  # whether there are revisions that need not be kept
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
        self._protect()
        live = Marker(self._visit)
        yield from self._followed(live)
        if self._unread:
            yield from self._headless_findings(self._existing)
            yield self._incomplete(
                f"{self._unread:,} objects or transactions could not be read; unreachable ones were not looked for"
            )
            return
        yield from self._unreachable_findings(live.live)
        yield from self._details_findings()

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
        for at in self._roots():
            if at in self._existing:
                marker.add(at)
        total = len(self._existing)
        finished = False
        while not finished:
            self._progress("following references", marker.visits, total)
            finished = marker.run(STEP)
            yield from self._drained()
        self._progress("following references", marker.visits, total)

    def _protect(self) -> None:
        """Find the newest transactions, which a pack keeps whole."""
        try:
            self._protected = list(islice(self._store.transactions(), PROTECTED))
        except (CorruptionError, OSError) as error:
            self._unread += 1
            self._tell_damage(error)
        self._protected_tids = frozenset(transaction.tid for transaction in self._protected)

    def _roots(self) -> Iterator[int]:
        yield number(ROOT)
        for transaction in self._protected:
            yield from map(number, transaction.oids)

    def _drained(self) -> Iterator[Finding]:
        while self._told:
            yield self._told.popleft()

    def _visit(self, at: int) -> bytes:
        """The references of an object's kept revisions; what they refer to must exist."""
        found = []
        missing: set[int] = set()
        for summary in self._kept(self._summaries(at)):
            if summary.tid <= self._flushed:
                self._transactions.add(number(summary.tid))
            references = self._references(summary)
            found.append(references)
            if summary.tid <= self._snapshot:
                for to in oid_numbers(references):
                    if to not in self._existing and to not in missing:
                        missing.add(to)
                        self._tell_dangling(summary, oid_from(to))
        return b"".join(found)

    def _visit_all(self, at: int) -> bytes:
        """The references of all revisions of an object."""
        return b"".join(map(self._references, self._summaries(at)))

    def _kept(self, summaries: Iterable[RevisionSummary]) -> Iterator[RevisionSummary]:
        settled = False
        for summary in summaries:
            if not settled or summary.tid in self._protected_tids:
                yield summary
            else:
                self._older = True
            settled = settled or summary.tid <= self._settled

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
        if self._full and self._older and len(self._existing - live):
            over_all = Marker(self._visit_all)
            yield from self._followed(over_all)
            live = over_all.live
        for at in self._existing - live - self._headless:
            summaries = self._summaries(at)
            if not summaries or summaries[0].tid > self._snapshot:
                continue  # a pack has removed it since, or somebody has just written it
            newest = summaries[0]
            path = self._path(newest.oid, newest.tid)
            yield Finding("unreachable", path, "nothing leads to this object", newest.oid, newest.tid)
            if newest.tid > self._packed:
                self._visit(at)
            yield from self._drained()

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
        if not self._full or self._store.packed_upto() != self._packed:
            return  # a pack that ran meanwhile has removed some, with the revisions that were seen here
        try:
            there = (number(transaction.tid) for transaction in self._store.home.transactions(self._flushed))
            for tid in _missing(self._transactions.descending(), there):
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
