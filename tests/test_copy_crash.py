"""Copies that do not come to their end: a power cut after every operation, a full disk, processes that are killed.

Until the last rename there is no store: opening says so, and copying again works. After it there is the whole one.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from itertools import pairwise
from random import Random

import pytest
from copying import DEST, Clock, agree, copied, goes_on, opened_copy, sound, write_some
from crashing import Depth, every_depth
from durability import GROWING
from persistent.mapping import PersistentMapping
from simulated import Crash, SimulatedFilesystem
from stores import COMBINATIONS, commit, open_on

import objstore
from objstore.contracts import Format, History
from objstore.errors import NotAStoreError, StorageFullError, StoreMissingError
from objstore.machine.memory import MemoryFilesystem
from objstore.upkeep.check import check

FEW = [(history, layout) for history, layout in COMBINATIONS if layout in (Format.SEGMENTED, Format.CHUNKY)]
every_step = pytest.mark.parametrize(
    "step", [pytest.param(5, id="some"), pytest.param(1, id="all", marks=pytest.mark.long)]
)
every_target = pytest.mark.parametrize(("history", "format"), COMBINATIONS)


def a_source(history: History = History.FULL, format: Format = Format.SEGMENTED):
    """A store with undos, deletions and a pack, on a filesystem of its own."""
    source = open_on(MemoryFilesystem(), history, format, Clock())
    write_some(source, Random(11), 8)
    commit(source, {0: 1, 1: 2}, {0: (1,)})
    source.flush()
    commit(source, {1: 3})
    return source


def try_to_open(filesystem, **options):
    """The copy, or None where there is none yet and opening says so."""
    try:
        return opened_copy(filesystem, **options)
    except StoreMissingError:
        return None
    except NotAStoreError as error:
        if "a copy into this directory was not finished" in str(error):
            return None
        raise


@every_depth
@every_target
def test_a_power_cut_after_every_operation(
    history: History, format: Format, depth: Depth, record_property
) -> None:
    """There is no store, or the whole one; and copying once more works, also where it crashes again."""
    source = a_source()
    disk = SimulatedFilesystem()
    copied(source, history, format, filesystem=disk, verify=True)
    acknowledged = disk.operations
    tried, seen = 0, set()
    for after in range(0, disk.operations + 1, depth.every):
        for state in disk.crash_states(after, rng=Random(after), limit=depth.limit):
            if (state.digest, after == acknowledged) in seen:
                continue
            seen.add((state.digest, after == acknowledged))
            tried += 1
            judge(source, SimulatedFilesystem(state), history, format, finished=after == acknowledged)
    record_property("crash states of copies tried", tried)


def judge(source, left: SimulatedFilesystem, history: History, format: Format, *, finished: bool) -> None:
    made = try_to_open(left)
    if made is None:
        assert not finished, "the copy was reported as made, and is lost"
        copied(source, history, format, filesystem=left)
        made = opened_copy(left)
    agree(source, made)
    # Segments that a merge has replaced may come back with a power cut; they do not count.
    sound(source, made, "leftover")
    made.close()


@pytest.mark.parametrize(
    ("history", "format", "step"),
    [(*pair, 8) for pair in FEW] + [pytest.param(*pair, 3, marks=pytest.mark.long) for pair in COMBINATIONS],
)
def test_a_second_power_cut_while_it_is_made_again(history, format, step, record_property):
    """What an earlier copy has left does not come back into the new one."""
    source, other = a_source(), a_source()
    commit(other, {4: 4, 65536: 5, 0: 6}, {0: (4, 65536)})
    disk = SimulatedFilesystem()
    copied(source, history, format, filesystem=disk)
    tried = 0
    for after in range(20, disk.operations, 7 * step):
        for state in disk.crash_states(after, rng=Random(after), limit=2):
            again = SimulatedFilesystem(state)
            if try_to_open(again) is not None:
                continue
            again = SimulatedFilesystem(state)
            copied(other, history, format, filesystem=again)
            for second in range(0, again.operations + 1, 3 * step):
                for left in again.crash_states(second, rng=Random(second), limit=2):
                    tried += 1
                    judge(other, SimulatedFilesystem(left), history, format, finished=False)
            last = list(again.crash_states(again.operations, rng=Random(1), limit=4))
            for left in last:
                judge(other, SimulatedFilesystem(left), history, format, finished=True)
    record_property("crash states of copies made again tried", tried)
    assert tried


@every_step
@every_target
def test_a_process_that_ends_before_every_operation(history, format, step):
    """The kernel has all that was written; nothing is ever created over it."""
    source = a_source()
    whole = SimulatedFilesystem()
    copied(source, history, format, filesystem=whole)
    for index in range(0, whole.operations, step):
        disk = SimulatedFilesystem()
        disk.stop_before(index)
        with pytest.raises(Crash):
            copied(source, history, format, filesystem=disk)
        disk.restart()
        made = try_to_open(disk)
        if made is None:
            copied(source, history, format, filesystem=disk)
            made = opened_copy(disk)
        agree(source, made)
        made.close()


@every_step
@every_target
def test_a_disk_that_is_full_at_every_operation(history, format, step):
    """Nothing is lost, what was written is removed, and with room the same copy works."""
    source = a_source()
    whole = SimulatedFilesystem()
    copied(source, history, format, filesystem=whole)
    growing = [operation.index for operation in whole.log if operation.kind in GROWING]
    for index in growing[::step]:
        disk = SimulatedFilesystem()
        disk.fill_at(index)
        with pytest.raises(StorageFullError):
            copied(source, history, format, filesystem=disk)
        disk.make_room()
        assert try_to_open(disk) is None
        if disk.exists(DEST):
            assert {entry.name for entry in disk.entries(DEST)} <= {"config", "locks"}
        copied(source, history, format, filesystem=disk)
        made = opened_copy(disk)
        agree(source, made)
        made.close()


@every_step
@every_target
def test_every_operation_fails_once(history, format, step):
    """An error at any place leaves no store that is not whole, and what works afterwards is the whole of it."""
    source = a_source()
    whole = SimulatedFilesystem()
    copied(source, history, format, filesystem=whole)
    for index in range(0, whole.operations, step):
        disk = SimulatedFilesystem()
        disk.fail_at(index, OSError(5, "Input/output error"))
        try:
            copied(source, history, format, filesystem=disk)
        except objstore.ObjstoreError:
            made = try_to_open(disk)
            if made is None:
                copied(source, history, format, filesystem=disk)
                made = opened_copy(disk)
        else:
            made = opened_copy(disk)
        agree(source, made)
        made.close()


def test_a_store_whose_copy_was_made_again_goes_on():
    source = a_source()
    disk = SimulatedFilesystem()
    disk.stop_before(60)
    with pytest.raises(Crash):
        copied(source, filesystem=disk)
    disk.restart()
    copied(source, filesystem=disk)
    made = opened_copy(disk)
    agree(source, made)
    goes_on(made)


def test_the_settings_are_the_last_that_becomes_durable():
    """The order that docs/durability.md gives."""
    source = a_source()
    disk = SimulatedFilesystem()
    copied(source, History.FULL, Format.SEGMENTED, filesystem=disk)
    names = [str(operation) for operation in disk.log]
    marked = next(at for at, text in enumerate(names) if "to /copy/config/settings.toml.copying" in text)
    renamed = next(at for at, text in enumerate(names) if text.endswith("to /copy/config/settings.toml"))
    first = next(at for at, text in enumerate(names) if "/copy/A/" in text)
    marks = [at for at, text in enumerate(names) if "create /copy/marks/" in text]
    assert marked < first < min(marks) < max(marks) < renamed == len(names) - 2
    assert all(at < after for at, after in pairwise(marks))


# --- real processes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("history", "format"), [("full", "segmented"), ("full", "chunky"), ("minimal", "lawn")])
@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGINT])
def test_a_process_that_is_killed(history, format, signal_number, tmp_path, record_property):
    source, dest = tmp_path / "source", tmp_path / "copy"
    objects = 400
    with objstore.open(source, format="segmented") as db:
        for start in range(0, objects, 20):
            with db.transaction() as connection:
                for at in range(start, start + 20):
                    connection.root()[f"k{at}"] = PersistentMapping(value=at)
    rng, killed = Random(f"{history} {format}"), 0
    command = [sys.executable, "-m", "objstore", "copy", str(source), str(dest)]
    command += ["--history", history, "--format", format]
    for _ in range(4):
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        deadline = time.monotonic() + 30
        while not dest.exists() and child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(rng.random() * 0.05)
        child.send_signal(signal_number)
        child.communicate()
        if child.returncode == 0 or (dest / "config" / "settings.toml").exists():
            break
        killed += 1
        with pytest.raises(objstore.OpenError):
            objstore.open(dest, create=False)
    record_property("copies killed", killed)
    if not (dest / "config" / "settings.toml").exists():
        subprocess.run([*command, "--verify"], check=True, capture_output=True)
    with objstore.open(dest, create=False) as db:
        assert list(check(db.store)) == []
        with db.transaction() as connection:
            assert [connection.root()[f"k{at}"]["value"] for at in range(objects)] == list(range(objects))
