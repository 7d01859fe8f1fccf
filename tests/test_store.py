"""The contract of a store, over every history mode and format, in memory."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from uuid import RFC_4122, UUID

import pytest
from simulated import SimulatedFilesystem
from store_fixtures import stores_of
from stores import COMBINATIONS, FULL, PATH, add_up, commit, contents, open_on, record, refuse, value_of

from objstore.contracts import Format, History, StoreOptions
from objstore.engine.opening import open_store
from objstore.errors import (
    ClosedError,
    ConflictError,
    CorruptionError,
    HistoryMissingError,
    NotAStoreError,
    OpenError,
    POSKeyError,
    ReadConflictError,
    ReadOnlyError,
    SnapshotTooOldError,
    StoreLockedError,
    StoreMismatchError,
    StoreMissingError,
    UndoError,
    UsageError,
)
from objstore.ids import MAX_TID, NO_TID, ROOT, number, oid_from, tid_at, tid_from
from objstore.machine.memory import MemoryFilesystem
from objstore.revisions import Details
from objstore.upkeep.pack import pack


@pytest.fixture
def filesystem():
    return MemoryFilesystem()


store = stores_of(COMBINATIONS, open_on)
full = stores_of(FULL, open_on)


def reopened(store):
    store.close()
    return open_on(store.filesystem, store.settings.history, store.settings.format)


class TestCommits:
    def test_what_was_committed_is_read(self, store):
        tid = commit(store, {0: "root", 1: "one"})
        view = store.view()
        assert value_of(view.load(oid_from(1))[0]) == "one"
        assert view.load(ROOT)[1] == tid == store.last_tid() == view.snapshot

    @pytest.mark.parametrize("flushed", [False, True])
    def test_it_is_read_after_reopening(self, store, flushed):
        commit(store, {0: "root", 1: "one"})
        last = commit(store, {1: "two"})
        if flushed:
            store.flush()
        again = reopened(store)
        assert contents(again, range(3)) == {0: "root", 1: "two"}
        assert again.last_tid() == last
        again.close()

    def test_an_empty_store_has_nothing(self, store):
        assert store.last_tid() == NO_TID
        with pytest.raises(POSKeyError):
            store.view().load(ROOT)
        assert list(store.transactions()) == []

    def test_a_transaction_without_writes_commits_nothing(self, store):
        tid = commit(store, {0: 1})
        assert commit(store, {}) == tid
        assert store.journal.filesystem.entries(store.directory.journal)

    def test_an_aborted_transaction_leaves_nothing(self, store):
        view = store.view()
        pending = store.begin(Details(), view, add_up)
        pending.store(ROOT, NO_TID, *record("lost"))
        pending.vote()
        pending.abort()
        pending.abort()
        assert store.filesystem.entries(store.directory.journal) == []
        assert commit(store, {0: "kept"}) == store.last_tid()
        assert contents(store, [0]) == {0: "kept"}

    def test_a_deleted_object_is_gone(self, store):
        commit(store, {0: 1, 1: "short-lived"})
        commit(store, {1: None})
        assert contents(store, range(2)) == {0: 1}
        store.flush()
        assert contents(store, range(2)) == {0: 1}

    def test_finish_before_vote_is_refused(self, store):
        pending = store.begin(Details(), store.view(), add_up)
        with pytest.raises(UsageError, match="voted"):
            pending.finish()
        pending.abort()

    def test_many_objects_in_one_commit(self, store):
        commit(store, {at: at for at in range(500)})
        store.flush()
        assert contents(store, range(501)) == {at: at for at in range(500)}


class TestSnapshots:
    def test_a_view_sees_one_snapshot_while_others_commit_and_the_flusher_works(self, store):
        commit(store, {0: "old", 1: "old"})
        view = store.view()
        for at in range(5):
            commit(store, {0: at, 1: at})
            store.flush()
            assert {value_of(view.load(oid_from(n))[0]) for n in (0, 1)} == {"old"}
        assert view.advance() == {ROOT, oid_from(1)}
        assert value_of(view.load(ROOT)[0]) == 4
        view.close()

    def test_a_view_does_not_see_an_object_created_later(self, store):
        commit(store, {0: 1})
        view = store.view()
        commit(store, {1: "new"})
        store.flush()
        with pytest.raises(POSKeyError):
            view.load(oid_from(1))

    def test_advancing_leaves_out_what_one_committed_oneself(self, store):
        commit(store, {0: 0, 1: 0, 2: 0})
        view = store.view()
        commit(store, {1: 1})
        commit(store, {2: 2}, view=view)
        assert view.advance() == {oid_from(1)}
        commit(store, {2: 3}, view=view)
        commit(store, {2: 4})
        assert view.advance() == {oid_from(2)}

    def test_a_transaction_that_voted_is_seen_by_nobody(self, store):
        commit(store, {0: "old"})
        view = store.view()
        pending = store.begin(Details(), view, add_up)
        pending.store(ROOT, view.load(ROOT)[1], *record("new"))
        pending.vote()
        other = store.view()
        assert value_of(other.load(ROOT)[0]) == "old"
        pending.finish()
        assert value_of(other.load(ROOT)[0]) == "old"
        assert other.advance() == {ROOT}
        assert value_of(other.load(ROOT)[0]) == "new"

    def test_a_closed_view_is_refused(self, store):
        view = store.view()
        view.close()
        view.close()
        with pytest.raises(ClosedError):
            view.load(ROOT)

    def test_the_past_is_read_in_full(self, full):
        tids = [commit(full, {0: at}) for at in range(4)]
        full.flush()
        tids += [commit(full, {0: at}) for at in range(4, 8)]
        for at, tid in enumerate(tids):
            assert contents(full, [0], at=tid) == {0: at}
            assert contents(full, [0], at=tid_from(number(tid) - 1)) == ({0: at - 1} if at else {})
        view = full.view(tids[0])
        assert view.advance() == frozenset()
        assert view.snapshot == tids[0]

    def test_minimal_keeps_no_past(self, filesystem):
        store = open_on(filesystem, History.MINIMAL)
        first = commit(store, {0: 1})
        commit(store, {0: 2})
        with pytest.raises(HistoryMissingError):
            store.view(first)

    def test_a_snapshot_that_holds_too_much_back_is_given_up(self, filesystem):
        store = open_on(filesystem, History.MINIMAL, journal_limit=1000, pin_limit=10_000)
        commit(store, {0: "old"})
        view = store.view()
        for _ in range(30):
            commit(store, {0: "x" * 1000})
        with pytest.raises(SnapshotTooOldError):
            view.load(ROOT)
        assert store.statistics()["snapshots_expired"] == 1
        assert view.advance() is None
        assert value_of(view.load(ROOT)[0]) == "x" * 1000
        store.flush()
        assert store.statistics()["journal_transactions"] == 0


class TestConflicts:
    def test_the_second_writer_of_an_object_loses(self, store):
        first = commit(store, {0: "old"})
        view = store.view()
        second = commit(store, {0: "theirs"})
        with pytest.raises(ConflictError) as caught:
            commit(store, {0: "mine"}, view=view)
        assert (caught.value.oid, caught.value.serial, caught.value.committed) == (ROOT, first, second)
        assert "persistent.mapping.PersistentMapping" in str(caught.value)
        assert contents(store, [0]) == {0: "theirs"}
        view.advance()
        commit(store, {0: "mine"}, view=view)
        assert contents(store, [0]) == {0: "mine"}

    def test_a_conflict_is_seen_after_a_flush_too(self, store):
        commit(store, {0: "old"})
        view = store.view()
        commit(store, {0: "theirs"})
        store.flush()
        with pytest.raises(ConflictError):
            commit(store, {0: "mine"}, view=view)

    def test_two_that_create_the_same_object_conflict(self, store):
        commit(store, {0: 1})
        view = store.view()
        commit(store, {7: "theirs"})
        with pytest.raises(ConflictError):
            commit(store, {7: "mine"}, view=view)

    def test_a_resolved_conflict_stores_the_merged_record(self, store):
        commit(store, {0: 10})
        view = store.view()
        commit(store, {0: 11})
        pending = store.begin(Details(), view, add_up)
        pending.store(ROOT, view.load(ROOT)[1], *record(15))
        assert pending.vote() == {ROOT}
        tid = pending.finish()
        assert contents(store, [0]) == {0: 16}
        assert view.advance() == {ROOT}
        assert next(iter(store.summaries(ROOT))).tid == tid

    def test_what_was_committed_between_the_first_check_and_the_lock_is_resolved_too(self, store):
        commit(store, {0: 10})
        view = store.view()
        calls = []

        def overtaken(conflict):
            if not calls:
                calls.append(conflict)
                commit(store, {0: 12})
            return add_up(conflict)

        commit(store, {0: 11})
        pending = store.begin(Details(), view, overtaken)
        pending.store(ROOT, view.load(ROOT)[1], *record(20))
        pending.vote()
        pending.finish()
        assert contents(store, [0]) == {0: 22}

    def test_relying_on_an_object_that_changed_is_a_conflict(self, store):
        commit(store, {0: 1, 1: 1})
        view = store.view()
        commit(store, {1: 2})
        pending = store.begin(Details(), view, add_up)
        pending.store(ROOT, view.load(ROOT)[1], *record(5))
        pending.check_current(oid_from(1), view.load(oid_from(1))[1])
        with pytest.raises(ReadConflictError):
            pending.vote()
        assert commit(store, {0: 6}) == store.last_tid()

    def test_a_writer_far_behind_is_checked_object_by_object(self, store, monkeypatch):
        monkeypatch.setattr("objstore.engine.commits.MAX_REMEMBERED", 4)
        commit(store, {0: 1, 1: 1})
        view, other = store.view(), store.view()
        for at in range(10):
            commit(store, {1: at})
        assert commit(store, {0: 2}, view=view)
        with pytest.raises(ConflictError):
            commit(store, {1: 2}, view=view)
        assert other.advance() is None


class TestUndo:
    def undo(self, store, *tids, resolver=None):
        view = store.view()
        pending = store.begin(Details("undoer", "undo"), view, resolver or refuse_all)
        for tid in tids:
            pending.undo(tid)
        pending.vote()
        done = pending.finish()
        view.close()
        return done

    @pytest.mark.parametrize("flushed", [False, True])
    def test_the_last_change_is_undone(self, full, flushed):
        first = commit(full, {0: "old"})
        second = commit(full, {0: "new"})
        if flushed:
            full.flush()
        third = self.undo(full, second)
        assert contents(full, [0]) == {0: "old"}
        assert [(s.tid, s.copied_from) for s in full.summaries(ROOT)] == [
            (third, first),
            (second, None),
            (first, None),
        ]

    def test_undoing_an_undo_brings_the_change_back(self, full):
        commit(full, {0: "old"})
        second = commit(full, {0: "new"})
        third = self.undo(full, second)
        fourth = self.undo(full, third)
        assert contents(full, [0]) == {0: "new"}
        self.undo(full, fourth)
        assert contents(full, [0]) == {0: "old"}
        with pytest.raises(UndoError):
            self.undo(full, second)

    def test_undoing_a_creation_deletes_and_undoing_that_creates(self, full):
        commit(full, {0: 1})
        created = commit(full, {1: "one"})
        gone = self.undo(full, created)
        assert contents(full, range(2)) == {0: 1}
        full.flush()
        self.undo(full, gone)
        assert contents(full, range(2)) == {0: 1, 1: "one"}

    def test_a_later_change_is_in_the_way(self, full):
        commit(full, {0: 1})
        second = commit(full, {0: 2})
        commit(full, {0: 3})
        with pytest.raises(UndoError, match="later") as caught:
            self.undo(full, second)
        assert caught.value.oid == ROOT
        assert contents(full, [0]) == {0: 3}

    def test_a_later_change_is_resolved_where_the_class_can(self, full):
        commit(full, {0: 10})
        second = commit(full, {0: 15})
        commit(full, {0: 18})
        self.undo(full, second, resolver=add_up)
        assert contents(full, [0]) == {0: 13}

    def test_several_are_undone_newest_first(self, full):
        commit(full, {0: 1, 1: "a"})
        second = commit(full, {0: 2})
        third = commit(full, {0: 3, 1: "b"})
        self.undo(full, third, second)
        assert contents(full, range(2)) == {0: 1, 1: "a"}

    def test_a_transaction_that_never_was_is_refused(self, full):
        commit(full, {0: 1})
        with pytest.raises(UndoError, match="no such"):
            self.undo(full, tid_from(12345))

    def test_minimal_cannot_undo(self, filesystem):
        store = open_on(filesystem, History.MINIMAL)
        commit(store, {0: 1})
        tid = commit(store, {0: 2})
        store.flush()
        with pytest.raises((UndoError, HistoryMissingError)):
            self.undo(store, tid)


def refuse_all(conflict):
    raise ConflictError(conflict.oid, conflict.serial, conflict.committed_serial)


class TestHistory:
    def test_transactions_come_newest_first_with_their_details(self, full):
        tids = [commit(full, {0: at, at + 1: at}, details=Details(f"u{at}", "d", b"{}")) for at in range(3)]
        full.flush()
        tids += [commit(full, {0: at}, details=Details(f"u{at}")) for at in range(3, 6)]
        log = list(full.transactions())
        assert [entry.tid for entry in log] == tids[::-1]
        assert [entry.details.user for entry in log] == ["u5", "u4", "u3", "u2", "u1", "u0"]
        assert [entry.previous for entry in log] == [*tids[-2::-1], NO_TID]
        assert log[-1].oids == (ROOT, oid_from(1))
        assert [entry.tid for entry in full.transactions(tids[2])] == tids[2::-1]
        assert full.transaction(tids[1]).details.extension == b"{}"
        assert full.transaction(tid_from(7)) is None

    def test_revisions_come_newest_first(self, full):
        tids = [commit(full, {0: at}) for at in range(3)]
        full.flush()
        tids += [commit(full, {0: at}) for at in range(3, 6)]
        assert [found.tid for found in full.summaries(ROOT)] == tids[::-1]
        assert [value_of(full.revision(ROOT, tid).data) for tid in tids] == list(range(6))
        with pytest.raises(POSKeyError):
            full.revision(ROOT, tid_from(5))
        with pytest.raises(POSKeyError):
            list(full.summaries(oid_from(99)))


class TestIds:
    def test_oids_are_new_also_after_reopening(self, store):
        seen = [store.new_oid() for _ in range(200)]
        again = reopened(store)
        seen += [again.new_oid() for _ in range(200)]
        assert len(set(seen)) == 400
        assert ROOT not in seen
        again.close()

    def test_an_oid_that_came_with_data_is_not_handed_out(self, store):
        """RelStorage#283: duplicate oids after an import."""
        commit(store, {0: 1, 5000: "copied"})
        again = reopened(store)
        assert all(number(again.new_oid()) > 5000 for _ in range(100))
        again.close()

    def test_an_oid_within_a_reserved_block_that_came_with_data_is_not_handed_out(self, store):
        first = number(store.new_oid())
        commit(store, {0: 1, first + 5: "copied"})
        assert first + 5 not in {number(store.new_oid()) for _ in range(100)}

    def test_the_last_oid_is_refused(self, store):
        with pytest.raises(UsageError, match="ffffffffffffffff"):
            commit(store, {2**64 - 1: "copied"})
        commit(store, {0: 1})

    def test_oids_are_handed_out_to_many_threads_once(self, store):
        """ZODB#401: duplicate oids."""
        seen: list[bytes] = []
        threads = [
            threading.Thread(target=lambda: seen.extend([store.new_oid() for _ in range(300)])) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(seen) == len(set(seen)) == 2400

    def test_tids_increase_whatever_the_clock_does(self, filesystem):
        """RelStorage 3.0a9: tids jumped. A step of the clock is not carried further than it went."""
        now = [datetime(2030, 1, 1, tzinfo=UTC).timestamp()]
        store = open_on(filesystem, clock=lambda: now[0])
        tids = []
        for step in (0, 1, -3600, 1, 1, 3600, 3600, 1, -7200, 1, 7200):
            now[0] += step
            tids.append(commit(store, {0: step}))
        assert tids == sorted(set(tids))
        now[0] += 86400
        assert commit(store, {0: 1}) == tid_at(datetime.fromtimestamp(now[0], UTC))
        assert number(tids[2]) == number(tids[1]) + 1


class TestOpening:
    def test_a_missing_store_is_not_created_unasked(self, filesystem):
        """FileStorage creates an empty file where, between two renames of a pack, there is none."""
        with pytest.raises(StoreMissingError):
            open_on(filesystem, create=False)
        with pytest.raises(StoreMissingError):
            open_on(filesystem, read_only=True)
        assert not filesystem.exists(PATH)

    def test_another_history_or_format_is_refused(self, filesystem):
        open_on(filesystem).close()
        with pytest.raises(StoreMismatchError, match="history='full'"):
            open_on(filesystem, History.MINIMAL)
        with pytest.raises(StoreMismatchError, match="format='chunky'"):
            open_on(filesystem, History.FULL, Format.FLAT)
        open_on(filesystem, None, None).close()

    def test_a_directory_that_is_something_else_is_refused(self, filesystem):
        filesystem.make_directory(PATH)
        filesystem.create(f"{PATH}/letter.txt").close()
        with pytest.raises(NotAStoreError):
            open_on(filesystem)
        assert [entry.name for entry in filesystem.entries(PATH)] == ["letter.txt"]

    def test_a_store_whose_settings_are_missing_is_not_created_anew(self, filesystem):
        store = open_on(filesystem)
        commit(store, {0: 1})
        store.close()
        filesystem.unlink(store.directory.settings)
        with pytest.raises(NotAStoreError, match="settings"):
            open_on(filesystem)

    def test_an_empty_directory_becomes_a_store(self, filesystem):
        filesystem.make_directory(PATH)
        open_on(filesystem).close()
        assert filesystem.exists(f"{PATH}/config/settings.toml")

    def test_each_store_has_an_identity_of_its_own_a_random_uuid(self):
        found = [UUID(open_on(MemoryFilesystem()).settings.identity) for _ in range(100)]
        assert len(set(found)) == 100
        assert {(each.version, each.variant) for each in found} == {(4, RFC_4122)}

    def test_a_missing_parent_is_an_error_that_says_so(self, filesystem):
        with pytest.raises(OpenError, match="does not exist"):
            open_store("/no/where", StoreOptions(), filesystem=filesystem, packer=pack)

    def test_a_store_that_is_wanted_alone(self, filesystem):
        store = open_on(filesystem)
        with pytest.raises(StoreLockedError):
            open_on(filesystem, exclusive=True)
        store.close()
        alone = open_on(filesystem, exclusive=True)
        with pytest.raises(StoreLockedError):
            open_on(filesystem)
        with pytest.raises(StoreLockedError):
            open_on(filesystem, read_only=True)
        alone.close()
        open_on(filesystem).close()

    def test_a_missing_mark_is_damage(self, filesystem):
        store = open_on(filesystem)
        store.close()
        for entry in filesystem.entries(store.directory.marks):
            filesystem.unlink(f"{store.directory.marks}/{entry.name}")
        with pytest.raises(CorruptionError, match="mark"):
            open_on(filesystem)

    def test_reading_only_changes_nothing(self, filesystem):
        """ZODB 5.2.1: a read-only open created a file."""
        store = open_on(filesystem)
        commit(store, {0: 1})
        store._options = None  # a process that ends without closing: the journal stays
        store._membership.close()
        before = snapshot_of(filesystem)
        reader = open_on(filesystem, read_only=True)
        other = open_on(filesystem, read_only=True)
        assert contents(reader, [0]) == contents(other, [0]) == {0: 1}
        with pytest.raises(ReadOnlyError):
            reader.begin(Details(), reader.view(), add_up)
        with pytest.raises(ReadOnlyError):
            reader.new_oid()
        with pytest.raises(ReadOnlyError):
            reader.pack(MAX_TID)
        reader.close()
        other.close()
        assert snapshot_of(filesystem) == before

    def test_a_closed_store_refuses_everything(self, store):
        store.close()
        store.close()
        for call in (store.view, store.new_oid, store.flush, lambda: store.pack(MAX_TID)):
            with pytest.raises(ClosedError):
                call()


def snapshot_of(filesystem, path=PATH):
    found = {}
    for entry in filesystem.entries(path):
        name = f"{path}/{entry.name}"
        if entry.is_directory:
            found[name] = None
            found |= snapshot_of(filesystem, name)
        else:
            found[name] = filesystem.read(name)
    return found


@pytest.mark.parametrize("format", Format)
def test_an_old_revision_is_found_without_reading_all_that_came_after(format):
    filesystem = SimulatedFilesystem()
    store = open_on(filesystem, History.FULL, format)
    tids = [commit(store, {0: at}) for at in range(50)]
    store.flush()
    read = []
    filesystem.before_read = read.append
    assert value_of(store.revision(ROOT, tids[0]).data) == 0
    assert len(read) < 10


class TestAnySerials:
    """Writers who do not say what their view shows, as storages of ZODB, of which several may share one."""

    def written(self, store, serial, value="mine", resolver=refuse):
        view = store.view()
        pending = store.begin(Details(), view, resolver, any_serials=True)
        try:
            pending.store(oid_from(1), serial, *record(value))
            pending.vote()
            return pending.finish()
        finally:
            pending.abort()
            view.close()

    def test_a_serial_from_before_the_view_conflicts(self, store):
        first = commit(store, {0: "root", 1: "one"})
        commit(store, {1: "two"})
        with pytest.raises(ConflictError):
            self.written(store, first)
        store.flush()
        with pytest.raises(ConflictError):
            self.written(store, first)

    def test_the_current_serial_does_not(self, store):
        commit(store, {0: "root", 1: "one"})
        tid = self.written(store, store.last_tid())
        assert contents(store, [1]) == {1: "mine"}
        assert self.written(store, tid) == store.last_tid()

    def test_it_is_resolved(self, full):
        first = commit(full, {0: "root", 1: 10})
        commit(full, {1: 15})
        self.written(full, first, 12, add_up)
        assert contents(full, [1]) == {1: 17}

    def test_what_is_checked_need_not_be_in_the_view(self, store):
        first = commit(store, {0: "root", 1: "one"})
        commit(store, {1: "two"})
        view = store.view()
        pending = store.begin(Details(), view, add_up, any_serials=True)
        pending.check_current(oid_from(1), first)
        with pytest.raises(ReadConflictError):
            pending.vote()
        view.close()

    def test_an_object_that_is_not_here_is_new(self, store):
        """ZODB.DemoStorage: what was loaded from below is stored above, with the serial that it has below."""
        self.written(store, tid_from(2**58))
        assert contents(store, [1]) == {1: "mine"}
        assert next(store.summaries(oid_from(1))).previous == NO_TID
        assert number(store.new_oid()) > 1


def test_an_opaque_record_is_not_asked_for_its_references(full):
    view = full.view()
    pending = full.begin(Details(), view, add_up)
    pending.store(ROOT, NO_TID, b"encrypted", None, opaque=True)
    pending.vote()
    tid = pending.finish()
    view.close()
    assert full.revision(ROOT, tid).references is None
    with pytest.raises(CorruptionError):
        full.pack(tid)
    assert full.revision(ROOT, tid).data == b"encrypted"
