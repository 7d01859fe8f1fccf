"""Several processes on one store, interleaved at the level of file operations, and crashes at each of them.

Each process is a thread with a store of its own. Only one runs at a time; before each operation on a file, and
whenever it finds a lock taken or waits for another's sync, a seeded choice says who goes on. So a schedule can be
run again, and is told by its seed.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from threading import Condition, Thread, current_thread

import pytest
from crashing import Commit, Depth, Judge, Script, every_depth
from durability import Operation
from simulated import SimulatedFilesystem
from stores import COMBINATIONS, open_on, record, refuse, value_of

from objstore import contracts
from objstore.contracts import Format, History
from objstore.engine.commits import Commits
from objstore.engine.store import DirectoryStore
from objstore.errors import ConflictError
from objstore.ids import NO_TID, oid_from
from objstore.revisions import Details

every_store = pytest.mark.parametrize(("history", "format"), COMBINATIONS)
PATIENCE = 60.0
"""Seconds after which a schedule that does not go on is given up."""


class Turns:
    """Lets one of several threads run at a time."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._changed = Condition()
        self._waiting: dict[Thread, None] = {}
        self._current: Thread | None = None
        self.failures: list[BaseException] = []

    def run(self, works: list[Callable[[], None]]) -> None:
        """Run each in a thread, interleaved, to its end."""
        threads = [Thread(target=self._run, args=(work,)) for work in works]
        self._waiting = dict.fromkeys(threads)
        self._current = self._rng.choice(threads)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
            assert not thread.is_alive(), "the schedule does not go on"
        if self.failures:
            raise self.failures[0]

    def _run(self, work: Callable[[], None]) -> None:
        try:
            with self._changed:
                self._changed.wait_for(lambda: self._current is current_thread(), PATIENCE)
            work()
        except BaseException as error:  # noqa: BLE001 - whatever it is, the test is to fail with it
            self.failures.append(error)
        finally:
            with self._changed:
                del self._waiting[current_thread()]
                self._choose()

    def _choose(self) -> None:
        self._current = self._rng.choice(list(self._waiting)) if self._waiting else None
        self._changed.notify_all()

    def step(self) -> None:
        """Perhaps let another go on first."""
        if current_thread() in self._waiting:
            with self._changed:
                self._choose()
                self._changed.wait_for(lambda: self._current is current_thread(), PATIENCE)


class PatientMutex:
    """A mutex that lets others go on while it is taken."""

    def __init__(self, mutex: contracts.Mutex, turns: Turns) -> None:
        self._mutex = mutex
        self._turns = turns

    def acquire(self, *, blocking: bool = True) -> bool:
        while not self._mutex.acquire(blocking=False):
            if not blocking:
                return False
            self._turns.step()
        return True

    def release(self) -> None:
        self._mutex.release()

    def close(self) -> None:
        self._mutex.close()


class InterleavedFilesystem(SimulatedFilesystem):
    """Lets others go on before each operation."""

    def __init__(self, turns: Turns) -> None:
        super().__init__()
        self._turns = turns
        self.before_operation = self._step

    def _step(self, _operation: Operation) -> None:
        self._turns.step()

    def mutex(self, path: str) -> contracts.Mutex:
        return PatientMutex(super().mutex(path), self._turns)


class Process:
    """One of the processes: a store of its own, and what it does."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.store: DirectoryStore = open_on(
            script.fs, script.history, script.format, script.clock, create=False, flush_on_close=False
        )

    def commit(self, *numbers: int) -> None:
        """Add one to objects, again where that meets a conflict."""
        fs = self.script.fs
        while True:
            details = Details("process", f"adds to {numbers}")
            begun = fs.operations
            view = self.store.view()
            pending = self.store.begin(details, view, refuse)
            try:
                writes = {}
                for number in numbers:
                    data, serial = view.load(oid_from(number))
                    writes[oid_from(number)], packed = record(value_of(data) + 1)
                    pending.store(oid_from(number), serial, writes[oid_from(number)], packed)
                pending.vote()
                tid = pending.finish()
            except ConflictError:
                continue
            finally:
                pending.abort()
                view.close()
            self.script.commits.append(Commit(begun, fs.operations, tid, details, dict(writes)))
            return

    def create(self) -> None:
        """Commit a new object."""
        fs = self.script.fs
        oid = self.store.new_oid()
        self.script.oids.append((fs.operations, oid))
        details = Details("process", "creates")
        begun = fs.operations
        view = self.store.view()
        pending = self.store.begin(details, view, refuse)
        data, packed = record(0)
        pending.store(oid, NO_TID, data, packed)
        pending.vote()
        tid = pending.finish()
        view.close()
        self.script.commits.append(Commit(begun, fs.operations, tid, details, {oid: data}))


def interleave(
    monkeypatch: pytest.MonkeyPatch, history: History, format: Format, seed: int
) -> tuple[Script, list[Process]]:
    """Two writers and a flusher, in an order that the seed says; the script knows what they committed."""
    turns = Turns(Random(seed))
    monkeypatch.setattr(Commits, "_rest", lambda _self, _at: turns.step())
    script = Script(history, format, InterleavedFilesystem(turns))
    script.commit({0: "root", 1: 0, 2: 0, 3: 0}, {0: (1, 2, 3)})
    script.commit({1: 1})
    script.flush()
    first, second, flusher = processes = [Process(script) for _ in range(3)]

    def write(process: Process, own: int) -> None:
        process.commit(own)
        process.commit(own, 3)
        process.create()
        process.commit(3)

    turns.run(
        [
            lambda: write(first, 1),
            lambda: write(second, 2),
            lambda: [flusher.store.flush() for _ in range(3)] and None,
        ]
    )
    script.commits.sort(key=lambda commit: commit.tid)
    return script, processes


@every_depth
@every_store
def test_two_writers_and_a_flusher(
    monkeypatch: pytest.MonkeyPatch, history: History, format: Format, depth: Depth, record_property
) -> None:
    """Whatever their order: nothing is lost, nothing is there twice or in parts, and all see the same."""
    tried = 0
    for seed in range(1 if depth.every > 1 else 12):
        script, processes = interleave(monkeypatch, history, format, seed)
        assert len(script.commits) == 2 + 8
        assert len({commit.tid for commit in script.commits}) == len(script.commits)
        assert len({oid for _, oid in script.oids}) == 2
        for process in processes:
            view = process.store.view()
            assert [value_of(view.load(oid_from(at))[0]) for at in (1, 2, 3)] == [3, 2, 4]
            view.close()
        judge = Judge(script, seed)
        judge.sweep(script.commits[1].done, limit=max(2, depth.limit // 10))
        tried += judge.tried
        for process in processes:
            process.store.close()
    record_property("crash states of interleaved processes tried", tried)


@pytest.mark.parametrize("seed", range(40))
def test_schedules_without_a_crash(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Many orders, of which each leaves the same sums."""
    history = (History.FULL, History.MINIMAL)[seed % 2]
    script, processes = interleave(monkeypatch, history, Format.SEGMENTED, 1000 + seed)
    for process in processes:
        view = process.store.view()
        assert [value_of(view.load(oid_from(at))[0]) for at in (1, 2, 3)] == [3, 2, 4]
        view.close()
        process.store.close()
    script.reopen()
    view = script.store.view()
    assert [value_of(view.load(oid_from(at))[0]) for at in (1, 2, 3)] == [3, 2, 4]
    view.close()


class FlushedBetweenReads(SimulatedFilesystem):
    """Another process flushes whenever a file of the journal is read."""

    flush: Callable[[], None] | None = None

    def read_at(self, path: str, offset: int, length: int) -> bytes:
        flush, self.flush = self.flush, None
        if flush is not None and "/journal/" in path:
            flush()
        self.flush = flush
        return super().read_at(path, offset, length)


@every_store
def test_a_store_that_is_flushed_all_the_time_can_be_joined(history: History, format: Format) -> None:
    """Who opens a store is not kept out by those who flush faster than it reads."""
    script = Script(history, format, FlushedBetweenReads())
    script.commit({0: "root", 1: 0}, {0: (1,)})
    for number in range(1, 20):
        script.commit({1: number})

    def flush_and_commit() -> None:
        script.flush()
        script.commit({1: len(script.commits)})

    script.fs.flush = flush_and_commit
    process = Process(script)
    script.fs.flush = None
    view = process.store.view()
    assert value_of(view.load(oid_from(1))[0]) == len(script.commits) - 1
    view.close()
    process.store.close()
