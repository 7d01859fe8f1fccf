"""Connections: objects in and out, snapshots, aborts, conflicts. Over every kind of database."""

from __future__ import annotations

import logging
import pickle

import pytest
import transaction
from BTrees.OOBTree import OOBTree
from databases import abort, commit, opened
from persistent.mapping import PersistentMapping
from persistent.wref import WeakRef
from things import Counter, Keyed, Thing, Unready, Value

from objstore.errors import (
    ClosedError,
    ConflictError,
    POSKeyError,
    ReadConflictError,
    ReadOnlyError,
    SerializationError,
    UsageError,
)
from objstore.ids import NO_TID, ROOT, oid_from

pytest_plugins = ["database_fixtures"]


class TestObjects:
    def test_what_was_committed_is_there(self, db):
        with db.transaction() as connection:
            connection.root.thing = Thing(name="a", inner=Thing(number=1), value=Value(2))
        thing = opened(db).root.thing
        assert (thing.name, thing.inner.number, thing.value) == ("a", 1, Value(2))

    def test_the_root_is_a_mapping_at_oid_0(self, db):
        connection = opened(db)
        assert isinstance(connection.root(), PersistentMapping)
        assert connection.root()._p_oid == ROOT
        assert connection.get(ROOT) is connection.root()
        assert dict(connection.root()) == {}

    def test_the_root_by_attributes(self, some):
        connection = opened(some)
        connection.root.a = 1
        assert connection.root()["a"] == connection.root.a == 1
        assert "a" in dir(connection.root)
        assert repr(connection.root) == "<root: a>"
        del connection.root.a
        with pytest.raises(AttributeError):
            _ = connection.root.a
        with pytest.raises(AttributeError):
            del connection.root.a
        connection.root().update({f"name{number}": number for number in range(50)})
        assert repr(connection.root).endswith(" ...>")
        assert len(repr(connection.root)) < 80

    def test_new_objects_that_are_reachable_are_stored(self, db):
        """None of them is added by hand, and some are reached twice, or in a circle."""
        first, second = Thing(), Thing()
        first.others = [second, second]
        second.first = first
        with db.transaction() as connection:
            connection.root.first = first
        loaded = opened(db).root.first
        assert loaded.others[0] is loaded.others[1]
        assert loaded.others[0].first is loaded

    def test_a_long_chain_needs_no_recursion(self, some):
        head = Thing()
        for _ in range(20_000):
            head = Thing(next=head)
        with some.transaction() as connection:
            connection.root.head = head
        connection = opened(some)
        length, each = 0, connection.root.head
        while (each := getattr(each, "next", None)) is not None:
            length += 1
        assert length == 20_000

    def test_the_serial_is_that_of_the_transaction(self, db):
        connection = opened(db)
        connection.root.thing = thing = Thing()
        assert thing._p_serial == NO_TID
        commit(connection)
        assert thing._p_serial == db.lastTransaction() == connection.root()._p_serial
        assert not thing._p_changed

    def test_references_by_oid_only(self, db):
        """Classes with `__getnewargs__` are created with what their own record says."""
        with db.transaction() as connection:
            connection.root.keyed = Keyed("k")
            connection.root.list = [connection.root.keyed]
        connection = opened(db)
        assert connection.root.list[0] is connection.root.keyed
        assert connection.root.keyed._v_key == "k"

    def test_get(self, db):
        with db.transaction() as connection:
            connection.root.thing = Thing(a=1)
        connection = opened(db)
        oid = connection.root.thing._p_oid
        other = opened(db)
        assert other.get(oid).a == 1
        assert other.get(oid) is other[oid] is other.root.thing
        with pytest.raises(TypeError, match="8 bytes"):
            other.get(1)
        with pytest.raises(TypeError, match="8 bytes"):
            other.get(b"short")

    def test_add(self, db):
        connection = opened(db)
        thing = Thing(a=1)
        connection.add(thing)
        oid = thing._p_oid
        assert connection.get(oid) is thing
        connection.add(thing)
        commit(connection)
        assert opened(db).get(oid).a == 1

    def test_add_refuses(self, some):
        connection, other = opened(some), opened(some)
        with pytest.raises(TypeError, match="only persistent objects"):
            connection.add(3)
        thing = Thing()
        other.add(thing)
        with pytest.raises(SerializationError, match="another connection"):
            connection.add(thing)

    def test_what_was_added_survives_a_full_cache(self, some):
        connection = opened(some)
        thing = Thing(a=1)
        connection.add(thing)
        connection.root.b = 2
        connection.cacheMinimize()
        thing._p_deactivate()
        commit(connection)
        connection.cacheMinimize()
        assert thing.a == 1

    def test_objects_of_another_connection_are_refused(self, some):
        connection, other = opened(some), opened(some)
        connection.root.thing = Thing()
        commit(connection)
        other.sync()
        other.root.copy = connection.root.thing
        with pytest.raises(SerializationError, match=r"things\.Thing .* belongs to another connection"):
            commit(other)

    def test_weak_references(self, db):
        with db.transaction() as connection:
            connection.root.thing = Thing(a=1)
            connection.root.weak = WeakRef(connection.root.thing)
        connection = opened(db)
        assert connection.root.weak() is connection.root.thing
        oid = connection.root.thing._p_oid
        del connection.root.thing
        for n in range(3):  # a pack keeps the last two transactions
            connection.root.n = n
            commit(connection)
        db.pack()
        fresh = opened(db)
        with pytest.raises(POSKeyError):
            fresh.get(oid)
        fresh.cacheMinimize()
        assert fresh.root.weak() is None

    def test_a_weak_reference_to_a_new_object_outlives_an_abort(self, some):
        connection = opened(some)
        thing = Thing(a=1)
        connection.root.thing, connection.root.weak = thing, WeakRef(thing)
        transaction_savepoint = connection.transaction_manager.savepoint()
        assert transaction_savepoint.valid
        weak = connection.root.weak
        abort(connection)
        connection.root.thing, connection.root.weak = thing, weak
        commit(connection)
        assert opened(some).root.weak().a == 1

    def test_a_missing_object_tells_who_refers_to_it(self, databases):
        db = databases("model-full")
        with db.transaction() as connection:
            connection.root.holder = Thing(lost=Thing())
        connection = opened(db)
        connection.cacheMinimize()
        holder = connection.root.holder
        lost = holder.lost
        holder_oid, lost_oid = holder._p_oid, lost._p_oid
        del db.store.objects[lost_oid]
        with pytest.raises(POSKeyError, match=f"object {holder_oid.hex()} refers to it") as caught:
            lost._p_activate()
        assert (caught.value.oid, caught.value.referrer) == (lost_oid, holder_oid)
        fresh = opened(db)
        with pytest.raises(POSKeyError) as caught:
            fresh.get(lost_oid)
        assert caught.value.referrer is None  # nobody has looked at the holder
        fresh.root.holder._p_activate()
        with pytest.raises(POSKeyError) as caught:
            fresh.get(oid_from(12345))
        assert caught.value.referrer is None

    def test_a_missing_object_that_is_referred_to_by_oid_only(self, databases):
        db = databases("model-full")
        with db.transaction() as connection:
            connection.root.holder = Thing(lost=Keyed("k"))
        connection = opened(db)
        lost = connection.root.holder.lost._p_oid
        del db.store.objects[lost]
        fresh = opened(db)
        with pytest.raises(POSKeyError) as caught:
            fresh.root.holder._p_activate()
        assert caught.value.referrer == fresh.root.holder._p_oid

    def test_what_cannot_be_pickled(self, some):
        connection = opened(some)
        connection.root.thing = Thing(bad=lambda: None)
        with pytest.raises(SerializationError, match=r"things\.Thing .*cannot be pickled") as caught:
            commit(connection)
        assert caught.value.class_name == "things.Thing"
        assert isinstance(caught.value.__cause__, (AttributeError, TypeError, pickle.PicklingError))

    def test_what_is_nested_too_deeply(self, some):
        connection = opened(some)
        nested = []
        for _ in range(100_000):
            nested = [nested]
        connection.root.nested = nested
        with pytest.raises(SerializationError, match="cannot be pickled"):
            commit(connection)

    def test_what_getstate_raises_is_raised(self, some):
        connection = opened(some)
        connection.root.thing = Unready()
        with pytest.raises(LookupError, match="not today"):
            commit(connection)

    def test_what_setstate_raises_names_the_object(self, some, monkeypatch):
        with some.transaction() as connection:
            connection.root.thing = Thing(a=1)

        def fail(_self, _state):
            raise LookupError("not today")

        monkeypatch.setattr(Thing, "__setstate__", fail, raising=False)
        connection = opened(some)
        connection.cacheMinimize()
        with pytest.raises(SerializationError, match="LookupError: not today") as caught:
            _ = connection.root.thing.a
        assert caught.value.oid == connection.root.thing._p_oid

    def test_huge_and_empty_values(self, some):
        with some.transaction() as connection:
            connection.root.large = b"x" * 20_000_000
            connection.root.empty = ""
            connection.root.many = OOBTree({number: str(number) for number in range(5000)})
        connection = opened(some)
        assert len(connection.root.large) == 20_000_000
        assert connection.root.empty == ""
        assert list(connection.root.many.items())[-1] == (4999, "4999")


class TestSnapshots:
    def test_a_transaction_sees_one_snapshot(self, db):
        reader, writer = opened(db), opened(db)
        writer.root.a = Thing(n=1)
        writer.root.b = Thing(n=1)
        commit(writer)
        reader.sync()
        assert reader.root.a.n == 1
        writer.root.a.n = writer.root.b.n = 2
        commit(writer)
        assert (reader.root.a.n, reader.root.b.n) == (1, 1)
        reader.cacheMinimize()
        assert (reader.root.a.n, reader.root.b.n) == (1, 1)
        reader.sync()
        assert (reader.root.a.n, reader.root.b.n) == (2, 2)

    @pytest.mark.parametrize("end", ["commit", "abort", "begin"])
    def test_the_snapshot_moves_on_where_transactions_end(self, db, end):
        reader, writer = opened(db), opened(db)
        assert "a" not in reader.root()
        writer.root.a = 1
        commit(writer)
        assert "a" not in reader.root()
        getattr(reader.transaction_manager, end)()
        assert reader.root.a == 1

    def test_only_what_others_changed_is_loaded_again(self, db):
        writer = opened(db)
        writer.root.a, writer.root.b, writer.root.c = Thing(n=1), Thing(n=1), Thing(n=1)
        commit(writer)
        reader = opened(db)
        things = [reader.root.a, reader.root.b, reader.root.c]
        for thing in things:
            thing._p_activate()
        writer.root.b.n = 2
        commit(writer)
        reader.sync()
        assert [thing._p_changed for thing in things] == [False, None, False]
        assert writer.root.b._p_changed is False  # who changed it keeps it

    def test_explicit_transaction_managers(self, db):
        manager = transaction.TransactionManager(explicit=True)
        connection = db.open(manager)
        other = opened(db)
        other.root.a = 1
        commit(other)
        manager.begin()
        assert connection.root.a == 1
        connection.root.a = 2
        manager.commit()
        assert connection.root.a == 2
        with pytest.raises(transaction.interfaces.NoTransaction):
            connection.root.a = 3
        manager.begin()
        assert connection.root.a == 2  # what was refused did not stay in memory
        manager.abort()

    def test_the_thread_s_own_manager_is_the_default(self, some):
        connection = some.open()
        assert connection.transaction_manager is transaction.manager.manager
        connection.root.a = 1
        transaction.commit()
        assert opened(some).root.a == 1

    def test_a_connection_from_the_pool_sees_what_is_newest(self, db):
        first = opened(db)
        first.root.a = Thing(n=1)
        commit(first)
        first.root.a._p_activate()
        first.close()
        other = opened(db)
        assert other is first
        writer = opened(db)
        other.close()
        writer.root.a.n = 2
        commit(writer)
        again = opened(db)
        assert again is other
        assert again.root.a.n == 2

    def test_a_view_that_fails_leaves_no_stale_object(self, databases, monkeypatch):
        db = databases("model-full")
        reader, writer = opened(db), opened(db)
        writer.root.a, writer.root.b = Thing(n=1), Thing(n=1)
        commit(writer)
        reader.sync()
        assert (reader.root.a.n, reader.root.b.n) == (1, 1)
        writer.root.a.n = writer.root.b.n = 2
        commit(writer)
        advance = reader.view.advance

        def fail():
            advance()
            raise OSError("the disk is gone")

        monkeypatch.setattr(reader.view, "advance", fail)
        with pytest.raises(OSError, match="gone"):
            reader.sync()
        monkeypatch.undo()
        assert (reader.root.a.n, reader.root.b.n) == (2, 2)

    def test_one_object_that_cannot_be_invalidated(self, databases, monkeypatch):
        """An exception in the middle of the invalidations: the rest are dropped nevertheless."""
        db = databases("model-full")
        reader, writer = opened(db), opened(db)
        for name in "abcdef":
            writer.root()[name] = Thing(n=1)
        commit(writer)
        reader.sync()
        assert sum(reader.root()[name].n for name in "abcdef") == 6
        for name in "abcdef":
            writer.root()[name].n = 2
        commit(writer)
        failures = iter([True])

        def refuse(self):
            if self.n == 1 and next(failures, False):
                raise RuntimeError("not this one")
            super(Thing, self)._p_invalidate()

        monkeypatch.setattr(Thing, "_p_invalidate", refuse, raising=False)
        with pytest.raises(RuntimeError, match="not this one"):
            reader.sync()
        monkeypatch.undo()
        reader.sync()
        assert sum(reader.root()[name].n for name in "abcdef") == 12

    def test_all_is_dropped_where_the_store_cannot_tell_what_changed(self, databases, monkeypatch):
        db = databases("model-full")
        reader, writer = opened(db), opened(db)
        writer.root.a = Thing(n=1)
        commit(writer)
        reader.sync()
        assert reader.root.a.n == 1
        writer.root.a.n = 2
        commit(writer)
        advance = reader.view.advance
        monkeypatch.setattr(reader.view, "advance", lambda: advance() and None)
        reader.sync()
        assert reader.root()._p_changed is None
        assert reader.root.a.n == 2


class TestAborts:
    def test_an_abort_takes_changes_back(self, db):
        connection = opened(db)
        connection.root.a = Thing(n=1)
        commit(connection)
        connection.root.a.n = 2
        connection.root.b = 3
        abort(connection)
        assert connection.root.a.n == 1
        assert "b" not in connection.root()

    def test_new_objects_are_new_again(self, db):
        connection = opened(db)
        added, reached = Thing(a=1), Thing(b=2)
        connection.add(added)
        connection.root.reached = reached
        assert added._p_oid is not None
        abort(connection)
        for thing in (added, reached):
            assert (thing._p_oid, thing._p_jar, thing._p_changed) == (None, None, False)
        assert (added.a, reached.b) == (1, 2)
        other = opened(db)
        other.root.added, other.root.reached = added, reached
        commit(other)
        assert (other.root.added.a, other.root.reached.b) == (1, 2)

    def test_a_commit_that_fails_while_pickling(self, db):
        """Also what was given an oid by then, but not written, is new again."""
        connection = opened(db)
        things = [Thing(n=number) for number in range(5)]
        things[2].bad = lambda: None
        connection.root.things = things
        with pytest.raises(SerializationError):
            commit(connection)
        abort(connection)
        assert [thing._p_oid for thing in things] == [None] * 5
        assert "things" not in connection.root()
        del things[2].bad
        connection.root.things = things
        commit(connection)
        assert [thing.n for thing in opened(db).root.things] == list(range(5))

    def test_read_the_store_after_a_vote_that_was_aborted(self, db):
        """ZODB#49: a stale read buffer. Vote, read, abort, commit data of the same size, read."""
        connection, reader = opened(db), opened(db)
        connection.root.a, connection.root.b = Thing(n=b"1" * 1000), Thing(n=0)
        commit(connection)
        reader.sync()
        manager = connection.transaction_manager
        connection.root.a.n = b"2" * 1000
        current = manager.get()
        connection.tpc_begin(current)
        connection.commit(current)
        connection.tpc_vote(current)
        assert reader.root.b.n == 0
        assert reader.root.a.n == b"1" * 1000
        connection.tpc_abort(current)
        manager.abort()
        connection.root.a.n = b"3" * 1000
        commit(connection)
        reader.cacheMinimize()
        assert reader.root.a.n == b"1" * 1000
        reader.sync()
        assert reader.root.a.n == b"3" * 1000
        assert opened(db).root.a.n == b"3" * 1000

    def test_a_commit_with_nothing_to_store_makes_no_transaction(self, db):
        connection = opened(db)
        connection.root.a = 1
        commit(connection)
        last = db.lastTransaction()
        connection.root()._p_changed = True
        connection.root()._p_changed = False
        commit(connection)
        assert db.lastTransaction() == last


class TestConflicts:
    def test_a_conflict_names_object_class_and_tids(self, db):
        first, second = opened(db), opened(db)
        first.root.a = Thing(n=0)
        commit(first)
        second.sync()
        second.root.a.n = 2
        serial = second.root.a._p_serial
        first.root.a.n = 1
        commit(first)
        with pytest.raises(ConflictError) as caught:
            commit(second)
        error = caught.value
        assert isinstance(error, transaction.interfaces.TransientError)
        assert (error.oid, error.class_name) == (first.root.a._p_oid, "things.Thing")
        assert (error.serial, error.committed) == (serial, first.root.a._p_serial)
        assert "no _p_resolveConflict" in error.reason
        abort(second)
        assert second.root.a.n == 1
        second.root.a.n = 2
        commit(second)

    def test_conflicts_are_resolved(self, db):
        first, second = opened(db), opened(db)
        first.root.counter = Counter()
        commit(first)
        second.sync()
        second.root.counter.add(10)
        first.root.counter.add(1)
        commit(first)
        commit(second)
        assert second.root.counter.count == 11
        first.sync()
        assert first.root.counter.count == 11
        assert second.root.counter._p_serial == first.root.counter._p_serial == db.lastTransaction()

    def test_two_insert_different_keys_into_one_bucket(self, db):
        first, second = opened(db), opened(db)
        first.root.tree = OOBTree({"m": Thing()})
        commit(first)
        second.sync()
        first.root.tree["a"] = Thing(n=1)
        second.root.tree["z"] = Thing(n=2)
        commit(first)
        commit(second)
        for connection in (first, second):
            connection.sync()
            assert list(connection.root.tree) == ["a", "m", "z"]
            assert (connection.root.tree["a"].n, connection.root.tree["z"].n) == (1, 2)

    def test_two_insert_the_same_key(self, db):
        first, second = opened(db), opened(db)
        first.root.tree = OOBTree()
        commit(first)
        second.sync()
        first.root.tree["k"], second.root.tree["k"] = 1, 2
        commit(first)
        with pytest.raises(ConflictError) as caught:
            commit(second)
        assert caught.value.class_name == "BTrees.OOBTree.OOBTree"
        assert "resolving it failed" in caught.value.reason

    def test_a_key_added_while_its_bucket_is_emptied(self, db):
        """ZODB 3.3.1c1: the key vanished with the bucket. One of the two has to give way."""
        first, second = opened(db), opened(db)
        first.root.tree = OOBTree({number: number for number in range(100)})
        commit(first)
        second.sync()
        bucket = list(first.root.tree.keys(max=14))
        first.root.tree[0.5] = "added"
        for key in bucket:
            del second.root.tree[key]
        commit(first)
        with pytest.raises(ConflictError):
            commit(second)
        abort(second)
        assert second.root.tree[0.5] == "added"

    def test_a_bucket_emptied_while_a_key_is_added(self, db):
        """ZODB 3.3.1c1, in the other order: who adds has relied on the bucket to stay (readCurrent)."""
        first, second = opened(db), opened(db)
        first.root.tree = OOBTree({number: number for number in range(100)})
        commit(first)
        second.sync()
        bucket = list(first.root.tree.keys(max=14))
        second.root.tree[0.5] = "added"
        for key in bucket:
            del first.root.tree[key]
        commit(first)
        with pytest.raises(ConflictError):
            commit(second)

    def test_read_current(self, db):
        first, second = opened(db), opened(db)
        first.root.a, first.root.b = Thing(n=0), Thing(n=0)
        commit(first)
        second.sync()
        second.readCurrent(second.root.a)
        second.root.b.n = 1
        first.root.a.n = 1
        commit(first)
        with pytest.raises(ReadConflictError) as caught:
            commit(second)
        assert (caught.value.oid, caught.value.class_name) == (first.root.a._p_oid, "things.Thing")
        abort(second)
        second.readCurrent(second.root.a)
        second.root.b.n = 1
        commit(second)

    def test_read_current_of_what_is_changed_too(self, db):
        connection = opened(db)
        connection.root.a = Thing(n=0)
        connection.readCurrent(connection.root.a)
        commit(connection)
        connection.readCurrent(connection.root.a)
        connection.root.a.n = 1
        commit(connection)
        assert connection.root.a.n == 1

    def test_read_current_is_forgotten_with_the_transaction(self, db):
        first, second = opened(db), opened(db)
        first.root.a, first.root.b = Thing(n=0), Thing(n=0)
        commit(first)
        second.sync()
        second.readCurrent(second.root.a)
        abort(second)
        first.root.a.n = 1
        commit(first)
        second.root.b.n = 1
        commit(second)
        assert second.root.b.n == 1

    def test_two_connections_in_one_transaction_are_refused(self, some):
        """The second would wait for the first to finish, in the same thread."""
        manager = transaction.TransactionManager()
        first, second = some.open(manager), some.open(manager)
        first.root.a = 1
        second.root.b = 2
        with pytest.raises(UsageError, match="take part in one transaction"):
            manager.commit()
        manager.abort()
        first.root.a = 1
        manager.commit()
        assert second.root.a == 1

    def test_two_databases_in_one_transaction(self, databases):
        one, two = databases("memory-full"), databases("memory-minimal")
        manager = transaction.TransactionManager()
        first, second = one.open(manager), two.open(manager)
        first.root.a = second.root.a = 1
        manager.commit()
        assert opened(one).root.a == opened(two).root.a == 1
        first.root.a = 2
        second.root.bad = lambda: None
        with pytest.raises(SerializationError):
            manager.commit()
        manager.abort()
        assert opened(one).root.a == 1


class TestTheConnection:
    def test_closing_with_changes_is_refused(self, some):
        connection = opened(some)
        connection.root.a = 1
        with pytest.raises(UsageError, match="commit or abort"):
            connection.close()
        abort(connection)
        connection.close()
        connection.close()

    def test_nothing_works_once_it_is_closed(self, some):
        connection = opened(some)
        connection.root.a = thing = Thing(n=1)
        commit(connection)
        thing._p_deactivate()
        connection.close()
        for use in (lambda: connection.root, lambda: thing.n, lambda: connection.add(Thing()), connection.sync):
            with pytest.raises(ClosedError, match="connection is closed"):
                use()
        assert connection.transaction_manager is None
        assert connection.opened is None
        assert "closed" in repr(connection)

    def test_callbacks_are_called_when_it_closes(self, some, caplog):
        connection = opened(some)
        called = []
        connection.onCloseCallback(lambda: called.append(1))
        connection.onCloseCallback(lambda: 1 / 0)
        connection.onCloseCallback(lambda: called.append(2))
        with caplog.at_level(logging.ERROR):
            connection.close()
        assert called == [1, 2]
        assert "ZeroDivisionError" in caplog.text
        opened(some).close()
        assert called == [1, 2]

    def test_facts(self, some):
        connection = opened(some)
        assert connection.db() is some
        assert not connection.isReadOnly()
        assert connection.opened is not None
        assert some.getName() in repr(connection)
        assert some.getName() in connection.sortKey()

    def test_the_cache_is_kept_within_its_size(self, databases):
        db = databases("memory-full", cache_size=10)
        connection = opened(db)
        connection.root.things = [Thing(n=number) for number in range(100)]
        commit(connection)
        assert sum(thing.n for thing in connection.root.things) == 4950
        assert connection.cached_objects > 50
        connection.cacheGC()
        assert connection.cached_objects <= 60  # it resists being drained at once
        for _ in range(100):
            connection.cacheGC()
        assert connection.cached_objects <= 10
        connection.cacheMinimize()
        assert connection.cached_objects == 0

    def test_the_cache_is_kept_within_its_bytes(self, databases):
        db = databases("memory-full", cache_size=1000, cache_size_bytes=50_000)
        connection = opened(db)
        connection.root.things = [Thing(n=b"x" * 10_000) for number in range(20)]
        commit(connection)
        connection.sync()
        for thing in connection.root.things:
            thing._p_activate()
        connection.cacheGC()
        assert 0 < connection.cached_bytes < 70_000

    def test_oldstate(self, full):
        connection = opened(full)
        connection.root.a = thing = Thing(n=1)
        commit(connection)
        first = thing._p_serial
        thing.n = 2
        commit(connection)
        assert connection.oldstate(thing, first) == {"n": 1}
        with pytest.raises(POSKeyError):
            connection.oldstate(thing, NO_TID)

    def test_a_read_only_connection_refuses_changes(self, full):
        with full.transaction() as connection:
            connection.root.a = Thing(n=1)
            connection.root.tree = OOBTree({1: 1})
        past = opened(full, at=full.lastTransaction())
        assert past.isReadOnly()
        tree, thing = past.root.tree, past.root.a
        with pytest.raises(ReadOnlyError, match=r"this connection to the past .* what was cannot be changed"):
            thing.n = 2
        with pytest.raises(ReadOnlyError):
            past.root.b = 1
        with pytest.raises(ReadOnlyError):
            tree[2] = 2
        with pytest.raises(ReadOnlyError):
            past.add(Thing())
        with pytest.raises(ReadOnlyError):
            past.importFile("missing")
        with pytest.raises(ReadOnlyError):
            commit(past)
        abort(past)
        assert thing.n == 1
        assert list(tree) == [1]
        assert sorted(past.root()) == ["a", "tree"]
