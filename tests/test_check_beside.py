"""The check of a store that is in use, by this process and by others: what is only on its way is not told."""

from __future__ import annotations

import errno
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
import transaction
from checking import TURNS, A, B, every_store, filled, found, kinds, make, put
from stores import commit, contents, open_on

import objstore
from objstore.contracts import Format, History
from objstore.errors import StorageError
from objstore.formats import layouts
from objstore.ids import ROOT, number, tid_from
from objstore.machine.memory import MemoryFilesystem
from objstore.machine.posix import PosixFilesystem
from objstore.upkeep.check import check


@pytest.fixture
def on_disk(tmp_path, monkeypatch):
    """Stores whose path is not told are below this test's directory."""
    monkeypatch.setattr("stores.PATH", str(tmp_path / "store"))
    monkeypatch.setattr("checking.PATH", str(tmp_path / "store"))


class Busy(PosixFilesystem):
    """Others do `work`, once, just before a path is looked at."""

    path = work = None

    def _meet(self, path):
        if path == self.path:
            self.path = None
            self.work()

    def entries(self, path):
        self._meet(path)
        return super().entries(path)

    def size(self, path):
        self._meet(path)
        return super().size(path)


# --- threads -----------------------------------------------------------------------------------------


def found_beside(store, work):
    """What checks find, one after the other, while `work` runs in another thread, and after it."""
    findings = []
    with ThreadPoolExecutor(1) as pool:
        worker = pool.submit(work)
        while not worker.done():
            findings += found(store)
        worker.result()
    return findings + found(store)


@every_store
def test_a_store_that_is_written_to_meanwhile(history, format):
    """An object moves between two parents while commits, flushes and checks go on: no false alarm."""
    store = filled(MemoryFilesystem(), history, format, background=True, flush_age=0.001)
    commit(store, {20: "moves", A: 0}, {A: (20,)})

    def write() -> None:
        for turn in range(TURNS):
            here, there = (A, B) if turn % 2 else (B, A)
            commit(store, {here: turn, there: turn, 100 + turn: "new"}, {here: (20, 100 + turn)})

    findings = found_beside(store, write)
    store.close()
    # In Minimal, what an earlier turn added is garbage as soon as the turn after the next comes.
    assert [finding for finding in findings if number(finding.oid or ROOT) < 100] == []


@every_store
def test_a_store_that_is_packed_meanwhile(history, format):
    """Objects that the pack is about to remove may be told as unreachable, and nothing else is."""
    store = filled(MemoryFilesystem(), history, format)

    def write_and_pack() -> None:
        for turn in range(TURNS // 4):
            commit(store, {A: turn, 100 + turn: "soon garbage"}, {A: (100 + turn,)})
            commit(store, {A: "", B: turn})
            store.pack(store.last_tid())

    findings = found_beside(store, write_and_pack)
    assert kinds(findings) <= {"unreachable"}, findings


# --- processes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("place", ["marks", "journal"])
@every_store
@pytest.mark.usefixtures("on_disk")
def test_a_store_that_another_process_flushes_between_two_looks(history, format, place, read_only):
    """What it has flushed is in the journal no more, and not yet in the home as this process knows it."""
    filesystem = Busy()
    another = filled(PosixFilesystem(), history, format)
    store = open_on(filesystem, history, format, read_only=read_only)
    with closing(store), closing(another):
        commit(another, {A: "leads to the new one", 40: "new"}, {A: (40,)})
        assert contents(store, [B, 40]) == {B: "b, changed", 40: "new"}

        def about_to_tell(_):
            raise OSError(errno.EIO, "Input/output error")

        def work():
            with pytest.raises(StorageError):
                another.flush()

        told, another._flusher.flushed_to = another._flusher.flushed_to, about_to_tell
        filesystem.work, filesystem.path = work, getattr(store.directory, place)
        assert found(store) == []
        assert filesystem.path is None
        assert another.flushed == another.last_tid()
        another._flusher.flushed_to = told


@every_store
@pytest.mark.usefixtures("on_disk")
def test_a_reader_takes_nothing_for_left_over_that_a_writer_may_be_at(history, format):
    writer = filled(PosixFilesystem(), history, format)
    directory = writer.directory
    begun = make(writer.filesystem, f"{directory.journal}/{layouts.temp_name(b'12345678')}")
    put(writer.filesystem, f"{begun}/t")
    blob = writer.blobs.temporary()
    old = put(writer.filesystem, f"{directory.marks}/{layouts.mark_name('flushed', tid_from(1))}")
    with closing(open_on(PosixFilesystem(), history, format, read_only=True)) as reader:
        assert found(reader) == []
        writer.close()
        assert {(each.kind, each.path) for each in found(reader)} == {
            ("leftover", path) for path in (begun, blob, old)
        }


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.usefixtures("on_disk")
def test_details_that_another_process_packs_away_meanwhile(read_only):
    """The revisions of a transaction were seen, and then it was packed."""
    another = filled(PosixFilesystem(), History.FULL, Format.SEGMENTED)
    for value in "xyz":
        commit(another, {A: value}, {A: ()})
    another.flush()
    with (
        closing(another),
        closing(open_on(PosixFilesystem(), History.FULL, Format.SEGMENTED, read_only=read_only)) as store,
    ):
        packs = []

        def progress(phase, done, _total):
            if phase == "following references" and done and not packs:
                packs.append(another.pack(another.last_tid()))

        assert list(check(store, progress)) == []
        assert packs[0].transactions_removed


@pytest.mark.parametrize("history", History)
@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.usefixtures("on_disk")
def test_a_blob_that_another_process_packs_away_meanwhile(tmp_path, history, read_only):
    """Its revision was seen, and then both went."""
    manager, filesystem = transaction.TransactionManager(), Busy()
    with objstore.open(tmp_path / "store", history=history) as db:
        root = db.open(manager).root()
        root["blob"] = blob = objstore.Blob(b"garbage soon")
        manager.commit()
        del root["blob"]
        for number in range(3):
            root["number"] = number
            manager.commit()
        db.store.flush()
        packs = []
        filesystem.work, filesystem.path = lambda: packs.append(db.pack()), blob.committed()
        with closing(open_on(filesystem, history, Format.SEGMENTED, read_only=read_only)) as store:
            assert kinds(found(store)) <= {"unreachable"}
        assert packs[0].blobs_removed == 1
