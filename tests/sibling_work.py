"""What the processes of `test_processes_pitfalls` do. Each function gets a `siblings.Pipe` to the test first."""

from __future__ import annotations

import io
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import transaction
from BTrees.OOBTree import OOBTree
from siblings import Pipe
from things import Thing

import objstore
from objstore.contracts import Store
from objstore.engine.commits import Commits
from objstore.upkeep.check import check

PACKAGE = str(Path(objstore.__file__).parent)
PAIRS = 4


def fill(db: objstore.DB) -> None:
    """What the functions below work on: pairs of things that are always equal, and a tree."""
    with db.transaction() as connection:
        connection.root.pairs = OOBTree({at: Thing(x=Thing(n=0), y=Thing(n=0)) for at in range(PAIRS)})
        connection.root.tree = OOBTree()


def require_equal(connection: objstore.Connection) -> list[int]:
    """The numbers of the pairs, which must be equal in each."""
    numbers = []
    for pair in connection.root.pairs.values():
        assert pair.x.n == pair.y.n, f"x is {pair.x.n}, y is {pair.y.n}"
        numbers.append(pair.x.n)
    return numbers


def filled(path: str | Path, **options: Any) -> objstore.DB:
    """A database on the disk with all that, which is flushed by hand."""
    db = objstore.open(path, background=False, **options)
    fill(db)
    return db


def sound(store: Store) -> bool:
    """Whether a check finds nothing but what may be: objects without references, and replaced segments."""
    return [finding for finding in check(store) if finding.kind not in ("unreachable", "leftover")] == []


def keep_pairs_equal(pipe: Pipe, path: str, seed: int, rounds: int) -> None:
    """Change pairs and add keys to the tree, looking at all pairs with a cold cache before and after."""
    rng = random.Random(seed)
    with objstore.open(path, create=False, flush_transactions=5) as db:
        manager = transaction.TransactionManager()
        reader = db.open(manager)
        pipe.send("ready")
        pipe.receive()
        for number in range(rounds):
            manager.begin()
            reader.cacheMinimize()
            require_equal(reader)
            changed = rng.randrange(PAIRS)
            key = rng.randrange(10**6) * 100 + seed

            def change(connection: objstore.Connection, changed: int = changed, key: int = key) -> None:
                pair = connection.root.pairs[changed]
                pair.x.n += 1
                pair.y.n += 1
                connection.root.tree[key] = number  # noqa: B023 - called at once

            db.run(change, retries=1000)
            manager.begin()
            require_equal(reader)
            assert reader.root.tree[key] == number
            pipe.send(key)
        manager.abort()
        reader.close()


def _kill_at(line: int) -> Callable[[FrameType, str, object], object]:
    """A trace function that kills the process before it runs the line of this number of the package's."""
    left = line

    def trace(frame: FrameType, event: str, _: object) -> object:
        nonlocal left
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        if event == "line":
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    return trace


def commit_and_die(pipe: Pipe, path: str, line: int) -> None:
    """Change a pair, and be killed before a line of the package's that the commit runs."""
    db = objstore.open(path, create=False, background=False)
    manager = transaction.TransactionManager()
    connection = db.open(manager)
    pair = connection.root.pairs[0]
    pair.x.n += 1
    pair.y.n += 1
    pair.extra = Thing(n=line)
    sys.settrace(_kill_at(line))
    manager.commit()
    sys.settrace(None)
    pipe.send(pair.x.n)
    os.kill(os.getpid(), signal.SIGKILL)


def die_before_sync(_: Pipe, path: str) -> None:
    """Change a pair, and be killed once the commit is published and before it is synced."""
    db = objstore.open(path, create=False, background=False)

    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    Commits.make_durable = die
    with db.transaction() as connection:
        for thing in (connection.root.pairs[0].x, connection.root.pairs[0].y):
            thing.n += 1


def commit_once(pipe: Pipe, path: str) -> None:
    """Change what nobody else does, and say so."""
    with objstore.open(path, create=False, background=False) as db:
        with db.transaction() as connection:
            connection.root.once = True
        pipe.send("committed")


def hold_snapshot(pipe: Pipe, path: str) -> None:
    """Read, and do not go on."""
    db = objstore.open(path, create=False, background=False)
    with db.transaction() as connection:
        require_equal(connection)
        pipe.send("reading")
        pipe.receive()


def read_and_die(pipe: Pipe, path: str, line: int) -> None:
    """Open the store, read, move on, and be killed before a line of the package's that this runs."""
    sys.settrace(_kill_at(line))
    db = objstore.open(path, create=False, background=False)
    manager = transaction.TransactionManager()
    connection = db.open(manager)
    require_equal(connection)
    manager.begin()
    connection.cacheMinimize()
    require_equal(connection)
    sys.settrace(None)
    pipe.send("read")
    os.kill(os.getpid(), signal.SIGKILL)


def take_oids(pipe: Pipe, path: str, count: int) -> None:
    """Take new oids in several commits, import a graph, and wait to be killed."""
    db = objstore.open(path, create=False)
    exported = pipe.receive()
    oids = []
    with db.transaction() as connection:
        for _ in range(count):
            thing = Thing()
            connection.add(thing)
            oids.append(thing._p_oid)
    with db.transaction() as connection:
        copy = connection.importFile(io.BytesIO(exported))
        oids += [copy._p_oid, *(each._p_oid for each in copy.things)]
        connection.root.copies[os.getpid()] = copy
    pipe.send(oids)
    pipe.receive()


def create_together(pipe: Pipe, path: str) -> None:
    """Open the store at the same moment as others do, creating it; say whose it is, and add something."""
    pipe.send("ready")
    pipe.receive()
    with objstore.open(path, background=False) as db:

        def add(connection: objstore.Connection) -> None:
            connection.root()[str(os.getpid())] = os.getpid()

        db.run(add, retries=1000)
        pipe.send(db.store.statistics()["identity"])
        pipe.receive()


def hold(pipe: Pipe, path: str, options: dict[str, object], with_child: bool) -> None:
    """Open the store and keep it, with a child that knows nothing of it, until told to go."""
    db = objstore.open(path, background=False, **options)
    child = subprocess.Popen(["sleep", "1000"], close_fds=False) if with_child else None
    pipe.send(child.pid if child is not None else None)
    pipe.receive()
    db.close()
    pipe.send("closed")
    pipe.receive()


def hold_writer_lock(pipe: Pipe, path: str) -> None:
    """Vote, and neither finish nor abort."""
    db = objstore.open(path, background=False)
    manager = transaction.TransactionManager()
    connection = db.open(manager)
    connection.root.pairs[0].x.n = -1
    current = manager.get()
    connection.tpc_begin(current)
    connection.commit(current)
    connection.tpc_vote(current)
    pipe.send("voted")
    pipe.receive()


def fork_child(pipe: Pipe, path: str, voted: bool) -> None:
    """Open the store, perhaps vote, fork a child that stays, and tell its pid; then end, leaving it."""
    db = objstore.open(path, background=False, exclusive=not voted)
    if voted:
        manager = transaction.TransactionManager()
        connection = db.open(manager)
        connection.root.pairs[0].x.n = -1
        connection.tpc_begin(manager.get())
        connection.commit(manager.get())
        connection.tpc_vote(manager.get())
    ready, end = os.pipe()
    child = os.fork()
    if not child:
        os.write(end, b"!")
        signal.pause()
    os.read(ready, 1)
    pipe.send(child)
    pipe.receive()
