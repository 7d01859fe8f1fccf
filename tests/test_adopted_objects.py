"""The tests of the object layer over ZODB's storages: FileStorage, and ZEO and RelStorage of real servers.

The tests are those of `test_objects_*`, with other databases in the fixtures. Left out is what is about our own
stores, and what does not depend on the store, which has been tested over ours.
"""

from __future__ import annotations

from datetime import datetime

import pytest
import test_objects_connection
import test_objects_database
import test_objects_resolve
import test_objects_savepoints
import test_objects_threads
from databases import ADOPTED, ADOPTED_FULL, abort, commit, opened
from things import Thing

from objstore.errors import MissingAbilityError, UndoError

pytest_plugins = ["database_fixtures"]


@pytest.fixture(params=ADOPTED)
def db(request, databases):
    """A database over each kind of storage."""
    return databases(request.param)


@pytest.fixture(params=ADOPTED_FULL)
def full(request, databases):
    """A database over each kind of storage that can undo."""
    return databases(request.param)


@pytest.fixture
def some(databases):
    """A database, for what does not depend on the store."""
    return databases("filestorage-full")


class OnTwo:
    """For what hardly depends on the storage: one without snapshots of its own, and one with."""

    @pytest.fixture(params=["filestorage-full", "postgresql-minimal"])
    def db(self, request, databases):
        return databases(request.param)


class TestObjects(test_objects_connection.TestObjects):
    test_a_long_chain_needs_no_recursion = test_huge_and_empty_values = None  # of our code alone, and slow

    def test_weak_references(self, db):
        if db.store.name.startswith("zeo:"):
            pytest.skip("a ZEO's cache has what its server has packed away")
        super().test_weak_references(db)


class TestSnapshots(test_objects_connection.TestSnapshots):
    pass


class TestAborts(OnTwo, test_objects_connection.TestAborts):
    pass


class TestConflicts(test_objects_connection.TestConflicts):
    pass


class TestTheConnection(OnTwo, test_objects_connection.TestTheConnection):
    pass


class TestTransaction(OnTwo, test_objects_database.TestTransaction):
    def test_an_extension_that_json_cannot_say(self, full):
        if not full.store.name.startswith("zeo:"):
            super().test_an_extension_that_json_cannot_say(full)
            return
        connection = opened(full)
        connection.transaction_manager.get().setExtendedInfo("moment", datetime(2020, 1, 2))
        connection.root.a = 1
        with pytest.raises(MissingAbilityError, match="extension that is not made of plain values"):
            commit(connection)
        abort(connection)
        with full.transaction() as connection:  # the server has not hung up
            connection.root.a = 1


class TestThePast(test_objects_database.TestThePast):
    pass


class TestUndo(test_objects_database.TestUndo):
    def test_later_changes_are_in_the_way(self, full):
        connection = opened(full)
        connection.root.a = Thing(n=1)
        commit(connection)
        connection.root.a.n = 2
        commit(connection)
        first = full.lastTransaction()
        connection.root.a.n = 3
        commit(connection)
        full.undo(first, connection.transaction_manager.get())
        with pytest.raises(UndoError) as caught:
            commit(connection)
        assert caught.value.tid == first
        assert caught.value.oid in (connection.root.a._p_oid, None)  # RelStorage does not say
        abort(connection)
        assert connection.root.a.n == 3

    def test_later_changes_are_resolved(self, databases):
        """A FileStorage does that here; a ZEO's server has no class of ours, and RelStorage never does."""
        super().test_later_changes_are_resolved(databases("filestorage-full"))


class TestClosing(OnTwo, test_objects_database.TestClosing):
    pass


class TestReferences(test_objects_resolve.TestReferences):
    pass


class TestRefusals(OnTwo, test_objects_resolve.TestRefusals):
    pass


class TestRollback(OnTwo, test_objects_savepoints.TestRollback):
    pass


class TestWriting(OnTwo, test_objects_savepoints.TestWriting):
    test_many_savepoints_cost_what_was_changed = None


test_concurrent_inserts_into_one_tree = test_objects_threads.test_concurrent_inserts_into_one_tree
test_counters_add_up = test_objects_threads.test_counters_add_up
