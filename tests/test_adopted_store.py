"""Adopted storages: how they are opened, whose conflicts are resolved by whom, and what they refuse."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
import transaction
import ZODB
from databases import ADOPTED, ADOPTED_FULL, abort, commit, opened
from persistent.mapping import PersistentMapping
from servers import Zeo, free_port, postgresql, why_no_postgresql, zeos
from things import Counter, Thing
from ZODB.FileStorage import FileStorage

import objstore
from objstore.compat.adopted import AdoptedStore, adopted_options, open_adopted
from objstore.compat.adopted.views import AdoptedView
from objstore.contracts import History, PackOptions, StoreOptions
from objstore.errors import (
    ClosedError,
    ConflictError,
    HistoryMissingError,
    MissingAbilityError,
    NotAStoreError,
    OpenError,
    POSKeyError,
    ReadOnlyError,
    SnapshotTooOldError,
    StoreLockedError,
    StoreMissingError,
    StoreUnavailableError,
    UndoError,
    UsageError,
)
from objstore.ids import NO_TID, ROOT, oid_from, tid_from
from objstore.revisions import Details

pytest_plugins = ["database_fixtures"]
TOP = Path(__file__).parent.parent


@pytest.fixture
def url(tmp_path):
    return f"file://{tmp_path}/Data.fs"


def fill(url, **values):
    with objstore.open(url) as db, db.transaction() as connection:
        connection.root().update(values)


class TestOpening:
    def test_what_zodb_wrote_is_read_and_the_other_way_round(self, url, tmp_path):
        with closing(ZODB.DB(str(tmp_path / "Data.fs"))) as db, db.transaction() as connection:
            connection.root()["theirs"] = Thing(a=1)
        with objstore.open(url) as db, db.transaction("ours") as connection:
            assert connection.root()["theirs"].a == 1
            connection.root()["ours"] = Thing(b=2)
        with closing(ZODB.DB(str(tmp_path / "Data.fs"))) as db:
            with db.transaction() as connection:
                assert connection.root()["ours"].b == 2
            assert db.undoInfo()[0]["description"] == "ours"

    def test_zodb_is_imported_when_it_is_needed(self, url):
        program = f"import objstore, sys; print('ZODB' in sys.modules); objstore.open({url!r}).close(); "
        done = subprocess.run(
            [sys.executable, "-c", program + "print('ZODB' in sys.modules)"],
            env={**os.environ, "PYTHONPATH": str(TOP)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.split() == ["False", "True"]

    def test_without_the_extra(self, url, monkeypatch):
        monkeypatch.setitem(sys.modules, "objstore.compat.adopted", None)
        with pytest.raises(OpenError, match=r"install objstore\[zodb\]"):
            objstore.open(url)

    def test_a_file_is_not_created_unasked(self, url, tmp_path):
        with pytest.raises(StoreMissingError):
            objstore.open(url, create=False)
        with pytest.raises(OpenError):
            objstore.open(url, read_only=True)
        assert list(tmp_path.iterdir()) == []

    def test_reading_only(self, url):
        fill(url, a=1)
        with objstore.open(url, read_only=True) as db:
            assert db.isReadOnly()
            connection = opened(db)
            assert connection.root()["a"] == 1
            with pytest.raises(ReadOnlyError):
                connection.root()["a"] = 2
            abort(connection)
            with pytest.raises(ReadOnlyError):
                db.pack()
            with pytest.raises(ReadOnlyError):
                db.store.new_oid()
            with pytest.raises(ReadOnlyError):
                db.store.restore(tid_from(2**60), Details())

    def test_a_file_that_is_open_elsewhere(self, url):
        with objstore.open(url), pytest.raises(StoreLockedError):
            objstore.open(url)
        objstore.open(url).close()

    @pytest.mark.parametrize("content", [b"something else" * 10, b"FS", b"fs30"])
    def test_a_file_that_is_something_else(self, url, tmp_path, content):
        (tmp_path / "Data.fs").write_bytes(content)
        for uri in (url, f"zodb+{url}", f"{url}?quota=1000"):
            for options in ({}, {"read_only": True}):
                with pytest.raises(NotAStoreError, match=f"^{tmp_path}/Data.fs: this is no Data.fs of ZODB's"):
                    objstore.open(uri, **options)
        assert [each.name for each in tmp_path.iterdir()] == ["Data.fs"]  # no lock file beside it
        assert (tmp_path / "Data.fs").read_bytes() == content

    def test_an_empty_file_is_as_good_as_none(self, url, tmp_path):
        (tmp_path / "Data.fs").touch()
        fill(url, a=1)
        with objstore.open(url) as db, db.transaction() as connection:
            assert connection.root()["a"] == 1

    def test_a_directory(self, tmp_path):
        objstore.open(tmp_path / "store").close()
        with pytest.raises(NotAStoreError, match=r"this is a directory, .* is opened by its path"):
            objstore.open(f"file://{tmp_path}/store")

    @pytest.mark.parametrize("unknown", ["nonsense://x", "zodb+nonsense://x", "http://example.com/"])
    def test_an_unknown_scheme(self, unknown):
        with pytest.raises(UsageError, match="no installed package knows the scheme"):
            objstore.open(unknown)

    def test_a_database_whose_driver_is_missing(self):
        """RelStorage tells it in a way of its own. Where there is a driver, there is no server."""
        with pytest.raises(OpenError, match="mysql://someone@127"):
            objstore.open("mysql://someone@127.0.0.1:1/db")

    def test_a_configuration_file(self, url, tmp_path):
        """It says five things of a database that objstore's has not, whatever stands in it."""
        fill(url, a=1)
        (tmp_path / "zodb.conf").write_text(
            f"<zodb>\n cache-size 11\n <filestorage>\n path {tmp_path}/Data.fs\n </filestorage>\n</zodb>\n"
        )
        with objstore.open(f"zconfig://{tmp_path}/zodb.conf") as db, db.transaction() as connection:
            assert connection.root()["a"] == 1
            assert db.getCacheSize() == 11

    def test_another_makes_the_root_at_the_same_moment(self, url, monkeypatch):
        """A storage may say then that the root is there, but not in the snapshot."""
        failures = [SnapshotTooOldError(NO_TID)]
        load = AdoptedView.load

        def too_old_once(view, oid):
            if failures:
                raise failures.pop()
            return load(view, oid)

        monkeypatch.setattr(AdoptedView, "load", too_old_once)
        with objstore.open(url) as db, db.transaction() as connection:
            connection.root()["a"] = 1
        assert not failures

    def test_the_prefix_is_optional(self, url):
        fill(url, a=1)
        with objstore.open(f"zodb+{url}") as db, db.transaction() as connection:
            assert connection.root()["a"] == 1

    def test_options_of_the_database(self, url):
        with objstore.open(f"{url}?connection_cache_size=11&connection_pool_size=3") as db:
            assert (db.getCacheSize(), db.getPoolSize()) == (11, 3)
        with objstore.open(f"{url}?connection_cache_size=11", cache_size=12) as db:
            assert db.getCacheSize() == 12

    def test_options_that_do_not_fit(self, url):
        with pytest.raises(UsageError, match="flush_age, history: an option of objstore's own stores"):
            objstore.open(url, history="full", flush_age=1.0)
        with pytest.raises(UsageError, match="unknown option"):
            objstore.open(url, nonsense=1)
        with pytest.raises(UsageError, match="nonsense"):
            objstore.open(f"{url}?nonsense=1")
        with pytest.raises(UsageError, match="historical_pool_size"):
            objstore.open(f"{url}?connection_historical_pool_size=1")
        with pytest.raises(UsageError, match="invalid literal"):
            objstore.open(f"{url}?connection_cache_size=many")

    def test_a_server_that_is_not_there(self):
        with pytest.raises(OpenError, match="zeo:"):
            objstore.open(f"zeo://127.0.0.1:{free_port()}?wait_timeout=1")
        if why_no_postgresql():
            pytest.skip(why_no_postgresql())
        with pytest.raises(OpenError) as caught:
            objstore.open(f"postgresql://somebody:secret@127.0.0.1:{free_port()}/nothing")
        assert "secret" not in str(caught.value)
        assert "somebody@127.0.0.1" in str(caught.value)

    @pytest.mark.parametrize("asked", ["?storage=none", "?storage=1", ""])
    def test_a_server_without_the_storage_that_is_asked_for(self, capfd, asked):
        """ZEO says only that it has waited for too long; what its server said is in its log."""
        server = zeos().fresh().partition("?")[0]
        uri = f"{server}{asked}{'&' if asked else '?'}wait_timeout=1"
        name = "none" if "none" in asked else "1"
        with pytest.raises(OpenError, match=f"its server has no storage of the name '{name}'") as raised:
            objstore.open(uri)
        assert str(raised.value).startswith(f"{uri}: ")
        assert "Traceback" not in capfd.readouterr().err

    def test_nothing_works_once_it_is_closed(self, url):
        db = objstore.open(url)
        store, view = db.store, db.store.view()
        view.close()
        view.close()
        db.close()
        store.close()
        for call in (store.view, store.new_oid, store.last_tid, lambda: store.summaries(ROOT), store.statistics):
            with pytest.raises(ClosedError):
                call()
        with pytest.raises(ClosedError):
            view.load(ROOT)

    def test_a_forked_child(self, url):
        """It cannot open the file, which belongs to its parent, and says so; the parent goes on."""
        program = (
            "import objstore, os, sys\n"
            f"db = objstore.open({url!r})\n"
            "connection = db.open()\n"
            "if os.fork() == 0:\n"
            "    for call in (lambda: connection.sync(), lambda: db.open()):\n"
            "        try:\n"
            "            call()\n"
            "        except objstore.ObjstoreError as error:\n"
            "            print(type(error).__name__, flush=True)\n"
            "    os._exit(0)\n"
            "os.wait()\n"
            "print(dict(connection.root()))\n"
        )
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", program],
            env={**os.environ, "PYTHONPATH": str(TOP)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.split() == ["ForkedConnectionError", "StoreLockedError", "{}"]


class TestConflicts:
    @pytest.mark.parametrize("kind", ADOPTED)
    def test_our_rules_are_asked_and_not_zodb_s(self, databases, kind, monkeypatch):
        """A class that is not allowed is not imported to resolve a conflict."""
        monkeypatch.setattr("ZODB.ConflictResolution.find_global", None)  # whoever uses it fails
        db = databases(kind, allowed_classes=["things."])
        with db.transaction() as connection:
            connection.root.counter = Counter()
        one, two = opened(db), opened(db)
        one.root.counter.add(1)
        two.root.counter.add(2)
        commit(one)
        commit(two)
        assert two.root.counter.count == 3
        db._shared.finder = db._shared.resolver._finder = type(db._shared.finder)(["things.Thing"])
        one.sync()
        one.root.counter.add(1)
        two.root.counter.add(1)
        commit(one)
        with pytest.raises(ConflictError, match="allowed_classes does not permit") as caught:
            commit(two)
        assert caught.value.class_name == "things.Counter"
        abort(two)
        assert two.root.counter.count == 4

    @pytest.mark.parametrize("kind", ADOPTED)
    def test_a_vote_that_is_overtaken_again(self, databases, kind, monkeypatch, caplog):
        """RelStorage lost commits of others when a transaction voted twice with one view that had not moved on."""
        db = databases(kind)
        with db.transaction() as connection:
            connection.root.counter = Counter()
            connection.root.other = Counter()
        one, two, three = opened(db), opened(db), opened(db)
        for each in (one, two, three):
            assert each.root.counter.count == each.root.other.count == 0
        catch_up, overtaking = AdoptedView.catch_up, iter((three, None))

        def overtaken(view):
            catch_up(view)
            by = next(overtaking, None)
            if by is not None:
                by.sync()
                by.root.counter.add(100)
                commit(by)

        monkeypatch.setattr(AdoptedView, "catch_up", overtaken)
        one.root.counter.add(1)
        commit(one)
        two.root.counter.add(10)
        with caplog.at_level(logging.WARNING):
            commit(two)
        assert [record.message for record in caplog.records] == []
        for each in (one, two, three):
            each.sync()
            assert each.root.counter.count == 111
        for each in (one, two, three, one):
            each.sync()
            each.root.counter.add(1000)
            commit(each)
        assert opened(db).root.counter.count == 4111

    @pytest.mark.parametrize("kind", ADOPTED)
    def test_a_conflict_that_nobody_resolves(self, databases, kind):
        db = databases(kind)
        with db.transaction() as connection:
            connection.root.thing = Thing(n=0)
        one, two = opened(db), opened(db)
        one.root.thing.n, two.root.thing.n = 1, 2
        serial = one.root.thing._p_serial
        commit(one)
        with pytest.raises(ConflictError, match="no _p_resolveConflict") as caught:
            commit(two)
        error = caught.value
        assert (error.oid, error.class_name) == (one.root.thing._p_oid, "things.Thing")
        assert (error.serial, error.committed) == (serial, db.lastTransaction())

    def test_in_memory(self):
        """A storage that cannot undo, and resolves nothing by itself."""
        with objstore.open("memory://test") as db:
            assert db.store.history_mode is History.MINIMAL
            with db.transaction() as connection:
                connection.root.counter = Counter()
            past = db.lastTransaction()
            one, two = opened(db), opened(db)
            one.root.counter.add(1)
            two.root.counter.add(2)
            commit(one)
            commit(two)
            assert two.root.counter.count == 3
            assert db.undoLog() == []
            with pytest.raises(HistoryMissingError):
                db.open(at=past)
            with pytest.raises(HistoryMissingError):
                db.undo(past)
        with pytest.raises(UsageError, match="read_only"):
            objstore.open("memory://test", read_only=True)


class TestAbilities:
    @pytest.mark.parametrize("kind", ADOPTED)
    def test_what_packing_cannot(self, databases, kind):
        db = databases(kind)
        with pytest.raises(MissingAbilityError, match="cannot tell what a pack would remove") as caught:
            db.pack(dry_run=True)
        assert caught.value.name == db.getName()
        with pytest.raises(MissingAbilityError, match="what a pack is to keep"):
            db.store.pack(tid_from(2**62), options=PackOptions(collect=False))

    @pytest.mark.parametrize("kind", ADOPTED)
    def test_packing(self, databases, kind):
        db = databases(kind)
        with db.transaction() as connection:
            connection.root.a = Thing()
            connection.root.b = Thing()
        for n in range(3):
            with db.transaction() as connection:
                connection.root.a.n = n
                oid = connection.root.a._p_oid
        with db.transaction() as connection:
            del connection.root.b
        phases = []
        report = db.pack(progress=lambda phase, *_: phases.append(phase))
        assert report.objects_kept in (2, 3)  # a ZEO's client is told of the length now and then
        assert phases == ["pack"]
        assert db.pack().seconds >= 0  # again: nothing is left to do
        if kind in ADOPTED_FULL:
            assert [entry["tid"] for entry in db.history(oid, 5)] == [opened(db).root.a._p_serial]

    @pytest.mark.parametrize("kind", ADOPTED)
    def test_facts(self, databases, kind):
        db = databases(kind)
        facts = db.statistics()
        assert facts["history"] == kind.split("-")[1]
        assert facts["last_tid"] == db.lastTransaction().hex()
        assert facts["bytes"] > 0

    @pytest.mark.parametrize("kind", ADOPTED)
    def test_deleting_and_mixing(self, databases, kind):
        db = databases(kind)
        store, view = db.store, db.store.view()
        data, serial = view.load(ROOT)
        pending = store.begin(Details(), view, db._shared.resolver)
        with pytest.raises(MissingAbilityError, match="cannot delete an object"):
            pending.store(ROOT, serial, None, None)
        pending.store(ROOT, serial, data, None)
        with pytest.raises(MissingAbilityError, match="store and undo in one transaction"):
            pending.undo(serial)
        with pytest.raises(UsageError, match="after it has voted"):
            pending.finish()
        pending.abort()
        pending.abort()
        with pytest.raises(ClosedError):
            pending.store(ROOT, serial, data, None)
        view.close()
        with pytest.raises(UsageError, match="a view of the same store"):
            store.begin(Details(), object(), db._shared.resolver)

    @pytest.mark.parametrize("kind", ADOPTED)
    def test_a_revision(self, databases, kind):
        db = databases(kind)
        with db.transaction() as connection:
            connection.root.a = 1
        first = db.lastTransaction()
        with db.transaction() as connection:
            connection.root.a = 2
        last = db.lastTransaction()
        found = db.store.revision(ROOT, last)
        assert found.previous == (first if kind in ADOPTED_FULL else NO_TID)
        with pytest.raises(POSKeyError):
            db.store.revision(ROOT, tid_from(5))
        with pytest.raises(POSKeyError):
            db.store.revision(oid_from(12345), last)
        with pytest.raises(POSKeyError):
            list(db.store.summaries(oid_from(12345)))
        if kind in ADOPTED_FULL:
            assert db.store.transaction(tid_from(5)) is None
            assert db.store.transaction(last).oids == (ROOT,)
            assert next(db.store.transactions(first)).tid == first

    @pytest.mark.parametrize("kind", ADOPTED_FULL)
    def test_a_long_history(self, databases, kind):
        """More than a storage is asked for at once."""
        db = databases(kind)
        tids = []
        for n in range(70):
            with db.transaction(f"number {n}") as connection:
                connection.root.a = n
            tids.append(db.lastTransaction())
        assert [entry["tid"] for entry in db.undoLog(0, 70)] == tids[::-1]
        assert [entry["tid"] for entry in db.history(ROOT, 70)] == tids[::-1]
        assert db.history(ROOT, 70)[68]["previous"] == tids[0]
        assert [each.tid for each in db.store.transactions(tids[50])][:51] == tids[50::-1]
        db.undo(tids[0])
        with pytest.raises(UndoError):
            transaction.commit()
        transaction.abort()

    @pytest.mark.parametrize("kind", ADOPTED)
    def test_transactions_from_elsewhere(self, databases, kind):
        """They keep their tids, other connections see them, and new oids come after theirs."""
        db = databases(kind)
        connection = opened(db)
        assert "a" not in connection.root()
        view = db.store.view()
        data, serial = view.load(ROOT)
        view.close()
        with pytest.raises(UsageError, match="comes too late"):
            db.store.restore(serial, Details())
        tid = tid_from(int.from_bytes(serial, "big") + 1000)
        pending = db.store.restore(tid, Details("somebody", "from elsewhere"))
        with pytest.raises(UsageError):
            pending.check_current(ROOT, serial)
        with pytest.raises(UsageError):
            pending.undo(serial)
        pending.store(ROOT, NO_TID, data, None)
        pending.store(oid_from(100_000), NO_TID, data, None)
        pending.vote()
        with pytest.raises(ClosedError):
            pending.store(ROOT, NO_TID, data, None)
        assert pending.finish() == tid == db.lastTransaction()
        pending.abort()
        if kind == "zeo-full":  # a ZEO's cache does not learn of what its own client restores
            return
        connection.sync()
        assert connection.root() == {}
        assert connection.root()._p_serial == tid
        connection.root()["a"] = PersistentMapping()
        commit(connection)
        assert connection.root()["a"]._p_oid > oid_from(100_000)
        abandoned = db.store.restore(tid_from(2**62), Details())
        abandoned.store(ROOT, NO_TID, data, None)
        abandoned.abort()
        assert opened(db).root()["a"] == {}


class TestServersThatGoAway:
    def test_a_zeo(self):
        with ExitStack() as stack:
            server = Zeo(1)
            stack.callback(server.stop)
            db = objstore.open(server.url().replace("wait_timeout=20", "wait_timeout=2"))
            stack.callback(db.close)
            connection = opened(db)
            connection.root()["a"] = 1
            commit(connection)
            server.process.send_signal(signal.SIGKILL)
            server.process.wait(30)
            connection.root()["a"] = 2
            with pytest.raises(StoreUnavailableError, match="begin the transaction again"):
                commit(connection)
            abort(connection)
            server.start()
            assert db.run(lambda each: each.root().setdefault("b", 3), retries=200) == 3
            connection.sync()
            assert dict(connection.root()) == {"a": 1, "b": 3}
            connection.close()

    def test_a_postgresql_that_hangs_up(self):
        if why_no_postgresql():
            pytest.skip(why_no_postgresql())
        url = postgresql().fresh()
        with objstore.open(url) as db:
            connection = opened(db)
            connection.root()["a"] = 1
            commit(connection)
            postgresql().hang_up(url.rpartition("/")[2])
            assert db.run(lambda each: each.root().setdefault("b", 2), retries=30) == 2
            connection.transaction_manager.abort()
            connection.sync()
            assert dict(connection.root()) == {"a": 1, "b": 2}
            connection.close()


def test_the_benchmark_runs():
    """At a tiny size, without PostgreSQL, whose start takes seconds. No speed is asserted."""
    size = ["--rounds", "1", "--seconds", "0.1", "--processes", "1", "--accounts", "200"]
    places = ["directory", "zeo"]
    done = subprocess.run(
        [sys.executable, str(TOP / "benchmarks" / "scaling.py"), "--json", *size]
        + [argument for place in places for argument in ("--place", place)],
        env={**os.environ, "PYTHONPATH": str(TOP)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert all(list(by_place) == places for by_place in result.values())
    assert all(by_place[place]["1"] > 0 for by_place in result.values() for place in places)


def test_a_storage_that_is_open_can_be_adopted(tmp_path):
    storage = FileStorage(str(tmp_path / "Data.fs"))
    with objstore.DB(AdoptedStore(storage, "mine")) as db, db.transaction() as connection:
        connection.root()["a"] = 1
        assert db.getName() == "mine"
    options, database = adopted_options(f"file://{tmp_path}/Data.fs", {"create": False, "cache_size": 5})
    assert (options, database.cache_size) == (StoreOptions(create=False), 5)
    open_adopted(f"file://{tmp_path}/Data.fs", options).close()
