"""Blobs go from objstore to ZODB and back: records, and export files."""

from __future__ import annotations

import io
import subprocess
import sys

import pytest
import transaction
import ZODB
import ZODB.blob
from BTrees.OOBTree import OOBTree
from databases import abort, commit, opened
from test_blobs import content, write
from things import Thing
from ZODB.DemoStorage import DemoStorage
from ZODB.FileStorage import FileStorage

import objstore
from objstore.errors import SerializationError
from objstore.ids import Oid

pytest_plugins = ["database_fixtures"]

KINDS = ["segmented-full", "flat-minimal", "memory-full"]


@pytest.fixture(params=KINDS)
def db(request, databases) -> objstore.DB:
    return databases(request.param)


@pytest.fixture
def zodb(tmp_path):
    db = ZODB.DB(FileStorage(str(tmp_path / "Data.fs"), blob_dir=str(tmp_path / "zodb-blobs")))
    yield db
    transaction.abort()
    db.close()


def zodb_graph(zodb) -> bytes:
    """What ZODB exports of a graph with blobs."""
    connection = zodb.open()
    tree = connection.root()["tree"] = OOBTree({at: ZODB.blob.Blob(b"%d" % at * 1000) for at in range(40)})
    connection.root()["thing"] = thing = Thing(tree=tree, blob=tree[3], empty=ZODB.blob.Blob())
    transaction.commit()
    file = io.BytesIO()
    connection.exportFile(thing._p_oid, file)
    connection.close()
    return file.getvalue()


def test_zodbs_export_is_imported(db, zodb):
    exported = zodb_graph(zodb)
    connection = opened(db)
    thing = connection.root.thing = connection.importFile(io.BytesIO(exported))
    assert content(thing.blob) == b"3" * 1000
    commit(connection)
    other = opened(db)
    assert [content(each) for each in other.root.thing.tree.values()] == [b"%d" % at * 1000 for at in range(40)]
    assert other.root.thing.blob is other.root.thing.tree[3]
    assert content(other.root.thing.empty) == b""
    assert type(other.root.thing.blob) is objstore.Blob


def test_our_export_is_imported_by_zodb(db, zodb):
    connection = opened(db)
    tree = OOBTree({at: objstore.Blob(b"%d" % at * 1000) for at in range(40)})
    thing = connection.root.thing = Thing(tree=tree, blob=tree[3], empty=objstore.Blob())
    commit(connection)
    write(thing.blob, b"as of a savepoint")
    connection.transaction_manager.savepoint()
    file = io.BytesIO()
    connection.exportFile(Oid(thing._p_oid), file)
    abort(connection)
    theirs = zodb.open()
    file.seek(0)
    theirs.root()["thing"] = theirs.importFile(file)
    transaction.commit()
    found = theirs.root()["thing"]
    assert type(found.blob) is ZODB.blob.Blob
    with found.blob.open() as blob:
        assert blob.read() == b"as of a savepoint"
    with found.tree[4].open() as blob:
        assert blob.read() == b"4" * 1000
    with found.empty.open() as blob:
        assert blob.read() == b""


def test_there_and_back_again(db, zodb):
    first = zodb_graph(zodb)
    connection = opened(db)
    thing = connection.root.thing = connection.importFile(io.BytesIO(first))
    commit(connection)
    second = io.BytesIO()
    connection.exportFile(Oid(thing._p_oid), second)
    oids = [first[4:12], second.getvalue()[4:12]]
    assert len(second.getvalue()) == len(first)
    assert first.count(b"BLOBSTART") == second.getvalue().count(b"BLOBSTART") == 41
    assert oids[0] != oids[1]


def test_records_are_zodbs_byte_for_byte(databases):
    """The same objects, with the same oids, in both: nothing differs in their records."""
    ours, theirs = databases("segmented-full"), ZODB.DB(DemoStorage())
    records = []
    for db, blob in ((ours, objstore.Blob), (theirs, ZODB.blob.Blob)):
        manager = transaction.TransactionManager()
        connection = db.open(manager)
        tree = OOBTree()
        root = connection.root()
        root["tree"] = tree
        connection.add(tree)
        for at in range(20):
            each = blob(b"%d" % at)
            connection.add(each)
            tree[at] = each
        thing = Thing(blobs=[tree[3], tree[4], tree[3]], text="cZODB.blob\nBlob\n")
        root["thing"] = thing
        connection.add(thing)
        manager.commit()
        load = connection.view.load if db is ours else connection._storage.load
        objects = [thing, tree, *tree.values()]
        first = int.from_bytes(tree._p_oid, "big")
        found = {}
        for obj in objects:
            data = load(obj._p_oid)[0]
            for number in range(first, first + 30):  # oids, counted from the tree's
                data = data.replace(number.to_bytes(8, "big"), b"oid %04d" % (number - first))
            found[int.from_bytes(obj._p_oid, "big") - first] = data
        records.append(found)
        connection.close()
    assert records[0] == records[1]
    theirs.close()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda export: export.replace(b"\0BLOBSTART", b"\0BLOBSTARX", 1), "lacks the data of a blob"),
        (lambda export: export[: export.index(b"BLOBSTART") + 30], "cut off"),
        (lambda export: export[: export.index(b"BLOBSTART") + 12], "cut off"),
    ],
)
def test_damaged_exports_leave_nothing(db, zodb, change, reason):
    damaged = change(zodb_graph(zodb))
    connection = opened(db)
    connection.root.x = 1
    with pytest.raises(SerializationError, match=reason):
        connection.importFile(io.BytesIO(damaged))
    commit(connection)
    fs, place = db.store.filesystem, db.store.directory.temporary_blobs
    assert not fs.exists(place) or fs.entries(place) == []


def test_zodb_is_not_needed(tmp_path):
    """ZODB is neither imported nor asked for, as where it is not installed."""
    program = """
import sys
sys.modules["ZODB"] = None  # which makes importing it fail
import transaction
import objstore

db = objstore.open(sys.argv[1])
connection = db.open()
connection.root.blob = objstore.Blob(b"data")
connection.root.again = [connection.root.blob, {"x": connection.root.blob}]
transaction.commit()
with connection.root.blob.open("a") as file:
    file.write(b" and more")
transaction.commit()
db.undo(db.undoLog()[0]["id"])
transaction.commit()
connection.cacheMinimize()
print(connection.root.again[0].open().read())
db.pack()
db.close()
with objstore.open(sys.argv[1]) as db:
    print(db.open().root.blob.open().read())
print([name for name in sys.modules if name.startswith("ZODB")])
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "store")], capture_output=True, text=True, check=False
    )
    assert done.stdout == "b'data'\nb'data'\n['ZODB']\n", done.stderr
