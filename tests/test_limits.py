"""Records that are too large, and systems that write less than they were asked for."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import pytest
from crashing import assert_sound
from stores import COMBINATIONS, record, refuse

from objstore.contracts import Format, History, StoreOptions
from objstore.engine.opening import open_store
from objstore.engine.store import DirectoryStore
from objstore.errors import RecordTooLargeError
from objstore.formats import records
from objstore.ids import NO_TID, ROOT, oid_from
from objstore.machine.posix import PosixFilesystem
from objstore.revisions import Details, Revision
from objstore.upkeep.pack import pack

GIB = 2**30


class Claimed(bytes):
    """Bytes that say they are 5 GiB, without being it."""

    def __len__(self) -> int:
        return 5 * GIB


def opened(path: Path, filesystem: PosixFilesystem, history: History, format: Format) -> DirectoryStore:
    options = StoreOptions(history=history, format=format, background=False)
    return open_store(f"{path}/store", options, filesystem=filesystem, packer=pack)


def test_a_record_of_5_gib_is_refused_clearly(tmp_path: Path) -> None:
    """py-lmdb 2.3.0: writes over 2 GiB went wrong in silence."""
    store = opened(tmp_path, PosixFilesystem(), History.FULL, Format.CHUNKY)
    view = store.view()
    pending = store.begin(Details(), view, refuse)
    tracemalloc.start()
    with pytest.raises(RecordTooLargeError, match=r"5,368,709,120 bytes; the limit is 4,294,967,295") as raised:
        pending.store(ROOT, NO_TID, Claimed(b"data"), b"")
    assert (raised.value.oid, raised.value.size) == (ROOT, 5 * GIB)
    with pytest.raises(RecordTooLargeError):
        records.encode(Revision(ROOT, NO_TID, NO_TID, Claimed(b"data"), b""))
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()
    pending.store(ROOT, NO_TID, *record("smaller"))  # the transaction goes on with what fits
    pending.vote()
    tid = pending.finish()
    view.advance()
    assert view.load(ROOT) == (record("smaller")[0], tid)
    view.close()
    store.close()


@pytest.mark.parametrize(("history", "format"), COMBINATIONS)
@pytest.mark.parametrize("portion", [1, 7, 4095])
def test_a_store_on_a_system_that_writes_little_at_a_time(
    tmp_path: Path, history: History, format: Format, portion: int
) -> None:
    """py-lmdb 2.3.0: what `write` returned was not looked at."""
    calls = 0

    def write(descriptor: int, data: memoryview) -> int:
        nonlocal calls
        calls += 1
        return os.write(descriptor, data[:portion])

    few = PosixFilesystem(write=write, pwrite=lambda file, data, at: os.pwrite(file, data[:portion], at))
    store = opened(tmp_path, few, history, format)
    values = {ROOT: record("root", (oid_from(1),)), oid_from(1): record("x" * 5000)}
    for _ in range(2):  # into new files, then into recycled ones
        view = store.view()
        pending = store.begin(Details("user"), view, refuse)
        for oid, (data, references) in values.items():
            serial = NO_TID if store.last_tid() == NO_TID else view.load(oid)[1]
            pending.store(oid, serial, data, references)
        pending.vote()
        tid = pending.finish()
        view.close()
        store.flush()
    store.close()
    assert calls > 5000 // portion
    again = opened(tmp_path, PosixFilesystem(), history, format)
    view = again.view()
    assert {oid: view.load(oid) for oid in values} == {oid: (data, tid) for oid, (data, _) in values.items()}
    view.close()
    assert_sound(again)
    again.close()
