"""Homes that are read by several threads while one flushes, maintains and removes."""

from __future__ import annotations

import threading

import pytest
from pasts import COMBINATIONS, Bench

from objstore.contracts import Format, History, Removal
from objstore.engine import buckets
from objstore.ids import MAX_TID, oid_from
from objstore.machine.memory import MemoryFilesystem
from objstore.machine.posix import PosixFilesystem

OBJECTS = (0, 1, 65535, 65536, 3 * 65536, 2**40)
ROUNDS = {MemoryFilesystem: 60, PosixFilesystem: 15}
READERS = 3


class Readers:
    """Threads that read at snapshots which the writer has published, and check what they find.

    Each revision's data is its tid. `horizon` is the oldest snapshot in use: what it needs is not removed.
    """

    def __init__(self, bench):
        self.bench = bench
        self.exact = bench.history is History.FULL or bench.format is Format.SEGMENTED
        self.published: list[bytes] = []
        self.using = [MAX_TID] * READERS
        self.lock = threading.Lock()
        self.ended = threading.Event()
        self.errors: list[BaseException] = []
        self.reads = 0
        self.threads = [threading.Thread(target=self.run, args=(at,)) for at in range(READERS)]

    def run(self, at):
        try:
            while not self.ended.is_set():
                with self.lock:
                    snapshot = self.published[-1]
                    self.using[at] = snapshot
                for turn in range(4):
                    self.read(snapshot, turn)
                    self.reads += 1
        except BaseException as error:  # noqa: BLE001 - it is raised in the test's thread
            self.errors.append(error)
            self.ended.set()

    def read(self, snapshot, turn):
        home = self.bench.home
        for at in OBJECTS:
            oid = oid_from(at)
            if self.exact:
                found = home.load(oid, snapshot)
                assert (found.tid, found.data) == (snapshot, snapshot)
            newest = home.load(oid, MAX_TID)
            assert newest.tid >= snapshot
            assert newest.data == newest.tid
            assert home.current(oid) >= newest.tid
        if turn == 3:
            assert set(home.oids()) == set(map(oid_from, OBJECTS))
            told = [found.tid for found in home.summaries(oid_from(1))]
            assert told == sorted(set(told), reverse=True)
            assert told[0] >= snapshot
            tids = [found.tid for found in home.transactions(snapshot)]
            assert tids == sorted(set(tids), reverse=True)

    def horizon(self):
        with self.lock:
            return min([*self.using, self.published[-1]])


@pytest.fixture(
    params=[("memory", *pair) for pair in COMBINATIONS]
    + [("disk", "full", "segmented"), ("disk", "full", "chunky")],
    ids="-".join,
)
def bench(request, tmp_path):
    where, *pair = request.param
    if where == "memory":
        return Bench(MemoryFilesystem(), History(pair[0]), Format(pair[1]))
    return Bench(PosixFilesystem(), History(pair[0]), Format(pair[1]), f"{tmp_path}/A")


def test_readers_while_revisions_come_move_and_go(bench, monkeypatch):
    """A lookup during `apply`, `maintain` or `remove` finds what was there before or after."""
    monkeypatch.setattr(buckets, "MAX_OPEN_SEGMENTS", 5)
    readers = Readers(bench)
    past, home = bench.past, bench.home
    for turn in range(ROUNDS[type(bench.filesystem)]):
        tid = past.write(dict.fromkeys(OBJECTS, past.next_tid()))
        bench.apply()
        if turn == 0:
            for thread in readers.threads:
                readers.published.append(tid)
                thread.start()
        with readers.lock:
            readers.published.append(tid)
        if readers.ended.is_set():
            break
        horizon = readers.horizon()
        home.maintain(horizon)
        if bench.history is History.FULL and turn % 5 == 4:
            bench.remove([superseded(past, at, horizon) for at in OBJECTS])
            home.remove_transactions([found for found in past.tids if found < horizon])
    while readers.reads < 20 and not readers.ended.is_set():
        readers.ended.wait(0.001)
    readers.ended.set()
    for thread in readers.threads:
        thread.join()
    if readers.errors:
        raise readers.errors[0]
    assert [finding for finding in home.findings() if finding.kind != "leftover"] == []


def superseded(past, at, horizon):
    """What a pack to the horizon takes from an object: all that is older than what one sees there."""
    tids = [found.tid for found in past.revisions[oid_from(at)] if found.tid < horizon]
    return Removal(oid_from(at), tuple(tids), whole=False)
