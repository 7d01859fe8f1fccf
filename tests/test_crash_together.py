"""Power cuts while several things happen at once: commits that sync together, and commits amid a flush or a pack.

Who does what when is determined: threads wait for each other, or one works in the midst of the other's step.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from threading import Event, Thread

import pytest
from crashing import Commit, Depth, Judge, Script, every_depth
from durability import Kind, Operation
from simulated import SimulatedFilesystem
from stores import COMBINATIONS, PATH, record, refuse

from objstore.contracts import Format, History
from objstore.ids import oid_from
from objstore.machine.tree import Directory, File
from objstore.revisions import Details

every_store = pytest.mark.parametrize(("history", "format"), COMBINATIONS)
PATIENCE = 30.0
"""Seconds after which a thread that does not come is given up."""


class Watched(SimulatedFilesystem):
    """Tells when a transaction's file was synced."""

    def __init__(self) -> None:
        super().__init__()
        self.synced = Event()

    def _sync(self, kind: Kind, path: str, node: Callable[[], File | Directory]) -> None:
        super()._sync(kind, path, node)
        if kind is Kind.SYNC:
            self.synced.set()


def commit_apart(script: Script, number: int) -> None:
    """Commit an object, from a thread of its own: `Script` itself is for one."""
    begun = script.fs.operations
    details = Details("script", f"together {number}")
    data, references = record(number)
    view = script.store.view()
    pending = script.store.begin(details, view, refuse)
    pending.store(oid_from(number), view.load(oid_from(number))[1], data, references)
    pending.vote()
    tid = pending.finish()
    view.close()
    script.commits.append(Commit(begun, script.fs.operations, tid, details, {oid_from(number): data}))


@every_depth
@every_store
@pytest.mark.parametrize("recycled", [0, 1, 3])
def test_commits_that_sync_together(
    recycled: int, history: History, format: Format, depth: Depth, record_property
) -> None:
    """While a commit is about to sync, two later ones sync theirs: nobody is told before the first is durable."""
    fs = Watched()
    script = Script(history, format, fs)
    script.commit({0: "root", 11: "first", 12: "first", 13: "first"}, {0: (11, 12, 13)})
    for number in range(1, recycled):
        script.commit({0: f"root {number}"}, {0: (11, 12, 13)})
    if recycled:
        script.flush()
    others: list[Thread] = []
    last = script.store.last_tid()
    acknowledged = len(script.commits)

    def hook(operation: Operation) -> None:
        if operation.kind is Kind.SYNC and operation.path.startswith(f"{PATH}/journal/"):
            fs.before_operation = None
            for number in (12, 13):
                fs.synced.clear()
                others.append(Thread(target=commit_apart, args=(script, number)))
                others[-1].start()
                assert fs.synced.wait(PATIENCE)
            assert script.store.last_tid() == last
            assert len(script.commits) == acknowledged

    fs.before_operation = hook
    commit_apart(script, 11)
    for other in others:
        other.join(PATIENCE)
    assert len(script.commits) == acknowledged + 3
    judge = Judge(script)
    judge.sweep(limit=5 * depth.limit if recycled == 1 else depth.limit)
    record_property("crash states tried", judge.tried)


def amid(script: Script, work: Callable[[], object], *, step: int) -> None:
    """Do some work, with a commit before every so many of its operations."""
    turn = 0

    def hook(operation: Operation) -> None:
        nonlocal turn
        if operation.path.startswith(f"{PATH}/locks/"):
            return  # what a pack tells others it tells with writers held
        turn += 1
        if turn % step == 0:
            script.fs.before_operation = None
            script.commit({1: f"amid {turn}", 20 + turn: "new", 2: f"and {turn}"}, {1: (20 + turn,)})
            script.fs.before_operation = hook

    script.fs.before_operation = hook
    work()
    script.fs.before_operation = None


def begun(history: History, format: Format) -> Script:
    script = Script(history, format)
    script.commit({0: "root", 1: "a", 2: "b", 3: "c"}, {0: (1, 2, 3)})
    script.commit({1: "a, changed", 0x12345: "far away", 2: "b"}, {2: (0x12345,)})
    return script


@every_depth
@every_store
def test_commits_amid_a_flush(history: History, format: Format, depth: Depth, record_property) -> None:
    """Between the steps of a flush others commit, into the files that the flush has let go of as well."""
    script = begun(history, format)
    start = script.fs.operations
    amid(script, script.flush, step=2 * depth.every)
    script.flush()
    judge = Judge(script)
    judge.sweep(start, limit=max(2, depth.limit // 10))
    record_property("crash states tried", judge.tried)


@every_depth
@every_store
def test_commits_amid_a_pack(history: History, format: Format, depth: Depth, record_property) -> None:
    """Between the steps of a pack others commit; what they refer to stays."""
    script = begun(history, format)
    script.commit({2: "b, alone", 0: "root without c"}, {0: (1, 2)})
    start = script.fs.operations
    amid(script, lambda: script.pack(script.commits[-1].tid), step=2 * depth.every)
    script.flush()
    judge = Judge(script)
    judge.sweep(start, limit=max(2, depth.limit // 10))
    record_property("crash states tried", judge.tried)


@every_depth
@every_store
def test_whatever_comes(history: History, format: Format, depth: Depth, record_property) -> None:
    """Scripts made at random: commits, deletions, flushes, packs, undos, reopenings, with readers or without."""
    tried = 0
    for seed in range(1 if depth.every > 1 else 10):
        script = Script(history, format)
        script.commit({0: "root"})
        _at_random(script, Random(seed))
        judge = Judge(script, seed)
        judge.sweep(limit=depth.limit // 4)
        tried += judge.tried
    record_property("crash states tried", tried)


def _at_random(script: Script, rng: Random) -> None:
    numbers = [1, 2, 3, 4, 0x1FFFF, 0x20000, 0x7000000]
    there: set[int] = set()
    readers = []
    for turn in range(25):
        match rng.choice(["commit"] * 6 + ["delete", "flush", "flush", "pack", "undo", "reopen", "reader"]):
            case "commit":
                chosen = rng.sample(numbers, rng.randint(1, 4))
                there.update(chosen)
                script.commit({0: turn, **dict.fromkeys(chosen, f"turn {turn}")}, {0: sorted(there)})
            case "delete" if there:
                gone = rng.choice(sorted(there))
                there.discard(gone)
                script.commit({0: turn, gone: None}, {0: sorted(there)})
            case "flush":
                script.flush()
            case "pack":
                script.pack(rng.choice(script.commits).tid)
                # What a pack may have removed is not written again: for that there are new objects.
                numbers = [at if at in there else at + 0x100 * (turn + 1) for at in numbers]
            case "undo" if script.history is History.FULL:
                new = 0x5000 + turn
                script.undo(script.commit({0: turn, new: "to be undone"}, {0: [*sorted(there), new]}))
            case "reopen" if not readers:
                script.reopen(flush=rng.random() < 0.5)
            case "reader" if readers:
                readers.pop().close()
            case "reader":
                readers.append(script.store.view())
            case _:
                script.new_oid()
