"""A power cut after every file operation of transactions with blobs, and processes that are killed in between."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from crashing import Depth, Judge, Large, Script
from durability import Kind, Operation
from simulated import Crash
from stores import COMBINATIONS, PATH

from objstore.contracts import Format, History
from objstore.errors import ObjstoreError

SOME = {(History.FULL, Format.SEGMENTED), (History.MINIMAL, Format.SEGMENTED), (History.MINIMAL, Format.FLAT)}
every_store = pytest.mark.parametrize(
    ("history", "format"),
    [pytest.param(*each, marks=[] if each in SOME else pytest.mark.long) for each in COMBINATIONS],
)
every_depth = pytest.mark.parametrize(
    "depth",
    [
        pytest.param(Depth(limit=3, every=10), id="some"),
        pytest.param(Depth(limit=30, every=1), id="many", marks=pytest.mark.long),
    ],
)


def commits(script: Script) -> None:
    """New blobs, changed ones, one that is deleted; transactions that are given up; recycled directories."""
    script.commit({0: "root", 1: "a", 2: Large(b"first"), 3: Large(b"other")}, {0: (1, 2, 3)})
    script.give_up({2: Large(b"never")}, vote=False)
    script.commit({2: Large(b"second"), 1: "b"})
    script.flush()
    script.commit({1: "c"})
    script.flush()
    script.give_up({3: Large(b"never")}, vote=True)
    script.commit({3: Large(b"in a recycled directory")})
    script.commit({0: "root", 3: None}, {0: (1, 2)})


def flushes(script: Script) -> None:
    """Blobs are flushed while a reader holds a snapshot, superseded in one batch and over several."""
    script.commit({0: "root", 2: Large(b"first"), 3: Large(b"other")}, {0: (2, 3)})
    script.flush()
    reader = script.store.view()
    script.commit({2: Large(b"second")})
    script.commit({2: Large(b"third"), 3: Large(b"fourth")})
    script.flush()
    reader.close()
    script.flush()
    script.commit({2: Large(b"fifth"), 0x12345: Large(b"far away"), 0: "root"}, {0: (2, 3, 0x12345)})
    script.reopen(flush=False)
    script.commit({2: Large(b"sixth")})
    script.flush()


def paths(script: Script) -> None:
    """Somebody asks for the path of a blob that was not flushed yet."""
    tid = script.commit({0: "root", 2: Large(b"first"), 3: Large(b"other")}, {0: (2, 3)})
    oid = next(iter(sorted(script.commits[-1].blobs)))
    script.store.blobs.path(oid, tid)
    script.commit({2: Large(b"second")})
    script.flush()


def undos(script: Script) -> None:
    """A change of a blob is undone, and that too."""
    script.commit({0: "root", 2: Large(b"first")}, {0: (2,)})
    changed = script.commit({2: Large(b"second")})
    undone = script.undo(changed)
    script.flush()
    script.undo(undone)
    script.flush()


SCRIPTS = [commits, flushes, paths]

MISTAKES: dict[str, Callable[[Operation], bool]] = {
    "blobs are committed before they are synced": lambda operation: (
        operation.kind is Kind.SYNC and operation.path.endswith(".blob")
    ),
    "where blobs come from is not synced": lambda operation: operation.path == f"{PATH}/blobs/tmp",
    "where blobs stay is not synced": lambda operation: (
        operation.path.startswith(f"{PATH}/blobs/") and operation.path != f"{PATH}/blobs/tmp"
    ),
    "the directory that holds all blobs is not synced": lambda operation: operation.path == PATH,
    "where blobs were is not synced": lambda operation: (
        operation.kind is Kind.SYNC_DIRECTORY and operation.path.endswith("_done")
    ),
}


def run(work: Callable[[Script], None], history: History, format: Format) -> Judge:
    script = Script(history, format)
    work(script)
    return Judge(script)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_judge_notices_mistakes(mistake: str) -> None:
    script = Script(History.FULL, Format.SEGMENTED)
    script.fs.ignores_sync = MISTAKES[mistake]
    flushes(script)
    with pytest.raises((AssertionError, ObjstoreError)):
        Judge(script).sweep(limit=20)


@every_depth
@every_store
@pytest.mark.parametrize("work", SCRIPTS)
def test_every_operation(
    work: Callable[[Script], None], history: History, format: Format, depth: Depth, record_property
) -> None:
    judge = run(work, history, format)
    judge.sweep(limit=depth.limit)
    record_property("crash states tried", judge.tried)


@every_depth
def test_every_operation_of_undo(depth: Depth, record_property) -> None:
    judge = run(undos, History.FULL, Format.SEGMENTED)
    judge.sweep(limit=depth.limit)
    record_property("crash states tried", judge.tried)


@every_depth
@every_store
def test_killed_and_opened_before_the_power_cut(
    history: History, format: Format, depth: Depth, record_property
) -> None:
    """A process is killed before each operation. What the next one shows is still there after a power cut."""
    tried = 0
    whole = run(flushes, history, format).script
    for index in range(whole.created, whole.fs.operations, 4 * depth.every):
        script = Script(history, format)
        script.fs.stop_before(index)
        with pytest.raises(Crash):
            flushes(script)
        script.restart()
        script.commit({0: "root, later", 7: Large(b"later")}, {0: (7,)})
        judge = Judge(script)
        judge.sweep(index, limit=depth.limit // 4)
        tried += judge.tried
    record_property("crash states tried", tried)
