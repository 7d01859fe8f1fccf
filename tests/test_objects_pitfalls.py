"""What went wrong in other databases, seen through the public interface: undo, clocks, imports, long histories."""

from __future__ import annotations

import random
import time
from datetime import UTC, datetime

import pytest
from BTrees.OOBTree import OOBTree
from databases import FULL, abort, commit, opened
from things import Counter, Thing

from objstore.contracts import Format, History, StoreOptions
from objstore.engine.opening import open_store
from objstore.errors import UndoError
from objstore.ids import tid_at, tid_seconds
from objstore.machine.memory import MemoryFilesystem
from objstore.objects import DB
from objstore.upkeep.check import check
from objstore.upkeep.pack import pack

pytest_plugins = ["database_fixtures"]


def database(filesystem, clock=time.time, **options):
    """A database over a filesystem in memory, which can be opened again."""
    chosen = StoreOptions(background=False, **options)
    return DB(open_store("/store", chosen, filesystem=filesystem, packer=pack, clock=clock), clock=clock)


def state_of(connection):
    return {name: (thing.n, thing.inner.n) for name, thing in connection.root.things.items()}


@pytest.mark.parametrize("kind", FULL)
@pytest.mark.parametrize("seed", range(3))
def test_random_undos(databases, kind, seed):
    """ZODB PR#395, ZODB#409: restoring after several undos gave a wrong state.

    After each undo, every moment of the past is what it was, also once the store was opened again, and a
    copy by export and import is what was copied.
    """
    db = databases(kind)
    chance = random.Random(seed)
    connection = opened(db)
    connection.root.things = OOBTree()
    commit(connection)
    past = {db.lastTransaction(): state_of(connection)}
    undone = 0
    for turn in range(40):
        if chance.random() < 0.5:
            thing = connection.root.things.setdefault(chance.choice("abcd"), Thing(n=0, inner=Thing(n=0)))
            chance.choice([thing, thing.inner]).n = turn
            commit(connection)
        else:
            entries = db.undoLog(0, chance.randint(1, 4))[:-1] or db.undoLog(0, 1)
            entry = chance.choice(entries)
            if entry["tid"] in list(past)[1:]:
                db.undo(entry["id"], connection.transaction_manager.get())
                try:
                    commit(connection)
                    undone += 1
                except UndoError:
                    abort(connection)
        past.setdefault(db.lastTransaction(), state_of(connection))
    for tid, state in past.items():
        back = opened(db, at=tid)
        assert state_of(back) == state
        back.close()
    assert undone > 3
    with connection.exportFile(connection.root.things._p_oid) as file:
        file.seek(0)
        copy = connection.importFile(file)
    assert {name: (thing.n, thing.inner.n) for name, thing in copy.items()} == state_of(connection)


@pytest.mark.parametrize("history", list(History))
def test_an_imported_graph_is_sound(history):
    """DirectoryStorage 1.1.6: redundant serials were wrong after a restore."""
    filesystem = MemoryFilesystem()
    db = database(filesystem, history=history)
    connection = opened(db)
    connection.root.things = OOBTree({str(number): Thing(n=number, inner=Thing(n=1)) for number in range(100)})
    commit(connection)
    with connection.exportFile(connection.root.things._p_oid) as file:
        file.seek(0)
        connection.root.copy = connection.importFile(file)
    commit(connection)
    connection.root.copy["5"].n = "changed"
    commit(connection)
    db.store.flush()
    assert list(check(db.store)) == []
    db.close()
    again = database(filesystem)
    assert opened(again).root.copy["5"].n == "changed"
    again.close()


def test_clock_steps():
    """RelStorage 3.0a9: tids jumped. They increase whatever the clock does, and keep no leap."""
    start = datetime(2024, 5, 1, 12, tzinfo=UTC).timestamp()
    now = [start]
    filesystem = MemoryFilesystem()
    db = database(filesystem, clock=lambda: now[0])
    tids = [db.lastTransaction()]

    def step(seconds):
        now[0] += seconds
        with db.transaction() as connection:
            connection.root.n = seconds
        tids.append(db.lastTransaction())

    for seconds in (1, 3600, -3600, 1, 0, 0, -3600, 1):
        step(seconds)
    assert tids == sorted(set(tids))
    assert tid_seconds(tids[-1]) - (start + 3601) < 1  # an hour ahead of the clock, and no further
    step(2 * 3600)
    assert tids[-1] == tid_at(datetime.fromtimestamp(now[0], UTC))
    assert opened(db, at=tids[3]).root.n == -3600
    db.close()


def test_oids_after_a_crash():
    """RelStorage#283: a process that ended without closing does not make its successor repeat oids."""
    filesystem = MemoryFilesystem()
    oids = []
    for _ in range(3):
        db = database(filesystem)
        connection = opened(db)
        for _ in range(200):
            thing = Thing()
            connection.add(thing)
            oids.append(thing._p_oid)
        commit(connection)
        connection.add(Thing())
        crashed = MemoryFilesystem(tree=filesystem._tree)  # as it stands, and nobody holds its locks
        abort(connection)
        db.close()
        filesystem = crashed
    assert len(oids) == len(set(oids)) == 600


def counted_commits(format, revisions):
    """How many file operations commits take that change an object with so many revisions.

    The first has it to itself; the second meets another one, and is merged with it.
    """
    filesystem = Counting()
    db = database(filesystem, format=format, flush_transactions=10**6, flush_bytes=2**40, journal_limit=2**40)
    connection = opened(db)
    connection.root.counter = Counter()
    commit(connection)
    for number in range(revisions):
        connection.root.counter.add()
        commit(connection)
        if number % 500 == 499:
            db.store.flush()
    other = opened(db)
    other.root.counter.add()
    db.store.flush()
    counts = []
    for each in (connection, other):
        before = filesystem.count
        each.root.counter.add()
        commit(each)
        counts.append(filesystem.count - before)
    assert opened(db).root.counter.count == revisions + 3
    db.close()
    return counts


class Counting(MemoryFilesystem):
    """Counts what is asked of it."""

    count = 0

    def __getattribute__(self, name):
        if not name.startswith("_") and name not in ("count", "capacity"):
            type(self).count += 1
        return super().__getattribute__(name)


@pytest.mark.parametrize("format", [Format.SEGMENTED, Format.CHUNKY])
@pytest.mark.parametrize("revisions", [1000, pytest.param(100_000, marks=pytest.mark.long)])
def test_a_long_history_does_not_slow_commits(format, revisions):
    """ZODB PR#15: the history of the object was walked while the commit lock was held."""
    few, many = counted_commits(format, 10), counted_commits(format, revisions)
    assert many[0] <= few[0]
    assert many[1] <= few[1] + 4  # reading the older state opens a few segments more where there are more


@pytest.mark.parametrize("kind", FULL)
def test_an_object_deleted_and_back(databases, kind):
    """ZODB#318, ZODB PR#64, RelStorage PR#484: loads before, at and after delete and undo, across a pack."""
    db = databases(kind)
    connection = opened(db)
    connection.root.thing = thing = Thing(n=1)
    commit(connection)
    manager = connection.transaction_manager
    tids, there = [db.lastTransaction()], [True]
    oid = thing._p_oid
    for turn in range(4):
        db.undo(tids[-1], manager.get())
        manager.commit()
        tids.append(db.lastTransaction())
        there.append(turn % 2 == 1)
    for tid, is_there in zip(tids, there, strict=True):
        back = opened(db, at=tid)
        assert ("thing" in back.root()) == is_there
        assert can_load(back, oid) == is_there
        back.close()
    for n in range(3):
        connection.root.n = n
        commit(connection)
    for each in db._pool.used():
        abort(each)
    db.pack()
    fresh = opened(db)
    fresh.cacheMinimize()
    assert can_load(fresh, oid)
    assert fresh.root.thing.n == 1


def can_load(connection, oid):
    try:
        return connection.get(oid).n == 1
    except KeyError:
        return False
