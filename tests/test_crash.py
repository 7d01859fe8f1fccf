"""A power cut after every file operation, in each outcome that POSIX allows, and what opening makes of it."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest
from crashing import Depth, Judge, Script, every_depth, judge_creation
from durability import Kind, Operation
from simulated import Crash, SimulatedFilesystem
from stores import COMBINATIONS, PATH, add_up, open_on

from objstore.contracts import Format, History
from objstore.engine import drafts
from objstore.errors import ConflictError, ObjstoreError
from objstore.ids import number, tid_from

every_store = pytest.mark.parametrize(("history", "format"), COMBINATIONS)
full_stores = pytest.mark.parametrize("format", Format)


# --- scripts -----------------------------------------------------------------------------------------


def commits(script: Script) -> None:
    """New objects, changed ones, a deleted one; transactions that are given up."""
    script.commit({0: "root", 1: "a", 2: "b", 3: "c"}, {0: (1, 2, 3)})
    script.commit({1: "a, changed", 4: "d"}, {1: (4,)})
    script.give_up({1: "never"}, vote=False)
    script.commit({0: "root without b", 2: None}, {0: (1, 3)})
    script.give_up({3: "never", 9: "never"}, vote=True)
    script.commit({3: "c" * 5000})


def conflicts(script: Script) -> None:
    """Counters that two transactions add to; and something that cannot be resolved."""
    script.commit({0: "root", 1: 10, 2: "text"}, {0: (1, 2)})
    script.commit({1: 15}, resolver=add_up, meanwhile=lambda: script.commit({1: 12}))
    with pytest.raises(ConflictError):
        script.commit({2: "mine", 1: 18}, meanwhile=lambda: script.commit({2: "theirs"}))
    script.commit({2: "mine"})


def flushes(script: Script) -> None:
    """What waits is flushed, superseded or not, while a reader holds a snapshot, and into recycled files."""
    script.commit({0: "root", 1: "a", 2: "b"}, {0: (1, 2)})
    script.commit({1: "a, changed"})
    script.flush()
    script.commit({2: "b, changed", 0x12345: "far away"}, {2: (0x12345,)})
    reader = script.store.view()
    script.commit({1: "a, again", 2: "b, again"}, {2: (0x12345,)})
    script.flush()
    reader.close()
    script.flush()
    script.commit({0: "root", 0x12345: None, 2: "b, alone"}, {0: (1, 2)})
    script.flush()


def reopenings(script: Script) -> None:
    """A store is closed and opened, with and without a journal to recover."""
    script.commit({0: "root", 1: "a"}, {0: (1,)})
    script.reopen(flush=False)
    script.commit({1: "a, changed"})
    script.reopen()
    script.commit({1: "a, again"})
    script.commit({1: "a, and again"})
    script.reopen()


def undos(script: Script) -> None:
    """A change, a creation and an undo are undone, before and after a flush."""
    script.commit({0: "root", 1: "a", 2: "b"}, {0: (1, 2)})
    changed = script.commit({1: "a, changed", 2: "b, changed"})
    undone = script.undo(changed)
    script.flush()
    script.undo(undone)
    created = script.commit({0: "root", 3: "c"}, {0: (1, 2, 3)})
    script.flush()
    script.undo(created)
    script.flush()


def packs(script: Script) -> None:
    """Garbage and superseded revisions are packed away, twice, between commits."""
    script.commit({0: "root", 1: "a", 2: "b", 3: "b's"}, {0: (1, 2), 2: (3,)})
    script.commit({1: "a, changed"})
    last = script.commit({0: "root without b", 1: "a, again"}, {0: (1,)})
    script.commit({1: "a, later"})
    script.pack(last)
    script.commit({0: "root", 4: "d", 0x54321: "far away"}, {0: (1, 4), 4: (0x54321,)})
    script.flush()
    last = script.commit({0: "root without d"}, {0: (1,)})
    script.commit({1: "the end"})
    script.pack(last)
    script.commit({1: "really"})


def reservations(script: Script) -> None:
    """Oids are taken by the block, across commits and reopenings."""
    script.commit({0: "root"})
    for count in (1, 64, 130):
        for _ in range(count):
            script.new_oid()
        script.commit({0: count})
    script.reopen()
    for _ in range(66):
        script.new_oid()


def restores(script: Script) -> None:
    """Transactions with tids from elsewhere, beside others, one of them written anew because it was overtaken."""
    script.commit({0: "root", 1: "a", 2: "b"}, {0: (1, 2)}, restored=tid_from(0x0300_0000_0000_0000))
    script.commit({1: "a, changed", 2: None}, restored=tid_from(0x0300_0000_0000_0001))
    last = script.commit({3: "c"})
    later = tid_from(number(last) + 2**40)
    script.commit({1: "b", 3: "d"}, restored=later, meanwhile=lambda: script.commit({3: "meanwhile"}))
    script.flush()
    script.commit({0: "root", 4: "d"}, {0: (1, 4)})


SCRIPTS = [commits, conflicts, flushes, reopenings, packs, reservations, restores]


def run(work: Callable[[Script], None], history: History, format: Format) -> Judge:
    script = Script(history, format)
    work(script)
    return Judge(script)


# --- what the judge is worth ---

MISTAKES: dict[str, Callable[[Operation], bool]] = {
    "commits are acknowledged before they are synced": lambda operation: (
        operation.kind is Kind.SYNC and operation.path.startswith(f"{PATH}/journal/")
    ),
    "commits are acknowledged before a new directory's name is synced": lambda operation: (
        operation.path == f"{PATH}/journal"
    ),
    "commits are acknowledged before a new file's name is synced": lambda operation: (
        operation.kind is Kind.SYNC_DIRECTORY and operation.path.endswith("_done")
    ),
    "the home's files are not synced": lambda operation: (
        operation.kind is Kind.SYNC and operation.path.startswith(f"{PATH}/A/")
    ),
    "the home's directories are not synced": lambda operation: (
        operation.kind is Kind.SYNC_DIRECTORY and operation.path.startswith(f"{PATH}/A")
    ),
    "the marks are not synced": lambda operation: operation.path == f"{PATH}/marks",
}


@every_store
@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_judge_notices_mistakes(mistake: str, history: History, format: Format) -> None:
    """DirectoryStorage's flusher: journals were removed before the home was synced."""
    script = Script(history, format)
    script.fs.ignores_sync = MISTAKES[mistake]
    flushes(script)
    with pytest.raises((AssertionError, ObjstoreError)):
        Judge(script).sweep(limit=6)


# --- sweeps ------------------------------------------------------------------------------------------


@every_depth
@every_store
def test_creation(history: History, format: Format, depth: Depth, record_property) -> None:
    fs = Script(history, format).fs
    tried: set[tuple[bytes, bool]] = set()
    for after in range(fs.operations + 1):
        acknowledged = after == fs.operations
        for state in fs.crash_states(after, rng=Random(after), limit=5 * depth.limit):
            if (state.digest, acknowledged) not in tried:
                tried.add((state.digest, acknowledged))
                judge_creation(state, history, format, acknowledged=acknowledged)
    record_property("crash states tried", len(tried))


@every_depth
@every_store
@pytest.mark.parametrize("work", SCRIPTS)
def test_every_operation(
    work: Callable[[Script], None], history: History, format: Format, depth: Depth, record_property
) -> None:
    """DirectoryStorage's flusher: journals were removed before the home was synced."""
    judge = run(work, history, format)
    judge.sweep(limit=depth.limit)
    record_property("crash states tried", judge.tried)


def little(script: Script) -> None:
    """Two objects, flushed, and one of them again: so little that all orders of what it does can be tried."""
    script.commit({0: "root", 1: "a"}, {0: (1,)})
    script.flush()
    script.commit({1: "a, changed"})
    script.flush()


@every_depth
@every_store
def test_all_reorderings(history: History, format: Format, depth: Depth, record_property) -> None:
    """leveldb#195: the removal of a log was persisted before the rename of what replaced it."""
    judge = run(little, history, format)
    judge.sweep(limit=25 * depth.limit)
    record_property("crash states tried", judge.tried)


@every_depth
@every_store
@pytest.mark.parametrize("work", [commits, conflicts])
def test_every_operation_of_transactions_that_are_written_in_parts(
    work: Callable[[Script], None], history: History, format: Format, depth: Depth, record_property, monkeypatch
) -> None:
    monkeypatch.setattr(drafts, "CHUNK", 1)
    judge = run(work, history, format)
    judge.sweep(limit=depth.limit // 2)
    record_property("crash states tried", judge.tried)


def long_files(script: Script) -> None:
    """Transactions of many blocks are written over others of all lengths, and let go at closing."""
    script.commit({0: "root", 1: "a" * 90_000, 2: "b"}, {0: (1, 2)})
    script.flush()
    script.commit({1: "c" * 80_000, 2: "d" * 9_000})
    script.flush()
    script.commit({2: "short"})
    script.flush()
    script.commit({1: "e" * 100_000})
    script.reopen()
    script.commit({2: "f" * 70_000})


@every_depth
@pytest.mark.parametrize("history", History)
def test_every_operation_on_long_files_used_again(history: History, depth: Depth, record_property) -> None:
    judge = run(long_files, history, Format.SEGMENTED)
    judge.sweep(limit=depth.limit)
    record_property("crash states tried", judge.tried)


@every_depth
@full_stores
def test_every_operation_of_undo(format: Format, depth: Depth, record_property) -> None:
    judge = run(undos, History.FULL, format)
    judge.sweep(limit=depth.limit)
    record_property("crash states tried", judge.tried)


@every_depth
@every_store
def test_a_second_crash_while_opening(history: History, format: Format, depth: Depth, record_property) -> None:
    judge = run(flushes, history, format)
    judge.sweep_twice(every=depth.every, limit=depth.limit // 2, again=depth.limit // 2)
    record_property("crash states tried", judge.tried)


@every_depth
@every_store
@pytest.mark.parametrize("work", [commits, flushes])
def test_killed_and_opened_before_the_power_cut(
    work: Callable[[Script], None], history: History, format: Format, depth: Depth, record_property
) -> None:
    """A process is killed before each operation. What the next one shows is still there after a power cut."""
    tried = 0
    for index in range(*span(work, history, format), depth.every):
        script = Script(history, format)
        script.fs.stop_before(index)
        with pytest.raises(Crash):
            work(script)
        script.restart()
        script.commit({0: "root, later"})
        judge = Judge(script)
        judge.sweep(index, limit=depth.limit // 4)
        tried += judge.tried
    record_property("crash states tried", tried)


@every_depth
@every_store
def test_killed_while_creating(history: History, format: Format, depth: Depth, record_property) -> None:
    """A process is killed while it creates a store; the next one completes it, or opens it, and commits."""
    tried = 0
    for index in range(0, Script(history, format).created, depth.every // 2 or 1):
        fs = SimulatedFilesystem()
        fs.stop_before(index)
        with pytest.raises(Crash):
            open_on(fs, history, format)
        fs.restart()
        script = Script(history, format, fs)
        script.commit({0: "root", 1: "a"}, {0: (1,)})
        script.flush()
        judge = Judge(script)
        judge.sweep(limit=depth.limit // 4)
        tried += judge.tried
    record_property("crash states tried", tried)


def span(work: Callable[[Script], None], history: History, format: Format) -> tuple[int, int]:
    """The operations of a script, without those that create its store."""
    script = Script(history, format)
    work(script)
    return script.created, script.fs.operations
