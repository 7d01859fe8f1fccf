"""The contract of `Store.restore`: transactions from elsewhere, under the tids that they have there."""

from __future__ import annotations

from random import Random

import pytest
from copying import Clock, goes_on, revisions_of, sound, undo, write_some
from store_fixtures import stores_of
from stores import BY_TESTER, COMBINATIONS, FULL, add_up, commit, contents, open_on, record, value_of

from objstore.contracts import Format, History
from objstore.errors import ClosedError, ConflictError, POSKeyError, ReadOnlyError, SerializationError, UsageError
from objstore.ids import MAX_TID, NO_TID, ROOT, number, oid_from, tid_from
from objstore.machine.memory import MemoryFilesystem
from objstore.revisions import Details

LONG_AGO = tid_from(0x0300_0000_0000_0000)
"""Earlier than what the clock gives."""


@pytest.fixture
def filesystem():
    return MemoryFilesystem()


store = stores_of(COMBINATIONS, open_on)
full = stores_of(FULL, open_on)


def after(tid, by=1):
    return tid_from(number(tid) + by)


def restore(store, tid, values, details=BY_TESTER, **copied_from):
    """Restore a transaction of values, by oid number."""
    pending = store.restore(tid, details)
    for at, value in values.items():
        data, references = record(value) if value is not None else (None, None)
        pending.store(oid_from(at), NO_TID, data, references, **copied_from)
    assert pending.vote() == frozenset()
    return pending.finish()


def restore_all(source, target, *, flush=lambda: False):
    """Restore every transaction of one store in another."""
    for transaction in reversed(list(source.transactions())):
        pending = target.restore(transaction.tid, transaction.details)
        for oid in transaction.oids:
            try:
                found = source.revision(oid, transaction.tid)
            except POSKeyError:  # packed away
                continue
            pending.store(oid, NO_TID, found.data, found.references, found.copied_from)
        pending.vote()
        pending.finish()
        if flush():
            target.flush()


class TestOneTransaction:
    def test_it_is_there_under_its_tid(self, store):
        assert restore(store, LONG_AGO, {0: "root", 1: "one"}) == LONG_AGO == store.last_tid()
        assert contents(store, range(3)) == {0: "root", 1: "one"}
        assert store.view().load(ROOT)[1] == LONG_AGO

    def test_it_survives_a_killed_process(self, store):
        restore(store, LONG_AGO, {0: "root"})
        store._options = None  # a process that ends without closing: the journal stays
        store._membership.close()
        again = open_on(store.filesystem, store.settings.history, store.settings.format)
        assert again.last_tid() == LONG_AGO
        assert contents(again, [0]) == {0: "root"}
        again.close()
        store._closed = True

    def test_readers_are_told(self, store):
        commit(store, {0: 0, 1: 1})
        view = store.view()
        tid = after(store.last_tid(), 1000)
        restore(store, tid, {1: 2})
        assert value_of(view.load(oid_from(1))[0]) == 1
        assert view.advance() == {oid_from(1)}
        assert view.load(oid_from(1))[1] == tid

    def test_what_is_committed_afterwards_is_later(self, store):
        """Though the tid is of the far future."""
        future = after(MAX_TID, -(2**40))
        restore(store, future, {0: "root"})
        assert commit(store, {0: "changed"}) > future

    def test_oids_that_came_with_it_are_not_handed_out(self, store):
        restore(store, LONG_AGO, {0: "root", 1000: "far"})
        assert number(store.new_oid()) > 1000

    def test_references_are_extracted_where_none_are_given(self, full):
        pending = full.restore(LONG_AGO, Details())
        with pytest.raises(SerializationError):
            pending.store(ROOT, NO_TID, b"no pickle", None)
        pending.store(ROOT, NO_TID, record("root")[0], None)
        pending.vote()
        pending.finish()
        assert full.revision(ROOT, LONG_AGO).references == b""

    def test_details_are_kept(self, full):
        details = Details("ada", "from elsewhere", b"\x80\x03}.")
        restore(full, LONG_AGO, {0: "root"}, details)
        assert full.transaction(LONG_AGO).details == details

    def test_aborted_it_leaves_nothing(self, store):
        pending = store.restore(LONG_AGO, Details())
        pending.store(ROOT, NO_TID, *record("lost"))
        pending.vote()
        pending.abort()
        assert store.last_tid() == NO_TID
        assert restore(store, LONG_AGO, {0: "kept"}) == LONG_AGO

    def test_without_records_it_commits_nothing(self, store):
        assert restore(store, LONG_AGO, {}) == NO_TID == store.last_tid()


class TestSerials:
    def test_they_do_not_count(self, full):
        first = commit(full, {0: "root", 1: "one"})
        tid = after(full.last_tid(), 1000)
        restore(full, tid, {1: "restored"})
        assert full.revision(oid_from(1), tid).previous == first

    def test_nothing_conflicts_with_what_is_committed_meanwhile(self, store):
        commit(store, {0: "root", 1: "one"})
        tid = after(store.last_tid(), 2**40)
        pending = store.restore(tid, Details())
        pending.store(oid_from(1), NO_TID, *record("restored"))
        meanwhile = commit(store, {1: "meanwhile"})
        assert pending.vote() == frozenset()
        pending.finish()
        assert contents(store, range(2)) == {0: "root", 1: "restored"}
        assert next(store.summaries(oid_from(1))).previous == meanwhile

    def test_a_blob_is_kept_though_its_record_is_written_again(self, store):
        commit(store, {0: "root"})
        tid = after(store.last_tid(), 2**40)
        pending = store.restore(tid, Details())
        path = store.blobs.temporary()
        with store.blobs.open(path, "w") as file:
            file.write(b"restored")
        pending.store_blob(oid_from(1), NO_TID, *record("a blob"), path)
        commit(store, {1: "meanwhile"})
        pending.vote()
        assert pending.finish() == tid
        for _ in range(2):
            with store.blobs.open_committed(oid_from(1), tid) as file:
                assert file.read(100) == b"restored"
            store.flush()

    def test_who_changed_it_from_before_conflicts(self, store):
        commit(store, {0: "root"})
        view = store.view()
        pending = store.begin(Details(), view, add_up)
        pending.store(ROOT, store.last_tid(), *record("mine"))
        restore(store, after(store.last_tid(), 1000), {0: None})
        with pytest.raises(ConflictError):
            pending.vote()

    def test_a_deletion(self, store):
        restore(store, LONG_AGO, {0: "root", 1: "one"})
        restore(store, after(LONG_AGO), {1: None})
        assert contents(store, range(2)) == {0: "root"}
        store.flush()
        assert contents(store, range(2)) == {0: "root"}

    def test_where_data_was_copied_from_is_kept_if_it_is_there(self, full):
        restore(full, LONG_AGO, {0: "old"})
        restore(full, after(LONG_AGO), {0: "new"})
        restore(full, after(LONG_AGO, 2), {0: "old"}, copied_from=LONG_AGO)
        assert full.revision(ROOT, full.last_tid()).copied_from == LONG_AGO

    @pytest.mark.parametrize("source", [LONG_AGO, after(LONG_AGO, -5)], ids=["other data", "not there"])
    def test_where_data_was_copied_from_is_forgotten_if_not(self, full, source):
        restore(full, LONG_AGO, {0: "old"})
        restore(full, after(LONG_AGO), {0: "new"}, copied_from=source)
        found = full.revision(ROOT, full.last_tid())
        assert (value_of(found.data), found.copied_from) == ("new", None)


class TestRefusals:
    def test_a_tid_that_is_not_later(self, store):
        tid = commit(store, {0: "root"})
        for early in (tid, after(tid, -1)):
            with pytest.raises(UsageError, match="order of their tids"):
                store.restore(early, Details())

    def test_a_tid_that_is_overtaken(self, store):
        commit(store, {0: "root"})
        pending = store.restore(after(store.last_tid()), Details())
        pending.store(ROOT, NO_TID, *record("late"))
        commit(store, {0: "first"})
        with pytest.raises(UsageError, match="order of their tids"):
            pending.vote()
        commit(store, {0: "the writer lock was let go"})
        assert contents(store, [0]) == {0: "the writer lock was let go"}

    @pytest.mark.parametrize("tid", [NO_TID, MAX_TID, after(MAX_TID)])
    def test_a_tid_that_is_none(self, store, tid):
        with pytest.raises(UsageError, match="no tid"):
            store.restore(tid, Details())

    def test_checking_and_undoing(self, full):
        tid = commit(full, {0: "root"})
        pending = full.restore(after(tid, 1000), Details())
        with pytest.raises(UsageError, match="records only"):
            pending.undo(tid)
        with pytest.raises(UsageError, match="records only"):
            pending.check_current(ROOT, tid)
        pending.abort()
        with pytest.raises(ClosedError):
            pending.store(ROOT, NO_TID, *record("late"))

    def test_a_store_that_only_reads_or_is_closed(self, filesystem):
        open_on(filesystem).close()
        reader = open_on(filesystem, read_only=True)
        with pytest.raises(ReadOnlyError):
            reader.restore(LONG_AGO, Details())
        reader.close()
        with pytest.raises(ClosedError):
            reader.restore(LONG_AGO, Details())


@pytest.mark.parametrize("seed", range(3))
def test_a_whole_past(store, seed):
    """Deletions, undos, packs, flushes: what is restored of it is the same, and goes on."""
    random = Random(seed)
    source = open_on(MemoryFilesystem(), History.FULL, Format.CHUNKY, Clock())
    write_some(source, random)
    restore_all(source, store, flush=lambda: random.random() < 0.2)
    there, here = revisions_of(source), revisions_of(store)
    assert store.last_tid() == source.last_tid()
    assert set(there) == set(here)
    for oid, revisions in here.items():
        assert len(revisions) == len(there[oid]) or store.history_mode is History.MINIMAL
        known = {found.tid: found for found in there[oid]}
        assert revisions[0].tid == there[oid][0].tid
        for mine in revisions:
            its = known[mine.tid]
            assert (mine.data, mine.references) == (its.data, its.references)
    if store.history_mode is History.FULL:
        assert [found.details for found in store.transactions()] == [
            found.details for found in source.transactions()
        ]
        if source.packed_upto() == NO_TID:
            assert here == there
            tid = store.last_tid()
            assert (undo(store, [tid]) is None) == (undo(source, [tid]) is None)
    sound(source, store)
    goes_on(store)
    source.close()
