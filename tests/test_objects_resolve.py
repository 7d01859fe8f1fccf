"""Conflict resolution: placeholders for references, and what makes it refuse."""

from __future__ import annotations

import pytest
from BTrees.OOBTree import OOBTree
from databases import abort, commit, opened
from persistent import Persistent
from persistent.wref import WeakRef
from things import Counter, Keyed, Thing, Value

from objstore.contracts import Conflict
from objstore.errors import ConflictError
from objstore.formats import pickles
from objstore.ids import oid_from, split_oids, tid_from
from objstore.objects.classes import ClassFinder
from objstore.objects.resolve import ConflictResolver, PersistentReference
from objstore.objects.serialize import RecordPickler

pytest_plugins = ["database_fixtures"]


class Bag(Persistent):
    """Merges what was put into it, and shows what it was given."""

    seen = ()

    def __init__(self):
        self.items = {}

    def put(self, name, item):
        self.items[name] = item
        self._p_changed = True

    def _p_resolveConflict(self, old, committed, new):
        Bag.seen = (old, committed, new)
        return {"items": {**committed["items"], **new["items"]}}


class Stubborn(Persistent):
    def _p_resolveConflict(self, _old, _committed, _new):
        raise self.error


def conflicting(db, make, first_change, second_change):
    """Two connections that change one object; the second has yet to commit."""
    first, second = opened(db), opened(db)
    first.root.bag = make()
    commit(first)
    second.sync()
    first_change(first.root.bag)
    second_change(second.root.bag)
    commit(first)
    return first, second


class TestReferences:
    def test_new_objects_and_old_ones_are_merged(self, db):
        shared = Thing(n=0)
        first, second = conflicting(
            db,
            lambda: bag_with(shared),
            lambda bag: bag.put("a", Thing(n=1)),
            lambda bag: bag.put("b", Thing(n=2)),
        )
        commit(second)
        for connection in (first, second, opened(db)):
            connection.sync()
            items = connection.root.bag.items
            assert {name: thing.n for name, thing in items.items()} == {"shared": 0, "a": 1, "b": 2}

    def test_references_of_every_kind_are_kept(self, db):
        def put_all(bag):
            thing = Thing(n=1)
            bag.put("keyed", Keyed("k"))
            bag.put("thing", thing)
            bag.put("weak", WeakRef(thing))
            bag.put("value", Value(5))

        first, second = conflicting(db, Bag, put_all, lambda bag: bag.put("b", 2))
        commit(second)
        connection = opened(db)
        connection.cacheMinimize()
        items = connection.root.bag.items
        assert items["keyed"].key == "k"
        assert items["weak"]() is items["thing"]
        assert (items["value"], items["b"]) == (Value(5), 2)
        first.sync()
        assert first.root.bag.items["thing"].n == 1

    def test_the_references_of_the_merged_record_are_stored(self, databases):
        db = databases("model-full")
        _, second = conflicting(
            db, Bag, lambda bag: bag.put("a", Thing()), lambda bag: bag.put("b", WeakRef(bag._p_jar.root()))
        )
        commit(second)
        revision = db.store.found(second.root.bag._p_oid, db.lastTransaction())
        assert split_oids(revision.references) == split_oids(pickles.references(revision.data))
        assert split_oids(revision.references) == [second.root.bag.items["a"]._p_oid]

    def test_what_the_rule_is_given(self, some):
        shared = Thing(n=0)
        _, second = conflicting(
            some, lambda: bag_with(shared), lambda bag: bag.put("a", 1), lambda bag: bag.put("b", 2)
        )
        commit(second)
        old, committed, new = Bag.seen
        placeholders = [state["items"]["shared"] for state in (old, committed, new)]
        assert placeholders[0] == placeholders[1] == placeholders[2]
        assert placeholders[0].oid == second.root.bag.items["shared"]._p_oid
        assert placeholders[0].klass is Thing
        assert committed["items"]["a"] == 1

    def test_objects_in_one_bucket(self, db):
        """The values of a bucket are references; those that nobody changed compare equal."""
        first, second = conflicting(
            db,
            lambda: OOBTree({number: Thing(n=number) for number in range(10)}),
            lambda tree: tree.update({3.5: Thing(n="more")}),
            lambda tree: tree.pop(7),
        )
        commit(second)
        first.sync()
        assert first.root.bag[3.5].n == "more"
        assert 7 not in first.root.bag
        assert len(first.root.bag) == 10

    def test_a_reference_that_was_replaced_in_a_bucket(self, db):
        """BTrees order values to tell whether they changed, and references have no order."""
        first, second = conflicting(
            db,
            lambda: OOBTree({number: Thing(n=number) for number in range(10)}),
            lambda tree: tree.update({3: Thing(n="three")}),
            lambda tree: tree.pop(7),
        )
        with pytest.raises(ConflictError):
            commit(second)
        abort(second)
        second.root.bag.pop(7)
        commit(second)
        first.sync()
        assert first.root.bag[3].n == "three"

    def test_savepoints_take_part(self, db):
        first, second = opened(db), opened(db)
        first.root.bag = Bag()
        commit(first)
        second.sync()
        second.root.bag.put("a", Thing(n=1))
        second.transaction_manager.savepoint()
        first.root.bag.put("b", Thing(n=2))
        commit(first)
        commit(second)
        assert sorted(second.root.bag.items) == ["a", "b"]


def bag_with(shared):
    bag = Bag()
    bag.put("shared", shared)
    return bag


class TestRefusals:
    @pytest.mark.parametrize(
        "error", [ValueError("no"), KeyError("k"), ConflictError(oid_from(1), tid_from(1), tid_from(2))]
    )
    def test_a_rule_that_fails(self, db, error):
        Stubborn.error = error
        first, second = conflicting(
            db, Stubborn, lambda each: setattr(each, "a", 1), lambda each: setattr(each, "b", 2)
        )
        with pytest.raises(ConflictError, match=r"test_objects_resolve\.Stubborn") as caught:
            commit(second)
        assert caught.value.oid == first.root.bag._p_oid
        assert caught.value.committed == first.root.bag._p_serial
        assert caught.value.reason
        abort(second)
        assert second.root.bag.a == 1

    def test_a_rule_that_returns_what_cannot_be_pickled(self, some, monkeypatch):
        monkeypatch.setattr(Counter, "_p_resolveConflict", lambda *_: {"bad": lambda: None})
        _, second = conflicting(some, Counter, lambda each: each.add(1), lambda each: each.add(2))
        with pytest.raises(ConflictError, match="resolving it failed"):
            commit(second)

    def test_an_object_that_was_deleted(self, full):
        """ZODB#318: its creation was undone while another transaction changed it."""
        first, second = opened(full), opened(full)
        first.root.counter = Counter()
        commit(first)
        second.sync()
        second.root.counter.add(1)
        full.undo(full.undoLog(0, 1)[0]["id"], first.transaction_manager.get())
        commit(first)
        with pytest.raises(ConflictError):
            commit(second)
        abort(second)
        assert "counter" not in second.root()

    @pytest.mark.parametrize("damage", [b"", b"junk", b"cthings\nCounter\n."])
    def test_records_that_cannot_be_read(self, damage):
        resolver = ConflictResolver(ClassFinder(), "unnamed")
        good = RecordPickler(lambda _: None).dump(Counter, {"count": 1})
        for records in ((damage, good, good), (good, damage, good), (good, good, damage)):
            with pytest.raises(ConflictError) as caught:
                resolver(Conflict(oid_from(1), tid_from(1), tid_from(2), *records))
            assert caught.value.reason


class TestPlaceholders:
    one = PersistentReference((oid_from(1), Thing), oid_from(1), weak=False)
    same = PersistentReference(oid_from(1), oid_from(1), weak=False)
    other = PersistentReference(oid_from(2), oid_from(2), weak=False)
    weak = PersistentReference(["w", (oid_from(1),)], oid_from(1), weak=True)

    def test_they_are_equal_by_oid(self):
        assert self.one == self.same
        assert hash(self.one) == hash(self.same)
        assert self.one not in (self.other, self.weak, 3, None, oid_from(1))
        assert repr(self.one) == "<reference to 0000000000000001>"

    def test_different_ones_have_no_order(self):
        assert not self.one < self.same
        assert not self.one > self.same
        for other in (self.other, self.weak, 3):
            with pytest.raises(ValueError, match="no order"):
                self.one < other  # noqa: B015
            with pytest.raises(ValueError, match="no order"):
                self.one > other  # noqa: B015
