"""What a pack drops, and what it keeps, over every history mode and format."""

from __future__ import annotations

import pytest
from packing import Progress, age, before, files_of, home_oids, packing_store, reachable, tids_of
from persistent.mapping import PersistentMapping
from store_fixtures import stores_of
from stores import COMBINATIONS, FULL, add_up, commit, contents
from zodbrecords import Pid, pickled

from objstore.contracts import Format, History, PackOptions
from objstore.errors import (
    CorruptionError,
    HistoryMissingError,
    UsageError,
)
from objstore.ids import MAX_TID, NO_TID, number, oid_from, tid_from
from objstore.machine.memory import MemoryFilesystem
from objstore.revisions import Details, Revision, Transaction


@pytest.fixture
def filesystem():
    return MemoryFilesystem()


store = stores_of(COMBINATIONS, packing_store)
full = stores_of(FULL, packing_store)


class TestObjects:
    def test_what_cannot_be_reached_goes_and_the_rest_stays(self, store):
        commit(store, {0: "root", 1: "a", 2: "b", 3: "below b", 4: "alone"}, {0: (1, 2), 2: (3,)})
        commit(store, {0: "without b"}, {0: (1,)})
        age(store)
        report = store.pack(MAX_TID)
        assert contents(store, range(6)) == {0: "without b", 1: "a"}
        assert home_oids(store) == [0, 1]
        assert (report.objects_removed, report.objects_kept) == (3, 2)
        assert report.bytes_freed > 0
        assert not report.dry_run

    def test_cycles_go_and_stay_as_a_whole(self, store):
        commit(store, {at: at for at in range(7)}, {0: (1,), 1: (2,), 2: (1, 0), 4: (5,), 5: (6,), 6: (4,)})
        age(store)
        store.pack(MAX_TID)
        assert home_oids(store) == [0, 1, 2]

    def test_far_apart_oids(self, store):
        far = (1, 65_535, 65_536, 2**40, 2**63)
        commit(store, {0: "root", **dict.fromkeys(far, "kept"), 2: "gone", 2**41: "gone"}, {0: far})
        age(store)
        assert store.pack(MAX_TID).objects_removed == 2
        assert home_oids(store) == [0, *far]

    def test_an_empty_store(self, store):
        report = store.pack(MAX_TID)
        assert (report.upto, report.objects_kept, report.objects_removed, report.bytes_freed) == (NO_TID, 0, 0, 0)

    def test_a_store_without_a_root_keeps_nothing_old(self, store):
        for at in (5, 6, 7):
            commit(store, {at: at})
        store.pack(MAX_TID)
        assert home_oids(store) == ([6, 7] if store.history_mode is History.FULL else [])

    def test_what_was_written_after_the_time_stays_though_nothing_leads_to_it(self, store):
        commit(store, {0: "root", 1: "old", 2: "old", 3: "below old", 4: "below new"}, {2: (3,)})
        last = store.last_tid()
        commit(store, {2: "new"}, {2: (4,)})
        age(store)
        store.pack(last)
        expected = {0: "root", 2: "new", 3: "below old", 4: "below new"}
        if store.history_mode is History.MINIMAL:
            del expected[3]
        assert contents(store, range(6)) == expected

    def test_a_deleted_object_goes(self, store):
        commit(store, {0: "root", 1: "short-lived"})
        commit(store, {1: None})
        age(store)
        store.pack(MAX_TID)
        assert home_oids(store) == [0]

    def test_a_deleted_object_that_something_refers_to_does_not_keep_writers_out(self, store):
        commit(store, {0: "root", 1: "short-lived"}, {0: (1,)})
        commit(store, {1: None})
        age(store)
        store.pack(MAX_TID)
        commit(store, {0: "still refers to it"}, {0: (1,)})
        assert contents(store, range(3)) == {0: "still refers to it"}

    def test_an_object_that_was_deleted_and_came_back(self, store):
        commit(store, {0: "root", 1: "first"}, {0: (1,)})
        commit(store, {1: None})
        commit(store, {1: "again"})
        age(store)
        store.pack(MAX_TID)
        assert contents(store, range(3)) == {0: "root", 1: "again"}

    def test_what_waits_in_the_journal_stays_with_all_it_leads_to(self, filesystem):
        store = packing_store(filesystem, History.MINIMAL, Format.CHUNKY)
        commit(store, {0: "root", 1: "a", 2: "below"})
        store.flush()
        view = store.view()  # holds back what comes now
        commit(store, {5: "waits"}, {5: (6, 2)})
        commit(store, {6: "waits"})
        store.pack(MAX_TID)
        view.close()
        assert contents(store, range(9)) == {0: "root", 2: "below", 5: "waits", 6: "waits"}
        store.close()

    def test_references_that_no_header_tells_are_found_in_the_record(self, store):
        """Records that came from elsewhere may have no list of references."""
        first = commit(store, {0: "root", 1: "named by nobody but 2"}, {0: (2,)})
        store.flush()
        tid = tid_from(number(first) + 1)
        data = pickled(PersistentMapping, {"elsewhere": Pid(oid_from(1))})
        came = Revision(oid_from(2), tid, NO_TID, data, None)
        store.home.apply([(Transaction(tid, first, Details(), (oid_from(2),)), [came])])
        age(store)
        store.pack(MAX_TID)
        assert home_oids(store) == [0, 1, 2]

    def test_a_pack_frees_what_it_says(self, store):
        commit(store, dict.fromkeys(range(40), "x" * 5000), {0: (1,)})
        age(store)
        store.flush()
        size = disk_usage(store)
        report = store.pack(MAX_TID)
        assert size - disk_usage(store) == report.bytes_freed > 38 * 5000


def disk_usage(store):
    return sum(map(store.filesystem.allocated_bytes, files_of(store.filesystem, store.directory.home)))


class TestHistory:
    def test_what_was_superseded_by_the_time_goes(self, full):
        tids = [commit(full, {0: at, 1: at}, {0: (1,)}) for at in range(6)]
        report = full.pack(tids[3])
        assert tids_of(full, 0) == tids_of(full, 1) == tids[3:]
        assert (report.revisions_removed, report.transactions_removed, report.objects_removed) == (6, 3, 0)
        assert [found.tid for found in full.transactions()] == tids[:2:-1]
        assert [contents(full, [0, 1], at=tid) for tid in tids[3:]] == [{0: at, 1: at} for at in (3, 4, 5)]
        assert full.packed_upto() == tids[3]

    def test_between_two_transactions_the_older_one_is_still_the_present(self, full):
        first, second, third = (commit(full, {0: at}) for at in range(3))
        full.pack(before(third))
        assert tids_of(full, 0) == [second, third]
        assert full.transaction(first) is None

    def test_a_revision_stays_for_as_long_as_it_is_the_newest(self, full):
        """However old it is, and its transaction with it, though not all that this one wrote."""
        old = commit(full, {0: "root", 1: "never changed", 2: "changed"}, {0: (1, 2)})
        commit(full, {2: "changed again"})
        age(full)
        full.pack(MAX_TID)
        assert tids_of(full, 1) == [old]
        assert old not in tids_of(full, 2)
        assert set(full.transaction(old).oids) == {oid_from(0), oid_from(1), oid_from(2)}

    def test_views_of_what_was_packed_are_refused(self, full):
        tids = [commit(full, {0: at}) for at in range(5)]
        full.pack(tids[2])
        with pytest.raises(HistoryMissingError):
            full.view(before(tids[2]))
        pending = full.begin(Details(), full.view(), add_up)
        with pytest.raises(HistoryMissingError):
            pending.undo(tids[2])

    def test_what_comes_after_the_time_can_be_undone(self, full):
        commit(full, {0: "root", 1: "a", 2: "gone"}, {0: (1, 2)})
        packed = commit(full, {1: "b"})
        last = commit(full, {0: "root without 2", 1: "c"}, {0: (1,)})
        full.pack(packed)
        view = full.view()
        pending = full.begin(Details(), view, add_up)
        pending.undo(last)
        pending.vote()
        pending.finish()
        view.close()
        assert contents(full, range(3)) == {0: "root", 1: "b", 2: "gone"}

    def test_what_only_the_past_after_the_time_leads_to_stays(self, full):
        commit(full, {0: "root", 1: "a", 2: "below"}, {0: (1,), 1: (2,)})
        packed = commit(full, {1: "a"}, {1: (2,)})
        commit(full, {0: "without a"})
        age(full)
        full.pack(packed)
        view = full.view(packed)
        assert reachable(full, view) == {0: "root", 1: "a", 2: "below"}
        view.close()
        full.pack(MAX_TID)
        assert contents(full, range(3)) == {0: "without a"}

    @pytest.mark.parametrize("format", list(Format))
    def test_minimal_keeps_no_history_but_drops_objects(self, filesystem, format):
        store = packing_store(filesystem, History.MINIMAL, format)
        tids = [commit(store, {0: at, 1: at}) for at in range(3)]
        report = store.pack(tids[1])
        assert (report.objects_removed, report.transactions_removed) == (0, 0)
        assert contents(store, [0, 1]) == {0: 2, 1: 2}
        assert store.pack(tids[2]).objects_removed == 1
        store.close()

    def test_many_transactions_go_in_several_batches(self, full):
        tids = [commit(full, {0: at}) for at in range(30)]
        progress = Progress()
        assert full.pack(MAX_TID, progress=progress).transactions_removed == 28
        assert [found.tid for found in full.transactions()] == tids[:-3:-1]
        assert len([call for call in progress.calls if call[0] == "removing transactions"]) == 15

    def test_loads_before_at_and_after_delete_and_undo(self, full):
        """ZODB#318, ZODB PR#64, RelStorage PR#484: deleted or undone objects were misread, across packs too."""
        created = commit(full, {0: "root", 1: "one"}, {0: (1,)})
        changed = commit(full, {1: "two"})
        deleted = commit(full, {0: "without", 1: None})
        view = full.view()
        pending = full.begin(Details(), view, add_up)
        pending.undo(deleted)
        pending.vote()
        undone = pending.finish()
        view.close()
        expected = {
            before(changed): {0: "root", 1: "one"},
            changed: {0: "root", 1: "two"},
            before(deleted): {0: "root", 1: "two"},
            deleted: {0: "without"},
            before(undone): {0: "without"},
            undone: {0: "root", 1: "two"},
        }
        for packed in (NO_TID, created, changed, before(deleted), deleted, undone):
            full.pack(packed)
            there = {tid: values for tid, values in expected.items() if tid >= packed}
            assert {tid: contents(full, range(2), at=tid) for tid in there} == there


class TestTwoNewest:
    def test_the_last_two_transactions_survive(self, full):
        """DirectoryStorage 1.1.7: a pack dropped the newest transactions, which replication needs."""
        commit(full, {0: "root", 1: "one", 2: "linked"}, {0: (1, 2)})
        commit(full, {1: "two"})
        one = commit(full, {1: "three", 3: "linked by nobody"}, {3: (4,)})
        commit_below = commit(full, {0: "without 2", 1: "four"}, {0: (1,)})
        full.pack(MAX_TID)
        assert tids_of(full, 1) == [one, commit_below]
        assert tids_of(full, 3) == [one]
        assert [found.tid for found in full.transactions()] == [commit_below, one]
        for transaction in full.transactions():
            for oid in transaction.oids:
                assert full.revision(oid, transaction.tid).tid == transaction.tid

    def test_what_the_last_two_refer_to_survives(self, full):
        commit(full, {0: "root", 5: "only 4 knows"})
        commit(full, {4: "not linked"}, {4: (5,)})
        commit(full, {0: "root"})
        full.pack(MAX_TID)
        assert contents(full, range(6)) == {0: "root", 4: "not linked", 5: "only 4 knows"}


class TestAgain:
    def test_a_second_pack_to_an_earlier_time_changes_nothing(self, store):
        """ZODB 3.3a3: it lost data."""
        tids = [commit(store, {0: at, 1: at, at + 2: at}, {0: (1,)}) for at in range(6)]
        store.pack(tids[3])
        there = files_of(store.filesystem, store.directory.home)
        for tid in (tids[2], tids[0], NO_TID):
            report = store.pack(tid)
            assert (report.objects_removed, report.revisions_removed, report.transactions_removed) == (0, 0, 0)
            assert files_of(store.filesystem, store.directory.home) == there
        assert store.packed_upto() == tids[3]

    def test_a_second_pack_to_the_same_time_finds_nothing(self, store):
        tids = [commit(store, {0: at, at + 1: at}) for at in range(6)]
        assert store.pack(tids[4]).revisions_removed > 0
        there = files_of(store.filesystem, store.directory.home)
        report = store.pack(tids[4])
        assert (report.objects_removed, report.revisions_removed, report.bytes_freed) == (0, 0, 0)
        assert files_of(store.filesystem, store.directory.home) == there

    def test_a_hundred_cycles_of_writing_and_packing(self, store):
        """RelStorage#482: packs failed after days, until tables were cleared by hand."""
        sizes = []
        for cycle in range(100):
            commit(store, {0: cycle, 2 * cycle + 1: cycle, 2 * cycle + 2: cycle}, {0: (2 * cycle + 1,)})
            commit(store, {0: cycle}, {0: (2 * cycle + 1,)})
            store.pack(MAX_TID)
            assert contents(store, range(1, 300)).get(2 * cycle + 1) == cycle
            sizes.append(disk_usage(store))
        assert max(sizes[10:]) <= 2 * max(sizes[:10])
        assert len(home_oids(store)) <= 5

    def test_two_packs_at_once_are_refused(self, store):
        commit(store, {0: 1})

        def once_more(_phase):
            with pytest.raises(UsageError, match="being packed"):
                store.pack(MAX_TID)

        progress = Progress(once_more)
        store.pack(MAX_TID, progress=progress)
        assert progress.calls


class TestDryRun:
    def test_it_tells_what_would_go_and_removes_nothing(self, store):
        commit(store, {at: at for at in range(8)}, {0: (1, 2), 2: (3,)})
        commit(store, {0: "without 2", 1: 1}, {0: (1,)})
        age(store)
        store.flush()
        there = files_of(store.filesystem, store.directory.path)
        promised = store.pack(MAX_TID, dry_run=True)
        assert files_of(store.filesystem, store.directory.path) == there
        assert store.packed_upto() == NO_TID
        assert promised.dry_run
        assert promised.bytes_freed > 0
        kept = store.pack(MAX_TID)
        for field in ("upto", "objects_removed", "revisions_removed", "transactions_removed", "objects_kept"):
            assert getattr(promised, field) == getattr(kept, field)
        assert kept.objects_removed == 6

    def test_nothing_is_doomed(self, store):
        commit(store, {0: "root", 1: "not linked"})
        age(store)
        store.pack(MAX_TID, dry_run=True)
        commit(store, {0: "linked"}, {0: (1,)})
        assert reachable(store, store.view()) == {0: "linked", 1: "not linked"}


class TestDamage:
    def test_an_unreadable_header_stops_it_before_anything_is_removed(self, store):
        """Whether anything leads to the object or not."""
        commit(store, {0: "root", 1: "kept", 2: "garbage", 3: "damaged garbage"}, {0: (1,)})
        age(store)
        store.flush()
        damage(store, 3)
        store = reopened(store)
        there = files_of(store.filesystem, store.directory.path)
        with pytest.raises(CorruptionError) as caught:
            store.pack(MAX_TID)
        assert caught.value.path.startswith(store.directory.home)
        assert files_of(store.filesystem, store.directory.path) == there
        assert store.packed_upto() == NO_TID
        commit(store, {0: "nothing is doomed"}, {0: (2,)})
        store.close()

    def test_a_record_that_does_not_tell_its_references_and_cannot_be_read_stops_it(self, store):
        first = commit(store, {0: "root", 1: "garbage"}, {0: (2,)})
        store.flush()
        tid = tid_from(number(first) + 1)
        came = Revision(oid_from(2), tid, NO_TID, b"this is no pickle", None)
        store.home.apply([(Transaction(tid, first, Details(), (oid_from(2),)), [came])])
        age(store)
        store.flush()
        there = files_of(store.filesystem, store.directory.path)
        with pytest.raises(CorruptionError) as caught:
            store.pack(MAX_TID)
        assert (caught.value.oid, caught.value.tid) == (oid_from(2), tid)
        assert files_of(store.filesystem, store.directory.path) == there

    def test_unreadable_details_stop_it_and_doom_nothing(self, full):
        commit(full, {0: "root", 1: "garbage"})
        damaged = commit(full, {0: "root", 1: "garbage"})
        age(full)
        full.flush()
        damage(full, None, damaged)
        full = reopened(full)
        there = files_of(full.filesystem, full.directory.home)
        with pytest.raises(CorruptionError):
            full.pack(MAX_TID)
        assert files_of(full.filesystem, full.directory.home) == there
        commit(full, {0: "nothing is doomed"}, {0: (1,)})
        full.close()


def damage(store, at, tid=None):
    """Flip a bit in the header of an object's newest revision in the home, or in a transaction's details."""
    wanted = tid if at is None else oid_from(at) + tids_of(store, at)[-1]
    magic = b"oT" if at is None else b"oR"
    for path, content in files_of(store.filesystem, store.directory.home).items():
        found = content.find(wanted)
        while found >= 0:
            start = content.rfind(magic, max(0, found - 16), found)
            if start >= 0:
                with store.filesystem.open_existing(path) as file:
                    file.write_at(found + 5, bytes([content[found + 5] ^ 4]))
                return
            found = content.find(wanted, found + 1)
    raise LookupError(f"no header of {wanted.hex()}")


def reopened(store):
    store.close()
    return packing_store(store.filesystem, store.settings.history, store.settings.format)


class TestOptions:
    def test_garbage_stays_where_it_is_not_collected(self, store):
        commit(store, {0: "root", 1: "a", 2: "alone"}, {0: (1,)})
        commit(store, {1: "a, changed", 3: "short-lived"})
        commit(store, {3: None})
        age(store)
        report = store.pack(MAX_TID, options=PackOptions(collect=False))
        assert contents(store, range(4)) == {0: "root", 1: "a, changed", 2: "alone"}
        assert home_oids(store) == [0, 1, 2]
        assert report.objects_removed == 1
        assert len(tids_of(store, 1)) == 1
        store.pack(MAX_TID)
        assert home_oids(store) == [0, 1]

    def test_what_was_deleted_after_the_time_stays(self, full):
        commit(full, {0: "root", 1: "a"})
        last = full.last_tid()
        commit(full, {1: None})
        age(full)
        full.pack(last, options=PackOptions(collect=False))
        assert contents(full, [1], at=last) == {1: "a"}

    def test_no_transaction_is_protected_where_none_is_to_be(self, full):
        for at in range(3):
            commit(full, {0: at, 1 + at: "alone"})
        full.pack(MAX_TID, options=PackOptions(protect=0))
        assert home_oids(full) == [0]
        assert tids_of(full, 0) == [full.last_tid()]

    def test_references_that_are_not_known_are_asked_for(self, full):
        commit(full, {1: "referred to", 2: "alone"})
        view = full.view()
        pending = full.begin(Details(), view, add_up)
        pending.store(oid_from(0), NO_TID, b"encrypted", None, opaque=True)
        pending.vote()
        pending.finish()
        view.close()
        for at in range(2):
            commit(full, {3: at})
        with pytest.raises(CorruptionError):
            full.pack(MAX_TID)
        full.pack(MAX_TID, options=PackOptions(protect=0, references=lambda _: oid_from(1)))
        assert home_oids(full) == [0, 1]
