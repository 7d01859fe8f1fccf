"""A signal such as Ctrl-C takes a commit from its work: what is published is made durable by whoever needs it."""

from __future__ import annotations

import contextlib
import errno
import sys
from linecache import getline
from pathlib import Path
from threading import Thread

import pytest
import transaction
from persistent.list import PersistentList
from stores import commit, contents, open_on
from things import Thing

import objstore
from objstore.contracts import History
from objstore.engine import commits
from objstore.engine.commits import Commits
from objstore.errors import StorageFailedError
from objstore.machine.memory import MemoryFilesystem
from objstore.machine.posix import PosixFilesystem
from objstore.upkeep.check import check


@pytest.fixture
def filesystem():
    return MemoryFilesystem()


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(commits, "_LONG", 0.05)


def interrupt(monkeypatch, store, values):
    """Commit, and have Ctrl-C come once that is published, and again when it is about to be made up for."""

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Commits, "make_durable", interrupted)
        patch.setattr(Commits, "make_up", interrupted)
        with pytest.raises(KeyboardInterrupt):
            commit(store, values)


def test_the_next_commit_of_the_process_syncs_it(filesystem, monkeypatch):
    """It waited for ever: for itself."""
    store = open_on(filesystem)
    before = commit(store, {0: "before"})
    interrupt(monkeypatch, store, {1: "interrupted"})
    assert store.last_tid() == before
    last = commit(store, {2: "after"})
    assert store.last_tid() == last
    assert contents(store, range(3)) == {0: "before", 1: "interrupted", 2: "after"}
    store.flush()
    store.close()
    assert contents(open_on(filesystem), range(3)) == {0: "before", 1: "interrupted", 2: "after"}


def test_several_that_wait_for_it_all_go_on(filesystem, monkeypatch):
    store = open_on(filesystem)
    interrupt(monkeypatch, store, {0: "interrupted"})
    threads = [Thread(target=commit, args=(store, {number: number})) for number in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert contents(store, range(9)) == {0: "interrupted", **{number: number for number in range(1, 9)}}


def test_another_process_syncs_it(tmp_path, monkeypatch):
    """Its owner lives, so nobody took it for orphaned."""
    monkeypatch.setattr("stores.PATH", str(tmp_path / "store"))
    first, second = open_on(PosixFilesystem()), open_on(PosixFilesystem())
    interrupt(monkeypatch, first, {0: "interrupted"})
    commit(second, {1: "second"})
    assert contents(second, range(2)) == {0: "interrupted", 1: "second"}
    assert contents(first, range(2)) == {0: "interrupted", 1: "second"}
    second.close()
    first.close()


def test_what_cannot_be_synced_stops_everybody(filesystem, monkeypatch):
    store = open_on(filesystem)
    commit(store, {0: "before"})
    interrupt(monkeypatch, store, {0: "interrupted"})

    def broken(*_):
        raise OSError(errno.EIO, "Input/output error")

    store._commits.rescue = broken
    with pytest.raises(StorageFailedError, match="cannot be synced"):
        commit(store, {1: "after"})
    with pytest.raises(StorageFailedError):
        commit(store, {2: "never"})
    assert contents(store, [0]) == {0: "before"}


def test_one_that_was_synced_and_flushed_meanwhile_needs_nothing(filesystem, monkeypatch):
    """Who was about to sync it finds no file: its owner was only slow."""
    store = open_on(filesystem)
    interrupt(monkeypatch, store, {0: "slow"})
    [waiting] = store._lookup.index.transactions()

    def too_late(*_):
        store._commits._settle(waiting.tid)
        raise FileNotFoundError(errno.ENOENT, "No such file or directory")

    store._commits.rescue = too_late
    commit(store, {1: "after"})
    assert contents(store, range(2)) == {0: "slow", 1: "after"}


PACKAGE = str(Path(objstore.__file__).parent)


def raise_at(number, function=""):
    """A trace function that raises KeyboardInterrupt before it runs the line of this number of the package's.

    If a function is named, lines count once that was called.
    """
    left, begun, latest = number, not function, None

    def trace(frame, event, _):
        nonlocal left, begun, latest
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        begun = begun or frame.f_code.co_qualname == function
        if not begun:
            return None
        # Where a block with a lock ends, or has nothing in it, no signal comes in between, as it would here. Nor
        # does a signal in a comprehension leave the lock taken. Its line is told again for each of its turns by
        # Python 3.12 and 3.13, and what is raised there misses the block's end.
        line = getline(frame.f_code.co_filename, frame.f_lineno).strip()
        again, latest = latest == (frame, frame.f_lineno), (frame, frame.f_lineno)
        if event == "line" and not again and not line.startswith(("with ", "pass")):
            left -= 1
            if left == 0:
                raise KeyboardInterrupt
        return trace

    return trace


def commits_interrupted_at_lines(db, beside, step):
    """Break off a commit at each line that it runs, one after the other, and go on each time; how many."""
    manager = transaction.TransactionManager()
    connection = db.open(manager)
    line = acknowledged = whole = 0
    while whole < 3:  # more lines than a commit has
        line += step
        manager.begin()
        thing = connection.root.thing
        assert thing.n >= acknowledged
        wanted = thing.n = thing.n + 1
        connection.root.list.append(line)
        thing.new = Thing(n=line)
        before = sys.gettrace()
        sys.settrace(raise_at(line))
        try:
            manager.commit()
            whole += 1
            acknowledged = wanted
        except KeyboardInterrupt:
            whole = 0
        finally:
            sys.settrace(before)
        manager.abort()
        for each in beside:
            with each.transaction() as other:
                other.root.beside.n += 1
                assert other.root.thing.n == len(other.root.list)
    connection.close()
    return line // step


@pytest.mark.parametrize("history", History)
@pytest.mark.parametrize("processes", [1, 2])
def test_commits_interrupted_at_many_lines(tmp_path, history, processes, record_property):
    """A directory was given back that held a committed transaction, and the next was written over it."""
    path = tmp_path / "store"
    options = {"flush_transactions": 20, "flush_age": 0.05}
    with objstore.open(path, history=history, **options) as db, objstore.open(path, **options) as another:
        with db.transaction() as connection:
            connection.root.thing, connection.root.beside = Thing(n=0), Thing(n=0)
            connection.root.list = PersistentList()
        beside = [another, db][:processes]
        record_property("commits interrupted", commits_interrupted_at_lines(db, beside, 7))
        assert [each for each in check(db.store) if each.kind not in ("leftover", "unreachable")] == []
    with objstore.open(path) as db:
        root = db.open().root
        assert root.thing.n == len(root.list)
        assert [each for each in check(db.store) if each.kind not in ("leftover", "unreachable")] == []


@pytest.mark.parametrize("history", History)
def test_nobody_waits_for_a_commit_that_was_interrupted(tmp_path, history, monkeypatch, record_property):
    """Whoever committed next waited for five seconds, and then synced it."""
    rescued, rescue = [], Commits._rescue
    monkeypatch.setattr(commits, "_LONG", 2.0)
    monkeypatch.setattr(Commits, "_rescue", lambda self, at: rescued.append(at) or rescue(self, at))
    path = tmp_path / "store"
    with objstore.open(path, history=history) as db, objstore.open(path) as another:
        with db.transaction() as connection:
            connection.root.thing, connection.root.beside = Thing(n=0), Thing(n=0)
        manager = transaction.TransactionManager()
        connection = db.open(manager)
        line, whole = 0, False
        while not whole:
            line += 1
            manager.begin()
            connection.root.thing.n += 1
            sys.settrace(raise_at(line, "Pending.finish"))
            with contextlib.suppress(KeyboardInterrupt):
                manager.commit()
                whole = True
            sys.settrace(None)
            manager.abort()
            with another.transaction() as other:
                other.root.beside.n += 1
            assert (line, rescued) == (line, [])
        connection.close()
    record_property("commits interrupted", line - 1)
    assert line > 50
