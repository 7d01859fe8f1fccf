"""Objects whose classes are missing: readable, unchangeable, and stored back as they were."""

from __future__ import annotations

import io
import logging
import pickletools
import sys
import types

import pytest
from databases import abort, commit, opened
from persistent import Persistent
from persistent.mapping import PersistentMapping
from things import Thing

from objstore.errors import BrokenModifiedError, ConflictError
from objstore.formats import pickles
from objstore.ids import split_oids
from objstore.objects.broken import name_of
from objstore.revisions import Details

pytest_plugins = ["database_fixtures"]
SOURCE = """
import copyreg
from persistent import Persistent

class Document(Persistent):
    def __init__(self, title):
        self.title = title

class Slotted(Persistent):
    def __new__(cls, size):
        return super().__new__(cls)
    def __init__(self, size):
        self.size = size
    def __getnewargs__(self):
        return (self.size,)

class Plain:
    def __init__(self, number):
        self.number = number

class Called:
    def __init__(self, number):
        self.number = number
    def __reduce__(self):
        return Called, (self.number,)

class CalledWithState(Called):
    def __reduce__(self):
        return CalledWithState, (self.number,), {"extra": 1}

class NewArguments:
    def __new__(cls, number):
        return super().__new__(cls)
    def __init__(self, number):
        self.number = number
    def __getnewargs__(self):
        return (self.number,)

class List(list):
    pass

class Dict(dict):
    pass

class Old:
    def __reduce__(self):
        return copyreg._reconstructor, (Old, object, None), {"old": 1}

class Outer:
    class Inner:
        pass
    class InnerPersistent(Persistent):
        pass

def function():
    pass
"""


@pytest.fixture
def module():
    """A module that can be imported, and then not any more."""
    module = types.ModuleType("passing_module")
    sys.modules["passing_module"] = module
    exec(SOURCE, vars(module))  # noqa: S102  # a module that can go away
    yield module
    sys.modules.pop("passing_module", None)


@pytest.fixture
def db(databases, caplog):
    caplog.set_level(logging.ERROR)
    return databases("model-full")


def gone():
    sys.modules.pop("passing_module", None)


def record_of(db, oid):
    return db.store.found(oid, db.lastTransaction()).data


def opcodes(data):
    """The opcodes of both pickles of a record, memo numbers aside."""
    stream, found = io.BytesIO(data), []
    while stream.tell() < len(data):
        for opcode, argument, _ in pickletools.genops(stream):
            if "PUT" not in opcode.name and "GET" not in opcode.name:
                found.append((opcode.name, argument))
    return found


class TestPersistent:
    def test_it_is_loaded_and_shown(self, db, module):
        with db.transaction() as connection:
            connection.root.document = module.Document("a title")
        gone()
        connection = opened(db)
        connection.cacheMinimize()
        broken = connection.root.document
        assert isinstance(broken, Persistent)
        assert name_of(type(broken)) == "passing_module.Document"
        assert broken.__Broken_state__ == {"title": "a title"}
        assert repr(broken) == f"<broken passing_module.Document {broken._p_oid.hex()}>"

    def test_it_cannot_be_changed(self, db, module):
        with db.transaction() as connection:
            connection.root.document = module.Document("a title")
        gone()
        connection = opened(db)
        connection.cacheMinimize()
        with pytest.raises(BrokenModifiedError, match=r"passing_module\.Document"):
            connection.root.document.title = "another"
        with pytest.raises(BrokenModifiedError):
            del connection.root.document.title
        connection.root.document._v_note = "volatile"
        commit(connection)

    @pytest.mark.parametrize("savepoint", [False, True])
    @pytest.mark.parametrize(
        "make", [lambda m: m.Document("a"), lambda m: m.Slotted(3), lambda m: m.Outer.InnerPersistent()]
    )
    def test_it_is_stored_back_unchanged(self, db, module, make, savepoint):
        with db.transaction() as connection:
            connection.root.broken = make(module)
            connection.root.broken.other = Thing()
        gone()
        connection = opened(db)
        connection.cacheMinimize()
        broken = connection.root.broken
        before = record_of(db, broken._p_oid)
        broken._p_changed = True
        if savepoint:
            connection.transaction_manager.savepoint()
        commit(connection)
        assert broken._p_serial == db.lastTransaction()
        after = record_of(db, broken._p_oid)
        assert opcodes(after) == opcodes(before)
        assert pickles.references(after) == pickles.references(before)

    @pytest.mark.parametrize("make", [lambda m: m.Document("a"), lambda m: m.Slotted(3)])
    def test_references_to_it_are_kept(self, db, module, make):
        """Those with a class in them, and those without one."""
        with db.transaction() as connection:
            connection.root.holder = Thing(broken=make(module), n=0)
        gone()
        connection = opened(db)
        connection.cacheMinimize()
        holder = connection.root.holder
        before = record_of(db, holder._p_oid)
        assert holder.n == 0
        holder.n = 0
        commit(connection)
        after = record_of(db, holder._p_oid)
        assert opcodes(after) == opcodes(before)
        stored = db.store.found(holder._p_oid, db.lastTransaction()).references
        assert split_oids(stored) == [holder.broken._p_oid]

    def test_it_works_again_when_the_class_is_back(self, db, module):
        with db.transaction() as connection:
            connection.root.holder = Thing(document=module.Document("a"), plain=module.Plain(1), n=0)
        gone()
        connection = opened(db)
        connection.cacheMinimize()
        connection.root.holder.n = 1
        commit(connection)
        sys.modules["passing_module"] = module
        fresh = opened(db)
        assert type(fresh.root.holder.document) is module.Document
        assert fresh.root.holder.document.title == "a"
        assert fresh.root.holder.plain.number == 1

    def test_conflicts_are_not_resolved(self, db, module):
        with db.transaction() as connection:
            connection.root.document = module.Document("a")
        gone()
        first, second = opened(db), opened(db)
        first.cacheMinimize()
        for connection in (first, second):
            connection.root.document._p_activate()
            connection.root.document._p_changed = True
        commit(first)
        with pytest.raises(ConflictError, match="class cannot be imported"):
            commit(second)
        abort(second)


class TestValues:
    @pytest.mark.parametrize(
        "make",
        [
            lambda m: m.Plain(1),
            lambda m: m.Called(2),
            lambda m: m.CalledWithState(3),
            lambda m: m.NewArguments(4),
            lambda m: m.List([1, 2, 3]),
            lambda m: m.Dict(a=1, b=2),
            lambda m: m.Old(),
            lambda m: m.Outer.Inner(),
            lambda m: m.Outer.Inner,
            lambda m: m.Plain,
            lambda m: m.function,
            lambda m: [m.Plain(1), m.Plain, m.Called(2), m.Called],
            lambda m: {m.Plain(1): m.Plain(2)},
            lambda m: m.Plain(m.Plain(m.List([m.Called(1)]))),
        ],
    )
    def test_they_are_pickled_back_as_they_were(self, db, module, make):
        """The very same globals, construction (NEWOBJ, REDUCE, BUILD) and items."""
        with db.transaction() as connection:
            connection.root.holder = Thing(value=make(module), n=0)
        gone()
        connection = opened(db)
        connection.cacheMinimize()
        holder = connection.root.holder
        before = record_of(db, holder._p_oid)
        holder.n = 0
        commit(connection)
        assert opcodes(record_of(db, holder._p_oid)) == opcodes(before)

    def test_they_cannot_be_changed(self, db, module):
        with db.transaction() as connection:
            connection.root.value = module.Plain(1)
        gone()
        connection = opened(db)
        connection.cacheMinimize()
        value = connection.root.value
        assert value.__Broken_state__ == {"number": 1}
        assert repr(value) == "<broken passing_module.Plain>"
        with pytest.raises(BrokenModifiedError, match=r"passing_module\.Plain"):
            value.number = 2
        with pytest.raises(BrokenModifiedError):
            del value.number

    def test_beside_new_objects(self, db, module):
        """The slow pickler names new objects as the fast one does, each once."""
        with db.transaction() as connection:
            connection.root.holder = Thing(value=module.Plain(1))
        gone()
        connection = opened(db)
        connection.cacheMinimize()
        holder = connection.root.holder
        holder.first = holder.second = Thing(n=1)
        holder.third = PersistentMapping(a=Thing())
        commit(connection)
        fresh = opened(db)
        assert fresh.root.holder.first is fresh.root.holder.second
        assert fresh.root.holder.third["a"]._p_oid is not None

    def test_records_of_old_protocols(self, db):
        """Protocols 0 and 1 make an object by `copyreg._reconstructor`, Python 2 by its names."""
        with db.transaction() as connection:
            connection.root.thing = Thing(n=1)
        connection = opened(db)
        oid = connection.root.thing._p_oid
        record = b"cthings\nThing\n." + (
            b"(dp0\nVvalue\np1\nccopy_reg\n_reconstructor\np2\n(cgone.away\nOld\np3\nc__builtin__\nobject\np4\n"
            b"Ntp5\nRp6\n(dp7\nVn\nI1\nsbs."
        )
        view = db.store.view()
        pending = db.store.begin(Details(description="an old record"), view, None)
        pending.store(oid, connection.root.thing._p_serial, record, None)
        pending.vote()
        pending.finish()
        view.close()
        connection.sync()
        thing = connection.root.thing
        assert thing.value.__Broken_state__ == {"n": 1}
        thing.n = 1
        commit(connection)
        names = [argument for name, argument in opcodes(record_of(db, oid)) if name == "GLOBAL"]
        assert names == ["things Thing", "copyreg _reconstructor", "gone.away Old", "builtins object"]
