"""Savepoints: what they write, and what rolling back takes back. Over every kind of database."""

from __future__ import annotations

import pytest
from BTrees.OOBTree import OOBTree
from databases import abort, commit, opened
from things import Counter, Keyed, Thing
from transaction.interfaces import InvalidSavepointRollbackError

from objstore.errors import ConflictError, SerializationError, StorageFullError
from objstore.ids import NO_TID, oid_from
from objstore.objects.savepoints import SavepointStore

pytest_plugins = ["database_fixtures"]


def savepoint(connection):
    return connection.transaction_manager.savepoint()


class TestRollback:
    def test_changes_since_are_taken_back(self, db):
        connection = opened(db)
        connection.root.a = Thing(n=1)
        commit(connection)
        connection.root.a.n = 2
        moment = savepoint(connection)
        connection.root.a.n = 3
        connection.root.b = 4
        moment.rollback()
        assert connection.root.a.n == 2
        assert "b" not in connection.root()
        connection.root.c = 5
        commit(connection)
        fresh = opened(db)
        assert (fresh.root.a.n, fresh.root.c) == (2, 5)
        assert "b" not in fresh.root()

    def test_several_and_one_of_them_twice(self, db):
        connection = opened(db)
        connection.root.n = 0
        moments = []
        for number in range(1, 5):
            connection.root.n = number
            moments.append(savepoint(connection))
        connection.root.n = 9
        for _ in range(2):
            moments[1].rollback()
            assert connection.root.n == 2
            connection.root.n = 8
        with pytest.raises(InvalidSavepointRollbackError):
            moments[2].rollback()
        moments[0].rollback()
        assert connection.root.n == 1
        commit(connection)
        assert opened(db).root.n == 1

    def test_a_tree_made_before_and_changed_after(self, db):
        """ZODB#16: the commit after the rollback of a savepoint with a new, then changed BTree failed."""
        connection = opened(db)
        connection.root.tree = OOBTree()
        moment = savepoint(connection)
        connection.root.tree.update({number: Thing(n=number) for number in range(200)})
        savepoint(connection)
        connection.root.tree[1000] = 1
        moment.rollback()
        assert len(connection.root.tree) == 0
        connection.root.tree[7] = Thing(n=1)
        commit(connection)
        fresh = opened(db)
        assert list(fresh.root.tree) == [7]
        assert fresh.root.tree[7].n == 1

    def test_a_tree_made_after(self, db):
        """ZODB#16, where the BTree itself is taken back."""
        connection = opened(db)
        connection.root.a = 1
        moment = savepoint(connection)
        connection.root.tree = tree = OOBTree({number: Thing(n=number) for number in range(200)})
        savepoint(connection)
        tree[1000] = 1
        moment.rollback()
        assert "tree" not in connection.root()
        assert tree._p_jar is None
        commit(connection)
        fresh = opened(db)
        assert sorted(fresh.root()) == ["a"]

    def test_new_objects_are_new_again(self, db):
        connection = opened(db)
        connection.root.a = 1
        moment = savepoint(connection)
        written, unwritten = Thing(n=1), Thing(n=2)
        connection.root.written = written
        savepoint(connection)
        connection.add(unwritten)
        moment.rollback()
        for thing in (written, unwritten):
            assert (thing._p_oid, thing._p_jar, thing._p_changed) == (None, None, False)
        connection.root.written, connection.root.unwritten = written, unwritten
        commit(connection)
        fresh = opened(db)
        assert (fresh.root.written.n, fresh.root.unwritten.n) == (1, 2)

    def test_a_new_object_that_lost_its_state_says_so(self, db):
        """It must not be stored as an empty one."""
        connection = opened(db)
        connection.root.a = 1
        moment = savepoint(connection)
        connection.root.thing = thing = Thing(n=1)
        savepoint(connection)
        connection.cacheMinimize()
        assert thing._p_changed is None
        moment.rollback()
        with pytest.raises(SerializationError, match="its state is gone"):
            _ = thing.n
        with pytest.raises(SerializationError, match="its state is gone"):
            connection.add(thing)
        connection.root.thing = thing
        with pytest.raises(SerializationError, match="its state is gone"):
            commit(connection)
        abort(connection)
        assert sorted(connection.root()) == []

    def test_a_connection_that_joins_later_is_rolled_back_too(self, databases):
        db, other = databases("memory-full"), databases("memory-full")
        first = opened(db)
        second = other.open(first.transaction_manager)
        first.root.a = 1
        moment = savepoint(first)
        second.root.b = Thing()
        moment.rollback()
        assert "b" not in second.root()
        second.root.c = 1
        commit(first)
        assert sorted(opened(other).root()) == ["c"]

    def test_what_was_only_read_is_still_checked(self, db):
        first, second = opened(db), opened(db)
        first.root.a, first.root.b = Thing(n=0), Thing(n=0)
        commit(first)
        second.sync()
        second.readCurrent(second.root.a)
        moment = savepoint(second)
        second.root.b.n = 1
        moment.rollback()
        second.root.b.n = 2
        savepoint(second)
        first.root.a.n = 1
        commit(first)
        with pytest.raises(ConflictError):
            commit(second)


class TestWriting:
    def test_memory_is_let_go(self, db):
        connection = opened(db)
        connection.root.things = [Thing(n=b"x" * 1000) for _ in range(100)]
        savepoint(connection)
        connection.cacheMinimize()
        assert connection.cached_objects == 0
        assert [len(thing.n) for thing in connection.root.things] == [1000] * 100
        commit(connection)
        assert len(opened(db).root.things[99].n) == 1000

    def test_objects_are_read_during_the_commit(self, db):
        """ZODB#402: what a savepoint has written must stay readable while it is committed."""
        connection = opened(db)
        connection.root.curious = Curious()
        connection.root.curious.other = Thing(n=1)
        savepoint(connection)
        connection.cacheMinimize()
        connection.root.curious.n = 2
        connection.root.curious.other._p_deactivate()
        commit(connection)
        fresh = opened(db)
        assert fresh.root.curious.seen == 1

    def test_changed_again_after(self, db):
        connection = opened(db)
        connection.root.a = thing = Thing(n=1)
        savepoint(connection)
        thing.n = 2
        commit(connection)
        assert opened(db).root.a.n == 2
        assert thing._p_serial == db.lastTransaction()

    def test_an_abort_takes_back_what_savepoints_wrote(self, db):
        connection = opened(db)
        connection.root.a = Thing(n=1)
        commit(connection)
        last = db.lastTransaction()
        connection.root.a.n = 2
        connection.root.new = new = Thing()
        savepoint(connection)
        connection.root.a.n = 3
        abort(connection)
        assert connection.root.a.n == 1
        assert "new" not in connection.root()
        assert new._p_jar is None
        commit(connection)
        assert db.lastTransaction() == last

    def test_conflicts_are_found_and_resolved(self, db):
        first, second = opened(db), opened(db)
        first.root.counter, first.root.a = Counter(), Thing(n=0)
        commit(first)
        second.sync()
        second.root.counter.add(10)
        savepoint(second)
        first.root.counter.add(1)
        commit(first)
        commit(second)
        assert second.root.counter.count == 11
        second.root.a.n = 1
        savepoint(second)
        first.sync()
        first.root.a.n = 2
        commit(first)
        with pytest.raises(ConflictError):
            commit(second)
        abort(second)
        assert second.root.a.n == 2

    def test_references_by_oid_only(self, db):
        connection = opened(db)
        connection.root.keyed = Keyed("k")
        savepoint(connection)
        connection.cacheMinimize()
        assert connection.root.keyed.key == "k"
        commit(connection)
        assert opened(db).root.keyed.key == "k"

    def test_a_savepoint_that_fails(self, db):
        connection = opened(db)
        connection.root.a = 1
        savepoint(connection)
        connection.root.bad = lambda: None
        with pytest.raises(SerializationError):
            savepoint(connection)
        abort(connection)
        assert sorted(connection.root()) == []
        connection.root.a = 2
        commit(connection)
        assert opened(db).root.a == 2

    def test_many_savepoints_cost_what_was_changed(self, some):
        """A savepoint of one change does not look at the 10,000 that were written before."""
        connection = opened(some)
        connection.root.tree = tree = OOBTree({number: Thing() for number in range(10_000)})
        savepoint(connection)
        store = connection._changes.savepoints
        for number in range(300):
            tree[number].n = number
            moment = savepoint(connection)
        assert len(store._log) < 10_000 + 10_000 + 1000
        tree[5].n = "changed"
        moment.rollback()
        assert tree[5].n == 5
        commit(connection)
        assert opened(some).root.tree[299].n == 299


class Curious(Thing):
    """Looks at another object while it is stored."""

    def __getstate__(self):
        state = super().__getstate__()
        if "other" in state and "n" in state:
            state = {**state, "seen": state["other"].n}
        return state


def test_what_was_rolled_back_keeps_its_serial(some):
    """It was taken for committed with the rest, so that the next change to it met a conflict with nobody."""
    connection = opened(some)
    connection.root.a, connection.root.b = Thing(n=0), Thing(n=0)
    commit(connection)
    a, b, manager = connection.root.a, connection.root.b, connection.transaction_manager
    first = b._p_serial
    a.n = 1
    point = manager.savepoint()
    b.n = 1
    manager.savepoint()
    point.rollback()
    assert b.n == 0
    commit(connection)
    assert a._p_serial > first == b._p_serial
    b.n = 2
    commit(connection)
    assert (opened(some).root.a.n, opened(some).root.b.n) == (1, 2)


class TestTheStore:
    def test_what_was_written_is_read(self):
        store = SavepointStore(memory=10)
        assert store.load(oid_from(1)) is None
        for number in range(20):
            store.store(oid_from(number), NO_TID, bytes([number]) * number, b"")
        assert store.load(oid_from(7)).data == bytes([7]) * 7
        assert store.load(oid_from(0)).data == b""
        assert [number for number, _ in store.all()] == [oid_from(number) for number in range(20)]
        assert oid_from(3) in store
        assert len(store) == 20
        store.close()
        store.close()

    def test_marks(self):
        store = SavepointStore(memory=2**20)
        store.store(oid_from(1), NO_TID, b"one", b"")
        first = store.mark()
        store.store(oid_from(1), NO_TID, b"another", b"")
        store.store(oid_from(2), NO_TID, b"two", None)
        second = store.mark()
        assert store.rollback(second) == set()
        assert store.rollback(first) == {oid_from(1), oid_from(2)}
        assert store.load(oid_from(1)).data == b"one"
        assert store.load(oid_from(2)) is None
        store.store(oid_from(3), NO_TID, b"three", b"")
        assert [written.data for _, written in store.all()] == [b"one", b"three"]
        store.close()

    def test_a_full_disk(self, monkeypatch):
        """Both when the memory is full and goes to a file, and when that file is full."""
        for memory in (10, 100):
            store = SavepointStore(memory)
            store.store(oid_from(1), NO_TID, b"x" * 50, b"")
            with monkeypatch.context() as context:
                context.setattr("tempfile.TemporaryFile", fail)
                context.setattr(store, "_file", Full(store._file))
                with pytest.raises(StorageFullError, match="savepoint cannot be written"):
                    store.store(oid_from(2), NO_TID, b"y" * 100, b"")
            assert store.load(oid_from(2)) is None
            assert store.load(oid_from(1)).data == b"x" * 50
            store.store(oid_from(2), NO_TID, b"z" * 100, b"")
            assert store.load(oid_from(2)).data == b"z" * 100
            store.close()


def fail(*_arguments, **_options):
    raise OSError(28, "No space left on device")


class Full:
    """A file that cannot be written."""

    write = fail

    def __init__(self, file):
        self._file = file

    def __getattr__(self, name):
        return getattr(self._file, name)
