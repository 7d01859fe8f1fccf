"""What went wrong in other databases where several processes share a store.

Two stores opened on one path behave as two processes do, and over a simulated filesystem one can work between
any two file operations of the other. What needs real processes is in `test_siblings_pitfalls`.
"""

from __future__ import annotations

import contextlib
import random
import time
from itertools import count, product

import pytest
import sibling_work
from BTrees.check import check as check_tree
from BTrees.OOBTree import OOBTree
from crashing import Depth, Judge, Script, every_depth
from databases import abort, commit, opened
from durability import GROWING
from simulated import SimulatedFilesystem
from stores import PATH, open_on
from things import Thing

from objstore.contracts import Format, History, StoreOptions
from objstore.engine.opening import open_store
from objstore.errors import (
    ConflictError,
    StorageFullError,
)
from objstore.ids import tid_seconds
from objstore.objects import DB
from objstore.upkeep.pack import pack

CHOSEN = list(product(History, (Format.SEGMENTED, Format.CHUNKY)))
every_kind = pytest.mark.parametrize(("history", "format"), CHOSEN)


def database(filesystem, history=None, format=None, clock=time.time, **options):
    """A database over a simulated filesystem: each is like a process of its own."""
    chosen = StoreOptions(history=history, format=format, background=False, **options)
    return DB(open_store(PATH, chosen, filesystem=filesystem, packer=pack, clock=clock), clock=clock)


def set_pair(db, number):
    """Let x and y be a number, in one transaction."""
    with db.transaction() as connection:
        connection.root.x.n = connection.root.y.n = number


@contextlib.contextmanager
def pair_of_processes(history, format):
    """A filesystem and two databases on it, which hold x and y."""
    filesystem = SimulatedFilesystem()
    first, second = database(filesystem, history, format), database(filesystem, history, format)
    with first.transaction() as connection:
        connection.root.x, connection.root.y = Thing(n=0), Thing(n=0)
    yield filesystem, first, second
    filesystem.before_operation = filesystem.before_read = None
    second.close()
    first.close()


def between_operations(filesystem, work):
    """Do some work before each operation from here on; how often it was done, in a list of one."""
    done = [0]

    def hook(operation):
        filesystem.before_operation = None
        work(operation)
        done[0] += 1
        filesystem.before_operation = hook

    filesystem.before_operation = hook
    return done


# --- snapshots and caches ----------------------------------------------------------------------------


@every_kind
def test_no_view_has_half_of_a_transaction(history, format):
    """ZODB#290: an invalidation was processed before the view advanced. x == y while others commit."""
    with pair_of_processes(history, format) as (filesystem, writer, reader):
        old = opened(reader)
        assert (old.root.x.n, old.root.y.n) == (0, 0)
        moving = opened(reader)
        numbers = []

        def look(_):
            moving.transaction_manager.begin()
            fresh = opened(reader)
            for connection in (moving, fresh):
                assert connection.root.x.n == connection.root.y.n
            assert fresh.root.x.n == moving.root.x.n
            numbers.append(moving.root.x.n)
            fresh.close()
            abort(moving)

        done = between_operations(filesystem, look)
        for number in range(1, 5):
            set_pair(writer, number)
            look(None)
            assert numbers[-1] == number
        writer.store.flush()
        filesystem.before_operation = None
        assert done[0] > 10
        assert numbers == sorted(numbers)
        assert (old.root.x.n, old.root.y.n) == (0, 0)


@every_kind
def test_a_load_that_meets_a_commit(history, format):
    """ZEO#155: a load's reply was cached after its invalidation. Others commit and flush during each read."""
    with pair_of_processes(history, format) as (filesystem, writer, reader):
        number = met = 0
        connection = opened(reader)
        for at in range(200):
            connection.transaction_manager.begin()
            connection.cacheMinimize()
            begun, left = number, at // 2

            def commit_meanwhile(_):
                nonlocal number, left, met
                left -= 1
                if left < 0:
                    filesystem.before_read = None
                    number += 1
                    met += 1
                    set_pair(writer, number)
                    if number % 2:
                        writer.store.flush()
                        set_pair(writer, number)  # into a file that the flush has let go of

            filesystem.before_read = commit_meanwhile
            assert (connection.root.x.n, connection.root.y.n) == (begun, begun)
            if filesystem.before_read is not None:
                break
            connection.transaction_manager.begin()
            assert (connection.root.x.n, connection.root.y.n) == (number, number)
        assert met >= 2
        abort(connection)


@every_kind
def test_caches_are_told_before_a_tid_is_shown(history, format):
    """ZEO#166: the last tid advanced before the invalidation. Whoever sees a tid is told what it changed."""
    with pair_of_processes(history, format) as (filesystem, writer, reader):
        view = reader.store.view()
        connection = opened(reader)
        oids = {connection.root.x._p_oid, connection.root.y._p_oid}
        abort(connection)
        moved = 0

        def look(_):
            nonlocal moved
            shown, before = reader.store.last_tid(), view.snapshot
            changed = view.advance()
            assert view.snapshot >= shown
            if view.snapshot > before:
                moved += 1
                assert changed is None or oids <= changed
            for oid in oids:
                assert view.load(oid)[1] <= view.snapshot

        between_operations(filesystem, look)
        for number in range(1, 5):
            set_pair(writer, number)
            if number == 2:
                writer.store.flush()
        look(None)
        view.close()
        assert moved == 4


class Other:
    """Another process, which comes or leaves before an operation of this number, if there is one."""

    def __init__(self, filesystem, at, is_there, number):
        self._filesystem = filesystem
        self.left = at
        self._number = number
        self.db = None
        if is_there:
            self.come()

    def come(self):
        self.db = database(self._filesystem)
        assert opened(self.db).root.x.n in (self._number - 1, self._number)

    def leave(self):
        if self.db is not None:
            for connection in self.db._pool.used():
                abort(connection)
            self.db.close()
            self.db = None

    def act(self, _):
        self.left -= 1
        if self.left == -1:
            if self.db is None:
                self.come()
            else:
                self.leave()


@every_kind
@pytest.mark.parametrize("leaves", [True, False])
def test_a_process_leaves_during_a_commit(history, format, leaves):
    """ZEO#209: corruption when a client left during another's finish. It leaves, or comes, at each operation."""
    with pair_of_processes(history, format) as (filesystem, writer, _):
        for at in count():
            other = Other(filesystem, at, leaves, at + 1)
            between_operations(filesystem, other.act)
            set_pair(writer, at + 1)
            filesystem.before_operation = None
            other.leave()
            if other.left >= 0:
                break
        assert at > 3
        writer.store.flush()
        assert sibling_work.sound(writer.store)


@pytest.mark.parametrize("seed", range(2))
def test_splits_by_several_processes(seed):
    """ZODB 3.2b1: partial invalidations put BTree keys into the wrong bucket."""
    rng = random.Random(seed)
    filesystem = SimulatedFilesystem()
    databases = [database(filesystem) for _ in range(3)]
    connections = [opened(db) for db in databases]
    connections[0].root.tree = OOBTree()
    commit(connections[0])
    keys, conflicts = {}, 0
    for connection in connections:
        connection.transaction_manager.begin()
    for turn in range(250):
        at = rng.randrange(3)
        connection = connections[at]
        tree = connection.root.tree
        near = rng.randrange(2000)
        new = {near + each: turn for each in range(rng.randrange(1, 12))}
        tree.update(new)
        for key in rng.sample(sorted(keys), min(3, len(keys))):
            assert key in new or key not in tree or tree[key] <= turn  # a part of the tree is loaded
        try:
            commit(connection)
            keys.update(new)
        except ConflictError:
            conflicts += 1
            abort(connection)
        if rng.random() < 0.2:
            rng.choice(connections).cacheMinimize()
        if rng.random() < 0.1:
            databases[at].store.flush()
    assert conflicts
    for connection in connections:
        connection.transaction_manager.begin()
        assert dict(connection.root.tree) == keys
        connection.root.tree._check()
        check_tree(connection.root.tree)
        abort(connection)
    for db in databases:
        db.close()


# --- packing -----------------------------------------------------------------------------------------


@every_kind
def test_references_move_while_another_process_packs(history, format):
    """RelStorage#325: marking saw several snapshots. Nothing reachable disappears, whenever it is moved."""
    with pair_of_processes(history, format) as (filesystem, packer, mover):
        with packer.transaction() as connection:
            root = connection.root
            root.holders = OOBTree({at: Thing(held=None) for at in range(4)})
            root.holders[0].held = Thing(n="moved", inner=Thing(n="inner"))
            root.garbage = Thing(inner=Thing())
        with packer.transaction() as connection:
            del connection.root.garbage
        packer.store.flush()
        moving = opened(mover)
        turn = 0

        def move(operation):
            nonlocal turn
            if operation.path.startswith(f"{PATH}/locks/"):
                return  # what a pack tells others it tells with writers held
            moving.transaction_manager.begin()
            holders = moving.root.holders
            holders[(turn + 1) % 4].held, holders[turn % 4].held = holders[turn % 4].held, None
            commit(moving)
            turn += 1
            if turn % 3 == 0:
                moving.cacheMinimize()

        between_operations(filesystem, move)
        packer.pack()
        packer.pack()
        filesystem.before_operation = None
        assert turn > 10
        for db in (packer, mover):
            connection = opened(db)
            connection.cacheMinimize()
            held = connection.root.holders[turn % 4].held
            assert (held.n, held.inner.n) == ("moved", "inner")
            assert sum(each.held is not None for each in connection.root.holders.values()) == 1
            abort(connection)
            connection.close()
        abort(moving)
        assert sibling_work.sound(packer.store)


# --- journal and flush -------------------------------------------------------------------------------


@every_depth
@every_kind
def test_processes_take_turns_at_committing_and_flushing(history, format, depth: Depth, record_property):
    """leveldb#195: a removal was persisted before the rename. All that power cuts may leave, by two processes."""
    script = Script(history, format)
    stores = [script.store, open_on(script.fs, history, format, script.clock, create=False)]
    for turn in range(8):
        script.store = stores[turn % 2]
        script.commit({0: f"root {turn}", 1: turn, 2 + turn: "new"}, {0: (1, *range(2, 3 + turn))})
        if turn in (2, 3, 6):
            script.store = stores[(turn + 1) % 2]
            script.flush()
    judge = Judge(script)
    judge.sweep(limit=max(2, depth.limit // 4))
    record_property("crash states tried", judge.tried)


@every_kind
def test_a_flush_against_readers_of_another_process(history, format):
    """SQLite's WAL reset race: the log was cleaned up while it was read. Cold reads at each step of a flush."""
    with pair_of_processes(history, format) as (filesystem, writer, reader):
        old = opened(reader)
        assert old.root.x.n == 0
        for number in range(1, 6):
            set_pair(writer, number)

        def look(_):
            fresh = opened(reader)
            fresh.cacheMinimize()
            assert (fresh.root.x.n, fresh.root.y.n) == (number, number)
            fresh.close()
            if history is History.FULL or format is Format.SEGMENTED:
                old.cacheMinimize()
                assert (old.root.x.n, old.root.y.n) == (0, 0)

        done = between_operations(filesystem, look)
        writer.store.flush()
        assert done[0] > 3
        for number in range(6, 9):
            filesystem.before_operation = None
            set_pair(writer, number)  # into a file that the flush has let go of
            look(None)
            between_operations(filesystem, look)
            writer.store.flush()
        filesystem.before_operation = None
        abort(old)
        old.transaction_manager.begin()
        assert (old.root.x.n, old.root.y.n) == (8, 8)
        abort(old)


# --- ids, clocks, limits -----------------------------------------------------------------------------


def test_clocks_of_several_processes():
    """RelStorage 3.0a9: tids jumped. They increase although one process's clock is an hour ahead, or steps."""
    start = 1_700_000_000.0
    now = [start, start + 3600, start - 3600]
    filesystem = SimulatedFilesystem()
    databases = [database(filesystem, clock=lambda at=at: now[at]) for at in range(3)]
    tids = []

    def step(at):
        with databases[at].transaction() as connection:
            connection.root.n = len(tids)
        tids.append(databases[at].lastTransaction())
        for db in databases:
            assert db.lastTransaction() == tids[-1]

    for at in (0, 2, 0, 1, 0, 2, 1, 0):
        step(at)
    now[0] += 7200
    now[1] -= 3600
    for at in (1, 2, 0, 1, 2):
        step(at)
    assert tids == sorted(set(tids))
    assert tid_seconds(tids[2]) - start < 1
    assert tid_seconds(tids[9]) - (start + 3600) < 1  # until the clocks are there, no further than the furthest
    assert tid_seconds(tids[-1]) - (start + 7200) < 1  # and no leap is kept
    for db in databases:
        db.close()


@every_kind
def test_a_full_disk_met_by_two_processes(history, format):
    """py-lmdb#269, mdbx-rs#273: growth by two processes; a full disk left no valid root."""
    with pair_of_processes(history, format) as (filesystem, *databases):
        number = last = 0
        for turn in range(2):
            before = filesystem.operations
            with databases[turn].transaction() as connection:
                connection.root()[f"large {turn}"] = Thing(data="x" * 300_000)
            databases[turn].store.flush()
            needy = [each.index for each in filesystem.log[before:] if each.kind in GROWING]
            assert needy
            for at in range(len(needy)):
                filesystem.fill_at(filesystem.operations + at)
                for db in databases:
                    number += 1
                    with contextlib.suppress(StorageFullError):
                        with db.transaction() as connection:
                            connection.root()[f"large {turn}"].data = f"{at}" * 300_000
                        db.store.flush()
                        set_pair(db, number)
                        last = number
                for db in databases:
                    with db.transaction() as connection:
                        assert connection.root.x.n == connection.root.y.n == last
                filesystem.make_room()
                for db in databases:
                    number = last = number + 1
                    set_pair(db, number)
                    db.store.flush()
        for db in databases:
            assert sibling_work.sound(db.store)


def test_another_process_creates_the_store_meanwhile():
    """DC#266: another process creates the store, and commits, while this one finds no settings."""
    filesystem = SimulatedFilesystem()
    filesystem.make_directory(PATH)
    exists = filesystem.exists
    others = []

    def exists_and_then(path):
        found = exists(path)
        if path.endswith("/settings.toml") and not others:
            others.append(None)  # once
            others[0] = database(filesystem)
        return found

    filesystem.exists = exists_and_then
    late = database(filesystem)
    assert late.store.statistics()["identity"] == others[0].store.statistics()["identity"]
    late.close()
    others[0].close()
