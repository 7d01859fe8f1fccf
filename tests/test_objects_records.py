"""Reused picklers and unpicklers write and read exactly what fresh ones do, which know no short ways."""

from __future__ import annotations

import datetime
import decimal
import gc
import io
import pickle
import weakref

import pytest
import transaction
from BTrees.IOBTree import IOBTree
from BTrees.OOBTree import OOBTree
from hypothesis import example, given
from hypothesis import strategies as st
from persistent import Persistent
from persistent.mapping import PersistentMapping
from persistent.wref import WeakRef
from things import Color, Keyed, Number, Outer, Pair, Slotted, Stated, Text, Thing, Value

import objstore
from objstore.collections.trees import KeySet
from objstore.errors import ClassNotAllowedError, SerializationError
from objstore.ids import split_oids
from objstore.objects.classes import ClassFinder
from objstore.objects.reading import ObjectReader
from objstore.objects.serialize import ObjectWriter

db = objstore.memory(background=False)
connection = db.open(transaction.TransactionManager())
others = [Thing(n=1), Keyed("k"), Stated(), PersistentMapping(a=1), OOBTree(), Outer.Inner()]
for each in others:
    connection.add(each)
connection.transaction_manager.commit()


class FreshPickler(pickle.Pickler):
    """As ZODB describes it: everything is asked whether it is a reference."""

    def __init__(self, file):
        super().__init__(file, 3)
        self.strong = {}

    def persistent_id(self, obj):
        if isinstance(obj, WeakRef):
            return ["w", (obj.oid,)]
        if not isinstance(obj, Persistent):
            return None
        self.strong[obj._p_oid] = None
        return obj._p_oid if hasattr(type(obj), "__getnewargs__") else (obj._p_oid, type(obj))


class SpelledPickler(FreshPickler):
    """Spells each oid out, whether or not it is the same bytes object as one before."""

    def persistent_id(self, obj):
        match super().persistent_id(obj):
            case ["w", (oid,)]:
                return ["w", (bytes(bytearray(oid)),)]
            case (oid, kind):
                return (bytes(bytearray(oid)), kind)
            case oid:
                return oid if oid is None else bytes(bytearray(oid))


def written_afresh(meta, state, kind=FreshPickler):
    file = io.BytesIO()
    pickler = kind(file)
    pickler.dump(meta)
    pickler.dump(state)
    return file.getvalue(), list(pickler.strong)


class FreshUnpickler(pickle.Unpickler):
    def persistent_load(self, reference):
        if isinstance(reference, tuple):
            return connection[reference[0]]
        if isinstance(reference, bytes):
            return connection[reference]
        weak = WeakRef.__new__(WeakRef)
        weak.oid, weak.dm, weak.database_name = reference[1][0], connection, connection.database_name
        return weak


def read_afresh(data):
    unpickler = FreshUnpickler(io.BytesIO(data), encoding="bytes")
    return unpickler.load(), unpickler.load()


leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(max_size=5),
    st.binary(max_size=5),
    st.sampled_from(others),
    st.sampled_from(others).map(WeakRef),
    st.sampled_from(list(Color)),
    st.integers(0, 9).map(Number),
    st.text(max_size=3).map(Text),
    st.integers(0, 9).map(Value),
    st.datetimes(),
    st.dates(),
    st.decimals(allow_nan=False),
    st.just(datetime.UTC),
    st.sampled_from([Thing, Value, Outer.Plain, len, Ellipsis, NotImplemented, decimal.Decimal]),
    st.builds(bytearray, st.binary(max_size=3)),
    st.just(b"long" * 20_000),
    st.just("long" * 20_000),
)
keys = st.one_of(st.integers(), st.text(max_size=5), st.sampled_from(list(Color)), st.tuples(st.integers()))


def grown(inner):
    return st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(keys, inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.sets(keys, max_size=4),
        st.frozensets(keys, max_size=4),
        st.builds(Pair, inner, inner),
        st.builds(Value, inner),
        st.builds(lambda value: [value, value, {"again": value}], inner),
        st.builds(recursive, inner),
    )


def recursive(value):
    """A value within containers that hold themselves."""
    ring = [value]
    ring.append({"ring": ring, "value": value})
    made = Value(ring)
    ring.append(made)
    made.number = made
    return ring


states = st.recursive(leaves, grown, max_leaves=10)


def stated(state):
    obj = Stated()
    obj._v_state = state
    return obj


def thing(state):
    return Thing(one=state, two=[state], n=1)


def keyed(state):
    obj = Keyed("key")
    obj.state = state
    return obj


def mapping(state):
    return PersistentMapping({"key": state})


def tree(state):
    return IOBTree({1: state, 2: "two"})


def leaf(state):
    """As that of a BTree: what it has, and the next."""
    return stated(((1, state, 2, "two", state), others[4]))


def last_leaf(state):
    return stated(((state, "two"),))


makers = st.sampled_from([stated, thing, keyed, mapping, tree, leaf, last_leaf, Slotted])
writer = ObjectWriter(connection)
reader = ObjectReader(connection, connection._cache, ClassFinder())


def meta_of(obj):
    return (type(obj), obj.__getnewargs__()) if isinstance(obj, Keyed) else type(obj)


@given(makers, st.lists(states, min_size=1, max_size=4))
def test_what_is_written_one_after_the_other_is_what_fresh_picklers_write(maker, several):
    for state in several:
        obj = maker(state)
        data, references = writer.serialize(obj)
        expected, strong = written_afresh(meta_of(obj), obj.__getstate__())
        assert data == expected
        assert split_oids(references) == strong


def test_leaves_of_a_tree_are_written_as_fresh_picklers_write_them():
    kept = KeySet((2, f"text {number % 7}", number) for number in range(1000))
    connection.add(kept)
    connection.transaction_manager.savepoint()
    fresh = ObjectWriter(connection)
    node = kept.__getstate__()[1]
    while node is not None:
        data, references = fresh.serialize(node)
        state = node.__getstate__()
        expected, strong = written_afresh(type(node), state)
        assert (data, split_oids(references)) == (expected, strong)
        node = state[1] if len(state) == 2 else None
    connection.transaction_manager.abort()


@given(makers, st.lists(states, min_size=1, max_size=4))
def test_what_is_read_one_after_the_other_is_what_fresh_unpicklers_read(maker, several):
    for state in several:
        obj = maker(state)
        data, _ = written_afresh(meta_of(obj), obj.__getstate__())
        _, expected = read_afresh(data)
        loaded, loaded_afresh = type(obj).__new__(type(obj)), type(obj).__new__(type(obj))
        reader.set_state(loaded, data)
        loaded_afresh.__setstate__(expected)
        # Pickles tell of types, of order, and of what is the same object.
        pickled = written_afresh(None, loaded_afresh.__getstate__())
        assert written_afresh(None, loaded.__getstate__()) == pickled


@given(states)
@example([others[0], WeakRef(others[0])])
def test_references_give_the_objects_that_are_there(state):
    data, strong = written_afresh(Stated, state, SpelledPickler)
    loaded = Stated()
    reader.set_state(loaded, data)
    again, _ = written_afresh(Stated, loaded._v_state, SpelledPickler)
    assert len(again) == len(data)
    assert all(connection.cached(oid) is not None for oid in strong)


def test_a_state_may_refer_to_what_the_class_has_put_into_the_memo():
    data, _ = written_afresh(Stated, [Stated, {"class": Stated}])
    assert data.count(b"Stated\n") == 1
    for _ in range(3):
        loaded = Stated()
        reader.set_state(loaded, data)
        assert loaded._v_state == [Stated, {"class": Stated}]


def test_the_memo_of_one_record_does_not_show_in_the_next():
    good, _ = written_afresh(Stated, ["some", "thing"])
    opening, _ = written_afresh(Stated, None)
    bad = opening.removesuffix(b"\x80\x03N.") + b"\x80\x03h\x02."
    loaded = Stated()
    for _ in range(2):
        reader.set_state(loaded, good)
        with pytest.raises(SerializationError, match="Memo value not found"):
            reader.set_state(loaded, bad)
    reader.set_state(loaded, good)
    assert loaded._v_state == ["some", "thing"]


def test_a_record_that_is_cut_off_or_goes_on_does_not_show_in_the_next():
    good, _ = written_afresh(Stated, ["some", "thing"])
    loaded = Stated()
    for bad in (good[:-3], good[: good.index(b"some") + 2]):
        reader.set_state(loaded, good)
        with pytest.raises(SerializationError):
            reader.set_state(loaded, bad)
        reader.set_state(loaded, good)
    reader.set_state(loaded, good + good)
    reader.set_state(loaded, good)
    assert loaded._v_state == ["some", "thing"]


def test_what_was_loaded_is_not_kept_alive():
    data, _ = written_afresh(Stated, [Value(1)])
    for _ in range(2):
        loaded = Stated()
        reader.set_state(loaded, data)
        watched = weakref.ref(loaded._v_state[0])
        del loaded
        gc.collect()
        assert watched() is None


class Looking:
    """Loads another record while its own is being loaded."""

    data = b""

    def __setstate__(self, state):
        inner = Stated()
        reader.set_state(inner, Looking.data)
        self.found = inner._v_state


def test_a_state_may_load_another_while_it_is_loaded():
    Looking.data, _ = written_afresh(Stated, ["inner", Thing])
    looking = Looking()
    looking.state = 1
    data, _ = written_afresh(Stated, [Stated, looking, "end", Stated])
    for _ in range(2):
        loaded = Stated()
        reader.set_state(loaded, data)
        assert loaded._v_state[0::2] == [Stated, "end"]
        assert loaded._v_state[1].found == ["inner", Thing]


def test_a_class_that_was_replaced_is_not_written_under_its_name(monkeypatch):
    import things

    obj = stated([1])
    writer.serialize(obj)
    monkeypatch.setattr(things, "Stated", type("Stated", (Persistent,), {"__module__": "things"}))
    with pytest.raises(SerializationError, match="not the same object"):
        writer.serialize(obj)


def test_a_state_that_cannot_be_pickled_does_not_show_in_the_next():
    for bad in (lambda: None, [others[0], lambda: None]):
        for _ in range(2):
            with pytest.raises(SerializationError, match="cannot be pickled"):
                writer.serialize(stated([bad]))
            assert writer.serialize(stated(["good"]))[0] == written_afresh(Stated, ["good"])[0]


def test_a_class_is_refused_where_others_of_the_same_record_were_read_before():
    limited = ObjectReader(connection, connection._cache, ClassFinder(["things.Stated", "things.Value"]))
    allowed, _ = written_afresh(Stated, [Value(1)])
    refused, _ = written_afresh(Stated, [Number(1)])
    loaded = Stated()
    for _ in range(2):
        limited.set_state(loaded, allowed)
        with pytest.raises(ClassNotAllowedError, match=r"things\.Number"):
            limited.set_state(loaded, refused)
    limited.set_state(loaded, allowed)
    assert loaded._v_state == [Value(1)]


# --- reading ahead -----------------------------------------------------------------------------------


@pytest.fixture
def filled():
    made = objstore.memory()
    opened = made.open(transaction.TransactionManager())
    opened.root()["things"] = [Thing(n=number) for number in range(10)]
    opened.transaction_manager.commit()
    opened.cacheMinimize()
    yield opened
    opened.transaction_manager.abort()
    made.close()


def loads_of(opened, monkeypatch):
    """The oids that are asked of its snapshot from here on."""
    asked = []
    load = opened.view.load
    monkeypatch.setattr(opened._view, "load", lambda oid: asked.append(oid) or load(oid))
    return asked


def test_prefetch_reads_in_one_pass_and_loading_reads_no_more(filled, monkeypatch):
    things = filled.root()["things"]
    asked = loads_of(filled, monkeypatch)
    filled.prefetch(things[5], [things[3]._p_oid, things[1]], (each for each in [[things[3]], things[8]]))
    assert asked == [things[at]._p_oid for at in (1, 3, 5, 8)]
    assert all(each._p_changed is None for each in things)
    assert [things[at].n for at in (5, 3, 1, 8)] == [5, 3, 1, 8]
    assert len(asked) == 4
    assert things[2].n == 2
    assert len(asked) == 5


def test_prefetch_passes_over_what_is_loaded_new_or_missing(filled, monkeypatch):
    things = filled.root()["things"]
    assert things[0].n == 0
    asked = loads_of(filled, monkeypatch)
    filled.prefetch(things[0], Thing(), b"\0" * 7 + b"\xff", things[0]._p_oid)
    assert asked == [b"\0" * 7 + b"\xff"]
    with pytest.raises(objstore.POSKeyError):
        filled.get(b"\0" * 7 + b"\xff")


def test_what_was_prefetched_is_forgotten_when_the_snapshot_moves(filled):
    things = filled.root()["things"]
    filled.prefetch(things)
    with filled.db().transaction() as other:
        other.root()["things"][4].n = "new"
    assert things[3].n == 3
    filled.prefetch(things)
    filled.transaction_manager.abort()
    assert things[4].n == "new"


def test_a_savepoint_is_newer_than_what_was_prefetched(filled):
    things = filled.root()["things"]
    filled.prefetch(things[4])
    things[4].n = "changed"
    filled.transaction_manager.savepoint()
    filled.prefetch(things[4])
    filled.cacheMinimize()
    assert things[4].n == "changed"
    filled.prefetch(things[4], things[5])
    things[4]._p_invalidate()
    assert things[4].n == "changed"


def test_prefetch_refuses_what_is_no_object(filled):
    with pytest.raises(TypeError, match="bytes"):
        filled.prefetch("12345678")
    with pytest.raises(TypeError, match="8 bytes"):
        filled.prefetch(b"1234567")
    with pytest.raises(TypeError):
        filled.prefetch(7)
    manager = transaction.TransactionManager()
    closed = filled.db().open(manager)
    closed.close()
    with pytest.raises(objstore.errors.ClosedError):
        closed.prefetch()
