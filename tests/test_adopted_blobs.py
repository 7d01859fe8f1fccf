"""The tests of blobs in the object layer, over ZODB's storages: FileStorage, and ZEO and RelStorage on servers.

The tests are those of `test_blobs`, with other databases in the fixtures. Left out is what is about the files of
our own stores.
"""

from __future__ import annotations

import io
import os

import pytest
import test_blobs
from BTrees.Length import Length
from BTrees.OOBTree import OOBTree
from databases import abort, commit, opened
from servers import Zeo, postgresql, why_no_postgresql
from test_blobs import content, with_blob, write
from things import Thing

import objstore
from objstore.errors import BlobMissingError, MissingAbilityError, ReadOnlyError

KINDS = ["filestorage", "zeo", "postgresql"]


@pytest.fixture(scope="module")
def zeo():
    """A server whose storages have blobs."""
    server = Zeo(blobs=True)
    yield server
    server.stop()


@pytest.fixture
def url(request, tmp_path):
    """Makes the URL of a storage of a kind, with blobs."""

    def make(kind):
        blobs = tmp_path / f"{kind}-blobs"
        if kind == "filestorage":
            return f"file://{tmp_path}/Data.fs?blobstorage_dir={blobs}"
        if kind == "zeo":
            return f"{request.getfixturevalue('zeo').fresh()}&blob_dir={blobs}"
        if why_no_postgresql():
            pytest.skip(why_no_postgresql())
        return f"{postgresql().fresh()}?blob_dir={blobs}&shared_blob_dir=false"

    return make


@pytest.fixture(params=KINDS)
def db(request, url):
    db = objstore.open(url(request.param))
    yield db
    db.close()


@pytest.fixture
def full(db):
    return db


@pytest.fixture
def one(url):
    """For what does not depend on the storage."""
    db = objstore.open(url("filestorage"))
    yield db
    db.close()


@pytest.fixture
def few(one):
    return one


def temporaries(db):
    with db.store._reading.newest() as storage:
        return [name for name in os.listdir(storage.temporaryDirectory()) if not name.startswith(".")]


@pytest.fixture(autouse=True)
def same_files(monkeypatch):
    """What a test asks of the files that are there, it learns of the temporary ones."""
    monkeypatch.setattr(test_blobs, "files_of", temporaries)


class TestReadingAndWriting(test_blobs.TestReadingAndWriting):
    pass


class TestConsuming(test_blobs.TestConsuming):
    pass


class TestOneAtATime(test_blobs.TestOneAtATime):
    pass


class TestTheEndOfTransactions(test_blobs.TestTheEndOfTransactions):
    pass


class TestHistory(test_blobs.TestHistory):
    def test_an_undo_in_the_midst_is_refused(self, full):
        """It is not by ZODB's storages: to them all records of blobs are the same."""
        connection, blob = with_blob(full)
        for data in (b"second", b"third"):
            write(blob, data)
            commit(connection)
        full.undo(full.history(blob._p_oid, 2)[1]["tid"], connection.transaction_manager.get())
        commit(connection)
        assert content(blob) == b"first"


def test_what_others_have_changed_is_merged_beside_a_blob(db):
    """The vote is begun anew then, and the storage given the blob again."""
    connection, blob = with_blob(db)
    connection.root.count = Length(0)
    connection.root.tree = OOBTree()
    commit(connection)
    other = opened(db)
    other.root.count.change(1)
    other.root.tree["theirs"] = objstore.Blob(b"theirs")
    connection.root.count.change(2)
    connection.root.tree["mine"] = objstore.Blob(b"mine")
    write(blob, b"second")
    commit(other)
    commit(connection)
    root = opened(db).root
    assert root.count() == 3
    assert [content(each) for each in (root.blob, root.tree["mine"], root.tree["theirs"])] == [
        b"second",
        b"mine",
        b"theirs",
    ]
    assert temporaries(db) == []


def test_packing(db):
    connection, blob = with_blob(db)
    write(blob, b"second")
    commit(connection)
    db.pack()
    assert content(opened(db).root.blob) == content(blob) == b"second"


def test_export_and_import(db):
    connection, blob = with_blob(db)
    connection.root.thing = Thing(blob=blob)
    commit(connection)
    file = io.BytesIO()
    connection.exportFile(connection.root.thing._p_oid, file)
    file.seek(0)
    with objstore.memory() as memory:
        for target in (db, memory):
            there = opened(target)
            there.root.again = there.importFile(file)
            commit(there)
            assert content(opened(target).root.again.blob) == b"first"
            file.seek(0)


def test_read_only(url):
    where = url("filestorage")
    with objstore.open(where) as db:
        with_blob(db)[0].close()
    with objstore.open(where, read_only=True) as reader:
        connection = opened(reader)
        blob = connection.root.blob
        assert content(blob) == b"first"
        for change in (lambda: blob.open("w"), lambda: blob.open("a"), lambda: blob.consume("/etc/hostname")):
            with pytest.raises(ReadOnlyError):
                change()
            abort(connection)


def test_a_missing_file(one):
    connection, blob = with_blob(one)
    os.unlink(blob.committed())
    connection.cacheMinimize()
    for use in (blob.open, blob.committed, lambda: blob.open("a")):
        with pytest.raises(BlobMissingError):
            use()
    abort(connection)


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_directory_for_them(url, kind):
    with objstore.open(url(kind).partition("blob")[0][:-1]) as db:
        connection = opened(db)
        connection.root.blob = objstore.Blob(b"data")
        for end in (commit, lambda connection: connection.transaction_manager.savepoint()):
            with pytest.raises(MissingAbilityError, match="cannot keep blobs; open it with a directory"):
                end(connection)
            abort(connection)
            connection.root.blob = objstore.Blob(b"data")
        abort(connection)
        connection.root.other = 1
        commit(connection)
