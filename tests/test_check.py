"""The check finds every kind of damage where it was done, and finds nothing in a store that is sound."""

from __future__ import annotations

import errno
import io
import pickle
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest
from crashing import Clock
from simulated import SimulatedFilesystem
from stores import CLASS_PICKLE, COMBINATIONS, PATH, add_up, commit, contents, open_on, serial_of

from objstore.contracts import Entry, Filesystem, Finding, Format, History
from objstore.engine.opening import open_store
from objstore.engine.store import DirectoryStore
from objstore.errors import ClosedError, ConflictError, StorageError
from objstore.formats import layouts, records
from objstore.formats.segments import Segment
from objstore.ids import MAX_TID, NO_TID, ROOT, Oid, Tid, number, oid_from, tid_from
from objstore.machine.memory import MemoryFilesystem
from objstore.machine.posix import PosixFilesystem
from objstore.revisions import Details, Revision
from objstore.upkeep.check import KINDS, check
from objstore.upkeep.pack import pack

every_store = pytest.mark.parametrize(("history", "format"), COMBINATIONS)
CLASSIC = [layout for layout in Format if layout is not Format.SEGMENTED]
classic_stores = pytest.mark.parametrize(
    ("history", "format"), [(mode, layout) for mode, layout in COMBINATIONS if layout in CLASSIC]
)
classic_full = pytest.mark.parametrize("format", CLASSIC)
A, B, C = 1, 2, 3
TURNS = 60


# --- what the tests do -------------------------------------------------------------------------------


class Refusing(MemoryFilesystem):
    """Does not let a path be read, or be listed."""

    refused: str | None = None

    def _refuse(self, path: str) -> None:
        if path == self.refused:
            raise PermissionError(errno.EACCES, "Permission denied", path)

    def read(self, path: str) -> bytes:
        self._refuse(path)
        return super().read(path)

    def read_at(self, path: str, offset: int, length: int) -> bytes:
        self._refuse(path)
        return super().read_at(path, offset, length)

    def map(self, path: str) -> memoryview:
        self._refuse(path)
        return super().map(path)

    def entries(self, path: str) -> list[Entry]:
        self._refuse(path)
        return super().entries(path)


def filled(filesystem: Filesystem, history: History, format: Format, **options: object) -> DirectoryStore:
    """A sound store: three objects below the root, in the home, each but the root changed once."""
    store = open_on(filesystem, history, format, Clock(), **options)
    commit(store, {0: "root", A: "a", B: "b", C: "c"}, {0: (A, B, C)})
    store.flush()
    commit(store, {A: "a, changed", B: "b, changed", C: "c, changed"})
    store.flush()
    return store


def settle(store: DirectoryStore) -> None:
    """Commit twice, because the objects of the two newest transactions are kept and are no findings."""
    for value in ("one", "two"):
        commit(store, {C: value})


def found(store: DirectoryStore) -> list[Finding]:
    findings = list(check(store))
    assert {finding.kind for finding in findings} <= KINDS.keys()
    return findings


def kinds(findings: list[Finding]) -> set[str]:
    return {finding.kind for finding in findings}


def only(store: DirectoryStore, kind: str) -> Finding:
    """The one finding of a store."""
    findings = found(store)
    assert [finding.kind for finding in findings] == [kind], findings
    return findings[0]


def of_kind(store: DirectoryStore, kind: str) -> Finding:
    """The one finding of a kind, among others that follow from it."""
    matching = [finding for finding in found(store) if finding.kind == kind]
    assert len(matching) == 1, matching
    return matching[0]


def files_below(filesystem: Filesystem, path: str) -> Iterator[str]:
    for entry in sorted(filesystem.entries(path), key=lambda entry: entry.name):
        if entry.is_directory:
            yield from files_below(filesystem, f"{path}/{entry.name}")
        else:
            yield f"{path}/{entry.name}"


def directories_below(filesystem: Filesystem, path: str) -> Iterator[str]:
    yield path
    for entry in filesystem.entries(path):
        if entry.is_directory:
            yield from directories_below(filesystem, f"{path}/{entry.name}")


def put(filesystem: Filesystem, path: str, content: bytes = b"") -> str:
    """Write a file, whatever was there."""
    if filesystem.exists(path):
        filesystem.unlink(path)
    with filesystem.create(path) as file:
        file.write(content)
    return path


def make(filesystem: Filesystem, path: str) -> str:
    if not filesystem.exists(path):
        filesystem.make_directory(path)
    return path


def flip(filesystem: Filesystem, path: str, at: int) -> None:
    content = bytearray(filesystem.read(path))
    content[at] ^= 0x40
    put(filesystem, path, bytes(content))


def object_path(store: DirectoryStore, oid: int, name: str) -> str:
    directory = layouts.object_directory(store.settings.format, oid_from(oid))
    return "/".join(part for part in (store.directory.home, directory, name) if part)


def current_path(store: DirectoryStore, oid: int) -> str:
    return object_path(store, oid, layouts.current_name(oid_from(oid)))


def revision_path(store: DirectoryStore, oid: int, tid: Tid | None = None) -> str:
    """The file of an object's revision, the current one if none is named, in a classic format."""
    at = oid_from(oid)
    if store.history_mode is History.MINIMAL:
        return object_path(store, oid, layouts.data_name(at))
    return object_path(store, oid, layouts.revision_name(at, tid or store.home.current(at)))


def record_path(store: DirectoryStore, oid: int) -> str:
    """The file that holds the current record of an object, in any format."""
    if store.settings.format is not Format.SEGMENTED:
        return revision_path(store, oid)
    data = store.home.load(oid_from(oid), MAX_TID).data
    paths = files_below(store.filesystem, store.directory.home)
    return next(path for path in paths if data in store.filesystem.read(path))


def looked_at(store: DirectoryStore, *, tolerant: bool = False) -> DirectoryStore:
    """The same store, opened for reading as the command line does, after its process has ended."""
    options = replace(store._options, read_only=True)
    return open_store(PATH, options, filesystem=store.filesystem, packer=pack, tolerant=tolerant)


def state(filesystem: Filesystem) -> dict[str, bytes]:
    return {path: filesystem.read(path) for path in files_below(filesystem, PATH)}


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
        replace(from_memory._options, **options),
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


# --- bytes -------------------------------------------------------------------------------------------


@every_store
def test_a_changed_record(history, format):
    filesystem = MemoryFilesystem()
    store = filled(filesystem, history, format)
    store.close()
    path = record_path(store, B)
    data = store.home.load(oid_from(B), MAX_TID).data
    flip(filesystem, path, filesystem.read(path).index(data) + len(data) - 2)
    finding = only(open_on(filesystem, history, format), "checksum")
    assert (finding.path, finding.oid) == (path, oid_from(B))


@every_store
def test_a_changed_header(history, format):
    """Then nobody knows what the object refers to, and so not what nothing leads to."""
    filesystem = MemoryFilesystem()
    store = filled(filesystem, history, format)
    store.close()
    path = record_path(store, B)
    content = filesystem.read(path)
    flip(
        filesystem,
        path,
        content.rindex(records.MAGIC, 0, content.index(store.home.load(oid_from(B), MAX_TID).data)),
    )
    findings = found(open_on(filesystem, history, format))
    assert kinds(findings) == {"checksum", "incomplete"}
    assert {finding.path for finding in findings if finding.kind == "checksum"} == {path}


@every_store
def test_every_byte_of_every_file_of_the_home(history, format):
    """Whichever byte changes, the file is named."""
    filesystem = MemoryFilesystem()
    store = filled(filesystem, history, format)
    store.close()
    for path in list(files_below(filesystem, f"{PATH}/A")):
        content = filesystem.read(path)
        padding = padding_of(path, content) if format is Format.SEGMENTED else range(0)
        for at in range(0, len(content), 1 if len(content) < 200 else 7):
            if at not in padding:
                flip(filesystem, path, at)
                store = open_on(filesystem, history, format, read_only=True)
                assert path in {finding.path for finding in found(store)}, (path, at)
                store.close()
                put(filesystem, path, content)


def padding_of(path: str, content: bytes) -> range:
    """The bytes of a segment that mean nothing."""
    segment = Segment(path, memoryview(content))
    return range(segment.offset(len(segment)), segment.footer.index_at)


@every_store
def test_a_file_that_is_cut_off(history, format):
    filesystem = MemoryFilesystem()
    store = filled(filesystem, history, format)
    store.close()
    path = record_path(store, A)
    put(filesystem, path, filesystem.read(path)[:-1])
    assert path in {finding.path for finding in found(open_on(filesystem, history, format))}


def test_a_changed_record_that_waits():
    store = open_on(MemoryFilesystem(), History.FULL, Format.SEGMENTED, Clock())
    tid = commit(store, {0: "the root"})
    path = next(files_below(store.filesystem, store.directory.journal))
    flip(store.filesystem, path, store.filesystem.read(path).index(b"the root"))
    finding = only(store, "checksum")
    assert (finding.path, finding.tid) == (path, tid)


@classic_stores
def test_a_file_with_the_name_of_another(history, format):
    store = filled(MemoryFilesystem(), history, format)
    put(store.filesystem, revision_path(store, B), store.filesystem.read(revision_path(store, A)))
    findings = found(store)
    assert kinds(findings) <= {"name", "incomplete"}
    assert findings[0].path == revision_path(store, B)


@classic_stores
def test_a_file_in_the_wrong_directory(history, format):
    store = filled(MemoryFilesystem(), history, format)
    path = revision_path(store, B)
    wrong = f"{make(store.filesystem, f'{store.directory.home}/o')}/{path.rpartition('/')[2]}"
    store.filesystem.rename(path, wrong)
    findings = found(store)
    assert wrong in {finding.path for finding in findings if finding.kind in ("misplaced", "foreign")}
    assert len(findings) > 1, "the object is gone from where it was"


def test_a_segment_in_the_wrong_directory():
    store = filled(MemoryFilesystem(), History.FULL, Format.SEGMENTED)
    path = record_path(store, B)
    bucket = make(store.filesystem, f"{store.directory.home}/0000000000/01")
    copy = put(store.filesystem, f"{bucket}/{path.rpartition('/')[2]}", store.filesystem.read(path))
    store.close()
    store = looked_at(store)
    assert {finding.kind for finding in found(store) if finding.path == copy} == {"misplaced"}


# --- pointers ----------------------------------------------------------------------------------------


@classic_full
def test_a_pointer_to_what_is_missing(format):
    store = filled(MemoryFilesystem(), History.FULL, format)
    current = store.home.current(oid_from(B))
    store.filesystem.unlink(revision_path(store, B))
    finding = of_kind(store, "pointer")
    assert (finding.path, finding.oid, finding.tid) == (current_path(store, B), oid_from(B), current)


@classic_full
def test_a_pointer_of_the_wrong_size(format):
    store = filled(MemoryFilesystem(), History.FULL, format)
    path = put(store.filesystem, current_path(store, B), b"short")
    assert path in {finding.path for finding in found(store)}


@classic_full
def test_revisions_without_a_pointer(format):
    """They are damage: nothing was packed, or something leads to them."""
    store = filled(MemoryFilesystem(), History.FULL, format)
    store.filesystem.unlink(current_path(store, B))
    findings = found(store)
    assert kinds(findings) == {"pointer"}
    assert {finding.oid for finding in findings} == {oid_from(B)}


@classic_full
def test_a_reachable_object_without_a_pointer_after_a_pack(format):
    store = filled(MemoryFilesystem(), History.FULL, format)
    store.record_pack(store.last_tid())
    store.filesystem.unlink(current_path(store, B))
    assert of_kind(store, "pointer").oid == oid_from(B)


@classic_full
def test_what_an_interrupted_pack_has_left(format):
    """Only what the pack was about to drop leads to the rest, so it is no damage; the next pack removes it."""
    store = filled(MemoryFilesystem(), History.FULL, format)
    for value in ("alone", "still alone", "for good"):
        commit(store, {0: value})
    store.flush()
    store.record_pack(store.last_tid())
    for name in (current_path(store, A), revision_path(store, B), current_path(store, B)):
        store.filesystem.unlink(name)
    findings = found(store)
    assert kinds(findings) == {"unreachable"}
    assert {finding.oid for finding in findings} == {oid_from(A), oid_from(B)}
    store.pack(store.last_tid())
    assert found(store) == []


@classic_full
def test_a_flush_that_was_interrupted(format):
    """Revisions that no `.c` leads to are no finding while the journal has their transaction."""
    filesystem = SimulatedFilesystem()
    store = filled(filesystem, History.FULL, format)
    commit(store, {0: "root", 7: "new"}, {0: (A, B, C, 7)})
    filesystem.fail_at(lambda operation: operation.target.endswith(".c"), OSError(errno.EIO, "broken"))
    with pytest.raises(StorageError):
        store.flush()
    assert filesystem.exists(revision_path(store, 7, store.last_tid()))
    assert kinds(found(store)) <= {"leftover"}
    store.flush()
    assert found(store) == []


# --- files that do not belong ------------------------------------------------------------------------


@every_store
def test_junk_everywhere(history, format):
    """Editor backups, `.nfs*`, lost+found: opening ignores them, the check tells of each."""
    filesystem = MemoryFilesystem()
    store = filled(filesystem, history, format, flush_on_close=False)
    commit(store, {A: "waits"})
    store.close()
    junk = set()
    for place in list(directories_below(filesystem, PATH)):
        junk.add(put(filesystem, f"{place}/notes.txt~"))
        junk.add(put(filesystem, f"{place}/.nfs0000000000000001"))
        put(filesystem, f"{make(filesystem, f'{place}/lost+found')}/#1234")
        junk.add(f"{place}/lost+found")
    store = open_on(filesystem, history, format, read_only=True)
    assert contents(store, [0, A]) == {0: "root", A: "waits"}
    findings = found(store)
    assert kinds(findings) == {"foreign"}
    # A foreign directory is told, or all that it holds.
    assert {finding.path.removesuffix("/#1234") for finding in findings} == junk


def test_foreign_directories_of_the_store():
    store = filled(MemoryFilesystem(), History.FULL, Format.CHUNKY)
    make(store.filesystem, f"{PATH}/B")
    put(store.filesystem, f"{PATH}/A/t/x")
    assert {finding.path for finding in found(store)} == {f"{PATH}/B", f"{PATH}/A/t/x"}


@classic_stores
def test_what_an_interrupted_flush_left(history, format):
    store = filled(MemoryFilesystem(), history, format)
    path = put(store.filesystem, revision_path(store, A) + layouts.TEMPORARY, b"half")
    assert only(store, "leftover").path == path


@pytest.mark.parametrize("history", History)
def test_what_an_interrupted_merge_left(history):
    store = filled(MemoryFilesystem(), history, Format.SEGMENTED)
    path = put(store.filesystem, record_path(store, A) + layouts.TEMPORARY, b"half")
    store.close()
    assert only(looked_at(store), "leftover").path == path


def test_what_a_killed_process_left():
    """It is found while nobody has opened the store for writing, which removes it."""
    store = filled(MemoryFilesystem(), History.FULL, Format.CHUNKY, flush_on_close=False)
    filesystem, directory = store.filesystem, store.directory
    waiting = commit(store, {A: "waits"})
    flushed = store.flushed
    store.close()
    temp = f"{directory.journal}/{layouts.temp_name(bytes(8))}"
    done = f"{directory.journal}/{layouts.done_name(flushed, NO_TID)}"
    beyond = (
        f"{directory.journal}/{layouts.done_name(tid_from(number(waiting) + 9), tid_from(number(waiting) + 8))}"
    )
    source = next(path for path in files_below(filesystem, directory.journal) if waiting.hex() in path)
    for path in (temp, done, beyond):
        put(filesystem, f"{make(filesystem, path)}/t", filesystem.read(source))
    mark = put(filesystem, f"{directory.marks}/{layouts.mark_name('flushed', bytes(8))}")
    settings = put(filesystem, directory.settings + layouts.TEMPORARY)
    reader = looked_at(store)
    findings = found(reader)
    reader.close()
    assert {finding.path for finding in findings} == {temp, done, beyond, mark, settings}
    assert kinds(findings) == {"leftover"}
    again = open_on(filesystem, History.FULL, Format.CHUNKY)
    findings = found(again)
    assert sorted(finding.kind for finding in findings) == ["aside", "leftover"]
    assert {finding.path for finding in findings} == {
        settings,
        beyond.replace(directory.journal, directory.lost_and_found),
    }


# --- what the system refuses -------------------------------------------------------------------------


@classic_stores
def test_a_file_that_cannot_be_read(history, format):
    filesystem = Refusing()
    store = filled(filesystem, history, format)
    path = filesystem.refused = revision_path(store, B)
    findings = found(store)
    assert kinds(findings) <= {"unreadable", "checksum", "incomplete"}
    assert path in {finding.path for finding in findings}


@every_store
def test_a_directory_that_cannot_be_read(history, format):
    filesystem = Refusing()
    store = filled(filesystem, history, format)
    store.close()
    path = filesystem.refused = record_path(store, B).rpartition("/")[0]
    findings = found(open_on(filesystem, history, format, read_only=True))
    assert "unreadable" in kinds(findings)
    assert path in {finding.path for finding in findings}


# --- the journal -------------------------------------------------------------------------------------


def three_waiting() -> tuple[DirectoryStore, list[str]]:
    """A store with three transactions in its journal, and their directories."""
    store = filled(MemoryFilesystem(), History.FULL, Format.SEGMENTED, flush_on_close=False)
    for value in range(3):
        commit(store, {A: value})
    store.close()
    names = sorted(entry.name for entry in store.filesystem.entries(store.directory.journal))
    return store, [f"{store.directory.journal}/{name}" for name in names if name.endswith("_done")]


def test_a_missing_transaction():
    store, directories = three_waiting()
    store.filesystem.unlink(f"{directories[1]}/t")
    store.filesystem.remove_directory(directories[1])
    finding = only(looked_at(store, tolerant=True), "chain")
    assert finding.path == directories[2]


def test_a_damaged_transaction():
    store, directories = three_waiting()
    flip(store.filesystem, f"{directories[1]}/t", 5)
    assert of_kind(looked_at(store, tolerant=True), "journal").path == f"{directories[1]}/t"


def test_a_transaction_without_its_file():
    store, directories = three_waiting()
    store.filesystem.unlink(f"{directories[2]}/t")
    assert of_kind(looked_at(store, tolerant=True), "journal").path == f"{directories[2]}/t"


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


@every_store
def test_references_that_the_header_does_not_tell(history, format):
    """They are taken from the record. This one was made by other means."""
    store = filled(MemoryFilesystem(), history, format)
    state = io.BytesIO()
    pickler = pickle.Pickler(state, 3)
    pickler.persistent_id = lambda value: value if isinstance(value, bytes) else None
    pickler.dump([oid_from(A), oid_from(88)])
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
    transaction = replace(waiting.transaction, oids=(*waiting.transaction.oids, oid))
    revisions = [*store.journal.revisions(waiting), Revision(oid, tid, serial, data, None)]
    store.home.apply([(transaction, sorted(revisions, key=lambda revision: revision.oid))])
    store._marks.advance("flushed", tid)
    store._lookup.index.remove([waiting])


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


# --- at work -----------------------------------------------------------------------------------------


@every_store
def test_a_store_that_is_written_to_meanwhile(history, format):
    """An object moves between two parents while commits, flushes and checks go on: no false alarm."""
    store = filled(MemoryFilesystem(), history, format, background=True, flush_age=0.001)
    commit(store, {20: "moves", A: 0}, {A: (20,)})
    failures: list[Exception] = []

    def write() -> None:
        try:
            for turn in range(TURNS):
                here, there = (A, B) if turn % 2 else (B, A)
                commit(store, {here: turn, there: turn, 100 + turn: "new"}, {here: (20, 100 + turn)})
        except (ConflictError, StorageError) as error:
            failures.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    working = True
    while working:
        working = writer.is_alive()
        # In Minimal, what an earlier turn added is garbage as soon as the turn after the next comes.
        findings = [finding for finding in found(store) if number(finding.oid or ROOT) < 100]
        assert findings == []
    writer.join()
    assert failures == []
    store.close()


def test_every_kind_is_explained():
    assert all(text and kind.islower() for kind, text in KINDS.items())


def test_oids_of_findings_are_oids():
    store = filled(MemoryFilesystem(), History.FULL, Format.CHUNKY)
    commit(store, {30: "lonely"})
    settle(store)
    finding = only(store, "unreachable")
    assert isinstance(finding.oid, bytes)
    assert Oid(finding.oid) == oid_from(30)
