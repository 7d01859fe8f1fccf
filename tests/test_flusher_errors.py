"""The flusher when something fails, and among many threads: what becomes of its errors; nothing is lost."""

from __future__ import annotations

import contextlib
import errno
import threading

import pytest
from crashing import assert_sound
from flushing import NEVER, is_flushed, joined, until
from stores import commit, contents, open_on, record, refuse, value_of

from objstore.contracts import Format, History
from objstore.engine import waiting
from objstore.errors import CorruptionError, StorageError, StorageFullError
from objstore.ids import NO_TID, ROOT, oid_from
from objstore.revisions import Details

pytest_plugins = ["flusher_fixtures"]


def told_before(action):
    """Do something, though what the flusher's thread has met in the meantime is told to its caller first."""
    for _ in range(10):
        try:
            return action()
        except StorageError:
            continue
    return action()


class TestErrors:
    def test_an_error_is_raised_to_the_next_caller_and_flushing_goes_on(self, opened, filesystem):
        store = opened(flush_age=0.001)
        filesystem.fail()
        commit(store, {0: "kept"})
        until(lambda: filesystem.failures > 0 and store._flusher._error is not None)
        filesystem.heal()
        with pytest.raises(StorageError, match="Input/output error"):
            commit(store, {0: "not stored"})
        commit(store, {1: "stored"})
        until(lambda: is_flushed(store))
        assert contents(store, range(2)) == {0: "kept", 1: "stored"}
        assert store.statistics()["flush_failures"] >= 1

    def test_a_full_disk_says_so(self, opened, filesystem):
        store = opened(flush_age=0.001)
        filesystem.fail(errno.ENOSPC)
        commit(store, {0: "kept"})
        until(lambda: store._flusher._error is not None)
        with pytest.raises(StorageFullError, match="make room"):
            store.begin(Details(), store.view(), refuse)
        filesystem.heal()
        until(lambda: is_flushed(store))
        assert contents(store, [0]) == {0: "kept"}

    def test_once_there_is_room_the_next_commit_works(self, opened, filesystem):
        """py-lmdb#269: what the flusher met while the disk was full is no news any more."""
        store = opened(flush_age=0.001)
        filesystem.fail(errno.ENOSPC)
        commit(store, {0: "kept"})
        until(lambda: store._flusher._error is not None)
        with pytest.raises(StorageFullError, match="committed before is safe, make room"):
            commit(store, {0: "not stored"})
        until(lambda: store._flusher._error is not None)
        filesystem.heal()
        commit(store, {1: "stored"})
        until(lambda: is_flushed(store))
        assert contents(store, range(2)) == {0: "kept", 1: "stored"}

    def test_what_is_wrong_with_the_flusher_itself_is_told(self, opened, filesystem):
        """An error that is none of the disk must not end the thread unheard."""
        store = opened(flush_age=0.001)
        filesystem.error = ZeroDivisionError("a mistake")
        commit(store, {0: "kept"})
        until(lambda: store._flusher._error is not None)
        filesystem.heal()
        with pytest.raises(StorageError, match="ZeroDivisionError"):
            commit(store, {0: "x"})
        until(lambda: is_flushed(store))
        assert contents(store, [0]) == {0: "kept"}

    def test_who_calls_flush_hears_of_it_at_once(self, opened, filesystem):
        store = opened()
        commit(store, {0: "kept"})
        filesystem.fail()
        with pytest.raises(StorageError):
            store.flush()
        filesystem.heal()
        store.flush()
        assert is_flushed(store)
        assert contents(store, [0]) == {0: "kept"}

    @pytest.mark.parametrize("where", ["/A/", "/marks/flushed", "/journal/spare"])
    def test_a_failure_at_any_step_loses_nothing(self, opened, filesystem, where):
        """The home, the mark, the journal's directories: each is written anew, or not needed."""
        store = opened(flush_transactions=2)
        for at in range(6):
            filesystem.where = where
            filesystem.fail()
            told_before(lambda: commit(store, {0: at, 10 + at: "once"}))  # noqa: B023 - called at once
            with contextlib.nullcontext() if where == "/journal/spare" else pytest.raises(StorageError):
                store.flush()
            assert contents(store, [0, 10 + at]) == {0: at, 10 + at: "once"}
            filesystem.heal()
        told_before(store.flush)
        assert is_flushed(store)
        store.close()
        again = opened()
        assert contents(again, range(20)) == {0: 5} | dict.fromkeys(range(10, 16), "once")
        names = [entry.name for entry in filesystem.entries(again.directory.journal)]
        assert not any(name.endswith("_done") for name in names)

    def test_a_damaged_transaction_stops_flushing_and_nothing_else(self, opened, filesystem, monkeypatch):
        monkeypatch.setattr(waiting, "MAX_KEPT", 0)
        store = opened()
        commit(store, {0: "before"})
        commit(store, {0: "damaged", 1: "damaged"})
        commit(store, {0: "after"})
        damaged = store._lookup.index.transactions()[1]
        with filesystem.open_existing(f"{damaged.path}/t") as file:
            file.write_at(damaged.size - 10, b"??????")
        with pytest.raises(CorruptionError) as caught:
            store.flush()
        assert damaged.path in caught.value.path
        assert contents(store, [0]) == {0: "after"}
        commit(store, {2: "on"})
        assert store.last_tid() > store.flushed
        with pytest.raises(CorruptionError):
            store.close()

    def test_what_is_still_in_memory_is_flushed_from_there(self, opened, filesystem):
        store = opened()
        values = {at: "x" * 20 * at for at in range(10)}
        commit(store, values)
        [held] = store._lookup.index.transactions()
        with filesystem.open_existing(f"{held.path}/t") as file:
            file.write_at(0, bytes(held.size))
        assert contents(store, range(10)) == values
        store.flush()
        assert contents(store, range(10)) == values
        assert_sound(store)


class TestManyThreads:
    def test_nothing_is_lost_whoever_commits_and_flushes(self, opened):
        store = opened(flush_age=0.001, flush_transactions=7, journal_limit=30_000)
        errors = []

        def write(own):
            try:
                for at in range(40):
                    commit(store, {own: at, 1000 * own + at: "x" * 300})
                    if at % 10 == 9:
                        store.flush()
            except BaseException as error:  # noqa: BLE001 - raised below
                errors.append(error)

        threads = [threading.Thread(target=write, args=(own,)) for own in range(1, 6)]
        for thread in threads:
            thread.start()
        joined(*threads)
        assert errors == []
        expected = dict.fromkeys(range(1, 6), 39)
        expected |= {1000 * own + at: "x" * 300 for own in range(1, 6) for at in range(40)}
        assert contents(store, expected) == expected
        counted = store.statistics()["flushed_transactions"] + store.statistics()["journal_transactions"]
        assert counted == 200
        store.close()
        again = opened()
        assert contents(again, expected) == expected
        assert list(again.home.findings()) == []

    def test_readers_see_their_snapshot_while_batches_move(self, opened):
        store = opened(flush_age=0.001, flush_transactions=2)
        commit(store, {0: 0, 1: 0})
        ended = threading.Event()
        errors = []
        rounds = []

        def read():
            view = store.view()
            try:
                while not ended.is_set() or len(rounds) < 20:
                    view.advance()
                    assert value_of(view.load(ROOT)[0]) == value_of(view.load(oid_from(1))[0])
                    rounds.append(1)
            except BaseException as error:  # noqa: BLE001 - raised below
                errors.append(error)
            view.close()

        threads = [threading.Thread(target=read) for _ in range(3)]
        for thread in threads:
            thread.start()
        for at in range(120):
            commit(store, {0: at, 1: at})
        ended.set()
        joined(*threads)
        assert errors == []
        store.flush()
        assert is_flushed(store)


def test_an_error_that_nobody_heard_of_is_no_reason_to_fail_later(filesystem):
    """It was kept for the next caller; when the store is closed, what counts is whether closing works."""
    store = open_on(filesystem, background=True, **{**NEVER, "flush_age": 0.001})
    filesystem.fail()
    commit(store, {0: "x"})
    until(lambda: store._flusher._error is not None)
    filesystem.heal()
    store.close()
    again = open_on(filesystem)
    assert again.flushed == again.last_tid()
    assert contents(again, [0]) == {0: "x"}
    again.close()


def test_a_transaction_begun_before_an_error_commits(filesystem):
    store = open_on(filesystem, background=True, **{**NEVER, "flush_age": 0.001})
    pending = store.begin(Details(), store.view(), refuse)
    pending.store(ROOT, NO_TID, *record("x"))
    filesystem.fail()
    commit(store, {1: "y"})
    until(lambda: store._flusher._error is not None)
    pending.vote()
    pending.finish()
    filesystem.heal()
    store.close()
    assert contents(open_on(filesystem), range(2)) == {0: "x", 1: "y"}


@pytest.mark.parametrize("history", list(History))
def test_a_merge_that_fails_is_told_and_loses_nothing(filesystem, history):
    """The batch was flushed nevertheless, and the next one merges."""
    store = open_on(filesystem, history, Format.SEGMENTED)
    filesystem.where = ".1.seg"
    filesystem.fail(errno.ENOSPC)
    for at in range(3):
        commit(store, {0: at, 10 + at: "once"})
        store.flush()
    commit(store, {0: 3})
    with pytest.raises(StorageFullError):
        store.flush()
    assert is_flushed(store)
    assert contents(store, range(13)) == {0: 3} | dict.fromkeys(range(10, 13), "once")
    filesystem.heal()
    commit(store, {0: 4})
    store.flush()
    assert store.home.counters.merges > 0
    store.close()
    again = open_on(filesystem, history, Format.SEGMENTED)
    assert contents(again, range(13)) == {0: 4} | dict.fromkeys(range(10, 13), "once")
    assert list(again.home.findings()) == []
    again.close()


@pytest.mark.parametrize("history", list(History))
def test_a_merge_for_which_there_is_no_room_waits(filesystem, history):
    """It would fill the disk under those who commit, and nothing depends on it."""
    store = open_on(filesystem, history, Format.SEGMENTED)
    filesystem.capacity = filesystem._used + 2**20
    for at in range(6):
        commit(store, {0: at, 10 + at: "once"})
        store.flush()
    counters = store.home.counters
    assert (counters.merges, counters.merges_put_off > 0) == (0, True)
    assert store.statistics()["segment_merges_put_off"] == counters.merges_put_off
    filesystem.capacity = None
    commit(store, {0: 6})
    store.flush()
    assert counters.merges > 0
    assert contents(store, range(16)) == {0: 6} | dict.fromkeys(range(10, 16), "once")
    assert list(store.home.findings()) == []
    store.close()
