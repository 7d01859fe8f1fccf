"""Several processes that commit to one store, side by side: objstore, ZEO, RelStorage on SQLite, LMDB.

    python benchmarks/processes.py [--seconds 2] [--rounds 3] [--json]

Each process changes objects of its own, one in a commit, every commit durable. In each round every peer has
its turn with 1, 2 and 4 processes; what is printed are medians of commits a second, of all processes together.
ZEO's server runs beside its clients, on a FileStorage, over loopback. Besides, for objstore: what it costs to
start a transaction when nothing has changed, and how long it takes until another process sees a commit.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import transaction
from persistent.mapping import PersistentMapping

PEERS = {
    "objstore": "full, segmented; fdatasync for each commit",
    "ZEO": "FileStorage under a ZEO server over loopback; fsync for each commit",
    "RelStorage": "SQLite, keep_history, journal_mode=WAL, synchronous=FULL",
    "LMDB": "a pickle an object; sync=True, metasync=True",
}
COUNTS = (1, 2, 4)
OBJECTS = 8
"""How many objects each process has, and changes in turn."""


def zodb_database(peer: str, directory: str) -> object:
    """A `DB` of one of the peers that are ZODB's, or of objstore."""
    if peer == "objstore":
        import objstore

        return objstore.open(f"{directory}/store")
    import ZODB

    if peer == "ZEO":
        from ZEO.ClientStorage import ClientStorage

        address = ("127.0.0.1", int(Path(directory, "port").read_text()))
        return ZODB.DB(ClientStorage(address, wait_timeout=20))
    from relstorage.adapters.sqlite.adapter import Sqlite3Adapter
    from relstorage.options import Options
    from relstorage.storage import RelStorage

    options = Options(keep_history=True)
    path = f"{directory}/relstorage"
    os.makedirs(path, exist_ok=True)
    return ZODB.DB(RelStorage(Sqlite3Adapter(path, {"synchronous": "FULL"}, options=options), options=options))


@contextmanager
def committer(peer: str, directory: str, number: int) -> Iterator[Callable[[int], None]]:
    """What commits a change of this process's next object, given a count."""
    if peer == "LMDB":
        import lmdb

        environment = lmdb.open(f"{directory}/lmdb", map_size=2**30, sync=True, metasync=True)

        def put(count: int) -> None:
            key = (number * OBJECTS + count % OBJECTS).to_bytes(8, "big")
            with environment.begin(write=True) as writing:
                writing.put(key, pickle.dumps({"n": count, "text": "x" * 100}, 3))

        yield put
        environment.close()
        return
    database = zodb_database(peer, directory)
    connection = database.open()
    mine = [connection.root()[f"{number} {at}"] for at in range(OBJECTS)]

    def change(count: int) -> None:
        mine[count % OBJECTS]["n"] = count
        transaction.commit()

    yield change
    connection.close()
    database.close()


def work(peer: str, directory: str, number: int, seconds: float) -> None:
    """A process: wait for the start, commit for a while, print how many commits there were."""
    with committer(peer, directory, number) as commit:
        commit(0)
        print("ready", flush=True)
        sys.stdin.readline()
        end = time.monotonic() + seconds
        count = 0
        while time.monotonic() < end:
            count += 1
            commit(count)
        print(count, flush=True)


def fill(peer: str, directory: str) -> None:
    """Make the objects of all processes."""
    if peer != "LMDB":
        database = zodb_database(peer, directory)
        connection = database.open()
        for number in range(max(COUNTS)):
            for at in range(OBJECTS):
                connection.root()[f"{number} {at}"] = PersistentMapping(n=0, text="x" * 100)
        transaction.commit()
        connection.close()
        database.close()


@contextmanager
def server(peer: str, directory: str) -> Iterator[None]:
    """ZEO's server, where it is needed."""
    if peer != "ZEO":
        yield
        return
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    Path(directory, "port").write_text(str(port))
    command = [sys.executable, "-m", "ZEO.runzeo", "-a", f"127.0.0.1:{port}", "-f", f"{directory}/Data.fs"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.send_signal(signal.SIGTERM)


def start(*arguments: object) -> subprocess.Popen[str]:
    """This program again, as one of several."""
    command = [sys.executable, __file__, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def together(processes: list[subprocess.Popen[str]]) -> list[str]:
    """Start all at once when each is ready; the last line that each printed."""
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline(), "a process failed"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    return [process.communicate()[0].split("\n")[-2] for process in processes]


def rate(peer: str, count: int, seconds: float) -> float:
    """Commits a second of so many processes together."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as directory, server(peer, directory):
        fill(peer, directory)
        done = together([start("work", peer, directory, number, seconds) for number in range(count)])
        return sum(map(int, done)) / seconds


@contextmanager
def started(directory: str) -> Iterator[Any]:
    """A connection to objstore, once all processes of a run are told to go."""
    import objstore

    with objstore.open(f"{directory}/store") as database:
        connection = database.open()
        print("ready", flush=True)
        sys.stdin.readline()
        yield connection
        connection.close()


def starting(directory: str) -> None:
    """Print what it costs to start a transaction when nothing has changed, in microseconds of CPU."""
    rounds, costs = 20_000, []
    with started(directory) as connection:
        manager = connection.transaction_manager
        for _ in range(5):
            begun = time.process_time()
            for _ in range(rounds):
                connection.newTransaction(manager)
            costs.append((time.process_time() - begun) / rounds * 1e6)
    print(statistics.median(costs))


def watch(directory: str, commits: int) -> None:
    """Print when each commit of the other process was seen here first: numbers and times as JSON."""
    times: list[tuple[int, int]] = []
    with started(directory) as connection:
        seen = connection.root()["0 0"].get("told", 0)
        while len(times) < commits:
            connection.sync()
            told = connection.root()["0 0"].get("told", 0)
            if told != seen:
                times.append((told, time.monotonic_ns()))
                seen = told
    print(json.dumps(times))


def tell(directory: str, commits: int) -> None:
    """Commit numbers, a while after each other, and print when each commit had returned: pairs as JSON."""
    times: list[tuple[int, int]] = []
    with started(directory) as connection:
        for number in range(1, 2 * commits):
            connection.root()["0 0"]["told"] = number
            transaction.commit()
            times.append((number, time.monotonic_ns()))
            time.sleep(0.005)
    print(json.dumps(times))


def visible(directory: str, commits: int) -> float:
    """The median time from a commit's return until another process, which looks all the time, has seen it, in
    milliseconds. It may see it before: that counts as nothing.
    """
    seen, told = map(json.loads, together([start("watch", directory, commits), start("tell", directory, commits)]))
    returned = dict(told)
    return statistics.median(max(0, at - returned[number]) / 1e6 for number, at in seen)


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description="Several processes that commit to one store, side by side.")
    parser.add_argument("--seconds", type=float, default=2.0, help="how long each run lasts")
    parser.add_argument("--rounds", type=int, default=3, help="how often each peer has its turn")
    parser.add_argument("--json", action="store_true", help="print JSON")
    chosen = parser.parse_args()
    rates: dict[str, dict[int, list[float]]] = {peer: {count: [] for count in COUNTS} for peer in PEERS}
    for _ in range(chosen.rounds):
        for count in COUNTS:
            for peer in PEERS:
                rates[peer][count].append(rate(peer, count, chosen.seconds))
    medians = {
        peer: {count: statistics.median(each) for count, each in found.items()} for peer, found in rates.items()
    }
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as directory:
        fill("objstore", directory)
        cost = float(together([start("starting", directory)])[0])
        beside = float(together([start("starting", directory) for _ in range(2)])[0])
        delay = visible(directory, 200)
    facts = {"start_us": cost, "start_beside_us": beside, "visible_ms": delay}
    if chosen.json:
        print(json.dumps({"commits_per_second": medians, **facts}))
        return
    print(f"{'':12}" + "".join(f"{count:>10}" for count in COUNTS) + "   processes: commits a second, medians")
    for peer, found in medians.items():
        print(f"{peer:12}" + "".join(f"{found[count]:10,.0f}" for count in COUNTS) + f"   {PEERS[peer]}")
    for peer in ("ZEO", "RelStorage", "LMDB"):
        ratios = (medians["objstore"][count] / medians[peer][count] for count in COUNTS)
        print(f"objstore / {peer}: " + ", ".join(f"{ratio:.2f}" for ratio in ratios))
    print(
        f"starting a transaction when nothing changed: {cost:.2f} us alone, {beside:.2f} us beside another process"
    )
    print(f"from a commit's return until another process has seen it: {delay:.2f} ms")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["work", peer, directory, number, seconds]:
            work(peer, directory, int(number), float(seconds))
        case ["starting", directory]:
            starting(directory)
        case ["watch", directory, commits]:
            watch(directory, int(commits))
        case ["tell", directory, commits]:
            tell(directory, int(commits))
        case _:
            main()
