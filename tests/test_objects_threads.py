"""Threads: each with a connection of its own, while others commit, open, pack and flush."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
import transaction
from BTrees.check import check
from BTrees.IOBTree import IOBTree
from BTrees.OOBTree import OOBTree
from databases import ALL, commit, opened
from things import Counter, Thing

from objstore.errors import ClosedError, TransientStoreError, UsageError

pytest_plugins = ["database_fixtures"]
SECONDS = 0.5
"""How long the tests of invariants go on."""


def together(*functions):
    """Run functions in threads of their own; raise what any of them raised."""
    with ThreadPoolExecutor(len(functions)) as pool:
        for future in [pool.submit(function) for function in functions]:
            future.result(60)


def repeat(function):
    while True:
        function()


def test_concurrent_inserts_into_one_tree(db):
    """ZODB 3.2b1: partial invalidations put keys into the wrong bucket. Buckets split under way."""
    with db.transaction() as connection:
        connection.root.tree = OOBTree()

    def insert(worker):
        def work():
            for number in range(40):
                keys = [f"{number:04}-{worker}-{part}" for part in range(4)]

                def add(connection, keys=keys):
                    for key in keys:
                        connection.root.tree[key] = worker

                db.run(add, retries=100)

        return work

    together(*(insert(worker) for worker in range(3)))
    with db.transaction() as connection:
        tree = connection.root.tree
        tree._check()
        check(tree)
        assert len(tree) == 3 * 40 * 4
        assert list(tree.keys()) == sorted(tree.keys())
        assert sum(list(tree.values()).count(worker) for worker in range(3)) == len(tree)


def test_inserts_and_deletes(some):
    """ZODB 3.3.1c1: a key that was added while its bucket was emptied vanished."""
    with some.transaction() as connection:
        connection.root.tree = IOBTree()

    def work(worker):
        def run():
            for number in range(60):
                first = number * 90 + worker

                def change(connection, first=first):
                    tree = connection.root.tree
                    for key in range(first, first + 90, 3):
                        tree[key] = worker
                    if first >= 180:
                        for key in range(first - 180, first - 90, 3):
                            del tree[key]

                some.run(change, retries=200)

        return run

    together(*(work(worker) for worker in range(3)))
    with some.transaction() as connection:
        tree = connection.root.tree
        tree._check()
        check(tree)
        assert list(tree) == list(range(58 * 90, 60 * 90))


def test_counters_add_up(db):
    with db.transaction() as connection:
        connection.root.counter = Counter()

    def work():
        for _ in range(30):
            db.run(lambda connection: connection.root.counter.add(), retries=100)

    together(work, work, work)
    assert opened(db).root.counter.count == 90


@pytest.mark.parametrize("kind", ALL)
def test_x_equals_y_while_connections_open_and_commit(databases, kind):
    """ZODB#290: an invalidation was processed before the view had moved. Every snapshot is of one moment."""
    db = databases(kind, **({"flush_age": 0.05} if not kind.startswith("model") else {}))
    with db.transaction() as connection:
        connection.root.x, connection.root.y = Thing(n=0), Thing(n=0)
    end = time.monotonic() + SECONDS
    seen = []

    def write():
        def step(connection):
            connection.root.x.n += 1
            connection.root.y.n += 1

        while time.monotonic() < end:
            with suppress(TransientStoreError):
                db.run(step, retries=3)

    def read():
        """One connection for long, others opened and closed meanwhile, sometimes with empty caches."""
        kept = db.open(transaction.TransactionManager())
        turn = 0
        while time.monotonic() < end:
            turn += 1
            kept.transaction_manager.begin()
            other = db.open(transaction.TransactionManager())
            if turn % 7 == 0:
                other.cacheMinimize()
            for connection in (other, kept):
                x, y = connection.root.x, connection.root.y
                assert x.n == y.n
                x._p_deactivate()
                assert x.n == y.n
            seen.append(kept.root.x.n)
            other.close()
        kept.close()

    def upkeep():
        while time.monotonic() < end:
            with suppress(UsageError):
                db.pack()
            db.store.flush()

    together(write, write, read, read, upkeep)
    assert len(set(seen)) > 1
    final = opened(db)
    assert final.root.x.n == final.root.y.n == max(final.root.x.n, *seen)


def test_a_bank_s_total_never_changes(some):
    accounts = 10
    with some.transaction() as connection:
        connection.root.accounts = IOBTree({number: Thing(balance=100) for number in range(accounts)})
    stop = threading.Event()

    def transfer(seed):
        def work():
            for number in range(40):
                giver, taker = (number * 7 + seed) % accounts, (number * 3 + seed * 5 + 1) % accounts

                def move(connection, giver=giver, taker=taker, number=number):
                    connection.root.accounts[giver].balance -= number
                    connection.root.accounts[taker].balance += number

                some.run(move, retries=200)

        return work

    def audit():
        connection = some.open(transaction.TransactionManager())
        while not stop.is_set():
            connection.sync()
            assert sum(account.balance for account in connection.root.accounts.values()) == 1000
        connection.close()

    with ThreadPoolExecutor(1) as pool:
        auditing = pool.submit(audit)
        try:
            together(*(transfer(seed) for seed in range(3)))
        finally:
            stop.set()
        auditing.result(60)


def test_the_pool_is_shared(some):
    """No connection is given to two at once."""
    used, lock = set(), threading.Lock()

    def work():
        for _ in range(200):
            connection = some.open(transaction.TransactionManager())
            with lock:
                assert connection not in used
                used.add(connection)
            assert connection.root() is not None
            with lock:
                used.remove(connection)
            connection.close()

    together(work, work, work, work)
    assert some.statistics()["connections_open"] == 0


def test_closing_while_others_work(databases):
    """They are told so, and nothing is left half done."""
    for kind in ("memory-full", "memory-minimal", "chunky-full"):
        db = databases(kind)
        with db.transaction() as connection:
            connection.root.x, connection.root.y = Thing(n=0), Thing(n=0)
        started = threading.Barrier(3)

        def work(db=db, started=started):
            started.wait()

            def step(connection):
                connection.root.x.n += 1
                connection.root.y.n += 1

            with pytest.raises(ClosedError):
                repeat(lambda: db.run(step, retries=1000))

        def close(db=db, started=started):
            first = db.store.last_tid()
            started.wait()
            while db.store.last_tid() == first:
                pass
            db.close()

        together(work, work, close)
    with databases("chunky-full") as db:
        connection = opened(db)
        assert connection.root.x.n == connection.root.y.n > 0
        commit(connection)
