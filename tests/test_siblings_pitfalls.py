"""What went wrong in other databases where several processes share a store: what needs a disk, and processes."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
import sibling_work
from BTrees.check import check as check_tree
from BTrees.OOBTree import OOBTree
from databases import abort, commit, opened
from siblings import PATIENCE, Nursery
from things import Thing

import objstore
from objstore.contracts import Format, History
from objstore.errors import (
    LockProtocolError,
    StoreLockedError,
)
from objstore.machine import board
from objstore.machine.posix import PosixFilesystem

CHOSEN = list(product(History, (Format.SEGMENTED, Format.CHUNKY)))
every_kind = pytest.mark.parametrize(("history", "format"), CHOSEN)


@pytest.fixture(scope="module")
def nursery():
    with Nursery() as nursery:
        yield nursery


def work_together(nursery, path, processes, rounds):
    """Processes that change pairs and add to a tree, while this one looks."""
    with sibling_work.filled(path) as db:
        siblings = [
            nursery.start(sibling_work.keep_pairs_equal, str(path), seed, rounds) for seed in range(processes)
        ]
        for sibling in siblings:
            assert sibling.receive() == "ready"
        for sibling in siblings:
            sibling.send()
        keys = set()
        moving = opened(db)
        for _ in range(rounds):
            keys.update(sibling.receive() for sibling in siblings)
            moving.transaction_manager.begin()
            sibling_work.require_equal(moving)
            assert keys <= set(moving.root.tree)
            moving.root.tree._check()
            check_tree(moving.root.tree)
            abort(moving)
        assert [sibling.wait() for sibling in siblings] == [0] * processes
        moving.transaction_manager.begin()
        assert sum(sibling_work.require_equal(moving)) == processes * rounds
        assert set(moving.root.tree) == keys
        abort(moving)
        db.store.flush()
        assert sibling_work.sound(db.store)


def test_processes_that_read_coldly_and_commit(nursery, tmp_path):
    """ZODB#290, ZEO#155, ZODB 3.2b1, with processes: cold loads, and splits of one tree by all."""
    work_together(nursery, tmp_path / "store", processes=3, rounds=25)


@pytest.mark.long
def test_processes_that_read_coldly_and_commit_long(nursery, tmp_path):
    """ZEO#155, as it was found: eight processes for minutes."""
    work_together(nursery, tmp_path / "store", processes=8, rounds=1000)


def kill_at_lines(nursery, path, role, start, step):
    """Kill processes at every so many lines, until one comes to its end; how many were killed before."""

    def count(connection):
        number = sibling_work.require_equal(connection)[0] + 1
        connection.root.pairs[0].x.n = connection.root.pairs[0].y.n = number
        return number

    is_writer = role is sibling_work.commit_and_die
    with sibling_work.filled(path) as db:
        connection = opened(db)
        line, number, is_over = start, 0, False
        while not is_over:
            sibling = nursery.start(role, str(path), line)
            with contextlib.suppress(EOFError):
                sibling.receive()
                is_over = True
            assert sibling.wait() == -signal.SIGKILL
            connection.transaction_manager.begin()
            found = sibling_work.require_equal(connection)[0]
            assert found == number + 1 if is_over and is_writer else found in (number, number + is_writer)
            with db.transaction() as other:  # which takes over what the killed has committed, and makes it durable
                other.root.line = line
            number = db.run(count)
            assert number - 1 in (found, found + is_writer)
            db.store.flush()
            connection.transaction_manager.begin()
            assert sibling_work.require_equal(connection)[0] == number
            assert db.store.statistics()["horizon_tid"] == db.lastTransaction().hex()
            line += step
        abort(connection)
        assert sibling_work.sound(db.store)
    with objstore.open(path) as db, db.transaction() as connection:
        assert sibling_work.require_equal(connection)[0] == number
    return (line - start) // step - 1


@pytest.mark.parametrize("role", [sibling_work.commit_and_die, sibling_work.read_and_die])
def test_killed_at_any_line(nursery, tmp_path, role, record_property):
    """ZEO#209: processes are killed between lines of a commit, or of opening and reading; others go on."""
    killed = kill_at_lines(nursery, tmp_path / "store", role, 5, 37)
    record_property("processes killed at a line", killed)
    assert killed > 5


@pytest.mark.long
@pytest.mark.parametrize("role", [sibling_work.commit_and_die, sibling_work.read_and_die])
def test_killed_at_any_line_long(nursery, tmp_path, role, record_property):
    """ZEO#209, at every seventh line."""
    record_property("processes killed at a line", kill_at_lines(nursery, tmp_path / "store", role, 1, 7))


def test_a_commit_after_a_death_before_the_sync(nursery, tmp_path):
    """ZEO#209: a process dies between publishing and syncing. Who changes the same object goes on."""
    with sibling_work.filled(tmp_path / "store") as db:
        sibling = nursery.start(sibling_work.die_before_sync, str(tmp_path / "store"))
        assert sibling.wait() == -signal.SIGKILL

        def add(connection):
            for thing in (connection.root.pairs[0].x, connection.root.pairs[0].y):
                thing.n += 1

        db.run(add, retries=5)
        with db.transaction() as connection:
            assert sibling_work.require_equal(connection)[0] == 2


def test_who_takes_the_place_of_a_process_that_died_before_the_sync(nursery, tmp_path):
    """It had the dead one's block, so that its unsynced transaction looked like one of a living process, and
    everybody waited for that.
    """
    with sibling_work.filled(tmp_path / "store") as db:
        for number in range(3):
            sibling = nursery.start(sibling_work.die_before_sync, str(tmp_path / "store"))
            assert sibling.wait() == -signal.SIGKILL
            after = nursery.start(sibling_work.commit_once, str(tmp_path / "store"))
            assert after.receive() == "committed"
            assert after.wait() == 0
            with db.transaction() as connection:
                assert sibling_work.require_equal(connection)[0] == number + 1
        assert len(list(db.store._membership.board.used_blocks())) <= 3


def test_the_snapshot_of_a_zombie(nursery, tmp_path):
    """A process that was killed and not yet waited for holds no snapshot back: it is there, and does not live."""
    with sibling_work.filled(tmp_path / "store") as db:
        sibling = nursery.start(sibling_work.hold_snapshot, str(tmp_path / "store"))
        assert sibling.receive() == "reading"
        with db.transaction() as connection:
            connection.root.n = 1
        assert db.store.statistics()["horizon_tid"] < db.lastTransaction().hex()
        descriptor = os.pidfd_open(sibling.pid)
        os.kill(sibling.pid, signal.SIGKILL)
        assert select.select([descriptor], [], [], PATIENCE)[0]
        os.close(descriptor)
        os.kill(sibling.pid, 0)
        assert db.store.statistics()["horizon_tid"] == db.lastTransaction().hex()
        sibling.wait()


@every_kind
def test_another_process_packs(tmp_path, history, format):
    """ZODB#38: a server went on writing into a deleted file after a pack. Every writer notices."""
    path = str(tmp_path / "store")
    writers = [sibling_work.filled(path, history=history, format=format)]
    writers.append(objstore.open(path, background=False))
    connections = [opened(db) for db in writers]
    for turn in range(3):
        for connection in connections:
            connection.transaction_manager.begin()
            pair = connection.root.pairs[0]
            pair.x, pair.y = Thing(n=turn), Thing(n=turn)  # and the former are garbage
            commit(connection)
            connection.sync()
        for db in writers:
            db.store.flush()
        done = subprocess.run(
            [sys.executable, "-m", "objstore", "pack", path, "--days", "0"],
            env=os.environ | {"PYTHONPATH": str(Path(objstore.__file__).parent.parent)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        for connection in connections:
            connection.transaction_manager.begin()
            connection.cacheMinimize()
            assert sibling_work.require_equal(connection)[0] == turn
            connection.root.pairs[1].x.n = connection.root.pairs[1].y.n = turn
            commit(connection)
            connection.sync()
        for db in writers:
            db.store.flush()
            assert sibling_work.sound(db.store)
    for connection in connections:
        abort(connection)
    for db in writers:
        db.close()
    with objstore.open(path, create=False) as db, db.transaction() as connection:
        assert sibling_work.require_equal(connection)[:2] == [2, 2]


def test_oids_of_several_processes(nursery, tmp_path):
    """RelStorage#283, ZODB#401: duplicate or invalid oids. Processes add, import, and are killed."""
    path = tmp_path / "store"
    with sibling_work.filled(path) as db:
        with db.transaction() as connection:
            connection.root.copies = OOBTree()
            connection.root.model = Thing(things=[Thing() for _ in range(20)])
        with db.transaction() as connection, connection.exportFile(connection.root.model._p_oid) as file:
            file.seek(0)
            exported = file.read()
        oids = []
        for _ in range(2):
            siblings = [nursery.start(sibling_work.take_oids, str(path), 100) for _ in range(8)]
            for sibling in siblings:
                sibling.send(exported)
            for sibling in siblings:
                oids += sibling.receive()
                sibling.kill()
        assert len(oids) == len(set(oids)) == 2 * 8 * (100 + 21)
        connection = opened(db)
        connection.add(thing := Thing())
        assert thing._p_oid not in oids
        assert len(connection.root.copies) == 16
        abort(connection)
        assert sibling_work.sound(db.store)


def test_a_copy_by_a_process_that_made_no_objects(tmp_path):
    """RelStorage#283: a copy knows which oids are used, also where other processes have made the objects."""
    with (
        sibling_work.filled(tmp_path / "store") as db,
        objstore.open(tmp_path / "store", background=False) as maker,
    ):
        with maker.transaction() as connection:
            connection.root.things = [Thing() for _ in range(500)]
        oids = {thing._p_oid for thing in opened(maker).root.things}
        for used in maker._pool.used():
            abort(used)
        objstore.copy(db, tmp_path / "copy")
    with objstore.open(tmp_path / "copy") as copy, copy.transaction() as connection:
        for _ in range(500):
            connection.add(thing := Thing())
            assert thing._p_oid not in oids


@pytest.mark.parametrize(
    "read_only",
    [
        False,
        True,
    ],
)
def test_another_version_of_the_locks(tmp_path, read_only):
    """RelStorage 3.5.0a4: mixed versions with different locking. Noticed at opening, and nothing is written."""
    path = str(tmp_path / "store")
    with sibling_work.filled(path) as db:
        words = db.store._membership.board.words
        words[board._PROTOCOL] += 1
        shared = bytes(words)
        with pytest.raises(LockProtocolError, match="one version of objstore"):
            objstore.open(path, read_only=read_only)
        assert bytes(words) == shared
        words[board._PROTOCOL] -= 1
        set_to = objstore.open(path, read_only=read_only)
        set_to.close()
    with objstore.open(path) as db, db.transaction() as connection:
        assert sibling_work.require_equal(connection) == [0] * sibling_work.PAIRS


def test_many_processes_create_one_store(nursery, tmp_path):
    """DC#266: the first open at the same moment. 50 processes create one store."""
    path = str(tmp_path / "store")
    siblings = [nursery.start(sibling_work.create_together, path) for _ in range(50)]
    for sibling in siblings:
        assert sibling.receive() == "ready"
    for sibling in siblings:
        sibling.send()
    assert len({sibling.receive() for sibling in siblings}) == 1
    for sibling in siblings:
        sibling.send()
    assert [sibling.wait() for sibling in siblings] == [0] * 50
    with objstore.open(path, create=False) as db:
        with db.transaction() as connection:
            assert {int(name) for name in connection.root()} == {sibling.pid for sibling in siblings}
        assert sibling_work.sound(db.store)


# --- locks -------------------------------------------------------------------------------------------


def lock_files(path):
    return {each.name: each.stat().st_ino for each in (path / "locks").iterdir() if each.name != "doomed"}


def test_locks_are_never_unlinked(nursery, tmp_path):
    """Locks unlinked under a holder: two would hold one. Through crash, pack and recovery they stay."""
    path = tmp_path / "store"
    with sibling_work.filled(path) as db:
        files = lock_files(path)
        assert {"open.lock", "writer.lock", "flush.lock", "pack.lock", "claims.lock", "board"} <= files.keys()
        sibling = nursery.start(sibling_work.hold_writer_lock, str(path))
        assert sibling.receive() == "voted"
        sibling.kill()
        db.pack()
        assert lock_files(path) == files
    sibling = nursery.start(sibling_work.hold, str(path), {"exclusive": True}, False)
    sibling.receive()
    sibling.kill()
    for options in ({}, {"read_only": True}, {"exclusive": True}):
        with objstore.open(path, **options):
            assert lock_files(path) == files
    assert lock_files(path) == files


def test_the_locks_of_a_killed_process(nursery, tmp_path):
    """Locks left after a crash: who held the writer lock, or the store alone, was killed. Others go on at once."""
    path = tmp_path / "store"
    with sibling_work.filled(path) as db:
        sibling = nursery.start(sibling_work.hold_writer_lock, str(path))
        assert sibling.receive() == "voted"
        sibling.kill()
        with db.transaction() as connection:
            assert sibling_work.require_equal(connection)[0] == 0
            connection.root.n = 1
    sibling = nursery.start(sibling_work.hold, str(path), {"exclusive": True}, False)
    sibling.receive()
    for options in ({}, {"read_only": True}, {"exclusive": True}):
        with pytest.raises(StoreLockedError, match=f"process {sibling.pid} has this store open"):
            objstore.open(path, **options)
    sibling.kill()
    with objstore.open(path, exclusive=True) as db, db.transaction() as connection:
        assert connection.root.n == 1


def test_a_program_that_a_killed_process_has_started(nursery, tmp_path):
    """Locks inherited by a program: it outlives who started it with every descriptor, and holds no lock."""
    path = tmp_path / "store"
    sibling_work.filled(path).close()
    sibling = nursery.start(sibling_work.hold, str(path), {"exclusive": True}, True)
    child = sibling.receive()
    sibling.kill()
    try:
        os.kill(child, 0)
        objstore.open(path, exclusive=True).close()
    finally:
        os.kill(child, signal.SIGKILL)


@pytest.mark.parametrize("ends", ["child", "parent"])
@pytest.mark.parametrize("has_voted", [False, True])
def test_a_forked_child_has_no_part_in_its_parents_locks(nursery, tmp_path, has_voted, ends):
    """Locks inherited by a forked child: its end lets go of none, and it holds none when its parent has ended."""
    path = tmp_path / "store"
    db = sibling_work.filled(path)
    if not has_voted:
        db.close()
    sibling = nursery.start(sibling_work.fork_child, str(path), has_voted)
    child = sibling.receive()
    try:
        if ends == "child":
            os.kill(child, signal.SIGKILL)
            lock = path / "locks" / ("writer.lock" if has_voted else "open.lock")
            mutex = PosixFilesystem().mutex(str(lock))
            assert not mutex.acquire(blocking=False)
            mutex.close()
            if not has_voted:
                assert int(lock.read_text()) == sibling.pid
                with pytest.raises(StoreLockedError, match=f"process {sibling.pid} has"):
                    objstore.open(path)
        sibling.kill()
        if not has_voted:
            db = objstore.open(path, exclusive=True, background=False)
        with db.transaction() as connection:
            assert sibling_work.require_equal(connection)[0] == 0
            connection.root.n = 1
    finally:
        db.close()
        if ends == "parent":
            os.kill(child, signal.SIGKILL)
