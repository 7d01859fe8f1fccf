"""ZODB.DB over a store: what it shows, what it raises, and what else stands between the two."""

from __future__ import annotations

import base64
import gc
import os
import pickle
import time

import pytest
import transaction
import zc.beforestorage
import zc.zlibstorage
import ZODB
from BTrees.Length import Length
from persistent.mapping import PersistentMapping
from siblings import Nursery
from ZODB import POSException
from ZODB.Connection import TransactionMetaData
from ZODB.DemoStorage import DemoStorage
from ZODB.FileStorage import FileStorage
from ZODB.interfaces import IBlobStorage, IBlobStorageRestoreable, IMVCCStorage, IStorage, IStorageRestoreable
from ZODB.tests.StorageTestBase import zodb_pickle
from ZODB.utils import p64, u64, z64
from zodbwrappers import Plain
from zope.interface.verify import verifyObject

import objstore
from objstore import errors
from objstore.ids import NO_TID, ROOT, oid_from
from objstore.zodb import DirectoryStorage, measuring
from objstore.zodb.translating import translated


@pytest.fixture
def storage(tmp_path):
    storage = DirectoryStorage(tmp_path / "store")
    yield storage
    storage.close()


@pytest.fixture
def db(storage):
    db = ZODB.DB(storage)
    yield db
    db.close()


def opened(db):
    return db.open(transaction.TransactionManager())


def commit(connection):
    connection.transaction_manager.commit()


def refresh(connection):
    connection.transaction_manager.begin()


def stored(storage, data, oid=None, serial=z64):
    """Commit one record, without a database."""
    oid = oid or storage.new_oid()
    details = TransactionMetaData("ada", "a record")
    storage.tpc_begin(details)
    try:
        storage.store(oid, serial, data, "", details)
        storage.tpc_vote(details)
        return oid, storage.tpc_finish(details)
    except BaseException:
        storage.tpc_abort(details)
        raise


def test_the_interfaces_are_provided(storage):
    instance = storage.new_instance()
    for each in (storage, instance):
        for interface in (IStorage, IMVCCStorage):
            verifyObject(interface, each, tentative=True)
        verifyObject(IBlobStorage, each)
    for interface in (IStorageRestoreable, IBlobStorageRestoreable):
        verifyObject(interface, storage)
    instance.release()


def test_objstore_reads_what_zodb_wrote_and_the_other_way(tmp_path):
    db = ZODB.DB(DirectoryStorage(tmp_path / "store"))
    with db.transaction("from ZODB") as connection:
        connection.root()["ada"] = PersistentMapping(born=1815)
    db.close()
    own = objstore.open(tmp_path / "store")
    with own.transaction("from objstore") as connection:
        assert connection.root()["ada"]["born"] == 1815
        connection.root()["ada"]["died"] = 1852
    own.close()
    db = ZODB.DB(DirectoryStorage(tmp_path / "store", read_only=True))
    with db.transaction() as connection:
        assert dict(connection.root()["ada"]) == {"born": 1815, "died": 1852}
    assert [found["description"] for found in db.undoInfo()][:2] == ["from objstore", "from ZODB"]
    db.close()


def test_options_of_a_database_are_refused(tmp_path):
    with pytest.raises(errors.UsageError, match="options of a database"):
        DirectoryStorage(tmp_path / "store", cache_size=5)
    with pytest.raises(errors.UsageError, match="unknown option"):
        DirectoryStorage(tmp_path / "store", colour="red")


class TestErrors:
    def test_a_missing_object(self, storage, db):
        with pytest.raises(POSException.POSKeyError):
            opened(db).get(p64(99))
        for call in (storage.load, storage.getTid):
            with pytest.raises(POSException.POSKeyError):
                call(p64(99))
        with pytest.raises(POSException.POSKeyError):
            storage.loadBefore(p64(99), storage.lastTransaction())
        with pytest.raises(POSException.POSKeyError):
            storage.loadSerial(z64, p64(1))

    def test_a_conflict(self, db):
        one, two = opened(db), opened(db)
        one.root()["a"] = 1
        two.root()["b"] = 2
        commit(one)
        with pytest.raises(POSException.ConflictError) as caught:
            commit(two)
        assert caught.value.oid == z64
        assert caught.value.class_name == "persistent.mapping.PersistentMapping"
        assert caught.value.serials[0] == one.root()._p_serial
        assert isinstance(caught.value.__cause__, errors.ConflictError)
        two.transaction_manager.abort()
        assert two.root()["a"] == 1

    def test_a_conflict_that_its_class_resolves(self, db):
        one, two = opened(db), opened(db)
        one.root()["counter"] = Length(10)
        commit(one)
        refresh(two)
        one.root()["counter"].change(1)
        two.root()["counter"].change(5)
        commit(one)
        commit(two)
        assert two.root()["counter"]() == 16
        refresh(one)
        assert one.root()["counter"]() == 16

    def test_what_was_relied_on(self, db):
        one, two = opened(db), opened(db)
        one.root()["a"], one.root()["b"] = PersistentMapping(), PersistentMapping()
        commit(one)
        refresh(two)
        assert dict(two.root()["a"]) == {}
        two.readCurrent(two.root()["a"])
        two.root()["b"]["x"] = 1
        one.root()["a"]["x"] = 1
        commit(one)
        with pytest.raises(POSException.ReadConflictError):
            commit(two)

    def test_what_cannot_be_undone(self, db):
        connection = opened(db)
        for at in range(2):
            connection.root()["a"] = at
            commit(connection)
        db.undo(db.undoInfo()[1]["id"], connection.transaction_manager.get())
        with pytest.raises(POSException.UndoError):
            commit(connection)
        connection.transaction_manager.abort()
        db.undo(b"no tid", connection.transaction_manager.get())
        with pytest.raises(POSException.UndoError):
            commit(connection)

    def test_minimal_cannot_undo(self, tmp_path):
        storage = DirectoryStorage(tmp_path / "minimal", history="minimal")
        _, tid = stored(storage, zodb_pickle(PersistentMapping()))
        assert not storage.supportsUndo()
        assert storage.undoLog() == storage.undoInfo() == []
        details = TransactionMetaData()
        storage.tpc_begin(details)
        with pytest.raises(POSException.UndoError):
            storage.undo(tid, details)
        storage.tpc_abort(details)
        storage.close()

    def test_reading_only(self, tmp_path):
        DirectoryStorage(tmp_path / "store").close()
        storage = DirectoryStorage(tmp_path / "store", read_only=True)
        assert storage.isReadOnly()
        details = TransactionMetaData()
        for call in (
            storage.new_oid,
            lambda: storage.tpc_begin(details),
            lambda: storage.store(z64, z64, b"", "", details),
            lambda: storage.restore(z64, z64, b"", "", None, details),
            lambda: storage.deleteObject(z64, z64, details),
            lambda: storage.undo(z64, details),
            lambda: storage.pack(time.time(), None),
        ):
            with pytest.raises(POSException.ReadOnlyError):
                call()
        storage.close()

    def test_transactions_in_the_wrong_order(self, storage):
        details = TransactionMetaData()
        for call in (storage.tpc_vote, storage.tpc_finish):
            with pytest.raises(POSException.StorageTransactionError):
                call(details)
        storage.tpc_begin(details)
        assert storage.tpc_transaction() is details
        with pytest.raises(POSException.StorageTransactionError):
            storage.tpc_begin(details)
        with pytest.raises(POSException.StorageTransactionError, match="its tid"):
            storage.restore(z64, z64, b"", "", None, details)
        storage.tpc_abort(details)
        storage.tpc_abort(details)
        assert storage.tpc_transaction() is None

    def test_restoring_in_the_wrong_order(self, storage):
        _, tid = stored(storage, zodb_pickle(PersistentMapping()))
        with pytest.raises(POSException.StorageError, match="order of their tids"):
            storage.tpc_begin(TransactionMetaData(), tid)

    def test_a_closed_storage(self, tmp_path):
        storage = DirectoryStorage(tmp_path / "store")
        storage.close()
        storage.close()
        with pytest.raises(POSException.StorageError, match="closed"):
            storage.load(z64)

    @pytest.mark.parametrize(
        ("error", "kind"),
        [
            (errors.POSKeyError(ROOT), POSException.POSKeyError),
            (errors.ConflictError(ROOT, NO_TID, NO_TID), POSException.ConflictError),
            (errors.ReadConflictError(ROOT, NO_TID, NO_TID), POSException.ReadConflictError),
            (errors.DanglingReferenceError(ROOT, NO_TID, NO_TID), POSException.ConflictError),
            (errors.SnapshotTooOldError(oid_from(2**58)), POSException.ReadConflictError),
            (errors.UndoError(NO_TID, "why"), POSException.MultipleUndoErrors),
            (errors.UndoError(NO_TID, "why", ROOT), POSException.MultipleUndoErrors),
            (errors.HistoryMissingError("gone"), POSException.MultipleUndoErrors),
            (errors.ReadOnlyError(), POSException.ReadOnlyError),
            (errors.CorruptionError("/x", "damaged"), POSException.StorageSystemError),
            (errors.StorageFailedError("/x", "failed"), POSException.StorageSystemError),
            (errors.StorageFullError("/x", "no room"), POSException.StorageError),
            (errors.ClosedError("x"), POSException.StorageError),
            (errors.RecordTooLargeError(ROOT, 5, 4), POSException.StorageError),
        ],
        ids=lambda each: type(each).__name__ if isinstance(each, Exception) else each.__name__,
    )
    def test_each_has_its_like(self, error, kind):
        found = translated(error)
        assert type(found) is kind
        if kind is POSException.MultipleUndoErrors:
            assert isinstance(found, POSException.UndoError)
            assert getattr(error, "reason", "gone") in str(found)


class TestSnapshots:
    @pytest.mark.parametrize("history", ["full", "minimal"])
    def test_a_connection_sees_one_moment(self, tmp_path, history):
        db = ZODB.DB(DirectoryStorage(tmp_path / "store", history=history))
        reader, writer = opened(db), opened(db)
        for at in range(3):
            writer.root()["a"] = PersistentMapping(value=at)
            writer.root()["b"] = at
            commit(writer)
        assert dict(reader.root()) == {}
        refresh(reader)
        root = reader.root()
        writer.root()["a"]["value"] = writer.root()["b"] = 9
        commit(writer)
        assert (root["a"]["value"], root["b"]) == (2, 2)
        refresh(reader)
        assert (root["a"]["value"], root["b"]) == (9, 9)
        db.close()

    def test_the_past(self, db):
        connection = opened(db)
        connection.root()["a"] = 1
        commit(connection)
        then = connection.root()._p_serial
        connection.root()["a"] = 2
        commit(connection)
        past = db.open(transaction.TransactionManager(), at=then)
        assert past.root()["a"] == 1
        past.close()

    def test_connections_that_wait_hold_nothing_back(self, db):
        first = opened(db)
        for at in range(3):
            first.root()["a"] = at
            commit(first)
        first.close()
        second = db.open(transaction.TransactionManager())
        third = opened(db)
        third.close()
        for at in range(3):
            second.root()["a"] = at
            commit(second)
        db.pack(time.time() + 1)
        assert len(db.history(z64, 10)) == 1
        again = opened(db)
        assert again.root()["a"] == 2

    def test_one_that_is_used_between_transactions_is_not_moved_on(self, storage, db):
        connection = opened(db)
        connection.root()["things"] = [PersistentMapping(at=at) for at in range(2)]
        commit(connection)
        manager = transaction.TransactionManager(explicit=True)
        manager.begin()
        other = db.open(manager)
        first, second = other.root()["things"]
        assert first["at"] == 0
        manager.commit()
        assert other._storage._waits
        second._p_activate()
        connection.root()["things"][0]["at"] = 5
        commit(connection)
        storage._instances.refresh()
        second._p_invalidate()
        assert (first["at"], second["at"]) == (0, 1)
        manager.begin()
        assert first["at"] == 5
        manager.abort()
        other.close()

    def test_a_connection_that_was_dropped_holds_nothing_back(self, storage):
        instance = storage.new_instance()
        stored(storage, zodb_pickle(PersistentMapping()), z64)
        del instance
        gc.collect()
        storage.pack(time.time() + 1, None)
        assert storage._store.statistics()["snapshots"] == 0

    def test_records_are_read_ahead(self, db):
        connection = opened(db)
        connection.root()["all"] = [PersistentMapping(at=at) for at in range(5)]
        commit(connection)
        other = opened(db)
        things = other.root()["all"]
        other.prefetch(things)
        assert len(other._storage._prefetched._records) == 5
        assert [thing["at"] for thing in things] == list(range(5))
        assert not other._storage._prefetched
        other.prefetch(things)
        refresh(other)
        assert not other._storage._prefetched

    def test_a_snapshot_that_is_given_up_is_a_conflict(self, tmp_path):
        """So that whoever tries transactions again goes on."""
        storage = DirectoryStorage(
            tmp_path / "minimal", history="minimal", format="chunky", journal_limit=1000, pin_limit=10_000
        )
        db = ZODB.DB(storage)
        writer, reader = opened(db), opened(db)
        writer.root()["things"] = [PersistentMapping(at=at) for at in range(3)]
        commit(writer)
        refresh(reader)
        things = reader.root()["things"]
        for at in range(30):
            for thing in writer.root()["things"]:
                thing["at"], thing["text"] = at, "x" * 1000
            commit(writer)
        with pytest.raises(POSException.ReadConflictError, match="given up"):
            things[0]["at"]
        refresh(reader)
        assert [thing["at"] for thing in reader.root()["things"]] == [29, 29, 29]
        db.close()

    def test_a_child_cannot_use_what_its_parent_has_opened(self, db):
        connection = opened(db)
        connection.cacheMinimize()
        reading, writing = os.pipe()
        pid = os.fork()
        if not pid:
            try:
                connection.root()["a"]
            except POSException.StorageError as error:
                os.write(writing, str(error).encode())
            os._exit(0)
        os.close(writing)
        with open(reading, "rb") as told:
            assert b"forked" in told.read()
        os.waitpid(pid, 0)
        assert dict(connection.root()) == {}


# --- deleting and packing ----------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["segmented", "chunky"])
def test_objects_are_deleted_by_a_collector_of_garbage(tmp_path, format):
    """As in ZODB's IExternalGC.test, without blobs."""
    storage = DirectoryStorage(tmp_path / "store", format=format, pack_gc=False)
    db = ZODB.DB(storage)
    connection = opened(db)
    connection.root()[0] = PersistentMapping()
    commit(connection)
    oid = connection.root()[0]._p_oid
    del connection.root()[0]
    commit(connection)
    data, serial = storage.load(oid)
    db.pack(time.time() + 1)
    assert len(storage) == 2
    assert storage.load(oid) == (data, serial)

    def delete(serial):
        details = TransactionMetaData()
        storage.tpc_begin(details)
        try:
            storage.deleteObject(oid, serial, details)
            storage.tpc_vote(details)
            return storage.tpc_finish(details)
        finally:
            storage.tpc_abort(details)

    with pytest.raises(POSException.ConflictError, match="database conflict error"):
        delete(p64(u64(serial) - 1))
    tid = delete(serial)
    assert tid == storage.lastTransaction()
    with pytest.raises(POSException.POSKeyError):
        storage.load(oid)
    assert storage.loadBefore(oid, connection.root()._p_serial) == (data, serial, tid)
    assert [(each.oid, each.data) for each in list(storage.iterator())[-1]] == [(oid, None)]
    refresh(connection)  # else its snapshot would hold the object back
    db.pack(time.time() + 1)
    assert len(storage) == 1
    with pytest.raises(POSException.POSKeyError):
        storage.loadBefore(oid, connection.root()._p_serial)
    db.close()


# --- several processes -------------------------------------------------------------------------------


def count_along(pipe, path):
    """Another process: its database over the same directory adds one whenever it is told, and says what it has."""
    db = ZODB.DB(DirectoryStorage(path))
    connection = db.open(transaction.TransactionManager())
    counter = connection.root()["counter"]
    counter()
    pipe.send("ready")
    while pipe.receive():
        refresh(connection)
        counter.change(1)
        commit(connection)
        pipe.send(counter())
    db.close()


@pytest.mark.parametrize("wrapped", [False, True], ids=["snapshots of its own", "told of invalidations"])
def test_two_processes_see_what_the_other_commits(tmp_path, wrapped):
    storage = DirectoryStorage(tmp_path / "store")
    db = ZODB.DB(Plain(storage) if wrapped else storage)
    connection = opened(db)
    connection.root()["counter"] = Length(0)
    commit(connection)
    with Nursery() as nursery:
        sibling = nursery.start(count_along, str(tmp_path / "store"))
        assert sibling.receive() == "ready"
        counter = connection.root()["counter"]
        for turn in range(5):
            assert counter() == 2 * turn
            sibling.send(True)
            assert sibling.receive() == 2 * turn + 1
            assert counter() == 2 * turn
            refresh(connection)
            assert counter() == 2 * turn + 1
            counter.change(1)
            commit(connection)
        sibling.send(False)
        assert sibling.wait() == 0
    db.close()


class Told:
    """A wrapper as ZODB's MVCCAdapter is one: it notes what it is told."""

    def __init__(self):
        self.heard = []

    def transform_record_data(self, data):
        return data

    untransform_record_data = transform_record_data

    def invalidate(self, tid, oids):
        self.heard.append((tid, list(oids)))

    def invalidateCache(self):
        self.heard.append("anything")


class TestTelling:
    @pytest.fixture
    def told(self, storage):
        told = Told()
        storage.registerDB(told)
        return told

    def test_of_each_transaction_of_others_in_their_order(self, tmp_path, storage, told):
        other = DirectoryStorage(tmp_path / "store")
        expected = [stored(other, zodb_pickle(PersistentMapping())) for _ in range(3)]
        assert told.heard == []
        assert storage.lastTransaction() == z64
        with pytest.raises(POSException.POSKeyError):
            storage.load(expected[0][0])
        storage.sync()
        assert told.heard == [(tid, [oid]) for oid, tid in expected]
        assert storage.lastTransaction() == expected[-1][1]
        storage.sync()
        storage.sync(False)
        assert len(told.heard) == 3
        other.close()

    def test_of_what_came_before_ones_own_and_of_nothing_that_came_after(self, tmp_path, storage, told):
        """A ZEO server asks for the last tid when it has finished a transaction, and takes it for its own."""
        other = DirectoryStorage(tmp_path / "store")
        before = stored(other, zodb_pickle(PersistentMapping()))
        details = TransactionMetaData()
        oid = storage.new_oid()
        storage.tpc_begin(details)
        storage.store(oid, z64, zodb_pickle(PersistentMapping()), "", details)
        storage.tpc_vote(details)
        heard = []

        def finished(_):
            heard.extend(told.heard)
            told.heard.clear()
            after.append(stored(other, zodb_pickle(PersistentMapping())))

        after = []
        tid = storage.tpc_finish(details, finished)
        assert heard == [(before[1], [before[0]])]
        assert storage.lastTransaction() == tid < after[0][1]
        assert told.heard == []
        storage.sync()
        assert told.heard == [(after[0][1], [after[0][0]])]
        other.close()

    def test_of_anything_where_nobody_knows_any_more(self, tmp_path):
        """In Minimal a flush forgets which transaction wrote what."""
        storage = DirectoryStorage(tmp_path / "minimal", history="minimal", background=False)
        told = Told()
        storage.registerDB(told)
        other = DirectoryStorage(tmp_path / "minimal", background=False)
        for _ in range(2):
            _, tid = stored(other, zodb_pickle(PersistentMapping()))
        other._store.flush()
        storage.sync()
        assert told.heard == ["anything"]
        assert storage.lastTransaction() == tid
        other.close()
        storage.close()

    def test_a_transaction_that_writes_nothing_hides_nothing(self, tmp_path, storage, told):
        other = DirectoryStorage(tmp_path / "store")
        oid, tid = stored(other, zodb_pickle(PersistentMapping()))
        details = TransactionMetaData()
        storage.tpc_begin(details)
        storage.tpc_vote(details)
        assert storage.tpc_finish(details) == tid
        assert told.heard == [(tid, [oid])]
        other.close()


def test_looking_takes_a_hundredth_of_the_time(storage, monkeypatch):
    monkeypatch.setattr(measuring, "FEW", 1)
    moments = iter([0.0, 1.0, 1.0, 2.0, 50.0, 103.0, 104.0])
    measure = measuring.Measure(storage._store, lambda: next(moments))
    for count in (1, 2):
        stored(storage, zodb_pickle(PersistentMapping()))
        assert measure.objects == count
    stored(storage, zodb_pickle(PersistentMapping()))
    assert measure.objects == 2
    assert measure.objects == 3


def test_an_object_that_waits_is_counted_once(storage):
    oid, tid = stored(storage, zodb_pickle(PersistentMapping()))
    storage._store.flush()
    stored(storage, zodb_pickle(PersistentMapping()), oid, tid)
    stored(storage, zodb_pickle(PersistentMapping()))
    assert len(storage) == 2


def test_errors_while_iterating_are_those_of_zodb(tmp_path):
    storage = DirectoryStorage(tmp_path / "store", format="chunky")
    oid, tid = stored(storage, zodb_pickle(PersistentMapping()))
    storage._store.flush()
    (transaction,) = storage.iterator()
    for damaged in (tmp_path / "store" / "A").rglob(f"o{oid.hex()}.{tid.hex()}"):
        damaged.write_bytes(b"damaged")
    with pytest.raises(POSException.StorageSystemError):
        list(transaction)
    storage.close()
    with pytest.raises(POSException.StorageError):
        list(storage.iterator())


# --- wrappers ----------------------------------------------------------------------------------------


def test_records_are_compressed_by_zlibstorage(tmp_path, storage):
    db = ZODB.DB(zc.zlibstorage.ZlibStorage(storage))
    one, two = opened(db), opened(db)
    one.root()["text"] = PersistentMapping(text="long " * 100)
    one.root()["counter"] = Length(1)
    commit(one)
    refresh(two)
    assert two.root()["text"]["text"] == "long " * 100
    oid = one.root()["text"]._p_oid
    assert storage.load(oid)[0].startswith(b".z")
    one.root()["counter"].change(1)
    two.root()["counter"].change(1)
    commit(one)
    commit(two)
    assert two.root()["counter"]() == 3
    db.undo(db.undoInfo()[0]["id"], one.transaction_manager.get())
    commit(one)
    assert one.root()["counter"]() == 2
    db.pack(time.time() + 1)
    assert opened(db).root()["text"]["text"] == "long " * 100
    assert storage.load(oid)
    db.close()
    plain = objstore.open(tmp_path / "store")
    with pytest.raises(objstore.DataError), plain.transaction() as connection:
        connection.root()["text"]["text"]
    plain.close()


@pytest.mark.parametrize("encode", [zc.zlibstorage.compress, lambda data: b"secret" + data])
def test_records_that_a_client_has_transformed_can_be_packed(storage, encode):
    """What the store cannot read, the function that a pack is given reads for it."""
    stored(storage, zodb_pickle(PersistentMapping()), p64(3))

    def references(data):
        return ZODB.serialize.referencesf(data.removeprefix(b"secret"))

    child = PersistentMapping(text="long " * 100)
    child._p_oid = p64(1)
    root = PersistentMapping(child=child, more="long " * 100)
    stored(storage, encode(zodb_pickle(child)), p64(1))
    stored(storage, encode(zodb_pickle(child)), p64(2))
    stored(storage, encode(zodb_pickle(root)), z64)
    storage.pack(time.time() + 1, references)
    assert storage.load(p64(1))
    with pytest.raises(POSException.POSKeyError):
        storage.load(p64(2))


@pytest.mark.parametrize("format", ["segmented", "chunky"])
def test_records_that_nobody_can_read_are_kept(tmp_path, format):
    """A pack that cannot follow what they refer to removes nothing."""
    storage = DirectoryStorage(tmp_path / "store", format=format)
    stored(storage, b"\0 encrypted", z64)
    oid, _ = stored(storage, zodb_pickle(PersistentMapping()))
    with pytest.raises(POSException.StorageSystemError, match="references"):
        storage.pack(time.time() + 1, ZODB.serialize.referencesf)
    assert storage.load(z64)[0] == b"\0 encrypted"
    assert storage.load(oid)
    storage.pack(time.time() + 1, ZODB.serialize.referencesf, gc=False)
    assert storage.load(oid)
    storage.close()


def test_before_a_time(tmp_path, storage, db):
    connection = opened(db)
    connection.root()["a"] = 1
    commit(connection)
    before = p64(u64(storage.lastTransaction()) + 1)
    connection.root()["a"] = 2
    commit(connection)
    reader = DirectoryStorage(tmp_path / "store", read_only=True)
    past = ZODB.DB(zc.beforestorage.Before(reader, before))
    assert opened(past).root()["a"] == 1
    past.close()


def test_demo_storage_over_a_store(storage, db):
    connection = opened(db)
    connection.root()["a"] = 1
    commit(connection)
    demo = ZODB.DB(DemoStorage(base=storage, close_base_on_close=False))
    trial = opened(demo)
    trial.root()["a"] = 2
    commit(trial)
    assert (opened(demo).root()["a"], opened(db).root()["a"]) == (2, 1)
    demo.close()


def test_changes_of_a_demo_storage(tmp_path, storage):
    base = FileStorage(str(tmp_path / "base.fs"))
    ZODB.DB(base).close()
    base = FileStorage(str(tmp_path / "base.fs"), read_only=True)
    db = ZODB.DB(DemoStorage(base=base, changes=storage))
    connection = opened(db)
    connection.root()["a"] = 1
    commit(connection)
    assert opened(db).root()["a"] == 1
    assert len(list(storage.iterator())) == 1
    db.close()


# --- moving ------------------------------------------------------------------------------------------


def test_transactions_of_a_file_storage_are_copied(tmp_path, storage):
    source = FileStorage(str(tmp_path / "source.fs"))
    db = ZODB.DB(source)
    connection = opened(db)
    for at in range(5):
        connection.root()[at] = PersistentMapping(at=at)
        connection.transaction_manager.get().setExtendedInfo("at", at)
        commit(connection)
    db.undo(db.undoInfo()[0]["id"], connection.transaction_manager.get())
    commit(connection)
    storage.copyTransactionsFrom(source)
    for mine, its in zip(storage.iterator(), source.iterator(), strict=True):
        assert (mine.tid, mine.user, mine.description, mine.extension_bytes) == (
            its.tid,
            its.user,
            its.description,
            its.extension_bytes,
        )
        records = [sorted((r.oid, r.tid, r.data, r.data_txn) for r in each) for each in (mine, its)]
        assert records[0] == records[1]
    db.close()


def test_current_records_are_walked_in_order(storage, db):
    connection = opened(db)
    connection.root()["all"] = [PersistentMapping(at=at) for at in range(5)]
    commit(connection)
    found, cookie = [], None
    while True:
        oid, tid, data, cookie = storage.record_iternext(cookie)
        assert storage.load(oid) == (data, tid)
        found.append(u64(oid))
        if cookie is None:
            break
    assert found == sorted(found)
    assert len(found) == 6 == len(storage)
    assert storage.getSize() > sum(len(storage.load(p64(oid))[0]) for oid in found)


def test_details_that_are_no_text(storage):
    oid = storage.new_oid()
    details = TransactionMetaData(b"caf\xe9", "é".encode(), pickle.dumps({"n": 1}, 3))
    storage.tpc_begin(details)
    storage.store(oid, z64, zodb_pickle(PersistentMapping()), "", details)
    storage.tpc_vote(details)
    storage.tpc_finish(details)
    found = storage.undoInfo()[0]
    assert (found["user_name"], found["description"], found["n"]) == (b"caf\\xe9", "é".encode(), 1)
    assert storage.undoInfo(specification={"n": 2}) == []
    (only,) = storage.undoInfo(specification={"n": 1})
    assert base64.decodebytes(only["id"]) == storage.lastTransaction()
