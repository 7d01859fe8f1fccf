"""The flusher at work in its thread: when it flushes, who waits for it, how it ends."""

from __future__ import annotations

import contextlib
import errno
import threading

import pytest
from flushing import NEVER, PATIENCE, flushers, is_flushed, joined, until
from stores import commit, contents, open_on, value_of

from objstore.contracts import Format, History, StoreOptions
from objstore.engine.journal import MAPPED_SIZE
from objstore.engine.opening import open_store
from objstore.errors import ClosedError, SnapshotTooOldError, StorageError
from objstore.ids import NO_TID, ROOT, oid_from
from objstore.machine.posix import PosixFilesystem
from objstore.upkeep.pack import pack

pytest_plugins = ["flusher_fixtures"]


class TestWhen:
    def test_so_many_transactions_make_a_batch(self, opened):
        store = opened(flush_transactions=5)
        for at in range(4):
            last = commit(store, {0: at})
        assert store.statistics()["flush_batches"] == 0
        assert store.flushed == NO_TID
        commit(store, {0: 4})
        # In Minimal, chunky, the snapshot that a transaction stands on holds back what it commits itself.
        until(lambda: store.flushed >= last)
        assert store.statistics()["flush_batches"] == 1
        assert contents(store, [0]) == {0: 4}

    def test_so_many_bytes_make_a_batch(self, opened):
        store = opened(flush_bytes=10_000)
        first = commit(store, {0: "x" * 5_000})
        assert store.statistics()["flush_batches"] == 0
        commit(store, {0: "x" * 5_000})
        until(lambda: store.flushed >= first)

    def test_what_has_waited_for_so_long_is_flushed(self, opened):
        store = opened(flush_age=0.01)
        commit(store, {0: "x"})
        until(lambda: is_flushed(store))
        commit(store, {0: "y"})
        until(lambda: is_flushed(store))
        assert store.statistics()["flush_batches"] == 2

    def test_nothing_is_flushed_where_nothing_waits(self, opened):
        store = opened(flush_age=0.001)
        commit(store, {0: "x"})
        until(lambda: is_flushed(store))
        store.flush()
        store.flush()
        assert store.statistics()["flush_batches"] == 1

    def test_batches_are_cut_by_number_and_by_bytes(self, opened):
        store = opened(background=False, flush_transactions=4, flush_bytes=20_000)
        for size in (10, 10, 10, 10, 10, 30_000, 10, 15_000, 15_000):
            commit(store, {0: "x" * size})
        store.flush()
        assert is_flushed(store)
        # Four; one and no more, because the next is too large; that one alone; two; one.
        assert store.statistics()["flush_batches"] == 5
        assert store.statistics()["flushed_transactions"] == 9

    def test_what_an_earlier_process_left_is_flushed(self, opened):
        store = opened(background=False)
        tids = [commit(store, {0: at, at: at}) for at in range(1, 4)]
        opened.abandon(store)
        again = opened(flush_age=0.001)
        until(lambda: is_flushed(again))
        assert again.flushed == tids[-1]
        assert contents(again, range(5)) == {0: 3, 1: 1, 2: 2, 3: 3}

    def test_reading_only_starts_no_thread(self, opened):
        store = opened(background=False)
        commit(store, {0: 1})
        opened.abandon(store)
        before = flushers()
        reader = opened(read_only=True)
        assert flushers() == before
        assert contents(reader, [0]) == {0: 1}


class TestRoom:
    def test_commits_wait_past_the_limit(self, opened, filesystem):
        """What waits in the journal is bounded, and a statistic tells of those who waited."""
        store = opened(journal_limit=20_000, flush_bytes=10_000)
        filesystem.hold()
        done = []

        def write():
            for at in range(12):
                commit(store, {0: at, 1: "x" * 5_000})
                done.append(at)

        writer = threading.Thread(target=write)
        writer.start()
        until(lambda: store.statistics()["journal_waits"] == 1)
        assert filesystem.entered.wait(PATIENCE)
        assert 20_000 < store.statistics()["journal_bytes"] < 27_000
        assert len(done) == 4
        assert contents(store, [0]) == {0: 3}  # readers do not wait
        filesystem.gate.set()
        joined(writer)
        assert not writer.is_alive()
        store.flush()
        assert contents(store, [0]) == {0: 11}
        assert is_flushed(store)

    def test_who_has_no_flusher_flushes_itself(self, opened):
        store = opened(background=False, journal_limit=20_000)
        for at in range(12):
            commit(store, {0: at, 1: "x" * 5_000})
        assert store.statistics()["journal_waits"] == 2
        assert store.statistics()["journal_bytes"] < 27_000

    def test_who_waits_hears_of_the_error(self, opened, filesystem):
        store = opened(journal_limit=20_000, flush_age=0.001)
        filesystem.hold()
        filesystem.fail()
        errors = []

        def write():
            try:
                for at in range(12):
                    commit(store, {0: at, 1: "x" * 5_000})
            except StorageError as error:
                errors.append(error)

        writer = threading.Thread(target=write)
        writer.start()
        until(lambda: store.statistics()["journal_waits"] == 1)
        filesystem.gate.set()
        joined(writer)
        assert "Input/output error" in str(errors[0])
        filesystem.heal()
        until(lambda: is_flushed(store))

    @pytest.mark.parametrize("layout", [Format.SEGMENTED, Format.CHUNKY])
    def test_no_commit_waits_for_a_readers_old_snapshot(self, filesystem, layout):
        """Writers never wait for readers: what a snapshot holds back does not count."""
        store = open_on(filesystem, History.MINIMAL, layout, journal_limit=5_000, **NEVER, background=True)
        commit(store, {0: "old", 1: "old"})
        view = store.view()
        for at in range(20):
            commit(store, {0: at, 1: "x" * 2_000})
        assert value_of(view.load(ROOT)[0]) == "old"
        if layout is Format.CHUNKY:  # it has room for one revision of an object
            assert store.statistics()["journal_waits"] == 0
            assert store.statistics()["journal_bytes"] > 40_000
        assert view.advance() == {ROOT, oid_from(1)}
        assert value_of(view.load(ROOT)[0]) == 19
        view.close()
        store.flush()
        assert is_flushed(store)
        store.close()

    def test_a_snapshot_that_holds_back_more_than_the_pin_limit_is_lost(self, filesystem):
        store = open_on(
            filesystem,
            History.MINIMAL,
            journal_limit=5_000,
            pin_limit=30_000,
            **NEVER,
            background=True,
        )
        commit(store, {0: "old"})
        old, other = store.view(), store.view()
        for at in range(40):
            commit(store, {0: at, 1: "x" * 2_000})
        with pytest.raises(SnapshotTooOldError):
            old.load(ROOT)
        assert store.statistics()["snapshots_expired"] == 2
        assert store.statistics()["journal_bytes"] < 60_000
        assert other.advance() is None
        assert value_of(other.load(ROOT)[0]) == 39
        store.close()

    def test_commits_and_reads_go_on_while_a_batch_is_written(self, opened, filesystem):
        store = opened(flush_transactions=3)
        for at in range(2):
            commit(store, {0: at, 1: "kept"})
        filesystem.hold()
        commit(store, {0: 2})
        assert filesystem.entered.wait(PATIENCE)
        commit(store, {0: 3, 2: "new"})
        assert contents(store, range(3)) == {0: 3, 1: "kept", 2: "new"}
        filesystem.gate.set()
        store.flush()
        assert contents(store, range(3)) == {0: 3, 1: "kept", 2: "new"}

    def test_what_comes_in_while_a_batch_is_written_waits_for_its_turn(self, filesystem):
        """Flushed at once, it would make small segments, which are merged again and again."""
        store = open_on(
            filesystem, History.FULL, Format.SEGMENTED, background=True, **NEVER | {"flush_transactions": 4}
        )
        filesystem.hold()
        for at in range(4):
            last = commit(store, {0: at})
        assert filesystem.entered.wait(PATIENCE)
        for at in range(3):
            commit(store, {1: at})
        filesystem.gate.set()
        until(lambda: store.flushed == last and store.statistics()["journal_transactions"] == 3)
        commit(store, {1: 3})
        until(lambda: is_flushed(store))
        assert store.statistics()["flush_batches"] == 2
        store.close()

    @pytest.mark.parametrize("history", list(History))
    def test_a_large_transaction_is_mapped_to_be_flushed(self, history, tmp_path):
        filesystem = PosixFilesystem()
        options = StoreOptions(history=history, format=Format.SEGMENTED, background=False)
        store = open_store(f"{tmp_path}/store", options, filesystem=filesystem, packer=pack)
        values = {at: f"{at}" * MAPPED_SIZE for at in range(20)}
        commit(store, values)
        commit(store, {1: "small"})
        store.flush()
        values[1] = "small"
        assert contents(store, range(20)) == values
        assert list(store.home.findings()) == []
        store.close()


class TestMinimal:
    @pytest.mark.parametrize("layout", list(Format))
    def test_what_a_batch_supersedes_never_reaches_the_home(self, filesystem, layout):
        store = open_on(filesystem, History.MINIMAL, layout)
        for at in range(5):
            commit(store, {0: at, 1 + at: "once"})
        store.flush()
        assert store.statistics()["superseded_revisions"] == 4
        assert store.statistics()["flushed_revisions"] == 6
        assert [found.tid for found in store.summaries(ROOT)] == [store.last_tid()]
        assert contents(store, range(7)) == {0: 4} | dict.fromkeys(range(1, 6), "once")
        store.close()

    @pytest.mark.parametrize("layout", list(Format))
    def test_what_a_snapshot_needs_is_not_dropped(self, filesystem, layout):
        store = open_on(filesystem, History.MINIMAL, layout)
        views = []
        for at in range(6):
            commit(store, {0: at})
            if at in (1, 3):
                views.append(store.view())
        store.flush()
        assert [value_of(view.load(ROOT)[0]) for view in views] == [1, 3]
        assert store.statistics()["superseded_revisions"] == 1  # the one before the older snapshot
        views[0].close()
        commit(store, {0: 6})
        store.flush()
        assert value_of(views[1].load(ROOT)[0]) == 3
        views[1].close()
        commit(store, {0: 7})
        store.flush()
        assert contents(store, [0]) == {0: 7}
        assert is_flushed(store)
        store.close()

    def test_full_drops_nothing(self, filesystem):
        store = open_on(filesystem)
        tids = [commit(store, {0: at}) for at in range(5)]
        store.flush()
        assert store.statistics()["superseded_revisions"] == 0
        assert [found.tid for found in store.summaries(ROOT)] == tids[::-1]
        store.close()

    def test_what_nothing_is_wanted_of_is_not_read(self, filesystem):
        store = open_on(filesystem, History.MINIMAL, Format.SEGMENTED)
        for at in range(5):
            commit(store, {0: at})
        for waiting in store._lookup.index.transactions()[:-1]:
            filesystem.unlink(f"{waiting.path}/t")
        store.flush()
        assert contents(store, [0]) == {0: 4}
        store.close()


class TestTheEnd:
    def test_closing_flushes_and_ends_the_thread(self, opened):
        before = flushers()
        store = opened()
        assert len(flushers()) == len(before) + 1
        last = commit(store, {0: "x"})
        store.close()
        store.close()
        assert flushers() == before
        again = opened()
        assert again.flushed == again.last_tid() == last
        assert again.statistics()["journal_transactions"] == 0
        assert contents(again, [0]) == {0: "x"}

    def test_closing_waits_for_the_batch_that_is_being_written(self, opened, filesystem):
        store = opened(flush_transactions=1)
        filesystem.hold()
        commit(store, {0: "w"})
        commit(store, {0: "x"})
        assert filesystem.entered.wait(PATIENCE)
        closer = threading.Thread(target=store.close)
        closer.start()
        filesystem.gate.set()
        joined(closer)
        assert not closer.is_alive()
        assert contents(opened(), [0]) == {0: "x"}

    def test_closing_without_flushing_leaves_the_journal(self, opened):
        store = opened(flush_on_close=False)
        last = commit(store, {0: "x"})
        store.close()
        again = opened()
        assert (again.flushed, again.last_tid()) == (NO_TID, last)
        assert contents(again, [0]) == {0: "x"}

    @pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
    def test_closing_while_the_disk_fails_raises_and_loses_nothing(self, opened, filesystem, number):
        before = flushers()
        store = opened()
        commit(store, {0: "x", 1: "y"})
        filesystem.fail(number)
        with pytest.raises(StorageError):
            store.close()
        store.close()
        assert flushers() == before
        filesystem.heal()
        assert contents(opened(), range(2)) == {0: "x", 1: "y"}

    def test_who_waits_for_room_is_not_left_waiting(self, opened, filesystem):
        store = opened(journal_limit=10_000)
        filesystem.hold()

        def write():
            with contextlib.suppress(ClosedError):
                for at in range(6):
                    commit(store, {0: at, 1: "x" * 5_000})

        writer = threading.Thread(target=write)
        writer.start()
        until(lambda: store.statistics()["journal_waits"] == 1)
        closer = threading.Thread(target=store.close)
        closer.start()
        filesystem.gate.set()
        for thread in (closer, writer):
            joined(thread)
            assert not thread.is_alive()
