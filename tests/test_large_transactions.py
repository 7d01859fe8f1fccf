"""Transactions that are written in parts, as they are stored: they may be larger than memory."""

from __future__ import annotations

import tracemalloc

import pytest
from crashing import assert_sound
from stores import COMBINATIONS, add_up, commit, contents, open_on, record, refuse

from objstore.contracts import Format, StoreOptions
from objstore.engine import drafts, journal, waiting
from objstore.engine.opening import open_store
from objstore.errors import ConflictError, DanglingReferenceError
from objstore.formats import recordruns
from objstore.ids import NO_TID, oid_from
from objstore.machine.memory import MemoryFilesystem
from objstore.machine.posix import PosixFilesystem
from objstore.revisions import Details
from objstore.upkeep.pack import pack

every_store = pytest.mark.parametrize(("history", "format"), COMBINATIONS)


@pytest.fixture
def in_parts(monkeypatch):
    """Transactions are written after every few records."""
    monkeypatch.setattr(drafts, "CHUNK", 100)


def names_in_journal(store):
    return {entry.name for entry in store.filesystem.entries(store.directory.journal)}


@pytest.mark.usefixtures("in_parts")
@every_store
def test_what_is_written_is_read(history, format):
    store = open_on(MemoryFilesystem(), history, format)
    values = {number: "x" * number for number in range(60)}
    commit(store, values)
    assert contents(store, range(61)) == values
    store.flush()
    assert contents(store, range(61)) == values
    commit(store, {number: "y" * number for number in range(0, 60, 2)} | {3: None})
    store.close()
    again = open_on(store.filesystem, history, format)
    expected = {number: ("x" if number % 2 else "y") * number for number in range(60) if number != 3}
    assert contents(again, range(61)) == expected
    assert_sound(again)


@pytest.mark.usefixtures("in_parts")
def test_an_object_stored_twice_has_the_second_record():
    store = open_on(MemoryFilesystem(), format=Format.SEGMENTED)
    view = store.view()
    pending = store.begin(Details(), view, refuse)
    for number in (0, 1, 2, 1, 0):
        pending.store(oid_from(number), NO_TID, *record(f"{number} " * 40))
    pending.store(oid_from(2), NO_TID, *record("the last"))
    pending.vote()
    tid = pending.finish()
    view.close()
    assert contents(store, range(4)) == {0: "0 " * 40, 1: "1 " * 40, 2: "the last"}
    assert set(store.transaction(tid).oids) == {oid_from(number) for number in range(3)}
    store.flush()
    assert contents(store, range(4)) == {0: "0 " * 40, 1: "1 " * 40, 2: "the last"}


@pytest.mark.usefixtures("in_parts")
def test_conflicts_are_resolved_and_refused():
    store = open_on(MemoryFilesystem(), format=Format.SEGMENTED)
    commit(store, {0: 10, 1: "text" * 50, 2: "more" * 50})
    base = store.view()
    commit(store, {0: 12})
    commit(store, {0: 15, 1: "mine" * 50, 2: "mine" * 50}, view=base, resolver=add_up)
    assert contents(store, range(3)) == {0: 17, 1: "mine" * 50, 2: "mine" * 50}
    base = store.view()
    commit(store, {1: "theirs"})
    with pytest.raises(ConflictError):
        commit(store, {1: "mine" * 60, 2: "mine" * 60}, view=base)
    assert contents(store, range(3)) == {0: 17, 1: "theirs", 2: "mine" * 50}
    assert not [name for name in names_in_journal(store) if name.endswith("_temp")]


def test_a_resolved_conflict_after_the_records_were_written():
    """Another transaction commits between the first look for conflicts and the writer lock."""
    store = open_on(MemoryFilesystem())
    commit(store, {0: 10, 1: "one"})
    base = store.view()
    workshop = store._workshop

    def token_after_another_commit():
        store._workshop = workshop
        commit(store, {0: 12})
        return workshop.new_token()

    store._workshop = workshop._replace(new_token=token_after_another_commit)
    commit(store, {0: 15, 1: "changed"}, view=base, resolver=add_up)
    assert contents(store, [0, 1]) == {0: 17, 1: "changed"}
    store.flush()
    assert contents(store, [0, 1]) == {0: 17, 1: "changed"}
    assert_sound(store)


@pytest.mark.usefixtures("in_parts")
def test_an_abort_leaves_nothing():
    store = open_on(MemoryFilesystem(), format=Format.SEGMENTED)
    commit(store, {0: "root"})
    before = names_in_journal(store)
    view = store.view()
    pending = store.begin(Details(), view, refuse)
    for number in range(1, 20):
        pending.store(oid_from(number), NO_TID, *record("x" * 100))
    pending.abort()
    view.close()
    assert names_in_journal(store) == before
    assert contents(store, range(20)) == {0: "root"}


@pytest.mark.usefixtures("in_parts")
def test_undo_of_what_does_not_fit():
    store = open_on(MemoryFilesystem(), format=Format.SEGMENTED)
    commit(store, dict.fromkeys(range(10), "before" * 30))
    tid = commit(store, dict.fromkeys(range(10), "after" * 30))
    view = store.view()
    pending = store.begin(Details(), view, refuse)
    pending.undo(tid)
    pending.vote()
    pending.finish()
    view.close()
    assert contents(store, range(10)) == dict.fromkeys(range(10), "before" * 30)


def test_memory_does_not_grow_with_the_records(tmp_path):
    options = StoreOptions(background=False)
    store = open_store(f"{tmp_path}/store", options, filesystem=PosixFilesystem(), packer=pack)
    view = store.view()
    pending = store.begin(Details(), view, refuse)
    tracemalloc.start()
    for number in range(200):
        pending.store(oid_from(number), NO_TID, bytes(2**18), b"")
    pending.vote()
    pending.finish()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    view.advance()
    assert peak < 8 * 2**20
    assert view.load(oid_from(150))[0] == bytes(2**18)
    view.close()
    store.close()


@pytest.mark.parametrize("chunk", [100, drafts.CHUNK])
def test_what_a_pack_reads_of_a_transaction_is_written_all_the_same(chunk, monkeypatch):
    """While objects are packed away, the references of what is about to commit are looked at."""
    monkeypatch.setattr(drafts, "CHUNK", chunk)
    store = open_on(MemoryFilesystem(), format=Format.SEGMENTED)
    commit(store, {0: "root", 1: "one"}, {0: (1,)})
    store.flush()  # so that there is a file to be used again, which is written with its header
    store.doom(lambda oid: oid == oid_from(7))
    commit(store, {0: "changed", 1: "x" * 300}, {0: (1,)})
    with pytest.raises(DanglingReferenceError):
        commit(store, {0: "wrong"}, {0: (7,)})
    store.doom(None)
    store.close()
    again = open_on(store.filesystem, format=Format.SEGMENTED)
    assert contents(again, [0, 1]) == {0: "changed", 1: "x" * 300}
    assert_sound(again)


class Released(MemoryFilesystem):
    """Counts how often memory is let go of."""

    released = 0

    def release(self, mapped):
        super().release(mapped)
        self.released += 1


def test_no_more_is_kept_in_memory_than_is_allowed(monkeypatch):
    monkeypatch.setattr(waiting, "MAX_KEPT", 10_000)
    store = open_on(MemoryFilesystem())
    values = dict.fromkeys(range(20), "x" * 1000)
    for oid, value in values.items():
        commit(store, {oid: value})
    kept = [each.content is not None for each in store._lookup.index.transactions()]
    assert kept == [True] * 8 + [False] * 12  # each takes nearly 1,200 bytes
    assert contents(store, range(20)) == values
    store.flush()
    commit(store, {0: "again"})
    assert [each.content is not None for each in store._lookup.index.transactions()] == [True]
    assert contents(store, range(20)) == {**values, 0: "again"}
    assert_sound(store)


@every_store
def test_a_flush_lets_go_of_what_it_has_read(history, format, monkeypatch):
    monkeypatch.setattr(waiting, "MAX_KEPT", 0)
    monkeypatch.setattr(journal, "MAPPED_SIZE", 1000)
    monkeypatch.setattr(journal, "VERIFIED_AT_ONCE", 1000)
    monkeypatch.setattr(recordruns, "_LOOKED_AT", 1000)
    store = open_on(Released(), history, format)
    values = dict.fromkeys(range(20), "x" * 500)
    commit(store, values)
    store.flush()
    assert store.filesystem.released >= 10
    assert contents(store, range(20)) == values
    assert_sound(store)
