"""The disk is full at every operation that needs room: a clear error, a store that reads on, and no litter.

py-lmdb#269, mdbx-rs#273: a disk that filled while the file grew left no valid root.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable
from random import Random

import pytest
from crashing import Depth, Judge, Script, assert_sound, every_depth, judge_history, judge_objects
from durability import GROWING, Kind
from simulated import SimulatedFilesystem
from stores import COMBINATIONS, add_up, open_on

from objstore.contracts import Filesystem, Format, History
from objstore.errors import OpenError, StorageError, StorageFullError
from objstore.formats.layouts import TempName, parse_journal_name

every_store = pytest.mark.parametrize(("history", "format"), COMBINATIONS)
Action = Callable[[Script], object]


def files_below(fs: Filesystem, path: str) -> list[str]:
    found = []
    for entry in fs.entries(path):
        below = f"{path}/{entry.name}"
        found += files_below(fs, below) if entry.is_directory else [below]
    return found


def litter(fs: Filesystem, home: str) -> list[str]:
    """What only a crash may leave: drafts in the journal and files half written."""
    drafts = [
        entry.name
        for entry in fs.entries(f"{home}/journal")
        if isinstance(parse_journal_name(entry.name), TempName)
    ]
    return drafts + [path for path in files_below(fs, home) if path.endswith(".tmp")]


def prepared(history: History, format: Format) -> Script:
    """A store with something in the home, something in the journal, garbage, and a recycled directory."""
    script = Script(history, format)
    script.commit({0: "root", 1: 10, 2: "b", 3: "b's"}, {0: (1, 2), 2: (3,)})
    script.commit({1: 11})
    script.flush()
    script.commit({0: "root without b"}, {0: (1,)})
    return script


def a_commit(script: Script) -> None:
    script.commit({1: 12, 0x12345: "far away", 0: "root"}, {0: (1, 0x12345)})


def a_commit_without_recycled_files(script: Script) -> None:
    script.commit({1: 12})
    script.commit({0: "root", 9: "new"}, {0: (1, 9)})
    script.commit({1: 13})


def a_resolved_conflict(script: Script) -> None:
    script.commit({1: 15}, resolver=add_up, meanwhile=lambda: script.commit({1: 13}))


def a_flush(script: Script) -> None:
    script.flush()


def a_pack(script: Script) -> None:
    script.pack(script.commits[-1].tid)


def a_reservation(script: Script) -> None:
    for _ in range(200):
        script.new_oid()


ACTIONS = [a_commit, a_commit_without_recycled_files, a_resolved_conflict, a_flush, a_pack, a_reservation]


def needy(history: History, format: Format, action: Action) -> list[int]:
    """The operations of an action that need room."""
    script = prepared(history, format)
    begun = script.fs.operations
    action(script)
    return [operation.index for operation in script.fs.log[begun:] if operation.kind in GROWING]


@every_depth
@every_store
@pytest.mark.parametrize("action", ACTIONS)
def test_at_every_operation(
    action: Action, history: History, format: Format, depth: Depth, record_property
) -> None:
    indexes = needy(history, format, action)
    assert indexes or action is a_pack
    states = 0
    for index in indexes:
        script = prepared(history, format)
        script.fs.fill_at(index)
        with pytest.raises(StorageFullError, match="make room"):
            action(script)
        assert_readable(script)
        with pytest.raises(StorageFullError):  # it is full still
            script.commit({7: "x" * 5000})
        assert_readable(script)
        script.fs.make_room()
        script.commit({0: "after", 1: 20}, {0: (1,)})
        script.flush()
        assert_readable(script)
        assert_sound(script.store)
        judge = Judge(script)
        judge.sweep(index if depth.every == 1 else script.fs.operations, limit=depth.limit // 4)
        states += judge.tried
    record_property("crash states tried", states)


def assert_readable(script: Script) -> None:
    """Everything committed can be read, and nothing half done lies about."""
    judge_objects(script.store, script.commits, script.packs)
    if script.history is History.FULL:
        judge_history(script.store, script.commits, script.packs)
    assert litter(script.fs, script.store.name) == []
    # A batch that was flushed in part is complete files that nobody reads yet; the next flush takes them over.
    assert_sound(script.store, "unreachable", "leftover")


@every_store
def test_creation(history: History, format: Format) -> None:
    """A store that could not be created for want of room can be created once there is some."""
    operations = Script(history, format).created
    for index in range(operations):
        fs = SimulatedFilesystem()
        fs.fill_at(index)
        try:
            open_on(fs, history, format).close()
        except (OpenError, StorageFullError):
            fs.make_room()
            store = open_on(fs, history, format)
            assert_sound(store)
            store.close()


@every_store
def test_opening(history: History, format: Format) -> None:
    """A store opens on a full disk, though the process before was killed, and tells what is in it."""
    script = prepared(history, format)
    script.fs.stop()
    for state in script.fs.crash_states(rng=Random(1), limit=3):
        fs = SimulatedFilesystem(state)
        fs.fill_at(0)
        store = open_on(fs, history, format, create=False)
        judge_objects(store, script.commits, [])


@every_depth
@every_store
@pytest.mark.parametrize("kind", [Kind.SYNC, Kind.RENAME, Kind.UNLINK, Kind.SYNC_DIRECTORY, Kind.REMOVE_DIRECTORY])
def test_the_disk_fails(kind: Kind, history: History, format: Format, depth: Depth, record_property) -> None:
    """Whatever fails, and however: an error of ours, and after opening again all that was acknowledged."""
    begun = prepared(history, format).fs.operations
    states = 0
    for operation in _everything(prepared(history, format)).fs.log[begun:]:
        if operation.kind is not kind:
            continue
        script = prepared(history, format)
        script.fs.fail_at(operation.index, OSError(errno.EIO, "Input/output error"))
        with contextlib.suppress(StorageError):
            _everything(script)
        judge = Judge(script)
        judge.sweep(script.fs.operations, limit=depth.limit // 2)
        states += judge.tried
    record_property("crash states tried", states)


def _everything(script: Script) -> Script:
    for action in (a_commit, a_flush, a_commit_without_recycled_files, a_pack):
        action(script)
    return script
