"""Threads at work on one database, while it is flushed and packed: what must hold at every moment."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import closing
from itertools import count
from threading import Event, Lock, Thread

import pytest
from BTrees.check import check as check_tree
from BTrees.OOBTree import OOBTree
from persistent.mapping import PersistentMapping
from stores import COMBINATIONS
from transaction import TransactionManager

import objstore
from objstore.contracts import Format, History
from objstore.errors import ConflictError, POSKeyError

ACCOUNTS, TOTAL = 40, 4000


OFTEN = {(History.FULL, Format.SEGMENTED), (History.MINIMAL, Format.SEGMENTED), (History.MINIMAL, Format.CHUNKY)}
STORES = [pytest.param(pair, marks=[] if pair in OFTEN else pytest.mark.long) for pair in COMBINATIONS]


@pytest.fixture(params=STORES, ids=lambda pair: f"{pair[0]}-{pair[1]}")
def db(request, tmp_path):
    history, layout = request.param
    db = objstore.open(
        str(tmp_path / "store"), history=history, format=layout, flush_age=0.005, flush_transactions=5
    )
    with db:
        yield db


class Crew:
    """Threads that work until they are told to stop. What one of them raises is raised by `stop`."""

    def __init__(self) -> None:
        self.stopping = Event()
        self.errors: list[BaseException] = []
        self._threads: list[Thread] = []

    def start(self, work: Callable[[], object]) -> None:
        def run() -> None:
            try:
                while not self.stopping.is_set():
                    work()
            except BaseException as error:  # noqa: BLE001 - it is told by the main thread
                self.errors.append(error)
                self.stopping.set()

        thread = Thread(target=run)
        self._threads.append(thread)
        thread.start()

    def stop(self) -> None:
        self.stopping.set()
        for thread in self._threads:
            thread.join()
        if self.errors:
            raise self.errors[0]


class Tally:
    """How many times threads have done a thing. Unlike an `itertools.count` it can be read without moving it."""

    def __init__(self) -> None:
        self.so_far = 0
        self._lock = Lock()  # guards the step from one number to the next

    def add(self) -> int:
        """One more; returns how many there were before, a number that no other thread is given."""
        with self._lock:
            before = self.so_far
            self.so_far += 1
        return before


def fill(db) -> None:
    with db.transaction() as connection:
        root = connection.root()
        root["accounts"] = OOBTree()
        for at in range(ACCOUNTS):
            root["accounts"][at] = PersistentMapping(balance=TOTAL // ACCOUNTS)
        root["tree"] = OOBTree()


def test_a_total_never_changes_while_all_of_it_goes_on(db):
    """ZODB#290, ZEO#166: what one snapshot shows is of one moment, whoever commits, opens, flushes or packs."""
    fill(db)
    crew = Crew()
    transfers, looks, packs = Tally(), Tally(), Tally()

    def transfer() -> None:
        if transfers.so_far > 150:  # else the journal of a slow format grows ahead of the packs
            crew.stopping.wait(0.01)
            return
        rng = random.Random(transfers.add())

        def move(connection) -> None:
            accounts = connection.root()["accounts"]
            source, target = rng.sample(range(ACCOUNTS), 2)
            amount = rng.randint(1, 9)
            accounts[source]["balance"] -= amount
            accounts[target]["balance"] += amount
            accounts[target]["last"] = PersistentMapping(amount=amount)  # the one before is garbage

        db.run(move, retries=100)

    def look() -> None:
        looks.add()
        with db.transaction() as connection:
            accounts = connection.root()["accounts"]
            assert sum(account["balance"] for account in accounts.values()) == TOTAL

    def keep_looking() -> None:
        manager = TransactionManager()
        connection = db.open(manager)
        for _ in range(20):
            manager.begin()
            accounts = connection.root()["accounts"]
            assert sum(account["balance"] for account in accounts.values()) == TOTAL
        manager.abort()
        connection.close()

    def pack() -> None:
        db.pack()
        packs.add()

    def watch() -> None:
        if transfers.so_far > 60 and looks.so_far > 20 and packs.so_far > 1:
            crew.stopping.set()
        crew.stopping.wait(0.01)

    for work in (transfer, transfer, transfer, look, keep_looking, pack):
        crew.start(work)
    crew.start(watch)
    crew.stopping.wait(120)
    crew.stop()
    assert packs.so_far > 1
    look()


def test_trees_stay_whole_while_threads_insert_and_delete(db):
    """ZODB 3.2b1, 3.3.1c1: concurrent splits, and buckets that are emptied and filled."""
    fill(db)
    crew = Crew()
    done = count()
    kept: list[set[int]] = [set() for _ in range(3)]

    def insert(number: int) -> Callable[[], None]:
        rng = random.Random(number)

        def work() -> None:
            keys = [key * 3 + number for key in rng.sample(range(400), 8)]
            remove = [key for key in kept[number] if rng.random() < 0.2]

            def change(connection) -> None:
                tree = connection.root()["tree"]
                for key in keys:
                    tree[key] = str(key)
                for key in remove:
                    if key not in keys:
                        del tree[key]

            db.run(change, retries=200)
            kept[number] = (kept[number] - set(remove)) | set(keys)
            if next(done) > 50:
                crew.stopping.set()

        return work

    def look() -> None:
        with db.transaction() as connection:
            tree = connection.root()["tree"]
            check_tree(tree)
            assert all(tree[key] == str(key) for key in list(tree))

    for number in range(3):
        crew.start(insert(number))
    crew.start(look)
    crew.start(db.pack)
    crew.stopping.wait(120)
    crew.stop()
    with db.transaction() as connection:
        tree = connection.root()["tree"]
        check_tree(tree)
        assert set(tree) == kept[0] | kept[1] | kept[2]


def test_what_is_linked_again_while_a_pack_runs_is_there_or_the_commit_is_refused(db):
    """RelStorage#325: references move while objects are marked."""
    with db.transaction() as connection:
        connection.root()["a"] = PersistentMapping(child=PersistentMapping(number=0))
        connection.root()["b"] = PersistentMapping()
    crew = Crew()
    moves = count()

    def move() -> None:
        manager = TransactionManager()
        connection = db.open(manager)
        root = connection.root()
        for _ in range(10):
            try:
                manager.begin()
                source, target = ("a", "b") if "child" in root["a"] else ("b", "a")
                child = root[source].pop("child")
                child["number"] += 1
                manager.savepoint()
                root[target]["child"] = child
                manager.commit()
            except ConflictError:
                manager.abort()
        connection.close()
        if next(moves) > 15:
            crew.stopping.set()

    def look() -> None:
        with db.transaction() as connection:
            root = connection.root()
            holders = [name for name in "ab" if "child" in root[name]]
            assert len(holders) == 1
            assert root[holders[0]]["child"]["number"] >= 0

    crew.start(move)
    crew.start(look)
    crew.start(db.pack)
    crew.stopping.wait(120)
    crew.stop()
    look()


def test_an_object_that_was_packed_away_cannot_be_linked_again(db):
    with db.transaction() as connection:
        connection.root()["child"] = PersistentMapping(number=1)
    manager = TransactionManager()
    connection = db.open(manager)
    root = connection.root()
    child = root.pop("child")
    child._p_activate()
    manager.commit()
    for number in range(3):  # so that the transactions that a pack keeps whole are others
        root["number"] = number
        manager.commit()
    db.pack()
    root["again"] = child
    with pytest.raises(ConflictError):
        manager.commit()
    manager.abort()
    assert "again" not in root
    root["again"] = PersistentMapping(number=2)
    manager.commit()
    connection.close()
    with db.transaction() as connection:
        assert connection.root()["again"]["number"] == 2
    with closing(db.store.view()) as view, pytest.raises(POSKeyError):
        view.load(child._p_oid)
