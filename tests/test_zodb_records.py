"""Records are ZODB's: what one writes, the other reads, in both directions."""

from __future__ import annotations

import io
import pickletools

import pytest
import transaction
import ZODB
import ZODB.serialize
from BTrees.check import check
from BTrees.IOBTree import IOBTree
from BTrees.Length import Length
from BTrees.OOBTree import OOBTree, OOTreeSet
from databases import commit, opened
from persistent.list import PersistentList
from persistent.mapping import PersistentMapping
from persistent.wref import PersistentWeakKeyDictionary, WeakRef
from things import Counter, Keyed, Outer, Thing, Value
from ZODB.MappingStorage import MappingStorage
from ZODB.utils import p64, u64, z64

from objstore.errors import SerializationError
from objstore.formats import pickles
from objstore.ids import NO_TID, ROOT, split_oids
from objstore.revisions import Details

pytest_plugins = ["database_fixtures"]


def fill(root):
    """Hang one of everything below a root."""
    root["thing"] = thing = Thing(name="ä", data=b"\x00\xff" * 50, number=2**70, nothing=None, real=1.5)
    root["tree"] = OOBTree({f"key{number:04}": Thing(n=number) for number in range(500)})
    root["numbers"] = IOBTree({number: str(number) for number in range(100)})
    root["set"] = OOTreeSet(["a", "b"])
    root["length"] = Length(7)
    root["list"] = PersistentList([thing, thing, 3])
    root["mapping"] = PersistentMapping(thing=thing)
    root["weak"] = WeakRef(thing)
    root["weak_keys"] = PersistentWeakKeyDictionary([(thing, "value")])
    root["keyed"] = Keyed("k")
    root["keyed_again"] = [root["keyed"]]
    root["counter"] = Counter()
    root["values"] = [Value(1), {Value(2): (1, 2)}, {1, 2}, frozenset([3]), {"a": b"b"}]
    thing.circle = root["list"]


def verify(root):
    """What `fill` made is there."""
    thing = root["thing"]
    assert (thing.name, thing.data, thing.number) == ("ä", b"\x00\xff" * 50, 2**70)
    assert (thing.nothing, thing.real) == (None, 1.5)
    assert [each.n for each in root["tree"].values()] == list(range(500))
    check(root["tree"])
    root["tree"]._check()
    assert list(root["numbers"].items()) == [(number, str(number)) for number in range(100)]
    assert list(root["set"]) == ["a", "b"]
    assert root["length"]() == 7
    assert root["list"][0] is root["list"][1] is root["mapping"]["thing"] is thing
    assert root["weak"]() is thing
    assert root["weak_keys"][thing] == "value"
    assert root["keyed_again"][0] is root["keyed"]
    assert root["keyed"].key == "k"
    assert isinstance(root["counter"], Counter)
    assert root["values"] == [Value(1), {Value(2): (1, 2)}, {1, 2}, frozenset([3]), {"a": b"b"}]
    assert thing.circle is root["list"]


def records_of_ours(db):
    """All records of a database of ours, by oid."""
    connection = opened(db)
    records, waiting = {}, [ROOT]
    while waiting:
        oid = waiting.pop()
        if oid not in records:
            records[oid] = connection.view.load(oid)[0]
            waiting += split_oids(pickles.references(records[oid]))
    connection.close()
    return records


def store_in_zodb(records):
    """A ZODB storage that holds these records."""
    storage = MappingStorage()
    storage._oid = max(u64(oid) for oid in records)
    current = transaction.TransactionManager().begin()
    meta = ZODB.Connection.TransactionMetaData()
    storage.tpc_begin(meta)
    for oid, data in records.items():
        storage.store(oid, z64, data, "", meta)
    storage.tpc_vote(meta)
    storage.tpc_finish(meta)
    current.abort()
    return storage


def records_of_zodb(storage):
    return {oid: storage.load(oid)[0] for oid in storage._data}


def store_in_ours(db, records):
    """Put records into a database of ours, the root over the one that is there."""
    store = db.store
    view = store.view()
    while u64(store.new_oid()) < max(u64(oid) for oid in records):
        pass
    pending = store.begin(Details(description="from ZODB"), view, None)
    for oid, data in records.items():
        serial = view.load(oid)[1] if oid == ROOT else NO_TID
        pending.store(oid, serial, data, None)
    pending.vote()
    pending.finish()
    view.close()


@pytest.fixture
def ours(some):
    connection = opened(some)
    fill(connection.root())
    commit(connection)
    verify(connection.root())
    connection.close()
    return some


@pytest.fixture
def theirs():
    storage = MappingStorage()
    db = ZODB.DB(storage)
    manager = transaction.TransactionManager()
    connection = db.open(manager)
    fill(connection.root())
    manager.commit()
    verify(connection.root())
    connection.close()
    yield storage
    db.close()


def test_zodb_reads_ours(ours):
    db = ZODB.DB(store_in_zodb(records_of_ours(ours)))
    connection = db.open(transaction.TransactionManager())
    verify(connection.root())
    connection.close()
    db.close()


def test_zodb_reads_classes_within_classes(some):
    """It cannot write them, but it reads ours."""
    with some.transaction() as connection:
        connection.root.inner = Outer.Inner()
    db = ZODB.DB(store_in_zodb(records_of_ours(some)))
    other = db.open(transaction.TransactionManager())
    assert type(other.root()["inner"]) is Outer.Inner
    other.close()
    db.close()


def test_we_read_zodb_s(some, theirs):
    store_in_ours(some, records_of_zodb(theirs))
    connection = opened(some)
    connection.sync()
    verify(connection.root())


def test_they_survive_a_round_trip_of_changes(some, theirs):
    """Theirs, changed by us, read by them: every kind of reference was rewritten."""
    store_in_ours(some, records_of_zodb(theirs))
    connection = opened(some)
    connection.sync()
    touch(connection.root())
    commit(connection)
    db = ZODB.DB(store_in_zodb(records_of_ours(some)))
    other = db.open(transaction.TransactionManager())
    verify(other.root())
    other.close()
    db.close()


def touch(root):
    """Mark everything below the root as changed."""
    waiting, seen = [root], set()
    while waiting:
        obj = waiting.pop()
        if obj._p_oid not in seen:
            seen.add(obj._p_oid)
            obj._p_activate()
            obj._p_changed = True
            data, _ = obj._p_jar.view.load(obj._p_oid)
            waiting += [obj._p_jar.get(oid) for oid in split_oids(pickles.references(data))]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Thing(a=1, b="x", c=b"y", d=[1, 2], e=None),
        lambda: PersistentMapping(a=1),
        lambda: Keyed("k"),
        lambda: OOBTree({number: number for number in range(20)}),
        lambda: Thing(value=Value(3)),
    ],
)
def test_our_bytes_are_theirs(databases, make):
    """The same object in the same state: the same record, to the byte."""
    db = databases("model-full")
    zodb = ZODB.DB(MappingStorage())
    manager = transaction.TransactionManager()
    their = zodb.open(manager)
    their.root()["a"] = make()
    manager.commit()
    connection = opened(db)
    connection.root.a = make()
    commit(connection)
    theirs = zodb.storage.load(their.root()["a"]._p_oid)[0]
    ours = connection.view.load(connection.root.a._p_oid)[0]
    assert _listing(ours) == _listing(theirs)
    assert ours == theirs
    their.close()
    zodb.close()


def _listing(data):
    stream, found = io.BytesIO(data), []
    while stream.tell() < len(data):
        found += [(opcode.name, argument) for opcode, argument, _ in pickletools.genops(stream)]
    return found


def test_the_references_are_those_zodb_finds(ours):
    for data in records_of_ours(ours).values():
        assert set(ZODB.serialize.referencesf(data)) == set(split_oids(pickles.references(data)))


def test_the_references_we_store_are_those_in_the_record(databases):
    db = databases("model-full")
    connection = opened(db)
    fill(connection.root())
    commit(connection)
    for revisions in db.store.objects.values():
        for revision in revisions:
            assert sorted(split_oids(revision.references)) == sorted(split_oids(pickles.references(revision.data)))


def test_zodb_s_export_is_imported(some, theirs):
    db = ZODB.DB(theirs)
    connection = db.open(transaction.TransactionManager())
    export = connection.exportFile(z64)
    connection.close()
    db.close()
    export.seek(0)
    ours = opened(some)
    ours.root.imported = ours.importFile(export)
    export.close()
    commit(ours)
    fresh = opened(some)
    fresh.cacheMinimize()
    verify(fresh.root.imported)


def test_zodb_imports_our_export(ours):
    connection = opened(ours)
    export = io.BytesIO()
    del connection.root.weak, connection.root.weak_keys  # ZODB's import does not know weak references
    commit(connection)
    connection.exportFile(connection.root.list._p_oid, export)
    export.seek(0)
    db = ZODB.DB(MappingStorage())
    manager = transaction.TransactionManager()
    other = db.open(manager)
    other.root()["list"] = other.importFile(export)
    manager.commit()
    other.cacheMinimize()
    assert other.root()["list"][0].name == "ä"
    assert other.root()["list"][0].circle is other.root()["list"]
    other.close()
    db.close()


@pytest.mark.parametrize(
    "reference",
    [
        ["m", ("other", p64(1), Thing)],
        ["n", ("other", p64(1))],
        ["w", (p64(1), "other")],
        ["x", (p64(1),)],
        3,
    ],
)
def test_references_to_other_databases_are_refused(databases, reference):
    db = databases("model-full")
    record = _record(lambda value: reference if value == "here" else None)
    write_root(db, record)
    with pytest.raises(SerializationError, match=r"another database|unknown form"):
        opened(db).root().get("here")


@pytest.mark.parametrize("reference", [[z64], ["w", (z64,)], ["w", (z64, "unnamed")]])
def test_weak_references_of_all_ages(databases, reference):
    db = databases("model-full")
    write_root(db, _record(lambda value: reference if value == "here" else None))
    connection = opened(db)
    assert connection.root()["a"]() is connection.root()


def test_a_reference_with_its_class_by_name(databases):
    """ZODB's conflict resolution writes these for classes that it cannot import."""
    db = databases("model-full")
    with db.transaction() as connection:
        connection.root.thing = Thing(n=1)
        thing = connection.root.thing
    oid = thing._p_oid
    write_root(db, _record(lambda value: (oid, ("things", "Thing")) if value == "here" else None))
    connection = opened(db)
    connection.cacheMinimize()
    connection.sync()
    assert connection.root()["a"].n == 1


def _record(persistent_id):
    file = io.BytesIO()
    pickler = ZODB._compat.PersistentPickler(persistent_id, file, 3)
    pickler.dump(PersistentMapping)
    pickler.dump({"data": {"a": "here"}})
    return file.getvalue()


def write_root(db, record):
    view = db.store.view()
    pending = db.store.begin(Details(), view, None)
    pending.store(ROOT, view.load(ROOT)[1], record, b"")
    pending.vote()
    pending.finish()
    view.close()
