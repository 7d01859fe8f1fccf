"""A past for homes: transactions with revisions that follow each other, and what a home must say of them.

`Bench` has a home, its past and the filesystem that it stands on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import product

from objstore.contracts import Filesystem, Format, History, Home, Removal
from objstore.engine.homes import make_home
from objstore.ids import MAX_TID, NO_TID, Oid, Tid, number, oid_from, pack_oids, tid_from
from objstore.revisions import Details, Revision, RevisionSummary, Transaction

Batch = Sequence[tuple[Transaction, Sequence[Revision]]]
COMBINATIONS = list(product(History, Format))
PLACE = "/A"
BEGIN = 0x03F0_0000_0000_0000
LATEST = Tid(b"\xff" * 8)
"""Later than any tid there may be, `MAX_TID` included."""


def home_on(
    filesystem: Filesystem, history: History, format: Format, flushed: Tid = NO_TID, path: str = PLACE
) -> Home:
    """The home below `path`, made where it is missing."""
    if not filesystem.exists(path):
        filesystem.make_directory(path)
    home = make_home(filesystem, path, history, format, flushed)
    home.prepare()
    return home


def summary_of(revision: Revision) -> RevisionSummary:
    """What a home tells of a revision without its data."""
    return RevisionSummary(
        revision.oid,
        revision.tid,
        revision.previous,
        len(revision.data or b""),
        revision.data is None,
        revision.references,
        revision.copied_from,
    )


class Past:
    """Transactions as they were committed, and which of their revisions were not removed since."""

    def __init__(self) -> None:
        self.all: list[tuple[Transaction, list[Revision]]] = []
        self.revisions: dict[Oid, list[Revision]] = {}
        self.details: dict[Tid, Transaction] = {}

    def write(self, values: Mapping[int, bytes | None], step: int = 1) -> Tid:
        """Commit values (None deletes) by oid number, `step` after the last transaction; the tid."""
        last, tid = self.last, self.next_tid(step)
        revisions = []
        for at, data in values.items():
            oid = oid_from(at)
            before = self.revisions.get(oid, ())
            previous = before[-1].tid if before else NO_TID
            references = None if data is None else pack_oids([oid_from((at + 1) % 2**64)])
            copied = previous if data is not None and data.startswith(b"undo") and before else None
            revisions.append(Revision(oid, tid, previous, data, references, copied))
        details = Details("somebody", f"writes {len(revisions)}", b"{}")
        transaction = Transaction(tid, last, details, tuple(revision.oid for revision in revisions))
        self.all.append((transaction, revisions))
        self.details[tid] = transaction
        for revision in revisions:
            self.revisions.setdefault(revision.oid, []).append(revision)
        return tid

    def next_tid(self, step: int = 1) -> Tid:
        """The tid that the next transaction will have."""
        return tid_from((number(self.last) or BEGIN) + step)

    @property
    def last(self) -> Tid:
        return self.all[-1][0].tid if self.all else NO_TID

    @property
    def tids(self) -> list[Tid]:
        return [transaction.tid for transaction, _ in self.all]

    def batch(self, after: Tid = NO_TID, upto: Tid = LATEST) -> Batch:
        """What a flush takes over: the transactions with `after` < tid <= `upto`."""
        return [(transaction, found) for transaction, found in self.all if after < transaction.tid <= upto]

    def find(self, oid: Oid, upto: Tid) -> Revision | None:
        """The newest revision with tid <= `upto` that was not removed."""
        return next((found for found in reversed(self.revisions.get(oid, ())) if found.tid <= upto), None)

    def forget(self, removals: Iterable[Removal]) -> None:
        for removal in removals:
            kept = self.revisions.pop(removal.oid, [])
            rest = [found for found in kept if not removal.whole and found.tid not in removal.tids]
            if rest:
                self.revisions[removal.oid] = rest

    def forget_transactions(self, tids: Iterable[Tid]) -> None:
        for tid in tids:
            del self.details[tid]

    def moments(self) -> list[Tid]:
        """Every tid, and those just before and after, and the ends."""
        around = {tid_from(number(tid) + step) for tid in self.tids for step in (-1, 0, 1)}
        return [NO_TID, *sorted(around), MAX_TID, LATEST]


def agree(home: Home, past: Past, horizon: Tid = NO_TID) -> None:
    """Assert that a home says of the past what it must, and that nothing is wrong with it.

    `horizon` is the newest that it was maintained with.
    """
    agree_in_contents(home, past, horizon)
    assert [found for found in home.findings() if found.kind != "leftover"] == []


def agree_in_contents(home: Home, past: Past, horizon: Tid = NO_TID) -> None:
    assert sorted(home.oids()) == sorted(past.revisions)
    strangers = [oid_from(at) for at in (77, 2**40, 2**64 - 2) if oid_from(at) not in past.revisions]
    for oid in [*past.revisions, *strangers]:
        if home.history is History.FULL:
            _agree_in_full(home, past, oid)
        else:
            _agree_in_minimal(home, past, oid, horizon)
    _agree_on_transactions(home, past)


def _agree_in_full(home: Home, past: Past, oid: Oid) -> None:
    kept = past.revisions.get(oid, [])
    assert home.current(oid) == (kept[-1].tid if kept else None)
    assert list(home.summaries(oid)) == [summary_of(found) for found in reversed(kept)]
    by_tid = {found.tid: found for found in kept}
    for upto in past.moments():
        assert home.load(oid, upto) == past.find(oid, upto)
        assert home.revision(oid, upto) == by_tid.get(upto)


def _agree_in_minimal(home: Home, past: Past, oid: Oid, horizon: Tid) -> None:
    kept = past.revisions.get(oid, [])
    newest = kept[-1] if kept else None
    assert home.current(oid) == (newest.tid if newest else None)
    told = list(home.summaries(oid))
    assert told[:1] == ([summary_of(newest)] if newest else [])
    assert [found.tid for found in told] == sorted({found.tid for found in told}, reverse=True)
    assert {found.tid for found in told} <= {found.tid for found in kept}
    if newest:
        assert home.revision(oid, newest.tid) == newest
    for upto in past.moments():
        exact = home.revision(oid, upto)
        assert exact is None or (exact.tid == upto and exact in kept)
        found, expected = home.load(oid, upto), past.find(oid, upto)
        if newest and newest.tid <= upto:
            assert found == newest
        elif home.keeps_superseded and upto >= horizon:
            assert found == expected
        else:  # it may be gone, but nothing else is shown in its place
            assert found is None or (found.tid <= upto and found in kept)


def _agree_on_transactions(home: Home, past: Past) -> None:
    kept = [] if home.history is History.MINIMAL else sorted(past.details.values(), key=lambda found: found.tid)
    for upto in past.moments():
        assert list(home.transactions(upto)) == [found for found in reversed(kept) if found.tid <= upto]
    for tid in [*past.tids, tid_from(12345)]:
        expected = past.details.get(tid) if home.history is History.FULL else None
        assert home.transaction(tid) == expected


def paths_below(filesystem: Filesystem, path: str = PLACE) -> set[str]:
    """The files below a directory, relative to it."""
    found = set()
    for entry in filesystem.entries(path):
        if entry.is_directory:
            found |= {f"{entry.name}/{name}" for name in paths_below(filesystem, f"{path}/{entry.name}")}
        else:
            found.add(entry.name)
    return found


def put(filesystem: Filesystem, path: str, content: bytes) -> None:
    """Write a file, replacing one of that name, in a directory that is made where it is missing."""
    parts = path.split("/")
    for depth in range(2, len(parts)):
        directory = "/".join(parts[:depth])
        if not filesystem.exists(directory):
            filesystem.make_directory(directory)
    if filesystem.exists(path):
        filesystem.unlink(path)
    with filesystem.create(path) as file:
        file.write(content)


class Bench:
    """A home, its past, and the filesystem that it stands on."""

    def __init__(self, filesystem, history, format, path=PLACE):
        self.filesystem = filesystem
        self.history = history
        self.format = format
        self.path = path
        self.past = Past()
        self.flushed = NO_TID
        self.home = home_on(filesystem, history, format, path=path)

    def apply(self, upto=LATEST):
        """Flush what was written since the last time."""
        batch = self.past.batch(self.flushed, upto)
        self.home.apply(batch)
        self.flushed = batch[-1][0].tid

    def reopen(self, flushed=None):
        """Another process opens the home."""
        self.flushed = self.flushed if flushed is None else flushed
        self.home = home_on(self.filesystem, self.history, self.format, self.flushed, self.path)

    def remove(self, removals):
        freed = self.home.remove(removals)
        self.past.forget(removals)
        return freed

    def agree(self, horizon=NO_TID):
        agree(self.home, self.past, horizon)

    def files(self):
        return paths_below(self.filesystem, self.path)


def some_past(bench, rounds=6):
    """Objects that are changed, deleted, brought back and left alone, in several flushes."""
    for at in range(rounds):
        bench.past.write({1: b"one %d" % at, 2 + at: b"once", 65535 + at % 2: b"edge %d" % at})
        bench.past.write({1: b"undo %d" % at, 70: None if at % 2 else b"on and off"}, step=2**32)
        bench.apply()
