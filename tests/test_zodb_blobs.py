"""Blobs of ZODB over `objstore.zodb.DirectoryStorage`: ZODB's own tests, as they are installed with it, and ours.

`LEFT_OUT` names those that do not apply, `PARTS_LEFT_OUT` examples within others, each with the reason.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import unittest
from contextlib import closing

import pytest
import zc.zlibstorage
import ZODB
import ZODB.blob
from databases import abort, commit, opened
from test_blobs import content, write
from ZODB import POSException
from ZODB.Connection import TransactionMetaData
from ZODB.DemoStorage import DemoStorage
from ZODB.FileStorage import FileStorage
from ZODB.tests.hexstorage import HexStorage
from ZODB.tests.PackableStorage import IExternalGC_suite
from ZODB.tests.testblob import storage_reusable_suite

import objstore
from objstore.upkeep.check import check
from objstore.zodb import DirectoryStorage

KINDS = [("full", "segmented"), ("full", "flat"), ("minimal", "segmented"), ("minimal", "bushy")]
LEFT_OUT = {
    "commit_from_wrong_partition": "it breaks os.rename, by which every transaction of ours is committed",
}
PARTS_LEFT_OUT = {
    "os.path.exists(os.path.split(fns[0])[0])": "a directory has the blobs of several objects, so it stays",
    r"storeBlob(new_oid, '\0'*8": "it gives a text for a serial",
}
if os.geteuid() == 0:
    PARTS_LEFT_OUT["open(blob.committed(), 'w')"] = "root may write into a file that nobody may write into"


class Storage(DirectoryStorage):
    """Some tests look for its temporary files in a directory that they name."""

    shown_at = None

    def show_temporaries(self, place):
        os.mkdir(place)
        self.shown_at = f"{place}/tmp"  # noqa: S108
        os.symlink(self.temporaryDirectory(), self.shown_at)

    def close(self):
        super().close()
        if self.shown_at is not None:
            os.unlink(self.shown_at)
            self.shown_at = None


def maker(history, format, **options):
    """What ZODB's tests call to make a storage."""

    def make(name="data", blob_dir=None):
        storage = Storage(f"{name}.store", history=history, format=format, flush_on_close=False, **options)
        if blob_dir == "blobs":
            storage.show_temporaries(blob_dir)
        return storage

    return make


def transformed(name="data", blob_dir=None):
    """The same below a wrapper that writes records in hexadecimal."""
    return HexStorage(maker("full", "segmented")(name, blob_dir))


def flat(suite):
    """The cases of a suite, without what is left out."""
    for each in suite:
        if isinstance(each, unittest.TestSuite):
            yield from flat(each)
        elif each.id().rpartition(".")[2] not in LEFT_OUT:
            examples = each._dt_test.examples if hasattr(each, "_dt_test") else []
            examples[:] = [one for one in examples if not any(part in one.source for part in PARTS_LEFT_OUT)]
            yield each


def cases():
    for history, layout in KINDS:
        full = history == "full"
        suite = storage_reusable_suite(
            "OverStore",
            maker(history, layout),
            test_blob_storage_recovery=full,
            test_packing=full,
            test_undo=full,
        )
        for case in flat(suite):
            name = os.path.basename(str(case)) if "_txt" in case.id() else case.id().rpartition(".")[2]
            yield pytest.param(case, suite.layer, id=f"{name}-{history}-{layout}")
    suite = storage_reusable_suite("OverTransformed", transformed)
    for case in flat(suite):
        yield pytest.param(case, suite.layer, id=f"{case.id().rpartition('.')[2]}-transformed")


def passes(case):
    result = unittest.TestResult()
    case.run(result)
    assert result.testsRun == 1
    for _, report in result.errors + result.failures:
        pytest.fail(report)


@pytest.mark.parametrize(("case", "layer"), list(cases()))
def test_zodbs_own(case, layer):
    layer.testSetUp()
    try:
        passes(case)
    finally:
        layer.testTearDown()


@pytest.mark.parametrize("format", ["segmented", "chunky"])
def test_external_garbage_collection(format):
    """A pack does not go past the snapshot of an open connection: so the one there begins anew before it."""
    for case in flat(IExternalGC_suite(maker("full", format, pack_gc=False))):
        for example in case._dt_test.examples:
            example.source = example.source.replace("db.pack", "conn.sync(); db.pack")
        passes(case)


def test_what_is_left_out(record_property):
    found = [case.id().rpartition(".")[2] for case in flat(storage_reusable_suite("", maker("full", "flat")))]
    assert "savepoint_isolation" in found
    assert not LEFT_OUT.keys() & set(found)
    record_property("ZODB's tests of blobs left out", len(LEFT_OUT))
    record_property("examples of these tests left out", len(PARTS_LEFT_OUT))


# --- ours ---


@pytest.fixture(params=["full", "minimal"])
def storage(request, tmp_path):
    storage = DirectoryStorage(tmp_path / "store", history=request.param)
    yield storage
    storage.close()


@pytest.fixture
def full(tmp_path):
    storage = DirectoryStorage(tmp_path / "store")
    yield storage
    storage.close()


def with_blob(storage, data=b"first"):
    connection = opened(ZODB.DB(storage))
    connection.root()["blob"] = ZODB.blob.Blob(data)
    commit(connection)
    return connection, connection.root()["blob"]


def test_objstore_has_the_same_blobs(storage, tmp_path):
    connection, blob = with_blob(storage)
    with objstore.open(tmp_path / "store") as own, closing(opened(own)) as other:
        assert content(other.root.blob) == b"first"
        write(other.root.blob, b"second")
        commit(other)
    connection.transaction_manager.begin()
    assert content(blob) == b"second"


def test_snapshots_and_flushes(storage):
    connection, blob = with_blob(storage)
    reader = opened(connection.db())
    read = reader.root()["blob"]
    path = blob.committed()
    for data in (b"second", b"third"):
        write(blob, data)
        commit(connection)
        storage._store.flush()
        assert content(read) == b"first"
    assert read.committed() == path
    reader.transaction_manager.begin()
    assert content(read) == b"third"


def test_what_is_given_up_leaves_no_file(storage):
    connection, blob = with_blob(storage)
    write(blob, b"second")
    connection.transaction_manager.savepoint()
    other = opened(connection.db())
    write(other.root()["blob"], b"theirs")
    commit(other)
    with pytest.raises(POSException.ConflictError):
        commit(connection)
    abort(connection)
    write(blob, b"third")
    abort(connection)
    assert content(blob) == b"theirs"
    assert os.listdir(storage.temporaryDirectory()) == []
    assert os.listdir(os.path.dirname(storage.temporaryDirectory())) == ["zodb"]


def test_what_a_killed_process_has_left_goes(tmp_path):
    storage = DirectoryStorage(tmp_path / "store")
    place = storage.temporaryDirectory()
    os.mkdir(f"{place}/savepoint")
    for name in ("BUC", "savepoint/other"):
        with open(f"{place}/{name}", "wb") as file:
            file.write(b"left")
    storage.close()
    with objstore.open(tmp_path / "store", read_only=True) as reader:
        found = {(each.kind, os.path.basename(each.path)) for each in check(reader.store)}
        assert found == {("leftover", "BUC"), ("leftover", "savepoint")}
    with closing(DirectoryStorage(tmp_path / "store")) as again:
        assert os.listdir(again.temporaryDirectory()) == []


def test_open_for_reading(storage, tmp_path):
    _, blob = with_blob(storage)
    with closing(DirectoryStorage(tmp_path / "store", read_only=True)) as reader:
        connection = opened(ZODB.DB(reader))
        found = connection.root()["blob"]
        assert content(found) == content(found, "c") == b"first"
        storage._store.flush()
        assert content(found) == b"first"
        found.open("w").close()
        with pytest.raises(POSException.ReadOnlyError):
            commit(connection)
        abort(connection)
        with pytest.raises(POSException.POSKeyError):
            reader.loadBlob(blob._p_oid, bytes(8))


def test_files_that_are_not_there(full):
    connection, blob = with_blob(full)
    os.unlink(blob.committed())
    for ask in (full.loadBlob, full.openCommittedBlobFile):
        with pytest.raises(POSException.POSKeyError):
            ask(blob._p_oid, blob._p_serial)
    begun = TransactionMetaData()
    full.tpc_begin(begun)
    with pytest.raises(POSException.StorageError, match="No such file"):
        full.storeBlob(
            full.new_oid(), None, b"\x80\x03cZODB.blob\nBlob\nq\x00.\x80\x03N.", "nothing.here", "", begun
        )
    full.tpc_abort(begun)
    connection.close()


def test_a_pack_keeps_what_undo_needs(full):
    connection, blob = with_blob(full)
    for data in (b"second", b"third"):
        write(blob, data)
        commit(connection)
    db = connection.db()
    db.undo(db.undoInfo()[0]["id"], connection.transaction_manager.get())
    commit(connection)
    assert content(blob) == b"second"
    db.pack()
    assert content(blob) == b"second"
    assert [len(names) for *_, names in os.walk(os.path.dirname(blob.committed()))] == [1]


PROGRAM = """
import sys, transaction, ZODB, ZODB.blob
from objstore.zodb import DirectoryStorage

connection = ZODB.DB(DirectoryStorage(sys.argv[1], flush_transactions=3, flush_age=0.01)).open()
root = connection.root()
number = root.get("number", 0)
root.setdefault("blob", ZODB.blob.Blob())
while True:
    number += 1
    with root["blob"].open("w") as file:
        file.write(b"%d" % number * 1000)
    root["new"] = ZODB.blob.Blob(b"%d" % number)
    root["number"] = number
    if number % 2:
        transaction.savepoint()
    transaction.commit()
    print(number, flush=True)
"""


@pytest.mark.parametrize("count", [1, 14])
def test_killed_while_it_commits(tmp_path, count):
    told = 0
    for _ in range(2):
        command = [sys.executable, "-c", PROGRAM, str(tmp_path / "store")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            for _ in range(count):
                told = int(process.stdout.readline())
            process.send_signal(signal.SIGKILL)
        with closing(DirectoryStorage(tmp_path / "store")) as storage:
            root = opened(ZODB.DB(storage)).root()
            assert told <= root["number"] <= told + 2
            told = root["number"]
            assert content(root["blob"]) == b"%d" % told * 1000
            assert content(root["new"]) == b"%d" % told
            assert os.listdir(storage.temporaryDirectory()) == []
            found = {each.kind for each in check(storage._store, blobs=True)}
            assert found <= {"leftover", "unreachable"}  # it may have been killed while it flushed


def test_changes_over_another_storage(full, tmp_path):
    base = FileStorage(str(tmp_path / "base.fs"), blob_dir=str(tmp_path / "base"))
    with_blob(base)[0].close()
    over = DemoStorage(base=base, changes=full)
    connection = opened(ZODB.DB(over))
    assert content(connection.root()["blob"]) == b"first"
    write(connection.root()["blob"], b"second")
    connection.root()["new"] = ZODB.blob.Blob(b"new")
    commit(connection)
    root = opened(connection.db()).root()
    assert [content(root[name]) for name in ("blob", "new")] == [b"second", b"new"]
    base.close()


@pytest.mark.parametrize("wrapped", [zc.zlibstorage.ZlibStorage, lambda storage: DemoStorage(base=storage)])
def test_wrappers(full, wrapped):
    connection, _ = with_blob(full)
    connection.close()
    over = wrapped(full)
    connection, blob = with_blob(over, b"above" * 100)
    assert content(blob) == b"above" * 100
    write(blob, b"changed")
    commit(connection)
    assert content(opened(connection.db()).root()["blob"]) == b"changed"


def test_copies_from_and_to_a_file_storage(full, tmp_path):
    theirs = FileStorage(str(tmp_path / "theirs.fs"), blob_dir=str(tmp_path / "theirs"))
    connection, blob = with_blob(theirs)
    for data in (b"second", b"third"):
        write(blob, data)
        commit(connection)
    db = connection.db()
    db.undo(db.undoInfo()[0]["id"], connection.transaction_manager.get())
    commit(connection)
    os.unlink(theirs.loadBlob(blob._p_oid, db.history(blob._p_oid, 4)[1]["tid"]))
    full.copyTransactionsFrom(theirs)
    back = FileStorage(str(tmp_path / "back.fs"), blob_dir=str(tmp_path / "back"))
    back.copyTransactionsFrom(full)
    assert all_of(full) == all_of(theirs) == all_of(back)
    for each in (db, back):
        each.close()


def all_of(storage):
    """Every record with its blob; None for one that is lost."""
    found = []
    for each in storage.iterator():
        for record in each:
            data = None
            if ZODB.blob.is_blob_record(record.data):
                try:
                    with storage.openCommittedBlobFile(record.oid, record.tid) as file:
                        data = file.read()
                except POSException.POSKeyError:
                    data = "lost"
            found.append((record.oid, record.tid, record.data, record.data_txn, data))
    return found


def test_a_source_without_its_files_is_refused(full, tmp_path):
    name = str(tmp_path / "theirs.fs")
    with_blob(FileStorage(name, blob_dir=str(tmp_path / "theirs")))[0].db().close()
    with closing(FileStorage(name)) as source, pytest.raises(POSException.StorageError, match="opened without"):
        full.copyTransactionsFrom(source)
    assert full.tpc_transaction() is None
