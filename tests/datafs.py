"""Files of ZODB's FileStorage for the tests, with everything in them that a history may have."""

from __future__ import annotations

import random
from datetime import datetime

import transaction
import ZODB
from BTrees.OOBTree import OOBTree
from persistent.mapping import PersistentMapping
from ZODB.Connection import TransactionMetaData
from ZODB.FileStorage import FileStorage
from ZODB.utils import p64

_CLASS = b"cpersistent.mapping\nPersistentMapping\nq\x01"
PYTHON2 = (
    b"(" + _CLASS + b"Nt.}q\x02U\x04dataq\x03}q\x04U\x03keyq\x05U\x04\xe4\xf6\xfc\xffq\x06ss.",
    b"\x80\x02" + _CLASS + b".\x80\x02}q\x02U\x04dataq\x03}q\x04U\x01aq\x05U\x02b\xe4q\x06ss.",
)
"""Records as Python 2 has written them, protocols 1 and 2: with `str` that is no text."""


def make(path, *, objects=40, transactions=50, undo_every=10, seed=1):
    """A file with a tree of objects, changes, undos, an undone creation and its undo, and metadata."""
    rng = random.Random(seed)
    storage = FileStorage(str(path))
    db = ZODB.DB(storage)
    try:
        _history(db, rng, objects, transactions, undo_every)
        _python2(storage)
    finally:
        db.close()
    return path


def _history(db, rng, objects, transactions, undo_every):
    manager = transaction.TransactionManager()
    connection = db.open(manager)
    root = connection.root()
    root["tree"] = tree = OOBTree()
    for number in range(objects):
        tree[f"{number:06}"] = PersistentMapping(number=number)
        if number % 1000 == 999:  # FileStorage looks for what an undo copied from one end of a transaction
            manager.commit()
    root["gone"] = PersistentMapping(soon=True)
    _commit(manager, "first", "jürgen", {"nested": {"a": [1, 2]}, "moment": datetime(2020, 1, 2)})
    for number in range(transactions):
        for _ in range(rng.randrange(1, 4)):
            tree[f"{rng.randrange(objects):06}"]["number"] = (number, "x" * rng.randrange(200))
        if number % 7 == 3:
            tree[f"new {number}"] = PersistentMapping(number=number, other=root["tree"])
        if number % 11 == 5:
            root.pop("gone", None)
        _commit(manager, f"change {number}", "", {"number": number} if number % 3 else {})
        if number % undo_every == undo_every - 1:
            undone = db.undoInfo(0, rng.randrange(1, 3))
            db.undoMultiple([each["id"] for each in undone], manager.get())
            _commit(manager, f"undone {number}")
    for number in range(2):
        tree["000001"]["twice"] = number
        _commit(manager, f"to be undone with the other: {number}")
    db.undoMultiple([each["id"] for each in db.undoInfo(0, 2)], manager.get())
    _commit(manager, "two undone, which write one object twice")
    created = root["created"] = PersistentMapping(here=1)
    _commit(manager, "create")
    db.undo(db.undoInfo(0, 1)[0]["id"], manager.get())
    _commit(manager, "its creation is undone")
    db.undo(db.undoInfo(0, 1)[0]["id"], manager.get())
    _commit(manager, "and is redone")
    assert created._p_oid
    root["last"] = PersistentMapping(here=2)
    _commit(manager, "create another")
    db.undo(db.undoInfo(0, 1)[0]["id"], manager.get())
    _commit(manager, "which stays undone")
    connection.close()


def _commit(manager, note, user="", extension=()):
    current = manager.get()
    current.note(note)
    current.setUser(user)
    for name, value in dict(extension).items():
        current.setExtendedInfo(name, value)
    manager.commit()


def _python2(storage):
    """Records and metadata that no program of Python 3 writes."""
    add(storage, {p64(900_000 + at): data for at, data in enumerate(PYTHON2)}, user=b"J\xfcrgen", note=b"\xe4")


def add(storage, records, *, user=b"", note=b"", extension=b""):
    """Commit records as they are; the tid."""
    committed = TransactionMetaData(user, note, extension)
    storage.tpc_begin(committed)
    for oid, data in records.items():
        storage.store(oid, p64(0), data, "", committed)
    storage.tpc_vote(committed)
    return storage.tpc_finish(committed)


def go_on(path, count, *, seed=2):
    """Commit more to a file."""
    rng = random.Random(seed)
    db = ZODB.DB(FileStorage(str(path)))
    manager = transaction.TransactionManager()
    connection = db.open(manager)
    tree = connection.root()["tree"]
    for number in range(count):
        tree[rng.choice(list(tree))]["more"] = number
        _commit(manager, f"more {number}")
    connection.close()
    db.close()


def content(path):
    """All that a file has, in a form that can be compared."""
    storage = FileStorage(str(path), read_only=True)
    try:
        return list(everything(storage))
    finally:
        storage.close()


def everything(storage):
    """All transactions of a storage that is open.

    A FileStorage may have written an object twice in one transaction, which undid several: the last counts.
    """
    for each in storage.iterator():
        last = {record.oid: (record.oid, record.data, record.data_txn) for record in each}
        records = [last[oid] for oid in sorted(last)]
        yield each.tid, each.user, each.description, each.extension_bytes, records
