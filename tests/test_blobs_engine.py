"""Blobs as the engine's contracts have them: what they cost, whom they cost nothing, what stays after errors."""

from __future__ import annotations

import contextlib
import errno
from collections import Counter
from collections.abc import Callable

import pytest
from crashing import Judge, Large, Script, assert_sound, judge_history, judge_objects
from durability import GROWING, Kind, Operation
from stores import BY_TESTER, COMBINATIONS, PATH, commit, open_on, record, refuse
from test_disk_full import litter

from objstore.contracts import BlobStore, Format, History
from objstore.engine import blobs
from objstore.engine.store import DirectoryStore
from objstore.errors import BlobMissingError, ClosedError, HistoryMissingError, ReadOnlyError, StorageError
from objstore.formats.pickles import BLOB_RECORD
from objstore.ids import NO_TID, Oid, Tid, oid_from
from objstore.machine.memory import MemoryFilesystem
from objstore.revisions import BlobFacts

SOME = {(History.FULL, Format.SEGMENTED), (History.MINIMAL, Format.FLAT)}
every_store = pytest.mark.parametrize(
    ("history", "format"),
    [pytest.param(*each, marks=[] if each in SOME else pytest.mark.long) for each in COMBINATIONS],
)
ONE, TWO = oid_from(1), oid_from(2)


def temporary(store: DirectoryStore, content: bytes) -> str:
    path = store.blobs.temporary()
    with store.blobs.open(path, "w") as file:
        file.write(content)
    return path


def begun(store: DirectoryStore):
    return store.begin(BY_TESTER, store.view(), refuse)


def finished(pending) -> Tid:
    pending.vote()
    return pending.finish()


def read(store: DirectoryStore, oid: Oid, tid: Tid) -> bytes:
    with store.blobs.open_committed(oid, tid) as file:
        return file.read()


@pytest.fixture
def store() -> DirectoryStore:
    return open_on(MemoryFilesystem())


class TestTheContract:
    def test_a_store_keeps_blobs(self, store):
        assert isinstance(store, BlobStore)

    @pytest.mark.parametrize("flushed", [False, True])
    def test_records_tell_of_their_blobs(self, store, flushed):
        pending = begun(store)
        pending.store_blob(ONE, NO_TID, BLOB_RECORD, None, temporary(store, b"123456789"))
        pending.store(TWO, NO_TID, *record("a"))
        tid = finished(pending)
        if flushed:
            store.flush()
        facts = BlobFacts(9, 0xCBF43926)  # which is what every CRC-32 makes of these
        assert store.revision(ONE, tid).blob == facts
        assert next(store.summaries(ONE)).blob == facts
        assert store.revision(TWO, tid).blob is None
        assert next(store.summaries(TWO)).blob is None
        assert store.view().load(ONE) == (BLOB_RECORD, tid)

    def test_storing_twice(self, store):
        pending = begun(store)
        for content in (b"one", b"two"):
            pending.store_blob(ONE, NO_TID, BLOB_RECORD, b"", temporary(store, content))
        pending.store_blob(TWO, NO_TID, BLOB_RECORD, b"", temporary(store, b"never"))
        pending.store(TWO, NO_TID, *record("a"))
        tid = finished(pending)
        assert read(store, ONE, tid) == b"two"
        with pytest.raises(BlobMissingError):
            read(store, TWO, tid)
        store.flush()
        assert [(oid, size) for oid, _, size in store.blobs_there()] == [(ONE, 3)]
        assert litter(store.filesystem, PATH) == []

    def test_a_record_of_that_class_may_have_none(self, store):
        """As copied from a storage that keeps no blobs."""
        tid = finished_store(store, ONE, BLOB_RECORD)
        with pytest.raises(BlobMissingError, match=f"blob {ONE.hex()} of transaction {tid.hex()}"):
            store.blobs.path(ONE, tid)

    def test_an_aborted_transaction_leaves_nothing(self, store):
        commit(store, {0: "root"})
        store.flush()  # so that there is a directory to be recycled
        for vote in (False, True):
            pending = begun(store)
            pending.store(TWO, NO_TID, *record("a"))
            pending.store_blob(ONE, NO_TID, BLOB_RECORD, b"", temporary(store, b"one"))
            if vote:
                pending.vote()
            pending.abort()
            assert names(store.filesystem, f"{PATH}/journal") <= {"t"}
            assert names(store.filesystem, f"{PATH}/blobs") == set()

    def test_closed_and_read_only(self):
        filesystem = MemoryFilesystem()
        store = open_on(filesystem)
        store.close()
        with pytest.raises(ClosedError):
            _ = store.blobs
        reader = open_on(filesystem, read_only=True)
        for write in (reader.blobs.temporary, lambda: reader.blobs.take("/x"), lambda: reader.blobs.copied("/x")):
            with pytest.raises(ReadOnlyError):
                write()

    def test_a_copy_that_fails_leaves_no_file(self, store):
        pending = begun(store)
        pending.store_blob(ONE, NO_TID, BLOB_RECORD, b"", temporary(store, b"x" * 5000))
        tid = finished(pending)
        store.filesystem.capacity = store.filesystem._used + 100
        with pytest.raises(OSError, match="No space left"):
            store.blobs.copied_committed(ONE, tid)
        assert litter(store.filesystem, PATH) == []

    @pytest.mark.parametrize("flushed", [False, True])
    def test_restored_ones_remember_what_they_copy_if_it_is_the_same(self, store, flushed):
        """All blobs have the same record, so their data must be looked at."""
        tids = [Tid(bytes([1, *bytes(6), at])) for at in range(1, 5)]
        wanted = [(b"first", None), (b"second", None), (b"first", tids[0]), (b"first", tids[1])]
        assert not store.blobs.has_some()
        for tid, (data, source) in zip(tids, wanted, strict=True):
            pending = store.restore(tid, BY_TESTER)
            pending.store_blob(ONE, NO_TID, BLOB_RECORD, b"", temporary(store, data), source)
            finished(pending)
        if flushed:
            store.flush()
        assert store.blobs.has_some()
        assert [read(store, ONE, tid) for tid in tids] == [data for data, _ in wanted]
        assert [store.revision(ONE, tid).copied_from for tid in tids] == [None, None, tids[0], None]

    def test_pieces(self, store, monkeypatch):
        monkeypatch.setattr(blobs, "_PIECE", 4)
        path = temporary(store, b"123456789")
        assert store.blobs.facts(path) == BlobFacts(9, 0xCBF43926)


def finished_store(store: DirectoryStore, oid: Oid, data: bytes) -> Tid:
    pending = begun(store)
    pending.store(oid, NO_TID, data, b"")
    return finished(pending)


def names(filesystem, path: str) -> set[str]:
    found: set[str] = set()
    for entry in filesystem.entries(path) if filesystem.exists(path) else []:
        found |= names(filesystem, f"{path}/{entry.name}") if entry.is_directory else {entry.name}
    return found


# --- what it costs -----------------------------------------------------------------------------------


def counted(script: Script, work: Callable[[], object]) -> Counter[Kind]:
    before = script.fs.operations
    work()
    return Counter(operation.kind for operation in script.fs.log[before:])


@pytest.mark.parametrize(("history", "format"), COMBINATIONS)
def test_who_has_no_blobs_does_nothing_for_them(history, format):
    """Commits, flushes, packs, and openings of a store without blobs touch nothing but what they did before."""
    script = Script(history, format)
    script.commit({0: "root", 1: "a"}, {0: (1,)})
    script.flush()
    assert counted(script, lambda: script.commit({1: "b"})) == {Kind.RENAME: 1, Kind.OVERWRITE: 1, Kind.SYNC: 1}
    script.flush()
    script.pack(script.commits[-1].tid)
    script.reopen()
    script.commit({1: "c"})
    assert [each for each in script.fs.log if f"{PATH}/blobs" in (each.path, each.target)] == []
    assert [each for each in script.fs.log if "blob" in each.path or "blob" in each.target] == []


@pytest.mark.parametrize(("history", "format"), COMBINATIONS)
def test_they_do_not_pay_for_the_blobs_of_others(history, format):
    script = Script(history, format)
    script.commit({0: "root", 1: "a", 2: Large(b"one")}, {0: (1, 2)})
    script.commit({1: "b"})
    script.flush()
    assert counted(script, lambda: script.commit({1: "c"})) == {Kind.RENAME: 1, Kind.OVERWRITE: 1, Kind.SYNC: 1}
    before = script.fs.operations
    script.flush()
    assert [each for each in script.fs.log[before:] if "blob" in each.path or "blob" in each.target] == []


def test_a_blob_adds_three_syncs_to_its_commit():
    script = Script(History.FULL, Format.SEGMENTED)
    script.commit({0: "root", 2: Large(b"one")}, {0: (2,)})
    script.commit({0: "root", 1: "a"}, {0: (1, 2)})
    script.flush()
    kinds = counted(script, lambda: script.commit({1: "b", 2: Large(b"two")}))
    assert kinds[Kind.SYNC] == 2
    assert kinds[Kind.SYNC_DIRECTORY] == 2
    script.flush()
    kinds = counted(script, lambda: script.commit({2: Large(b"three"), 3: Large(b"four")}))
    assert kinds[Kind.SYNC] == 3


def test_the_directories_of_blobs_are_made_sure_of_once():
    script = Script(History.FULL, Format.SEGMENTED)
    for content in (b"one", b"two"):
        script.commit({0: "root", 2: Large(content)}, {0: (2,)})
        before = script.fs.operations
        script.flush()
        syncs = [
            each.path
            for each in script.fs.log[before:]
            if each.kind is Kind.SYNC_DIRECTORY and not each.path.startswith((f"{PATH}/A", f"{PATH}/marks"))
        ]
    assert len(syncs) == 2
    assert f"{PATH}/blobs/0000000000/00" in syncs


# --- errors ------------------------------------------------------------------------------------------


def prepared(history: History, format: Format) -> Script:
    script = Script(history, format)
    script.commit({0: "root", 1: "a", 2: Large(b"one")}, {0: (1, 2)})
    script.commit({1: "b"})
    script.flush()
    script.commit({1: "c", 2: Large(b"two")})
    return script


def everything(script: Script) -> None:
    """A commit, a flush, an undo where there is history, a path, and a pack."""
    changed = script.commit({1: "d", 2: Large(b"three" * 100)})
    script.store.blobs.path(oid_from(2), changed)
    if script.history is History.FULL:
        script.undo(changed)
    script.commit({0: "root", 0x12345: Large(b"far away")}, {0: (1, 2, 0x12345)})
    script.flush()
    script.commit({0: "root"}, {0: (1, 0x12345)})
    script.commit({1: "e"})
    script.commit({1: "f"})
    script.pack(script.commits[-1].tid)


def operations(history: History, format: Format, chosen: Callable[[Operation], bool]) -> list[int]:
    script = prepared(history, format)
    begun = script.fs.operations
    everything(script)
    return [each.index for each in script.fs.log[begun:] if chosen(each)]


@every_store
def test_a_full_disk_at_every_operation(history, format, record_property):
    states = 0
    for index in operations(history, format, lambda each: each.kind in GROWING):
        script = prepared(history, format)
        script.fs.fill_at(index)
        with pytest.raises((StorageError, OSError)) as caught:
            everything(script)
        assert isinstance(caught.value, StorageError) or caught.value.errno == errno.ENOSPC
        judge_objects(script.store, script.commits, script.packs)
        if history is History.FULL:
            judge_history(script.store, script.commits, script.packs)
        assert litter(script.fs, PATH) == []
        script.fs.make_room()
        script.commit({0: "after", 7: Large(b"after")}, {0: (7,)})
        script.flush()
        judge_objects(script.store, script.commits, script.packs)
        assert_sound(script.store, "unreachable", "leftover")
        judge = Judge(script)
        judge.sweep(script.fs.operations, limit=2)
        states += judge.tried
    record_property("crash states tried", states)


@every_store
@pytest.mark.parametrize("kind", [Kind.SYNC, Kind.RENAME, Kind.UNLINK, Kind.SYNC_DIRECTORY])
def test_a_disk_that_fails_at_every_operation(kind, history, format, record_property):
    states = 0
    for index in operations(history, format, lambda each: each.kind is kind):
        script = prepared(history, format)
        script.fs.fail_at(index, OSError(errno.EIO, "Input/output error"))
        with contextlib.suppress(StorageError, OSError, HistoryMissingError):
            everything(script)
        judge = Judge(script)
        judge.sweep(script.fs.operations, limit=3)
        states += judge.tried
    record_property("crash states tried", states)
