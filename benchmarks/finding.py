"""Collections beside sqlite3, holding the same rows with the same indexes.

    python benchmarks/finding.py [--count 100000] [--path DIRECTORY]

Each row is a person with a name (the key), a city (one of 100), a district (one of 10), an age, and an email that
is unique. Both keep them on the disk, synced at each commit. Finding is measured once all is in memory, as it was
read from the disk, as the median of many runs. What a number is to be at most is said beside it. Prints a table.
"""

from __future__ import annotations

import argparse
import gc
import random
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

from BTrees.OOBTree import OOBTree
from persistent import Persistent

import objstore
from objstore.collections import Collection, Index, above, between

INDEXES = {"city": "city", "district": "district", "age": "age", "email": Index("email", unique=True)}
SCHEMA = """
    create table people (
        name text primary key, city text, district integer, age integer, email text unique, note text
    );
    create index by_city on people (city);
    create index by_district on people (district);
    create index by_age on people (age);
"""
TARGETS = {
    "exact": "30 us",
    "range": "300 us",
    "join": "5 ms",
    "adding": "4 x one BTree",
    "bulk": "20 s",
}


class Person(Persistent):
    """A row as an object."""

    def __init__(self, name: str, city: str, district: int, age: int, email: str, note: str) -> None:
        self.name = name
        self.city = city
        self.district = district
        self.age = age
        self.email = email
        self.note = note


def rows(count: int, first: int = 0) -> list[tuple[str, str, int, int, str, str]]:
    """People: 1 in 100 in each city, 1 in 10 in each district, each city in all districts."""
    chance = random.Random(first)
    return [
        (
            f"person {number:08}",
            f"city {number % 100:02}",
            number // 100 % 10,
            chance.randrange(100),
            f"{number}@example.com",
            "x" * 60,
        )
        for number in range(first, first + count)
    ]


def scattered(count: int, first: int, among: int) -> list[tuple[str, str, int, int, str, str]]:
    """As many people whose names and addresses come in no order, all over those that are there."""
    chance = random.Random(first)
    places = [chance.randrange(among) for _ in range(count)]
    return [
        (f"person {place:08} {row[0]}", *row[1:4], f"{place}.{row[4]}", row[5])
        for place, row in zip(places, rows(count, first), strict=True)
    ]


def timed(function: Callable[[], object], times: int) -> float:
    """The median of so many runs, in seconds."""
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        function()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def once(function: Callable[[], object]) -> float:
    """One run, in seconds."""
    gc.collect()
    return timed(function, 1)


def told(seconds: float) -> str:
    """A duration as people read it."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.2f} {unit}"
    return f"{seconds / 1e-6:.1f} us"


class Objects:
    """Our side."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.db = objstore.open(path, cache_size=10_000_000)
        with self.db.transaction() as connection:
            connection.root.tree = OOBTree()
            connection.root.people = Collection("name", INDEXES)

    def reopen(self) -> None:
        """Have in memory what was read from the disk, not what was made."""
        self.db.close()
        self.db = objstore.open(self._path, cache_size=10_000_000)

    def load(self, data: list[tuple[Any, ...]]) -> None:
        with self.db.transaction() as connection:
            connection.root.people.update(Person(*row) for row in data)

    def add(self, data: list[tuple[Any, ...]], batch: int) -> None:
        for at in range(0, len(data), batch):
            self.load(data[at : at + batch])

    def put(self, data: list[tuple[Any, ...]], batch: int) -> None:
        """Into one BTree, with no index."""
        for at in range(0, len(data), batch):
            with self.db.transaction() as connection:
                tree = connection.root.tree
                for row in data[at : at + batch]:
                    tree[row[0]] = Person(*row)


class Rows:
    """sqlite3's side."""

    def __init__(self, path: str) -> None:
        self.db = sqlite3.connect(path)
        self.db.execute("pragma journal_mode = wal")
        self.db.execute("pragma synchronous = full")
        self.db.execute("pragma cache_size = -1000000")
        self.db.executescript(SCHEMA)

    def load(self, data: list[tuple[Any, ...]]) -> None:
        with self.db:
            self.db.executemany("insert into people values (?, ?, ?, ?, ?, ?)", data)

    def add(self, data: list[tuple[Any, ...]], batch: int) -> None:
        for at in range(0, len(data), batch):
            self.load(data[at : at + batch])

    def ids(self, condition: str, *values: object) -> list[Any]:
        return self.db.execute(f"select rowid from people where {condition}", values).fetchall()  # noqa: S608


def finding(ours: Objects, theirs: Rows, count: int) -> list[tuple[str, float, float, str]]:
    """Ids found by exact values, in a range, and by two conditions."""
    some = random.Random(1)
    connection = ours.db.open()
    people = connection.root.people
    for name, least in (("name", ""), ("city", ""), ("district", -1), ("age", -1), ("email", "")):
        for person in people.find({name: above(least)}):  # so that each index is in memory, as sqlite3's are
            person._p_activate()
    table = []
    numbers = [some.randrange(count) for _ in range(2000)]

    def run(
        title: str, target: str, us: Callable[[int], object], them: Callable[[int], object], times: int
    ) -> None:
        for function in (us, them):
            for number in numbers[:5]:
                function(number)
        left, right = iter(numbers * 10), iter(numbers * 10)
        table.append(
            (title, timed(lambda: us(next(left)), times), timed(lambda: them(next(right)), times), target)
        )

    run(
        "exact value of a unique index, one id",
        TARGETS["exact"],
        lambda n: next(people.find(email=f"{n}@example.com").ids()),
        lambda n: theirs.ids("email = ?", f"{n}@example.com"),
        2000,
    )
    run(
        "exact key, one object",
        TARGETS["exact"],
        lambda n: people[f"person {n:08}"],
        lambda n: theirs.db.execute("select * from people where name = ?", (f"person {n:08}",)).fetchone(),
        2000,
    )
    run(
        f"one city, {count // 100:,} ids",
        TARGETS["range"],
        lambda n: list(people.find(city=f"city {n % 100:02}").ids()),
        lambda n: theirs.ids("city = ?", f"city {n % 100:02}"),
        200,
    )
    width = count // 100
    run(
        f"a range of keys, {width:,} ids",
        TARGETS["range"],
        lambda n: list(people.find(name=between(f"person {n:08}", f"person {n + width - 1:08}")).ids()),
        lambda n: theirs.ids("name between ? and ?", f"person {n:08}", f"person {n + width - 1:08}"),
        200,
    )
    run(
        f"two conditions of {count // 10:,} each, {count // 100:,} ids",
        TARGETS["join"],
        lambda n: list(people.find(district=n % 10, age=between(n % 90, n % 90 + 9)).ids()),
        lambda n: theirs.ids("district = ? and age between ? and ?", n % 10, n % 90, n % 90 + 9),
        50,
    )
    run(
        "the ten oldest of a district, in order, objects",
        "",
        lambda n: list(people.find(district=n % 10, order="-age", limit=10)),
        lambda n: theirs.db.execute(
            "select * from people where district = ? order by age desc limit 10", (n % 10,)
        ).fetchall(),
        50,
    )
    run(
        "count of a city",
        "",
        lambda n: people.count(city=f"city {n % 100:02}"),
        lambda n: theirs.db.execute(
            "select count(*) from people where city = ?", (f"city {n % 100:02}",)
        ).fetchone(),
        200,
    )
    connection.close()
    return table


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Collections beside sqlite3.")
    parser.add_argument("--count", type=int, default=100_000, help="how many people (100000)")
    parser.add_argument(
        "--added", type=int, default=10_000, help="how many more are added in small commits (10000)"
    )
    parser.add_argument("--batch", type=int, default=100, help="how many are added in a commit (100)")
    parser.add_argument("--path", help="where to keep both; a temporary directory if left out")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=options.path) as directory:
        ours, theirs = Objects(f"{directory}/objects"), Rows(f"{directory}/rows.sqlite")
        data = rows(options.count)
        table = [
            (
                f"bulk load of {options.count:,}, one commit",
                once(lambda: ours.load(data)),
                once(lambda: theirs.load(data)),
                TARGETS["bulk"],
            )
        ]
        ours.put(data, options.count)  # so that the tree is as full as the collection
        at = options.count
        for batch, order in ((1, "in order"), (options.batch, "in order"), (options.batch, "in no order")):
            added = options.added if batch > 1 else options.added // 10
            more = rows(added, at) if order == "in order" else scattered(added, at, options.count)
            at += len(more)
            put = once(lambda more=more, batch=batch: ours.put(more, batch)) / len(more)
            one = once(lambda more=more, batch=batch: ours.add(more, batch)) / len(more)
            theirs_one = once(lambda more=more, batch=batch: theirs.add(more, batch)) / len(more)
            target = f"{TARGETS['adding']}: {one / put:.2f} x {told(put)}"
            table.append((f"adding one, keys {order}, in commits of {batch}", one, theirs_one, target))
        ours.reopen()
        table += finding(ours, theirs, options.count)
        ours.db.close()
        theirs.db.close()
    width = max(len(title) for title, *_ in table)
    print(f"{'':{width}}  {'collection':>12}  {'sqlite3':>12}  at most")
    for title, us, them, target in table:
        print(f"{title:{width}}  {told(us):>12}  {told(them):>12}  {target}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
