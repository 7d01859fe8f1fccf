"""What the tests of copying share: stores with a past at random, copies of them, and what a copy must say."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from stores import add_up, commit, record

from objstore.contracts import Filesystem, Format, History, StoreOptions
from objstore.engine.opening import open_store
from objstore.engine.store import DirectoryStore
from objstore.errors import ConflictError, HistoryMissingError, POSKeyError, UndoError
from objstore.ids import NO_TID, ROOT, Oid, Tid, number, oid_from, tid_from
from objstore.revisions import Details, Revision
from objstore.upkeep.check import check
from objstore.upkeep.copy import CopyLimits, CopyReport, copy
from objstore.upkeep.pack import pack
from objstore.upkeep.selection import UNKNOWN

DEST = "/copy"
NAMES = (0, 1, 2, 3, 4, 65535, 65536, 2**40)
SMALL = CopyLimits(batch=600, run=3)
"""Small enough that a few objects take several batches, some of them larger than a batch, and several runs."""


class Clock:
    """Goes on by a millisecond whenever it is asked."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        self.now += 0.001
        return self.now


def write_some(store: DirectoryStore, rng: Random, steps: int = 20) -> None:
    """Commit, delete, undo (undos too), pack and flush at random."""
    tids: list[Tid] = []
    names_left = NAMES
    for step in range(steps):
        chance = rng.random()
        if chance < 0.6 or not tids:
            names = rng.sample(names_left, min(len(names_left), rng.randint(1, 5)))
            values: dict[int, object] = {
                at: None if at and rng.random() < 0.1 else rng.randint(0, 99) * 10 ** rng.choice((0, 50, 300))
                for at in names
            }
            links = {at: tuple(rng.sample(names_left, rng.randint(0, len(names_left)))) for at in names}
            details = Details(
                rng.choice(("ada", "bén", "")), f"step {step}", rng.choice((b"", b'{"n": 1}', b"\x80\x03}."))
            )
            tids.append(commit(store, values, links, details=details))
        elif chance < 0.85:
            undone = undo(store, rng.sample(tids, min(len(tids), rng.randint(1, 2))))
            tids += [undone] if undone else []
        elif chance < 0.93:
            store.flush()
        else:
            store.pack(rng.choice(tids))
            # What is packed away is never mentioned again.
            names_left = tuple(at for at in NAMES if store.doomed is None or not store.doomed(oid_from(at)))


def undo(store: DirectoryStore, tids: list[Tid]) -> Tid | None:
    """Undo transactions, the newest first; None where that is refused."""
    view = store.view()
    pending = store.begin(Details("undoer", "undo"), view, add_up)
    try:
        for tid in sorted(tids, reverse=True):
            pending.undo(tid)
        pending.vote()
        return pending.finish()
    except (UndoError, HistoryMissingError, ConflictError, TypeError):
        pending.abort()
        return None
    finally:
        view.close()


def copied(
    source: DirectoryStore,
    history: History | None = None,
    format: Format | None = None,
    *,
    filesystem: Filesystem | None = None,
    dest: str = DEST,
    limits: CopyLimits = SMALL,
    **more,
) -> CopyReport:
    """Copy a store, onto its own filesystem where no other is given."""
    return copy(
        source, dest, filesystem or source.filesystem, history=history, format=format, limits=limits, **more
    )


def opened_copy(
    filesystem: Filesystem, dest: str = DEST, clock: Callable[[], float] | None = None, **options
) -> DirectoryStore:
    """The copy, which must be there."""
    chosen = StoreOptions(**{"background": False, "create": False, **options})
    return open_store(dest, chosen, filesystem=filesystem, packer=pack, clock=clock or Clock())


def revisions_of(store: DirectoryStore, upto: Tid | None = None) -> dict[Oid, list[Revision]]:
    """Every revision of every object, newest first."""
    found = {}
    for oid in {*store.home.oids(), *(summary.oid for summary in store.waiting())}:
        try:
            tids = [summary.tid for summary in store.summaries(oid) if upto is None or summary.tid <= upto]
        except POSKeyError:  # an interrupted pack has left something of it
            continue
        if tids:
            found[oid] = [store.revision(oid, tid) for tid in tids]
    return found


def agree(source: DirectoryStore, made: DirectoryStore, upto: Tid | None = None) -> None:
    """Assert that a copy says what its source said when `upto` was its newest transaction."""
    upto = source.last_tid() if upto is None else upto
    there, here = revisions_of(source, upto), revisions_of(made)
    whole = source.history_mode is made.history_mode is History.FULL
    if whole:
        assert here == there
        assert list(made.transactions()) == list(source.transactions(upto))
        assert made.packed_upto() == source.packed_upto()
        agree_on_the_past(source, made, there)
    else:
        assert here == {oid: revisions[:1] for oid, revisions in there.items()}
        if made.history_mode is History.FULL:
            history_begins(made, here)
    assert made.last_tid() == upto
    assert made.unreserved_oid() >= max((oid_from(number(oid) + 1) for oid in there), default=ROOT)
    assert made.settings.identity != source.settings.identity


def agree_on_the_past(source: DirectoryStore, made: DirectoryStore, there: dict[Oid, list[Revision]]) -> None:
    for transaction in source.transactions(made.last_tid()):
        if transaction.tid < source.packed_upto():
            continue
        mine, its = made.view(transaction.tid), source.view(transaction.tid)
        for oid in there:
            assert loaded(mine, oid) == loaded(its, oid)
        mine.close()
        its.close()


def loaded(view, oid: Oid):
    try:
        return view.load(oid)
    except POSKeyError:
        return None


def history_begins(made: DirectoryStore, here: dict[Oid, list[Revision]]) -> None:
    """A Full copy of a Minimal store: transactions of which only the tids are known, and none to be undone."""
    by_tid: dict[Tid, set[Oid]] = {}
    for oid, (revision,) in here.items():
        by_tid.setdefault(revision.tid, set()).add(oid)
    transactions = list(made.transactions())
    assert [found.tid for found in transactions] == sorted(by_tid, reverse=True)
    older = [*(found.tid for found in transactions), NO_TID][1:]
    for found, before in zip(transactions, older, strict=True):
        assert set(found.oids) == by_tid[found.tid]
        assert (found.details, found.previous) == (UNKNOWN, before)
        assert undo(made, [found.tid]) is None
    assert made.packed_upto() == made.last_tid()


def kinds(store: DirectoryStore) -> set[str]:
    """The kinds of findings that a check has."""
    return {finding.kind for finding in check(store)}


def sound(source: DirectoryStore, made: DirectoryStore, *harmless: str) -> None:
    """Nothing is wrong with a copy but what was with its source; what only history led to is garbage now."""
    allowed = (kinds(source) - {"leftover"}) | set(harmless)
    if made.history_mode is History.MINIMAL:
        allowed |= {"unreachable"}
    assert kinds(made) <= allowed


def goes_on(made: DirectoryStore) -> None:
    """A copy is a store like any other: it commits, undoes, packs and is opened again."""
    known = set(revisions_of(made))
    wrong = kinds(made) | {"unreachable", "leftover"}
    new = made.new_oid()
    assert new not in known
    last = made.last_tid()
    first = commit(made, {number(new): 5}, {})
    second = commit(made, {number(new): 6}, {})
    assert last < first < second
    if made.history_mode is History.FULL:
        assert undo(made, [second])
        assert made.revision(new, made.last_tid()).data == record(5)[0]
        if last > made.packed_upto():
            changed = made.transaction(last).oids
            before = {oid: made.revision(oid, last).previous for oid in changed}
            if undo(made, [last]):
                for oid, tid in before.items():
                    expected = made.revision(oid, tid).data if tid != NO_TID else None
                    assert next(made.summaries(oid)).deleted is (expected is None)
                    assert made.revision(oid, made.last_tid()).data == expected
    made.flush()
    assert kinds(made) <= wrong
    made.pack(tid_from(number(made.last_tid()) - 1))
    newest = made.last_tid()
    made.close()
    again = opened_copy(made.filesystem, made.name)
    assert again.last_tid() == newest
    assert kinds(again) <= wrong
    again.close()
