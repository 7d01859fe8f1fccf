"""ZODB.DB over a store of objstore's, and over a FileStorage, side by side.

    python benchmarks/zodb_storage.py [--seconds 1] [--rounds 3] [--objects 5000] [--dir PATH] [--json]

In each round each storage has its turn with each workload: commits of one changed object, commits of a hundred,
commits by four threads at once, and loads of objects that are in no cache, in the order of oids and at random.
What is printed are medians, a second.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any

import transaction
import ZODB
from persistent.mapping import PersistentMapping
from ZODB.FileStorage import FileStorage

from objstore.zodb import DirectoryStorage

STORAGES: dict[str, Callable[[str], Any]] = {
    "DirectoryStorage": lambda directory: DirectoryStorage(f"{directory}/store"),
    "FileStorage": lambda directory: FileStorage(f"{directory}/Data.fs"),
}
DURABILITY = {
    "DirectoryStorage": "full, segmented; one fdatasync a commit",
    "FileStorage": "one fsync a commit",
}
THREADS = 4


def opened(database: Any) -> Any:
    """A connection with a transaction manager of its own."""
    return database.open(transaction.TransactionManager())


def repeated(seconds: float, work: Callable[[int], None]) -> float:
    """How often a second something is done."""
    begun = time.perf_counter()
    count = 0
    while (passed := time.perf_counter() - begun) < seconds:
        work(count)
        count += 1
    return count / passed


def commits(database: Any, seconds: float, size: int) -> float:
    """Commits a second, each of so many objects."""
    connection = opened(database)
    things = connection.root()["things"]
    objects = [things[at] for at in range(THREADS * size)]

    def change(count: int) -> None:
        for thing in objects[:size]:
            thing["n"] = count
        connection.transaction_manager.commit()

    rate = repeated(seconds, change)
    connection.close()
    return rate


def commits_together(database: Any, seconds: float) -> float:
    """Commits a second of several threads, each of one object of its own."""
    rates: list[float] = []

    def run(number: int) -> None:
        connection = opened(database)
        thing = connection.root()["things"][number]

        def change(count: int) -> None:
            thing["n"] = count
            connection.transaction_manager.commit()

        rates.append(repeated(seconds, change))
        connection.close()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(rates)


def loads(database: Any, seconds: float, *, shuffled: bool) -> float:
    """Objects a second that are loaded from the storage."""
    connection = opened(database)
    things = list(connection.root()["things"])
    if shuffled:
        random.Random(1).shuffle(things)

    def load(count: int) -> None:
        if count % len(things) == 0:
            connection.cacheMinimize()
        things[count % len(things)]._p_activate()

    rate = repeated(seconds, load)
    connection.close()
    return rate


WORKLOADS: dict[str, Callable[[Any, float], float]] = {
    "commits of 1": lambda database, seconds: commits(database, seconds, 1),
    "commits of 100": lambda database, seconds: commits(database, seconds, 100),
    f"commits of 1, {THREADS} threads": commits_together,
    "loads in order": lambda database, seconds: loads(database, seconds, shuffled=False),
    "loads at random": lambda database, seconds: loads(database, seconds, shuffled=True),
}


def measured(storage: str, seconds: float, objects: int, directory: str | None) -> dict[str, float]:
    """The rates of all workloads over a new storage."""
    with tempfile.TemporaryDirectory(dir=directory) as place:
        database = ZODB.DB(STORAGES[storage](place), cache_size=10 * objects)
        with database.transaction() as connection:
            things = [PersistentMapping(n=at, text=f"some text of {at} " * 10) for at in range(objects)]
            connection.root()["things"] = things
        rates = {name: work(database, seconds) for name, work in WORKLOADS.items()}
        database.close()
        return rates


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description="ZODB over objstore and over FileStorage, side by side.")
    parser.add_argument("--seconds", type=float, default=1.0, help="how long each workload lasts")
    parser.add_argument("--rounds", type=int, default=3, help="how often each storage has its turn")
    parser.add_argument("--objects", type=int, default=5_000, help="how many objects there are")
    parser.add_argument("--dir", help="where the storages are made")
    parser.add_argument("--json", action="store_true", help="print JSON")
    chosen = parser.parse_args()
    if chosen.objects < 100 * THREADS:
        parser.error(f"--objects is {100 * THREADS} at least")
    rates: dict[str, dict[str, list[float]]] = {name: {each: [] for each in STORAGES} for name in WORKLOADS}
    for _ in range(chosen.rounds):
        for storage in STORAGES:
            for name, rate in measured(storage, chosen.seconds, chosen.objects, chosen.dir).items():
                rates[name][storage].append(rate)
    medians = {
        name: {storage: statistics.median(each) for storage, each in found.items()}
        for name, found in rates.items()
    }
    if chosen.json:
        print(json.dumps({"durability": DURABILITY, "per_second": medians}))
        return
    for storage, durability in DURABILITY.items():
        print(f"{storage}: {durability}")
    print(f"{'a second, medians':24}" + "".join(f"{storage:>20}" for storage in STORAGES) + f"{'ratio':>8}")
    for name, found in medians.items():
        ours, its = found.values()
        print(f"{name:24}" + "".join(f"{rate:20,.0f}" for rate in found.values()) + f"{ours / its:8.2f}")


if __name__ == "__main__":
    main()
