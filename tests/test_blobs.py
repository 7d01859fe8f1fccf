"""Blobs as applications use them: over all formats and both history modes."""

from __future__ import annotations

import gc
import os
import stat

import pytest
from BTrees.OOBTree import OOBTree
from databases import ALL, FULL, abort, commit, opened
from persistent.wref import WeakRef

import objstore
from objstore.errors import (
    BlobError,
    BlobMissingError,
    ClosedError,
    ConflictError,
    ReadOnlyError,
    SerializationError,
    SnapshotTooOldError,
    StorageFullError,
    UsageError,
)
from objstore.objects import DB
from objstore.objects.broken import stand_in

pytest_plugins = ["database_fixtures"]

KINDS = [kind for kind in ALL if not kind.startswith("model")]
FULL_KINDS = [kind for kind in FULL if not kind.startswith("model")]


@pytest.fixture(params=KINDS)
def db(request, databases) -> DB:
    return databases(request.param)


@pytest.fixture(params=FULL_KINDS)
def full(request, databases) -> DB:
    return databases(request.param)


@pytest.fixture(params=["memory-full", "segmented-minimal", "flat-minimal"])
def few(request, databases) -> DB:
    """For what depends little on the format."""
    return databases(request.param)


@pytest.fixture
def one(databases) -> DB:
    """On the disk, for what does not depend on the format."""
    return databases("segmented-full")


def content(blob: objstore.Blob, mode: str = "r") -> bytes:
    with blob.open(mode) as file:
        return file.read()


def write(blob: objstore.Blob, data: bytes, mode: str = "w") -> None:
    with blob.open(mode) as file:
        file.write(data)


def with_blob(db: DB, data: bytes = b"first"):
    """A connection whose root has a committed blob."""
    connection = opened(db)
    connection.root.blob = objstore.Blob(data)
    commit(connection)
    return connection, connection.root.blob


def files_of(db: DB) -> list[str]:
    """Every blob's file that the store has, wherever it is."""
    fs, found, waiting = db.store.filesystem, [], [db.store.directory.blobs, db.store.directory.journal]
    while waiting:
        path = waiting.pop()
        for entry in fs.entries(path) if fs.exists(path) else []:
            if entry.is_directory:
                waiting.append(f"{path}/{entry.name}")
            elif entry.name != "t":
                found.append(entry.name)
    return sorted(found)


class TestReadingAndWriting:
    def test_what_was_committed_is_there_in_another_connection(self, db):
        _connection, blob = with_blob(db)
        other = opened(db)
        assert content(other.root.blob) == b"first"
        assert content(blob) == content(blob, "c") == b"first"
        db.store.flush()
        assert content(blob) == content(other.root.blob) == content(opened(db).root.blob) == b"first"
        with open(blob.committed(), "rb") as file:
            assert file.read() == b"first"

    def test_every_mode(self, db):
        connection, blob = with_blob(db, b"0123456789")
        write(blob, b"ab", "a")
        assert content(blob) == b"0123456789ab"
        with blob.open("r+") as file:
            assert file.read(2) == b"01"
            file.write(b"--")
            file.seek(-1, 2)
            file.write(b"!")
            file.truncate(12)
        commit(connection)
        assert content(opened(db).root.blob) == b"01--456789a!"
        write(blob, b"new")
        commit(connection)
        assert content(opened(db).root.blob) == b"new"
        with pytest.raises(ValueError, match="a blob is opened in mode"):
            blob.open("rb")

    def test_a_transaction_sees_what_it_wrote_and_nobody_else_does(self, db):
        connection, blob = with_blob(db)
        write(blob, b"second")
        assert content(blob) == b"second"
        assert content(opened(db).root.blob) == b"first"
        with pytest.raises(BlobError, match="not committed"):
            blob.committed()
        with pytest.raises(BlobError, match="not committed"):
            blob.open("c")
        abort(connection)
        assert content(blob) == b"first"

    def test_a_new_blob_is_empty(self, db):
        connection = opened(db)
        blob = connection.root.blob = objstore.Blob()
        assert content(blob) == b""
        commit(connection)
        assert content(blob) == b""
        untouched = connection.root.other = objstore.Blob()
        commit(connection)
        assert content(untouched) == content(opened(db).root.other) == b""

    def test_a_snapshot_has_the_blob_of_then(self, db):
        connection, blob = with_blob(db)
        reader = opened(db)
        read = reader.root.blob
        for data in (b"second", b"third"):
            write(blob, data)
            commit(connection)
            db.store.flush()
            assert content(read) == b"first"
        reader.transaction_manager.begin()
        assert content(read) == b"third"

    def test_an_open_file_stays_readable_while_a_flush_moves_it(self, db):
        _connection, blob = with_blob(db, b"x" * 100_000)
        with blob.open() as file:
            assert file.read(10) == b"x" * 10
            db.store.flush()
            assert len(file.read()) == 99_990

    def test_many_blobs_in_a_btree(self, db):
        connection = opened(db)
        tree = connection.root.tree = OOBTree()
        for at in range(20):
            tree[at] = objstore.Blob(b"%d" % at)
        commit(connection)
        other = opened(db)
        assert [content(each) for each in other.root.tree.values()] == [b"%d" % at for at in range(20)]

    def test_a_committed_path_stays(self, db):
        _connection, blob = with_blob(db)
        path = blob.committed()
        db.store.flush()
        assert blob.committed() == path
        assert content(blob) == b"first"
        with open(path, "rb") as file:
            assert file.read() == b"first"

    def test_a_record_is_zodbs(self, one):
        connection, blob = with_blob(one)
        data, _ = connection.view.load(blob._p_oid)
        assert data == b"\x80\x03cZODB.blob\nBlob\nq\x00.\x80\x03N."
        root, _ = connection.view.load(connection.root()._p_oid)
        assert root.count(b"cZODB.blob\nBlob\n") == 1
        assert b"objstore" not in root

    def test_a_text_that_looks_like_the_name_of_the_class_stays(self, one):
        connection, blob = with_blob(one)
        text = connection.root.text = f"c{objstore.Blob.__module__}\nBlob\n"
        connection.root.again = blob
        commit(connection)
        other = opened(one)
        assert other.root.text == text
        assert content(other.root.again) == b"first"


class TestConsuming:
    def test_a_file_is_taken_over(self, few, tmp_path):
        connection, blob = with_blob(few)
        source = tmp_path / "source"
        source.write_bytes(b"consumed")
        blob.consume(source)
        assert not source.exists()
        assert content(blob) == b"consumed"
        commit(connection)
        assert content(opened(few).root.blob) == b"consumed"

    def test_on_the_same_filesystem_it_is_renamed(self, one, tmp_path):
        connection, blob = with_blob(one)
        source = tmp_path / "source"
        source.write_bytes(b"consumed")
        source.chmod(0o400)
        number = source.stat().st_ino
        blob.consumeFile(str(source))
        commit(connection)
        assert os.stat(blob.committed()).st_ino == number

    def test_what_others_know_too_is_copied(self, one, tmp_path):
        connection, blob = with_blob(one)
        source, other = tmp_path / "source", tmp_path / "other"
        source.write_bytes(b"consumed")
        os.link(source, other)
        blob.consume(source)
        commit(connection)
        other.write_bytes(b"changed!")
        assert content(blob) == b"consumed"
        assert not source.exists()

    def test_from_another_filesystem_it_is_copied(self, one):
        connection, blob = with_blob(one)
        shm = "/dev/shm"  # noqa: S108  # which is one
        if not os.path.isdir(shm) or os.stat(shm).st_dev == os.stat(one.store.name).st_dev:
            pytest.skip("there is no other filesystem")
        source = f"{shm}/objstore-test-{os.getpid()}"
        with open(source, "wb") as file:
            file.write(b"z" * 3_000_000)
        blob.consume(source)
        assert not os.path.exists(source)
        commit(connection)
        assert content(blob) == b"z" * 3_000_000

    def test_a_missing_file_changes_nothing(self, few, tmp_path):
        connection, blob = with_blob(few)
        write(blob, b"second")
        with pytest.raises(FileNotFoundError):
            blob.consume(tmp_path / "missing")
        assert content(blob) == b"second"
        commit(connection)
        assert content(blob) == b"second"

    def test_the_data_of_another_blob_cannot_be_taken_away(self, one, tmp_path):
        connection, blob = with_blob(one)
        new = connection.root.new = objstore.Blob()
        connection.add(new)
        with pytest.raises(UsageError, match="a file of the store itself"):
            new.consume(blob.committed())
        os.symlink(one.store.name, tmp_path / "elsewhere")
        with pytest.raises(UsageError, match="a file of the store itself"):
            new.consume(blob.committed().replace(one.store.name, str(tmp_path / "elsewhere")))
        abort(connection)
        assert content(blob) == b"first"

    def test_what_a_symbolic_link_leads_to_is_copied(self, one, tmp_path):
        connection, blob = with_blob(one)
        source, link = tmp_path / "source", tmp_path / "link"
        source.write_bytes(b"consumed")
        link.symlink_to(source)
        blob.consume(link)
        commit(connection)
        assert content(blob) == source.read_bytes() == b"consumed"
        assert not link.exists()

    def test_before_it_belongs_to_a_database(self, few, tmp_path):
        source = tmp_path / "source"
        source.write_bytes(b"consumed")
        blob = objstore.Blob()
        blob.consume(source)
        assert content(blob) == b"consumed"
        connection = opened(few)
        connection.root.blob = blob
        commit(connection)
        assert content(opened(few).root.blob) == b"consumed"


class TestOneAtATime:
    def test_one_writer_or_several_readers(self, few):
        _connection, blob = with_blob(few)
        with blob.open(), blob.open():
            for change in (lambda: blob.open("w"), lambda: blob.open("a"), lambda: blob.consume("/nowhere")):
                with pytest.raises(BlobError, match="open for reading"):
                    change()
            assert blob.opened()
        with blob.open("w"):
            for mode in ("r", "w", "a", "r+"):
                with pytest.raises(BlobError, match="open for writing"):
                    blob.open(mode)
            with pytest.raises(BlobError, match="open for writing"):
                blob.consume("/nowhere")
        assert not blob.opened()

    def test_what_is_open_is_not_committed(self, few):
        connection, blob = with_blob(few)
        for end in (connection.transaction_manager.savepoint, connection.transaction_manager.commit):
            with blob.open("w") as file:
                file.write(b"second")
                with pytest.raises(BlobError, match="close it before"):
                    end()
                abort(connection)
                assert file.closed
        assert content(blob) == b"first"

    @pytest.mark.filterwarnings("ignore")  # Python warns of forgotten files
    def test_a_forgotten_file_counts_as_closed(self, few):
        connection, blob = with_blob(few)
        blob.open("a").write(b" and more")
        gc.collect()
        commit(connection)
        assert content(blob) == b"first and more"

    def test_a_conflict(self, few):
        connection, blob = with_blob(few)
        other = opened(few)
        write(other.root.blob, b"theirs")
        write(blob, b"mine")
        commit(other)
        with pytest.raises(ConflictError):
            commit(connection)
        abort(connection)
        assert content(blob) == content(opened(few).root.blob) == b"theirs"
        assert len([name for name in files_of(few) if name.endswith(".tmp")]) == 0


class TestAmongOthers:
    def test_a_reader_is_closed_when_others_have_changed_what_it_reads(self, few):
        with_blob(few)
        reader = opened(few)
        blob = reader.root.blob
        file = blob.open()
        with few.transaction() as other:
            write(other.root.blob, b"second")
        assert file.read() == b"first"
        reader.transaction_manager.begin()
        assert file.closed
        assert content(blob) == b"second"

    def test_a_reader_is_closed_when_what_it_reads_is_taken_back(self, few):
        connection, blob = with_blob(few)
        write(blob, b"second")
        file = blob.open()
        abort(connection)
        assert file.closed
        assert content(blob) == b"first"

    def test_a_reader_outlives_its_connection(self, few):
        connection, blob = with_blob(few)
        with blob.open() as file:
            connection.close()
            assert file.read() == b"first"

    def test_what_is_open_is_not_dropped_from_memory(self, few):
        connection, blob = with_blob(few)
        with blob.open() as file:
            connection.cacheMinimize()
            assert blob._p_changed is not None
            with pytest.raises(BlobError):
                blob.open("w")
            assert file.read() == b"first"
        connection.cacheMinimize()
        assert blob._p_changed is None
        assert content(blob) == b"first"

    def test_a_bucket_of_blobs_is_merged(self, few):
        connection = opened(few)
        connection.root.tree = OOBTree({"first": objstore.Blob(b"first")})
        commit(connection)
        other = opened(few)
        other.root.tree["theirs"] = objstore.Blob(b"theirs")
        connection.root.tree["mine"] = objstore.Blob(b"mine")
        commit(other)
        commit(connection)
        fresh = opened(few)
        found = {name: content(blob) for name, blob in fresh.root.tree.items()}
        assert found == {"first": b"first", "mine": b"mine", "theirs": b"theirs"}
        data, _ = fresh.view.load(fresh.root.tree._p_oid)
        assert b"cZODB.blob\nBlob\n" in data
        assert b"objstore" not in data

    def test_a_weak_reference(self, few):
        connection, blob = with_blob(few)
        connection.root.weak = WeakRef(blob)
        commit(connection)
        assert content(opened(few).root.weak()) == b"first"

    def test_beside_an_object_whose_class_is_missing(self, one):
        """Such records are written by another pickler."""
        connection, blob = with_blob(one)
        connection.root.other = [stand_in("gone", "Missing")(), blob]
        commit(connection)
        data, _ = connection.view.load(connection.root()._p_oid)
        assert b"cgone\nMissing\n" in data
        assert b"cZODB.blob\nBlob\n" in data
        assert content(opened(one).root.other[1]) == b"first"


class TestTheEndOfTransactions:
    def test_an_abort_leaves_no_file(self, few):
        connection, blob = with_blob(few)
        before = files_of(few)
        write(blob, b"second")
        new = connection.root.new = objstore.Blob(b"new")
        connection.add(new)
        write(new, b"newer")
        connection.transaction_manager.savepoint()
        write(blob, b"third")
        abort(connection)
        del new
        gc.collect()
        assert files_of(few) == before

    def test_savepoints(self, few):
        connection, blob = with_blob(few)
        manager = connection.transaction_manager
        write(blob, b"second")
        one = manager.savepoint()
        write(blob, b" and", "a")
        assert content(blob) == b"second and"
        two = manager.savepoint()
        assert content(blob) == b"second and"
        write(blob, b"third")
        two.rollback()
        assert content(blob) == b"second and"
        write(blob, b" so on", "a")
        assert content(blob) == b"second and so on"
        one.rollback()
        assert content(blob) == b"second"
        with pytest.raises(BlobError, match="not committed"):
            blob.committed()
        commit(connection)
        assert content(opened(few).root.blob) == b"second"
        assert [name for name in files_of(few) if name.endswith(".tmp")] == []

    @pytest.mark.parametrize("rolled_back", [True, False])
    def test_what_was_written_after_a_savepoint_leaves_no_file(self, few, rolled_back):
        """The pickler kept alive what it had written last, and with it the blob and its file."""
        connection = opened(few)
        before = connection.transaction_manager.savepoint()
        connection.root.new = objstore.Blob(b"new")
        connection.transaction_manager.savepoint()
        write(connection.root.new, b"newer")
        if rolled_back:
            before.rollback()
        else:
            abort(connection)
        gc.collect()
        assert [name for name in files_of(few) if name.endswith(".tmp")] == []

    def test_a_blob_made_after_a_savepoint_goes_with_it(self, few):
        connection, _ = with_blob(few)
        point = connection.transaction_manager.savepoint()
        new = connection.root.new = objstore.Blob(b"new")
        point.rollback()
        assert "new" not in connection.root()
        assert content(new) == b"new"  # it is as new as it was
        connection.root.again = new
        commit(connection)
        assert content(opened(few).root.again) == b"new"

    def test_a_new_blob_whose_commit_failed_says_so(self, few):
        connection, _ = with_blob(few)
        other = opened(few)
        other.root()["x"] = 1
        commit(other)
        new = connection.root()["x"] = objstore.Blob(b"new")
        with pytest.raises(ConflictError):
            commit(connection)
        abort(connection)
        with pytest.raises(BlobError, match="were given up"):
            new.open()
        write(new, b"written again")
        connection.root.new = new
        commit(connection)
        assert content(new) == b"written again"

    def test_a_retried_function_writes_again(self, few):
        with_blob(few)[0].close()
        calls = []

        def change(connection):
            calls.append(content(connection.root.blob))
            if len(calls) == 1:
                with few.transaction() as other:
                    write(other.root.blob, b"theirs")
            write(connection.root.blob, b", mine", "a")

        few.run(change, sleep=lambda _: None)
        assert calls == [b"first", b"theirs"]
        assert content(opened(few).root.blob) == b"theirs, mine"

    def test_nothing_else_changes_when_only_its_flag_does(self, few):
        connection, blob = with_blob(few)
        blob._p_changed = True
        commit(connection)
        assert content(opened(few).root.blob) == content(blob) == b"first"


class TestTheStore:
    def test_reopened(self, databases):
        for kind in KINDS:
            if kind.startswith("memory"):
                continue
            db = databases(kind)
            connection, blob = with_blob(db)
            write(blob, b"second")
            commit(connection)
            connection.close()
            db.close()
            again = databases(kind)
            assert content(opened(again).root.blob) == b"second"

    def test_temporary_files_of_a_killed_process_are_swept(self, databases):
        db = databases("segmented-full")
        connection, _blob = with_blob(db)
        path = db.store.blobs.temporary()
        abort(connection)
        connection.close()
        db.close()
        assert os.path.exists(path)
        again = databases("segmented-full")
        assert not os.path.exists(path)
        assert content(opened(again).root.blob) == b"first"

    def test_read_only(self, databases):
        db = databases("segmented-full")
        with_blob(db)[0].close()
        reader = databases("segmented-full", read_only=True)
        connection = opened(reader)
        blob = connection.root.blob
        assert content(blob) == b"first"
        with open(blob.committed(), "rb") as file:
            assert file.read() == b"first"
        for change in (lambda: blob.open("w"), lambda: blob.open("a"), lambda: blob.consume("/etc/hostname")):
            with pytest.raises(ReadOnlyError):
                change()
            abort(connection)
        assert content(blob) == b"first"

    def test_closed_connections(self, few):
        connection, blob = with_blob(few)
        content(blob)
        connection.close()
        for mode in ("r", "w", "c"):
            with pytest.raises(ClosedError):
                blob.open(mode)
        with pytest.raises(ClosedError):
            blob.committed()

    def test_a_missing_file(self, one):
        connection, blob = with_blob(one)
        os.unlink(blob.committed())
        connection.cacheMinimize()
        for use in (blob.open, blob.committed, lambda: blob.open("a")):
            with pytest.raises(BlobMissingError, match=f"blob {blob._p_oid.hex()} of transaction"):
                use()
        abort(connection)
        write(blob, b"again")
        commit(connection)
        assert content(blob) == b"again"

    def test_a_snapshot_that_was_given_up(self, databases):
        db = databases("flat-minimal", pin_limit=1, journal_limit=1)
        connection, blob = with_blob(db)
        reader = opened(db)
        read = reader.root.blob
        content(read)
        for at in range(3):
            write(blob, b"%d" % at)
            commit(connection)
        db.store.flush()
        with pytest.raises(SnapshotTooOldError):
            content(read)

    def test_a_store_without_blobs_says_so(self, databases):
        db = databases("model-full")
        connection = opened(db)
        connection.root.blob = objstore.Blob(b"x")
        with pytest.raises(UsageError, match="keeps no blobs"):
            commit(connection)

    def test_another_class_of_zodbs_is_refused(self, one):
        import ZODB.blob

        connection = opened(one)
        connection.root.blob = ZODB.blob.Blob(b"x")
        with pytest.raises(SerializationError, match=r"make an objstore\.Blob"):
            commit(connection)
        abort(connection)
        with_blob(one)  # though ZODB is imported by now
        assert content(opened(one).root.blob) == b"first"

    def test_allowed_classes_permit_blobs(self, databases):
        with_blob(databases("segmented-full"))[0].close()
        db = databases("segmented-full", allowed_classes=["nothing.at.all"])
        assert content(opened(db).root.blob) == b"first"

    def test_no_subclasses(self):
        with pytest.raises(TypeError, match="cannot be subclassed"):
            type("Mine", (objstore.Blob,), {})

    def test_files_are_private_to_the_user_as_the_umask_says(self, one):
        _, blob = with_blob(one)
        mask = os.umask(0)
        os.umask(mask)
        assert stat.S_IMODE(os.stat(blob.committed()).st_mode) == 0o444 & ~mask  # nobody may change it


class TestHistory:
    def test_the_past_has_the_blob_of_then(self, full):
        connection, blob = with_blob(full)
        for data in (b"second", b"third"):
            write(blob, data)
            commit(connection)
        full.store.flush()
        tids = [entry["tid"] for entry in full.history(blob._p_oid, 10)]
        assert [content(opened(full, at=tid).root.blob) for tid in tids] == [b"third", b"second", b"first"]
        past = opened(full, at=tids[1])
        with pytest.raises(ReadOnlyError):
            past.root.blob.open("w")

    @pytest.mark.parametrize("flushed", [False, True])
    def test_undo(self, full, flushed):
        connection, blob = with_blob(full)
        for data in (b"second", b"third"):
            write(blob, data)
            commit(connection)
        for expected in (b"second", b"first"):
            if flushed:
                full.store.flush()
            tids = [entry["tid"] for entry in full.history(blob._p_oid, 10)]
            undone = tids[0] if expected == b"second" else tids[2]
            full.undo(undone, connection.transaction_manager.get())
            commit(connection)
            assert content(blob) == content(opened(full).root.blob) == expected
        assert len(full.history(blob._p_oid, 10)) == 5

    def test_an_undo_in_the_midst_is_refused(self, full):
        """All blobs have the same record, so their data must be looked at."""
        connection, blob = with_blob(full)
        write(blob, b"second")
        commit(connection)
        second = blob._p_serial
        write(blob, b"third")
        commit(connection)
        full.undo(second, connection.transaction_manager.get())
        with pytest.raises(objstore.UndoError, match="changed by a later transaction"):
            commit(connection)
        abort(connection)
        assert content(blob) == b"third"

    def test_undoing_the_creation_and_that_again(self, full):
        connection, _blob = with_blob(full)
        created = full.undoLog()[0]["id"]
        full.undo(created, connection.transaction_manager.get())
        commit(connection)
        assert "blob" not in opened(full).root()
        full.undo(full.undoLog()[0]["id"], connection.transaction_manager.get())
        commit(connection)
        assert content(opened(full).root.blob) == b"first"


def test_a_full_disk_fails_the_transaction_and_not_the_store():
    from objstore.contracts import StoreOptions
    from objstore.engine.opening import open_store
    from objstore.machine.memory import MemoryFilesystem
    from objstore.upkeep.pack import pack

    filesystem = MemoryFilesystem()
    store = open_store("/store", StoreOptions(), filesystem=filesystem, packer=pack)
    db = DB(store)
    connection, blob = with_blob(db)
    filesystem.capacity = filesystem._used + 100_000
    with pytest.raises(OSError, match="No space left"), blob.open("w") as file:
        file.write(b"x" * 200_000)
    with pytest.raises(StorageFullError, match="a blob could not be written"):
        commit(connection)
    abort(connection)
    assert content(blob) == b"first"
    write(blob, b"small")
    commit(connection)
    assert content(opened(db).root.blob) == b"small"
    db.close()
