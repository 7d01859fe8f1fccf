"""The check finds nothing in a sound store, also while it is used; and it finds what leads nowhere."""

from __future__ import annotations

import io
import pickle

import pytest
from checking import (
    A,
    B,
    C,
    classic_full,
    every_store,
    files_below,
    filled,
    found,
    kinds,
    looked_at,
    only,
    put,
    revision_path,
    settle,
    state,
)
from crashing import Clock
from simulated import SimulatedFilesystem
from stores import CLASS_PICKLE, PATH, add_up, commit, contents, open_on, serial_of

from objstore.contracts import Format, History
from objstore.engine.opening import open_store
from objstore.engine.store import DirectoryStore
from objstore.errors import ClosedError
from objstore.formats import layouts
from objstore.ids import ROOT, Oid, number, oid_from
from objstore.machine.memory import MemoryFilesystem
from objstore.machine.posix import PosixFilesystem
from objstore.revisions import Details, Revision
from objstore.upkeep.check import KINDS, check
from objstore.upkeep.pack import pack

# --- nothing is wrong --------------------------------------------------------------------------------


@every_store
def test_a_sound_store(history, format):
    store = open_on(MemoryFilesystem(), history, format, Clock())
    assert found(store) == []
    view = store.view()
    commit(store, {0: "root", A: "a", B: 1}, {0: (A, B), A: (B, 0)})
    assert found(store) == []
    store.flush()
    first = commit(store, {A: "changed", C: "c"}, {A: (C, B)})
    commit(store, {B: 3}, resolver=add_up)
    assert found(store) == []
    view.close()
    store.flush()
    commit(store, {0: "root", 5: "later"}, {0: (A, B, 5)})
    assert found(store) == []
    store.pack(first)
    assert found(store) == []
    store.close()
    assert found(open_on(store.filesystem, history, format)) == []


@every_store
def test_a_sound_store_on_a_disk(history, format, tmp_path):
    options = {"background": False, "history": history, "format": format}
    from_memory = filled(MemoryFilesystem(), history, format)
    store = open_store(
        str(tmp_path / "store"),
        from_memory._options._replace(**options),
        filesystem=PosixFilesystem(),
        packer=pack,
    )
    commit(store, {0: "root", A: "a"}, {0: (A,)})
    store.flush()
    commit(store, {A: "b"})
    assert found(store) == []
    put(store.filesystem, f"{store.directory.home}/a note", b"keep")
    assert only(store, "foreign").path == f"{store.directory.home}/a note"
    store.close()


@pytest.mark.parametrize("format", Format)
def test_history_is_no_finding(format):
    """What only older revisions lead to is reachable in Full; deleted and undone objects exist."""
    store = open_on(MemoryFilesystem(), History.FULL, format, Clock())
    commit(store, {0: "root", A: "a"}, {0: (A,)})
    commit(store, {0: "root without a"})
    created = commit(store, {0: "root with b", B: "b"}, {0: (B,)})
    view = store.view()
    pending = store.begin(Details(), view, add_up)
    pending.undo(created)
    pending.vote()
    pending.finish()
    view.close()
    assert contents(store, [0, A, B]) == {0: "root without a", A: "a"}
    assert found(store) == []
    store.flush()
    assert found(store) == []


@every_store
def test_nothing_is_written(history, format):
    filesystem = SimulatedFilesystem()
    store = filled(filesystem, history, format)
    commit(store, {A: "waits"})
    before, operations = state(filesystem), filesystem.operations
    put(filesystem, f"{store.directory.home}/junk")
    writes = filesystem.operations - operations
    assert kinds(found(store)) == {"foreign"}
    assert filesystem.operations == operations + writes
    filesystem.unlink(f"{store.directory.home}/junk")
    assert state(filesystem) == before


def test_progress_is_told():
    store = filled(MemoryFilesystem(), History.FULL, Format.CHUNKY)
    told = []
    assert list(check(store, lambda *step: told.append(step))) == []
    assert [phase for phase, _, _ in told[:2]] == ["reading the journal", "reading the home"]
    assert told[-1] == ("following references", 4, 4)


def test_a_closed_store():
    store = filled(MemoryFilesystem(), History.FULL, Format.CHUNKY)
    store.close()
    with pytest.raises(ClosedError):
        next(check(store))


def test_it_lets_go_of_its_snapshot():
    """Also where nobody reads it to the end."""
    store = filled(MemoryFilesystem(), History.FULL, Format.CHUNKY)
    put(store.filesystem, f"{PATH}/junk")
    findings = check(store)
    assert next(findings).kind == "foreign"
    assert store.statistics()["snapshots"] == 1
    findings.close()
    assert store.statistics()["snapshots"] == 0


def test_a_chain_of_many_objects():
    """ZODB's DirectoryStorage 1.1a1 met the recursion limit here."""
    length = 20_000
    store = open_on(MemoryFilesystem(), History.MINIMAL, Format.SEGMENTED)
    commit(store, dict.fromkeys(range(length), ""), {at: (at + 1,) for at in range(length - 1)})
    store.flush()
    assert found(store) == []


# --- connections -------------------------------------------------------------------------------------


@every_store
@pytest.mark.parametrize("flushed", [False, True])
def test_a_dangling_reference(history, format, flushed):
    store = filled(MemoryFilesystem(), history, format)
    tid = commit(store, {B: "to nothing"}, {B: (99, 99, A)})
    if flushed:
        store.flush()
    finding = only(store, "dangling")
    assert (finding.oid, finding.tid) == (oid_from(B), tid)
    assert oid_from(99).hex() in finding.message
    if flushed and format is not Format.SEGMENTED:
        assert finding.path == revision_path(store, B)


@every_store
def test_dangling_references_of_what_nothing_leads_to(history, format):
    store = filled(MemoryFilesystem(), history, format)
    commit(store, {50: "lonely"}, {50: (99,)})
    settle(store)
    assert sorted(finding.kind for finding in found(store)) == ["dangling", "unreachable"]


@every_store
def test_unreachable_objects(history, format):
    """A ring that nothing leads to; a pack removes it, once it is not among the newest transactions."""
    store = filled(MemoryFilesystem(), history, format)
    tid = commit(store, {10: "one", 11: "two", 70_000: "three"}, {10: (11,), 11: (10, A), 70_000: (10,)})
    store.flush()
    settle(store)
    findings = found(store)
    assert kinds(findings) == {"unreachable"}
    assert [(number(finding.oid), finding.tid) for finding in findings] == [(10, tid), (11, tid), (70_000, tid)]
    store.pack(store.last_tid())
    assert found(store) == []


@every_store
def test_a_missing_root(history, format):
    store = open_on(MemoryFilesystem(), history, format)
    commit(store, {A: "a"})
    for value in range(2):
        commit(store, {B: value})
    assert only(store, "unreachable").oid == oid_from(A)


class _ReferencePickler(pickle.Pickler):
    """Writes bytes as references. A subclass, since Python 3.13.0 lets no instance have a `persistent_id`."""

    def persistent_id(self, obj):
        return obj if isinstance(obj, bytes) else None


@every_store
def test_references_that_the_header_does_not_tell(history, format):
    """They are taken from the record. This one was made by other means."""
    store = filled(MemoryFilesystem(), history, format)
    state = io.BytesIO()
    _ReferencePickler(state, 3).dump([oid_from(A), oid_from(88)])
    _apply_unknown(store, CLASS_PICKLE + state.getvalue())
    finding = only(store, "dangling")
    assert finding.oid == oid_from(B)
    assert oid_from(88).hex() in finding.message


@every_store
def test_a_record_that_is_no_pickle(history, format):
    store = filled(MemoryFilesystem(), history, format)
    _apply_unknown(store, b"no pickle")
    findings = found(store)
    assert kinds(findings) == {"record", "incomplete"}
    assert findings[0].oid == oid_from(B)


def _apply_unknown(store: DirectoryStore, data: bytes) -> None:
    """Give object B a record whose references nobody extracted, by way of a later transaction."""
    view = store.view()
    oid = oid_from(B)
    serial = serial_of(store, view, oid)
    view.close()
    tid = commit(store, {C: "another"})
    waiting = store._lookup.index.transactions()[-1]
    transaction = waiting.transaction._replace(oids=(*waiting.transaction.oids, oid))
    revisions = [*store.journal.revisions(waiting), Revision(oid, tid, serial, data, None)]
    store.home.apply([(transaction, sorted(revisions, key=lambda revision: revision.oid))])
    store._marks.advance("flushed", tid)
    store._lookup.index.remove_upto(waiting.tid)


@classic_full
def test_missing_details(format):
    store = filled(MemoryFilesystem(), History.FULL, format)
    tid = store.home.current(ROOT)
    directory = layouts.transaction_directory(format, tid)
    path = "/".join(part for part in (store.directory.home, directory, layouts.transaction_name(tid)) if part)
    store.filesystem.unlink(path)
    finding = only(store, "details")
    assert (finding.path, finding.tid) == (path, tid)


def test_missing_details_of_segments():
    store = filled(MemoryFilesystem(), History.FULL, Format.SEGMENTED)
    store.close()
    for path in list(files_below(store.filesystem, f"{store.directory.home}/t")):
        store.filesystem.unlink(path)
    findings = found(looked_at(store))
    assert [finding.kind for finding in findings] == ["details", "details"]


@every_store
def test_a_mark_that_would_hand_oids_out_twice(history, format):
    filesystem = MemoryFilesystem()
    store = filled(filesystem, history, format)
    store.close()
    for entry in filesystem.entries(store.directory.marks):
        if entry.name.startswith("oids_"):
            filesystem.unlink(f"{store.directory.marks}/{entry.name}")
    put(filesystem, f"{store.directory.marks}/{layouts.mark_name('oids', oid_from(2))}")
    finding = only(open_on(filesystem, history, format, read_only=True), "mark")
    assert (finding.path, finding.oid) == (store.directory.marks, oid_from(C))


# --- what is told -----------------------------------------------------------------------------------


def test_every_kind_is_explained():
    assert all(text and kind.islower() for kind, text in KINDS.items())


def test_oids_of_findings_are_oids():
    store = filled(MemoryFilesystem(), History.FULL, Format.CHUNKY)
    commit(store, {30: "lonely"})
    settle(store)
    finding = only(store, "unreachable")
    assert isinstance(finding.oid, bytes)
    assert Oid(finding.oid) == oid_from(30)
