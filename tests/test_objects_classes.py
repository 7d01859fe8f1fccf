"""`allowed_classes`: what a load may import, and that nothing else is imported."""

from __future__ import annotations

import collections
import copyreg
import datetime
import decimal
import enum
import fractions
import io
import pickle
import sys
import uuid
import zoneinfo
from contextlib import suppress

import pytest
from BTrees.IOBTree import IOBTree
from BTrees.Length import Length
from BTrees.OOBTree import OOBTree, OOTreeSet
from databases import opened
from persistent import Persistent
from persistent.list import PersistentList
from persistent.mapping import PersistentMapping
from persistent.wref import WeakRef
from things import Counter, Outer, Thing, Value

from objstore.errors import ClassNotAllowedError, ConflictError, POSKeyError, SerializationError
from objstore.ids import NO_TID, ROOT
from objstore.objects import DB
from objstore.objects.classes import ClassFinder
from objstore.objects.options import DatabaseOptions
from objstore.revisions import Details

pytest_plugins = ["database_fixtures"]


class Colour(enum.Enum):
    RED = 1


@pytest.fixture
def limited(databases):
    """Store with one database, load with another over the same store, which is limited."""

    def limited(allowed, **values):
        db = databases("model-full")
        with db.transaction() as connection:
            connection.root().update(values)
        return DB(db.store, DatabaseOptions(allowed_classes=allowed))

    return limited


class TestAllowed:
    @pytest.mark.parametrize(
        "allowed",
        [
            ["things.Thing"],
            "things.Thing",
            ["things."],
            ["things.*"],
            ["other.", "things.Thing"],
            lambda module, name: (module, name) == ("things", "Thing"),
        ],
    )
    def test_what_is_named_is_loaded(self, limited, allowed):
        db = limited(allowed, thing=Thing(n=1))
        assert opened(db).root.thing.n == 1

    @pytest.mark.parametrize(
        "allowed", [[], ["things.Thin"], ["thing."], ["things.Thing."], ["objstore."], lambda *_: False]
    )
    def test_what_is_not_is_refused(self, limited, allowed):
        db = limited(allowed, thing=Thing(n=1))
        with pytest.raises(ClassNotAllowedError, match=r"things\.Thing") as caught:
            _ = opened(db).root.thing
        assert (caught.value.class_name, caught.value.oid) == ("things.Thing", ROOT)

    def test_a_value_within_a_state(self, limited):
        db = limited(["things.Thing"], thing=Thing(value=Value(1)))
        thing = opened(db).root.thing
        with pytest.raises(ClassNotAllowedError, match=r"things\.Value") as caught:
            _ = thing.value
        assert caught.value.oid == thing._p_oid

    def test_the_class_of_an_object_asked_for_by_oid(self, databases):
        db = databases("model-full")
        with db.transaction() as connection:
            connection.root.thing = Thing()
            connection.add(connection.root.thing)
            oid = connection.root.thing._p_oid
        with pytest.raises(ClassNotAllowedError) as caught:
            opened(DB(db.store, DatabaseOptions(allowed_classes=[]))).get(oid)
        assert caught.value.oid == oid

    def test_nothing_is_imported_that_is_refused(self, databases):
        db = databases("model-full")
        name = "this"  # prints poetry when it is imported
        assert name not in sys.modules
        record = pickle.dumps(PersistentMapping, 3) + b"\x80\x03}X\x04\x00\x00\x00datacthis\nd\ns."
        write(db.store, ROOT, record)
        with pytest.raises(ClassNotAllowedError):
            dict(opened(DB(db.store, DatabaseOptions(allowed_classes=["things."]))).root())
        assert name not in sys.modules

    def test_conflicts_obey_too(self, databases):
        db = databases("model-full")
        with db.transaction() as connection:
            connection.root.counter = Counter()
        store = db.store
        refusing = DB(store, DatabaseOptions(allowed_classes=["things.Thing"]))
        view = store.view()
        oid = opened(db).root.counter._p_oid
        data, serial = view.load(oid)
        with db.transaction() as connection:
            connection.root.counter.add(1)
        pending = store.begin(Details(), view, refusing._shared.resolver)
        pending.store(oid, serial, data, b"")
        with pytest.raises(ConflictError, match="allowed_classes does not permit") as caught:
            pending.vote()
        assert caught.value.class_name == "things.Counter"


class TestAlwaysAllowed:
    @pytest.mark.parametrize(
        "value",
        [
            PersistentMapping(a=1),
            PersistentList([1]),
            OOBTree(a=1),
            IOBTree({1: 2}),
            OOTreeSet([1]),
            Length(3),
            collections.OrderedDict(a=1),
            collections.defaultdict(list, a=[1]),
            collections.deque([1]),
            collections.Counter("aab"),
            {1, 2},
            frozenset([3]),
            bytearray(b"x"),
            1j,
            range(3),
            slice(1, 2),
            Ellipsis,
            int,
            datetime.date(2020, 1, 2),
            datetime.datetime(2020, 1, 2, tzinfo=datetime.UTC),
            datetime.datetime(2020, 1, 2, tzinfo=zoneinfo.ZoneInfo("UTC")),
            datetime.timedelta(3),
            decimal.Decimal("1.5"),
            fractions.Fraction(1, 3),
            uuid.UUID(int=5),
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_harmless_classes(self, limited, value):
        loaded = opened(limited([], value=value)).root.value
        if isinstance(value, Persistent):
            loaded._p_activate()
            assert loaded.__getstate__() == value.__getstate__()
        else:
            assert loaded == value

    def test_weak_references(self, databases):
        db = databases("model-full")
        with db.transaction() as connection:
            connection.root.weak = WeakRef(connection.root())
        connection = opened(DB(db.store, DatabaseOptions(allowed_classes=[])))
        assert connection.root.weak() is connection.root()


def found(allowed, data):
    """Load a pickle through a finder."""
    finder = ClassFinder(allowed)

    class Unpickler(pickle.Unpickler):
        def find_class(self, module, name):
            return finder.find(None, module, name)

    return Unpickler(io.BytesIO(data)).load()


class TestAroundIt:
    """Ways around the limits."""

    def test_what_an_allowed_module_has_imported(self):
        with pytest.raises(ClassNotAllowedError, match=r"databases\.suppress"):
            found(["databases."], b"\x80\x03cdatabases\nsuppress\n.")
        assert found(["databases.suppress"], b"\x80\x03cdatabases\nsuppress\n.") is suppress

    def test_functions_and_modules_of_an_allowed_module(self):
        with pytest.raises(ClassNotAllowedError):
            found(["pickle."], b"\x80\x03cpickle\nsys\n.")
        with pytest.raises(ClassNotAllowedError):
            found(["pickle."], b"\x80\x03cpickle\npartial\n.")
        assert found(["pickle."], b"\x80\x03cpickle\nwhichmodule\n.") is pickle.whichmodule

    def test_dotted_names(self):
        """Protocol 4 has them: `module`, `os.system`."""
        data = b"\x80\x04\x8c\x06pickle\x8c\x0bsys.modules\x93."
        with pytest.raises(ClassNotAllowedError):
            found(["pickle."], data)
        inner = b"\x80\x04\x8c\x06things\x8c\x0bOuter.Inner\x93."
        assert found(["things."], inner) is Outer.Inner
        assert found(["things.Outer.Inner"], inner) is Outer.Inner
        with pytest.raises(ClassNotAllowedError):
            found(["things.Outer"], inner)

    def test_getattr(self):
        data = pickle.dumps(Outer.Inner, 3)
        assert b"getattr" in data
        assert found(["things."], data) is Outer.Inner
        assert found(None, data) is Outer.Inner
        assert found(["things.Outer", "things.Outer.Inner"], data) is Outer.Inner
        with pytest.raises(ClassNotAllowedError, match=r"things\.Outer\.Inner"):
            found(["things.Outer"], data)
        for name in ("__subclasses__", "__init__", "mro"):
            reach = pickle.dumps(Outer.Inner, 3).replace(b"\x05\x00\x00\x00Inner", _counted(name))
            with pytest.raises(ClassNotAllowedError):
                found(["things."], reach)

    def test_getattr_of_enums(self):
        by_name = b"\x80\x03cbuiltins\ngetattr\n" + pickle.dumps(Colour, 3)[2:-1] + _unicode("RED") + b"\x86R."
        assert found([f"{__name__}."], by_name) is Colour.RED
        assert found([f"{__name__}."], pickle.dumps(Colour.RED, 3)) is Colour.RED

    def test_names_of_python_2(self):
        assert found(["things."], b"c__builtin__\nset\n.") is set
        assert found(None, b"ccopy_reg\n__newobj__\n.") is copyreg.__newobj__
        with pytest.raises(ClassNotAllowedError):
            found(["things."], b"c__builtin__\neval\n.")

    @pytest.mark.parametrize("name", ["eval", "exec", "getattr", "type", "open", "__import__", "compile"])
    def test_dangerous_builtins(self, name):
        with pytest.raises((ClassNotAllowedError, TypeError)):
            found(["things."], b"\x80\x03cbuiltins\n" + name.encode() + b"\nX\x01\x00\x00\x001\x85R.")

    def test_extension_codes(self, databases):
        """The unpickler takes what they stand for from a cache, without asking."""
        db = databases("model-full")
        copyreg.add_extension("things", "Value", 0x7FFF)
        try:
            with db.transaction() as connection:
                connection.root.thing = Thing(value=Value(1))
            loaded = opened(db)
            loaded.cacheMinimize()
            assert loaded.root.thing.value == Value(1)
            limited = opened(DB(db.store, DatabaseOptions(allowed_classes=["things.Thing"])))
            with pytest.raises(ClassNotAllowedError, match="extension code 32767"):
                _ = limited.root.thing.value
        finally:
            copyreg.remove_extension("things", "Value", 0x7FFF)

    def test_a_class_that_is_named_and_missing(self):
        broken = found(["not.there.Thing"], b"\x80\x03cnot.there\nThing\n.")
        assert (broken.__module__, broken.__qualname__) == ("not.there", "Thing")
        with pytest.raises(ClassNotAllowedError):
            found(["not.here.Thing"], b"\x80\x03cnot.there\nThing\n.")


def test_a_module_that_fails_is_not_taken_for_missing(databases, tmp_path, monkeypatch):
    (tmp_path / "failing_module.py").write_text("raise RuntimeError('not importable today')")
    monkeypatch.syspath_prepend(tmp_path)
    db = databases("model-full")
    record = b"\x80\x03cfailing_module\nThing\n." + b"\x80\x03}."
    oid = db.store.new_oid()
    write(db.store, oid, record)
    with pytest.raises(SerializationError, match="not importable today") as caught:
        opened(db).get(oid)
    assert caught.value.oid == oid


def write(store, oid, record):
    """Commit a record as it is."""
    view = store.view()
    try:
        serial = view.load(oid)[1]
    except POSKeyError:
        serial = NO_TID
    pending = store.begin(Details(), view, None)
    pending.store(oid, serial, record, b"")
    pending.vote()
    pending.finish()
    view.close()


def _unicode(text):
    return b"X" + len(text).to_bytes(4, "little") + text.encode()


def _counted(text):
    return len(text).to_bytes(4, "little") + text.encode()
