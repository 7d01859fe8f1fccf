"""One application over three URLs, side by side: a directory, a ZEO server, a PostgreSQL server.

    python benchmarks/scaling.py [--seconds 2] [--rounds 3] [--processes 1 2 4] [--accounts 1000] [--json]

The servers are started by this program, over loopback, and stopped by it; PostgreSQL is left out where it is not
installed. All three are durable: objstore syncs each commit, ZEO's FileStorage does, and PostgreSQL runs with its
own settings, `fsync` and `synchronous_commit` on. The application is the same code with another URL: accounts in a
BTree, of which each process changes those of its own, one in a commit, tried again after a conflict.

In each round every URL has its turn, with each number of processes. What is printed are medians, of all processes
together: commits a second; loads a second of objects that are in no cache of a connection, each round of them in a
transaction of its own (a storage may have a cache of its own, as ZEO's client and RelStorage do); and the
milliseconds that the slowest of a hundred commits takes.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from BTrees.IOBTree import IOBTree
from persistent.mapping import PersistentMapping

import objstore

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
import servers

PLACES = ("directory", "zeo", "postgresql")
METRICS = {"commits/s": "{:,.0f}", "loads/s": "{:,.0f}", "slow commit, ms": "{:,.1f}"}
BATCH = 100
"""How many objects are loaded in one transaction."""


@contextmanager
def postgresql() -> Iterator[str]:
    """The URL of an empty database on a server that syncs."""
    server = servers.PostgreSQL(durable=True)
    try:
        yield server.fresh()
    finally:
        server.stop()


@contextmanager
def zeo() -> Iterator[str]:
    """The URL of an empty FileStorage on a server."""
    server = servers.Zeo(1)
    try:
        yield server.url()
    finally:
        server.stop()


@contextmanager
def directory() -> Iterator[str]:
    """The path of a store."""
    with tempfile.TemporaryDirectory(prefix="objstore-scaling-", dir=os.environ.get("TMPDIR")) as path:
        yield f"{path}/store"


def fill(url: str, accounts: int) -> None:
    """Make the accounts."""
    with objstore.open(url) as db, db.transaction("the accounts") as connection:
        tree = connection.root()["accounts"] = IOBTree()
        for number in range(accounts):
            tree[number] = PersistentMapping(balance=100, owner=f"owner of {number}", note="x" * 100)


def work(url: str, number: int, count: int, accounts: int, seconds: float) -> None:
    """A process: commit for a while, then load for a while; print what that came to."""
    rng = random.Random(number)
    mine = range(number, accounts, count)
    with objstore.open(url, create=False) as db:
        db.run(lambda connection: connection.root()["accounts"][mine[0]]["balance"])
        print("ready", flush=True)
        sys.stdin.readline()
        took: list[float] = []
        end = time.monotonic() + seconds
        while (begun := time.monotonic()) < end:
            db.run(lambda connection: change(connection, rng.choice(mine)))
            took.append(time.monotonic() - begun)
        print("committed", flush=True)
        sys.stdin.readline()
        loads = 0
        begun = time.monotonic()
        while time.monotonic() < begun + seconds:
            db.cacheMinimize()
            loads += db.run(lambda connection: look(connection, rng.sample(range(accounts), BATCH)))
        result = {"commits": len(took) / seconds, "loads": loads / (time.monotonic() - begun)}
        result["slow"] = sorted(took)[int(len(took) * 0.99)] * 1000
        print(json.dumps(result), flush=True)


def change(connection: objstore.Connection, number: int) -> None:
    """What the application does in a transaction that writes."""
    connection.root()["accounts"][number]["balance"] += 1


def look(connection: objstore.Connection, numbers: list[int]) -> int:
    """What it does in one that reads: how many objects it looked at."""
    tree = connection.root()["accounts"]
    return sum(1 for number in numbers if tree[number]["balance"] > 0)


def turn(place: str, count: int, arguments: argparse.Namespace) -> dict[str, float]:
    """The application over one URL, with so many processes."""
    with ExitStack() as stack:
        url = stack.enter_context({"directory": directory, "zeo": zeo, "postgresql": postgresql}[place]())
        fill(url, arguments.accounts)
        command = [sys.executable, __file__, "--work", url]
        numbers = [str(count), str(arguments.accounts), str(arguments.seconds)]
        processes = [
            stack.enter_context(
                subprocess.Popen(
                    [*command, str(number), *numbers], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
                )
            )
            for number in range(count)
        ]
        for _ in range(2):  # each phase begins in all at once
            for process in processes:
                if not process.stdout or not process.stdout.readline():
                    raise SystemExit(f"a process over {place} has failed")
            for process in processes:
                if process.stdin:
                    process.stdin.write("go\n")
                    process.stdin.flush()
        told = [json.loads(process.communicate()[0]) for process in processes]
    return {
        "commits/s": sum(each["commits"] for each in told),
        "loads/s": sum(each["loads"] for each in told),
        "slow commit, ms": max(each["slow"] for each in told),
    }


def measure(arguments: argparse.Namespace, places: list[str]) -> dict[str, dict[str, dict[int, float]]]:
    """Medians by metric, place and number of processes."""
    found: dict[tuple[str, str, int], list[float]] = {}
    for at in range(arguments.rounds):
        for count in arguments.processes:
            for place in places[at % len(places) :] + places[: at % len(places)]:  # nobody is always first
                for metric, value in turn(place, count, arguments).items():
                    found.setdefault((metric, place, count), []).append(value)
                print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return {
        metric: {
            place: {count: statistics.median(found[metric, place, count]) for count in arguments.processes}
            for place in places
        }
        for metric in METRICS
    }


def print_table(result: dict[str, dict[str, dict[int, float]]]) -> None:
    """For people."""
    for metric, by_place in result.items():
        counts = list(next(iter(by_place.values())))
        print(f"\n{metric:<18}" + "".join(f"{f'{n} process' + ('es' if n > 1 else ''):>14}" for n in counts))
        for place, by_count in by_place.items():
            print(f"{place:<18}" + "".join(f"{METRICS[metric].format(value):>14}" for value in by_count.values()))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=2.0, help="how long each phase lasts")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--accounts", type=int, default=1000)
    parser.add_argument("--place", action="append", choices=PLACES, help="only these")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that servers are stopped
    places = list(arguments.place or PLACES)
    missing = servers.why_no_postgresql() if "postgresql" in places else ""
    if missing:
        places.remove("postgresql")
        print(f"postgresql is left out: {missing}", file=sys.stderr)
    result = measure(arguments, places)
    if arguments.json:
        print(json.dumps(result))
    else:
        print_table(result)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        where, number, count, accounts, seconds = sys.argv[2:]
        work(where, int(number), int(count), int(accounts), float(seconds))
    else:
        main()
