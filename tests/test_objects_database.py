"""The database: its transactions, its pool, its past, and closing it."""

from __future__ import annotations

import gc
import logging
import threading
from datetime import UTC, datetime, timedelta

import pytest
import transaction
from databases import FULL, MINIMAL, abort, commit, opened
from model_store import ModelStore
from things import Counter, Thing
from transaction.interfaces import TransientError

from objstore.contracts import History
from objstore.errors import (
    ClosedError,
    ConflictError,
    HistoryMissingError,
    POSKeyError,
    ReadOnlyError,
    SerializationError,
    UndoError,
    UsageError,
)
from objstore.ids import NO_TID, ROOT, number, oid_from, tid_at, tid_from, tid_moment
from objstore.objects import DB
from objstore.objects.details import UNDECODED, decode_extension, encode_extension

pytest_plugins = ["database_fixtures"]


class TestTransaction:
    def test_it_commits_at_the_end(self, db):
        with db.transaction("a note") as connection:
            connection.root.a = 1
        assert connection.opened is None
        assert opened(db).root.a == 1
        if db.supportsUndo():
            assert db.undoLog(0, 1)[0]["description"] == "a note"

    def test_it_aborts_on_an_exception(self, db):
        last = db.lastTransaction()
        with pytest.raises(LookupError, match="on purpose"):
            change_and_fail(db)
        assert [each for each in db._pool.used() if each.opened] == []
        assert db.lastTransaction() == last
        assert "a" not in opened(db).root()

    def test_it_closes_the_connection_when_the_commit_fails(self, db):
        with pytest.raises(ConflictError):
            change_and_conflict(db)
        assert [each for each in db._pool.used() if each.joined] == []
        with db.transaction() as connection:
            assert connection.root.a == 2

    def test_what_a_transaction_says_of_itself(self, full):
        with full.transaction() as connection:
            current = connection.transaction_manager.get()
            current.user = "änne"
            current.note("first")
            current.note("second")
            current.setExtendedInfo("reason", {"numbers": [1, 2.5, None, True]})
            connection.root.a = 1
        entry = full.undoLog(0, 1)[0]
        assert (entry["user_name"], entry["description"]) == ("änne", "first\nsecond")
        assert entry["reason"] == {"numbers": [1, 2.5, None, True]}
        assert entry["tid"] == full.lastTransaction()
        assert abs(entry["time"] - datetime.now(UTC).timestamp()) < 60

    def test_an_extension_that_json_cannot_say(self, full):
        """It is kept as a pickle, which nobody executes to show it."""
        with full.transaction() as connection:
            connection.transaction_manager.get().setExtendedInfo("moment", datetime(2020, 1, 2))
            connection.root.a = 1
        entry = full.undoLog(0, 1)[0]
        assert entry[UNDECODED].startswith(b"\x80\x03")
        assert "moment" not in entry

    def test_an_extension_that_cannot_be_stored(self, db):
        connection = opened(db)
        connection.transaction_manager.get().setExtendedInfo("bad", lambda: None)
        connection.root.a = 1
        with pytest.raises(SerializationError, match="extension"):
            commit(connection)
        abort(connection)
        connection.root.a = 2
        commit(connection)

    def test_lone_surrogates(self, full):
        with full.transaction("a \udc80 b") as connection:
            connection.root.a = 1
        assert full.undoLog(0, 1)[0]["description"] == r"a \udc80 b"

    @pytest.mark.parametrize("extension", [{}, {"a": 1}, {"ä": ["x", {"y": None}]}, {"a": "\udc80"}, {"a": 1e300}])
    def test_extensions_as_json(self, extension):
        data = encode_extension(extension)
        assert decode_extension(data) == extension
        assert not extension or data.startswith(b"{")

    @pytest.mark.parametrize("extension", [{"a": (1,)}, {1: 2}, {"a": float("nan")}, {"a": b"x"}, {"a": {1: 2}}])
    def test_extensions_as_pickles(self, extension):
        data = encode_extension(extension)
        assert decode_extension(data) == {UNDECODED: data}

    @pytest.mark.parametrize("data", [b"{", b"{]", b"[1]", b"junk", b"\x80\x03}.", b"{\xff}"])
    def test_extensions_that_are_no_json(self, data):
        assert decode_extension(data) == {UNDECODED: data}


def change_and_fail(db):
    with db.transaction() as connection:
        connection.root.a = 1
        raise LookupError("on purpose")


def change_and_conflict(db):
    other = opened(db)
    with db.transaction() as connection:
        connection.root.a = 1
        other.root.a = 2
        commit(other)


class TestRun:
    def test_it_returns_what_the_function_returned(self, db):
        def function(connection):
            connection.root.a = 1
            return "value"

        assert db.run(function, note="a note") == "value"
        assert opened(db).root.a == 1

    def test_conflicts_are_retried(self, db):
        with db.transaction() as connection:
            connection.root.a = Thing(n=0)
        other, pauses, attempts = opened(db), [], []

        def function(connection):
            attempts.append(connection.root.a.n)
            connection.root.a.n += 1
            if len(attempts) < 4:
                other.sync()
                other.root.a.n += 10
                commit(other)

        db.run(function, sleep=pauses.append, uniform=lambda _low, high: high)
        assert attempts == [0, 10, 20, 30]
        assert opened(db).root.a.n == 31
        assert pauses == [0.01, 0.02, 0.04]

    def test_the_pauses_are_bounded_and_the_attempts_too(self, some):
        pauses, attempts = [], []

        def function(connection):
            attempts.append(connection)
            raise TransientError("again")

        with pytest.raises(TransientError):
            some.run(function, retries=12, sleep=pauses.append, uniform=lambda _low, high: high)
        assert len(attempts) == 13
        assert len(set(map(id, attempts))) == 1
        assert max(pauses) == 1.0
        assert some.statistics()["connections_open"] == 0

    def test_other_errors_are_raised(self, some):
        attempts = []

        def function(connection):
            attempts.append(1)
            connection.root.a = 1
            raise LookupError("on purpose")

        with pytest.raises(LookupError, match="on purpose"):
            some.run(function)
        assert attempts == [1]
        assert "a" not in opened(some).root()

    def test_no_retries(self, some):
        def function(_connection):
            raise TransientError("again")

        with pytest.raises(TransientError):
            some.run(function, retries=0)
        with pytest.raises(UsageError):
            some.run(function, retries=-1)


class TestPool:
    def test_connections_are_used_again(self, some):
        first = opened(some)
        second = opened(some)
        assert first is not second
        first.close()
        second.close()
        assert opened(some) is second
        assert opened(some) is first

    def test_more_than_pool_size_are_warned_about(self, databases, caplog):
        db = databases("model-full", pool_size=2)
        with caplog.at_level(logging.WARNING):
            connections = [opened(db) for _ in range(2)]
            assert caplog.records == []
            connections += [opened(db) for _ in range(3)]
        assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING", "CRITICAL"]
        assert "5 connections are open; pool_size is 2" in caplog.text
        for connection in connections:
            connection.close()
        assert db.statistics()["connections_waiting"] == 2
        assert len(db.store.views) == 2

    def test_waiting_connections_hold_nothing_back(self, databases):
        """Their snapshots move on while others work, and packing does not wait for them."""
        db = databases("model-full")
        waiting = opened(db)
        waiting.root.a = Thing(n=0)
        commit(waiting)
        other = opened(db)
        waiting.close()
        for n in range(3):
            other.root.a.n = n
            commit(other)
        assert db.pack().upto == db.lastTransaction()
        again = opened(db)
        assert again is waiting
        assert again.root.a.n == 2

    def test_a_connection_that_was_dropped(self, databases, caplog):
        db = databases("model-full")
        opened(db)
        transaction_manager = transaction.TransactionManager()
        db.open(transaction_manager)
        with caplog.at_level(logging.WARNING):
            gc.collect()
            opened(db).close()
        assert "dropped without being closed" in caplog.text
        assert len(db.store.views) == 1

    def test_sizes_can_be_changed(self, some):
        connection = opened(some)
        assert some.getCacheSize() == 10_000
        some.setCacheSize(5)
        some.setCacheSizeBytes(1000)
        some.setPoolSize(3)
        assert (some.getCacheSize(), some.getCacheSizeBytes(), some.getPoolSize()) == (5, 1000, 3)
        connection.root.things = [Thing(n=number) for number in range(100)]
        commit(connection)
        for _ in range(100):
            connection.cacheGC()
        assert connection.cached_objects <= 5
        another = opened(some)
        assert sum(thing.n for thing in another.root.things) == 4950
        for _ in range(100):
            another.cacheGC()
        assert another.cached_objects <= 5

    def test_the_caches_are_minimized(self, some):
        connection = opened(some)
        connection.root.a = Thing(n=1)
        commit(connection)
        assert some.statistics()["cached_objects"] == 2
        assert some.statistics()["cached_bytes"] > 0
        some.cacheMinimize()
        assert some.statistics()["cached_objects"] == 0
        assert connection.root.a.n == 1

    def test_statistics(self, db):
        connection = opened(db)
        facts = db.statistics()
        assert facts["history"] in ("full", "minimal")
        assert (facts["connections_open"], facts["connections_waiting"]) == (1, 0)
        assert facts["pool_size"] == 7
        connection.close()
        assert db.statistics()["connections_waiting"] == 1


class TestThePast:
    def history(self, db, count=5):
        """The tids of transactions that set `root.a.n` to 0, 1, 2, ..."""
        connection = opened(db)
        tids = []
        for n in range(count):
            if n == 0:
                connection.root.a = Thing(n=n)
            connection.root.a.n = n
            commit(connection)
            tids.append(db.lastTransaction())
        connection.close()
        return tids

    def test_at_a_tid(self, full):
        tids = self.history(full)
        for n, tid in enumerate(tids):
            for moment in (tid, tid.hex(), f"0x{tid.hex()}"):
                connection = opened(full, at=moment)
                assert connection.root.a.n == n
                connection.close()

    def test_before_a_tid(self, full):
        tids = self.history(full)
        for n, tid in enumerate(tids[1:]):
            assert opened(full, before=tid).root.a.n == n
        assert "a" not in opened(full, before=tids[0]).root()

    def test_before_there_was_a_database(self, full):
        for how in ({"before": tid_from(1)}, {"at": datetime(1999, 12, 31)}):
            with pytest.raises(UsageError, match=r"there was no database yet at 1\d\d\d-"):
                opened(full, **how)
        assert full.statistics()["connections_open"] == 0

    def test_at_a_datetime(self, full):
        tids = self.history(full)
        for n, tid in enumerate(tids):
            moment = tid_moment(tid) + timedelta(microseconds=1)
            if n + 1 == len(tids) or tid_at(moment) < tids[n + 1]:
                assert opened(full, at=moment).root.a.n == n
                assert opened(full, at=moment.replace(tzinfo=None)).root.a.n == n
        assert opened(full, at=datetime.now(UTC)).root.a.n == 4

    def test_the_past_stays_as_it_is(self, full):
        tids = self.history(full)
        connection = opened(full, at=tids[-1])
        with full.transaction() as other:
            other.root.a.n = "later"
        connection.sync()
        connection.cacheMinimize()
        assert connection.root.a.n == 4
        assert opened(full, at=datetime.now(UTC)).root.a.n == "later"

    def test_moments_that_are_none(self, full):
        for moment in ("not hex", b"short", 3.5, datetime(1, 1, 1)):
            with pytest.raises(UsageError):
                opened(full, at=moment)
        with pytest.raises(UsageError, match="still to come"):
            opened(full, at=datetime.now(UTC) + timedelta(days=1))
        with pytest.raises(UsageError, match="not both"):
            opened(full, at=tid_from(1), before=tid_from(1))

    @pytest.mark.parametrize("kind", MINIMAL)
    def test_minimal_keeps_none(self, databases, kind):
        db = databases(kind)
        tids = self.history(db)
        with pytest.raises(HistoryMissingError):
            opened(db, at=tids[0])
        assert db.undoLog() == []
        assert db.undoInfo() == []
        assert not db.supportsUndo()
        with pytest.raises(HistoryMissingError):
            db.undo(tids[-1])
        entries = db.history(ROOT, 10)
        assert len(entries) >= 1
        assert entries[0]["tid"] == tids[0]

    def test_what_was_packed_away(self, full):
        tids = self.history(full)
        full.pack()
        with pytest.raises(HistoryMissingError):
            opened(full, at=tids[0])
        assert opened(full).root.a.n == 4

    def test_history(self, full):
        tids = self.history(full)
        connection = opened(full)
        oid = connection.root.a._p_oid
        entries = full.history(oid, 3)
        assert [entry["tid"] for entry in entries] == tids[:1:-1]
        assert [entry["previous"] for entry in entries] == tids[3:0:-1]
        assert all(entry["size"] > 20 and not entry["deleted"] for entry in entries)
        assert len(full.history(oid)) == 1
        assert full.history(oid, 100)[-1]["previous"] is None
        with pytest.raises(POSKeyError):
            full.history(oid_from(10**6))


class TestUndo:
    def test_it_takes_a_transaction_back(self, full):
        connection = opened(full)
        connection.root.a = Thing(n=1)
        commit(connection)
        connection.root.a.n = 2
        commit(connection)
        assert connection.root.a.n == 2
        manager = connection.transaction_manager
        full.undo(full.undoLog()[0]["id"], manager.get())
        manager.commit()
        assert connection.root.a.n == 1
        full.undo(full.undoLog()[0]["tid"], manager.get())
        manager.commit()
        assert connection.root.a.n == 2

    def test_the_thread_s_transaction_is_the_default(self, full):
        with full.transaction() as connection:
            connection.root.a = 1
        full.undo(full.undoLog()[0]["id"])
        transaction.get().note("undone")
        transaction.commit()
        assert "a" not in opened(full).root()
        assert full.undoLog()[0]["description"] == "undone"

    def test_of_a_creation(self, full):
        """ZODB#318: an object that was undone. Read before, at and after it, and after a pack."""
        connection = opened(full)
        connection.root.keep = keep = Thing()
        commit(connection)
        connection.root.a = thing = Thing(n=1)
        commit(connection)
        created = full.lastTransaction()
        oid = thing._p_oid
        full.undo(created, connection.transaction_manager.get())
        commit(connection)
        undone = full.lastTransaction()
        assert "a" not in connection.root()
        with pytest.raises(POSKeyError):
            _ = opened(full).get(oid).n
        assert opened(full, at=created).get(oid).n == 1
        with pytest.raises(POSKeyError):
            opened(full, at=undone).get(oid)
        with pytest.raises(POSKeyError):
            opened(full, before=created).get(oid)
        full.undo(undone, connection.transaction_manager.get())
        commit(connection)
        assert opened(full).get(oid).n == 1
        assert opened(full).root.keep._p_oid == keep._p_oid
        full.undo(full.lastTransaction(), connection.transaction_manager.get())
        commit(connection)
        for each in full._pool.used():
            abort(each)
            each.close()
        full.pack()
        fresh = opened(full)
        with pytest.raises(POSKeyError):
            _ = fresh.get(oid).n
        assert sorted(fresh.root()) == ["keep"]

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
        assert (caught.value.tid, caught.value.oid) == (first, connection.root.a._p_oid)
        abort(connection)
        assert connection.root.a.n == 3

    def test_later_changes_are_resolved(self, full):
        connection = opened(full)
        connection.root.a = Counter()
        commit(connection)
        connection.root.a.add(1)
        commit(connection)
        first = full.lastTransaction()
        connection.root.a.add(10)
        commit(connection)
        full.undo(first, connection.transaction_manager.get())
        commit(connection)
        assert connection.root.a.count == 10

    def test_several_at_once(self, full):
        connection = opened(full)
        tids = []
        for n in range(5):
            connection.root.a = n
            commit(connection)
            tids.append(full.lastTransaction())
        full.undoMultiple([tids[2].hex(), tids[4], tids[3], tids[4]], connection.transaction_manager.get())
        commit(connection)
        assert connection.root.a == 1

    def test_an_undo_can_be_aborted(self, full):
        connection = opened(full)
        connection.root.a = 1
        commit(connection)
        last = full.lastTransaction()
        full.undo(last, connection.transaction_manager.get())
        connection.transaction_manager.savepoint()
        abort(connection)
        assert full.lastTransaction() == last
        assert connection.root.a == 1

    def test_with_changes_in_the_same_transaction(self, full):
        """Two data managers of one database in one transaction would wait for each other."""
        connection = opened(full)
        connection.root.a = 1
        commit(connection)
        full.undo(full.lastTransaction(), connection.transaction_manager.get())
        connection.root.b = 2
        with pytest.raises(UsageError, match="take part in one transaction"):
            commit(connection)
        abort(connection)
        assert sorted(connection.root()) == ["a"]

    def test_what_is_no_transaction(self, full):
        for identity in ("xyz", b"short", 5):
            with pytest.raises(UsageError):
                full.undo(identity)
        full.undo(tid_from(12345))
        with pytest.raises((UndoError, HistoryMissingError)):
            transaction.commit()
        transaction.abort()

    def test_the_log(self, full):
        connection = opened(full)
        for n in range(30):
            connection.transaction_manager.get().note(f"number {n}")
            connection.transaction_manager.get().user = "even" if n % 2 == 0 else "odd"
            connection.root.a = n
            commit(connection)
        assert [entry["description"] for entry in full.undoLog(0, 2)] == ["number 29", "number 28"]
        assert len(full.undoLog()) == 20
        assert len(full.undoLog(0, -5)) == 5
        assert [entry["description"] for entry in full.undoLog(3, -2)] == ["number 26", "number 25"]
        assert [entry["description"] for entry in full.undoLog(3, 4)] == ["number 26"]
        assert len(full.undoLog(0, 1000)) == 31
        assert full.undoLog(40) == []
        assert full.undoLog(5, 2) == []
        odd = full.undoLog(0, 3, filter=lambda entry: entry["user_name"] == "odd")
        assert [entry["description"] for entry in odd] == ["number 29", "number 27", "number 25"]
        info = full.undoInfo(0, 10, {"user_name": "even", "description": "number 4"})
        assert [entry["description"] for entry in info] == ["number 4"]
        assert full.undoInfo(0, 10, {"missing": 1}) == []
        with pytest.raises(UsageError):
            full.undoLog(-1)
        connection.close()
        full.pack()
        assert full.undoLog() == []


class TestPack:
    def test_garbage_goes(self, db):
        connection = opened(db)
        connection.root.a = Thing(n=1)
        connection.root.b = Thing(inner=Thing())
        commit(connection)
        kept = connection.root.a._p_oid
        gone = connection.root.b._p_oid
        del connection.root.b
        for n in range(3):  # a pack keeps the last two transactions
            connection.root.n = n
            commit(connection)
        dry = db.pack(dry_run=True)
        assert dry.dry_run
        assert opened(db).get(gone).inner._p_oid is not None
        gc.collect()
        report = db.pack()
        assert (report.objects_removed, dry.objects_removed) == (2, 2)
        fresh = opened(db)
        fresh.cacheMinimize()
        assert fresh.get(kept).n == 1
        with pytest.raises(POSKeyError):
            _ = fresh.get(gone).n

    def test_times(self):
        now = [datetime(2024, 5, 1, tzinfo=UTC).timestamp()]
        store = ModelStore(clock=lambda: now[0])
        db = DB(store, clock=lambda: now[0])
        packed, told = [], []
        store.pack = lambda upto, dry_run, progress: packed.append((upto, dry_run, progress))
        db.pack()
        db.pack(days=1)
        db.pack(datetime(2024, 4, 1, tzinfo=UTC))
        db.pack(datetime(2024, 4, 1, tzinfo=UTC), days=1, dry_run=True)
        db.pack(now[0] - 86400)
        db.pack(tid_from(77))
        db.pack(days=10**6, progress=lambda *fact: told.append(fact))
        expected = [
            tid_at(datetime(2024, month, day, tzinfo=UTC))
            for month, day in [(5, 1), (4, 30), (4, 1), (3, 31), (4, 30)]
        ]
        assert [upto for upto, _, _ in packed] == [*expected, tid_from(77), NO_TID]
        assert [dry_run for _, dry_run, _ in packed] == [False, False, False, True, False, False, False]
        packed[-1][2]("marking", 1, 2)
        assert told == [("marking", 1, 2)]
        with pytest.raises(UsageError):
            db.pack(days=-1)
        db.close()


class TestClosing:
    def test_twice(self, db):
        db.close()
        db.close()

    def test_as_a_context_manager(self, some):
        with some as db:
            assert db is some
            connection = opened(db)
            connection.root.a = 1
            commit(connection)
        with pytest.raises(ClosedError):
            some.open()

    def test_nothing_works_afterwards(self, db):
        connection = opened(db)
        connection.root.a = thing = Thing(n=1)
        commit(connection)
        thing._p_deactivate()
        db.close()
        for use in (
            db.open,
            db.pack,
            db.undoLog,
            db.statistics,
            db.lastTransaction,
            lambda: db.undo(tid_from(1)),
            lambda: db.history(ROOT),
            lambda: db.run(lambda _: None),
            lambda: connection.root,
            lambda: connection.get(ROOT),
            lambda: thing.n,
            connection.sync,
        ):
            with pytest.raises(ClosedError, match="database"):
                use()
        connection.close()
        transaction.begin()

    def test_with_changes_of_this_thread(self, some):
        """They are given up: the next transaction of the thread is not in the way."""
        connection = some.open()
        connection.root.a = 1
        some.close()
        transaction.commit()
        assert not connection.joined

    def test_with_changes_of_another_manager(self, some):
        """Whoever commits them is told that they are lost."""
        connection = opened(some)
        connection.root.a = 1
        some.close()
        with pytest.raises(ClosedError, match="database"):
            commit(connection)
        abort(connection)
        connection.close()

    def test_it_waits_for_a_commit_in_progress(self, databases):
        db = databases("model-full")
        connection = opened(db)
        connection.root.a = 1
        manager = connection.transaction_manager
        current = manager.get()
        connection.tpc_begin(current)
        connection.commit(current)
        connection.tpc_vote(current)
        closing = threading.Thread(target=db.close)
        closing.start()
        while not db._shared.commits.closed:
            pass
        assert not db.store.closed
        connection.tpc_finish(current)
        closing.join(10)
        assert db.store.closed
        assert len(db.store.log) == 2

    def test_in_the_middle_of_a_commit(self, some):
        connection = opened(some)
        connection.root.a = Closer()
        connection.root.a.db = None
        Closer.close = some.close
        with pytest.raises(UsageError, match="in the middle of a commit"):
            commit(connection)
        abort(connection)
        connection.root.b = 1
        commit(connection)


class Closer(Thing):
    def __getstate__(self):
        Closer.close()
        return super().__getstate__()


class TestReadOnly:
    def test_a_read_only_store(self, databases):
        """ZODB 5.2.1: a read-only open created a file."""
        db = databases("model-full")
        with db.transaction() as connection:
            connection.root.a = Thing(n=1)
        db.store.read_only = True
        reader = DB(db.store)
        connection = opened(reader)
        assert connection.root.a.n == 1
        assert connection.isReadOnly()
        assert reader.isReadOnly()
        with pytest.raises(ReadOnlyError):
            connection.root.a.n = 2
        abort(connection)
        with pytest.raises(ReadOnlyError):
            reader.undo(reader.lastTransaction())
        with pytest.raises(ReadOnlyError):
            reader.pack()
        with reader.transaction() as connection:
            assert connection.root.a.n == 1

    def test_an_empty_read_only_store(self):
        db = DB(ModelStore(read_only=True))
        with pytest.raises(POSKeyError):
            opened(db).root()
        assert db.lastTransaction() == NO_TID
        db.close()


def test_the_root_is_made_once():
    store = ModelStore(History.FULL)
    DB(store)
    assert [details.details.description for details in store.log] == ["initial database creation"]
    DB(store)
    assert len(store.log) == 1


def test_an_error_while_the_root_is_made():
    store = ModelStore()
    store.append = None
    with pytest.raises(TypeError):
        DB(store)
    assert store.views == set()


@pytest.mark.parametrize("kind", FULL[:2] + MINIMAL[:2])
def test_oids_are_never_given_twice(databases, kind):
    """RelStorage#283, ZODB#401: threads, imports and aborted transactions get oids of their own."""
    db = databases(kind)
    oids, lock = [], threading.Lock()

    def work():
        connection = db.open(transaction.TransactionManager())
        own = []
        for turn in range(50):
            things = [Thing() for _ in range(5)]
            for thing in things:
                connection.add(thing)
            own += [thing._p_oid for thing in things]
            if turn % 3:
                commit(connection)
            else:
                abort(connection)
        with lock:
            oids.extend(own)
        connection.close()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(oids) == len(set(oids)) == 1000
    assert ROOT not in oids
    assert min(map(number, oids)) > 0
