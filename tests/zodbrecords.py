"""Records for tests: ZODB's own, and ones put together as old versions of it wrote them."""

from __future__ import annotations

import io
import itertools
import pickle
from collections.abc import Collection

import persistent
import ZODB
from BTrees.IOBTree import IOBTree
from BTrees.OOBTree import OOBTree, OOTreeSet
from hypothesis import strategies as st
from persistent.list import PersistentList
from persistent.mapping import PersistentMapping
from persistent.wref import WeakRef

from objstore.ids import oid_from


class Sized(persistent.Persistent):
    """Created with arguments, so references to it carry no class."""

    def __new__(cls, *_arguments):
        return persistent.Persistent.__new__(cls)

    def __init__(self, size, friend):
        self.size = size
        self.friend = friend

    def __getnewargs__(self):
        return (self.size, self.friend)


def zodb_records() -> dict[bytes, bytes]:
    """The records of a small database of many kinds of objects, by oid."""
    database = ZODB.DB(None)
    with database.transaction() as connection:
        root = connection.root()
        root["tree"] = OOBTree({f"key {n}": PersistentMapping(n=n) for n in range(100)})
        root["set"] = OOTreeSet(range(3))
        root["numbers"] = IOBTree({n: "ä" * n for n in range(300)})
        root["list"] = PersistentList([root["tree"], root["tree"], b"\x00" * 8, ("w", 2.5, 2**70, None, True)])
        root["weak"] = WeakRef(root["tree"])
        root["cycle"] = PersistentMapping(root=root)
        root["sized"] = Sized(3, root["list"])
        root["large"] = PersistentMapping({n: (n, [n], {n: n}, {n}) for n in range(200)})
        root["large"]["end"] = root["list"]
    records = {}
    with database.transaction() as connection:
        for number in itertools.count():
            oid = oid_from(number)
            if number == len(connection._storage):
                break
            records[oid] = connection._storage.load(oid)[0]
    database.close()
    return records


class Pid:
    """Pickled as this persistent id."""

    def __init__(self, value):
        self.value = value


class ReferencePickler(pickle.Pickler):
    def persistent_id(self, obj):
        return obj.value if isinstance(obj, Pid) else None


def pickled(class_: object, state: object, protocol: int = 3) -> bytes:
    """A record as ZODB's writer makes it, with one memo for both of its pickles."""
    out = io.BytesIO()
    pickler = ReferencePickler(out, protocol)
    pickler.dump(class_)
    pickler.dump(state)
    return out.getvalue()


def python2_record(state: bytes, name: bytes = b"old.module\nOld\n") -> bytes:
    """A record as Python 2 wrote it in protocol 1."""
    return b"(c" + name + b"q\x01Nt." + state


@st.composite
def damaged(draw: st.DrawFn, records: Collection[bytes]) -> bytes:
    """One of the shorter records, with up to four of its bytes replaced."""
    record = bytearray(draw(st.sampled_from(sorted(records, key=len)[:60])))
    for _ in range(draw(st.integers(1, 4))):
        record[draw(st.integers(0, len(record) - 1))] = draw(st.integers(0, 255))
    return bytes(record)


class Spy:
    """Whatever calls, builds or hashes this has executed a pickle."""

    touched = 0

    def __init__(self, *_):
        type(self).touched += 1

    def __reduce__(self):
        return Spy, ()
