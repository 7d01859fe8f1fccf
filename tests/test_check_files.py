"""The check finds damage of every kind in the files of a store, and names the file."""

from __future__ import annotations

import errno

import pytest
from checking import (
    A,
    B,
    C,
    Refusing,
    classic_full,
    classic_stores,
    current_path,
    directories_below,
    every_store,
    files_below,
    filled,
    flip,
    found,
    kinds,
    looked_at,
    make,
    of_kind,
    only,
    put,
    record_path,
    revision_path,
)
from crashing import Clock
from simulated import SimulatedFilesystem
from stores import PATH, commit, contents, open_on

from objstore.contracts import Format, History
from objstore.engine.store import DirectoryStore
from objstore.errors import StorageError
from objstore.formats import layouts, records
from objstore.formats.segments import Segment
from objstore.formats.transactions import FILE_HEADER_SIZE, decode_header
from objstore.ids import MAX_TID, NO_TID, number, oid_from, tid_from
from objstore.machine.memory import MemoryFilesystem

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
def test_a_pointer_to_what_is_not_the_newest(format):
    store = filled(MemoryFilesystem(), History.FULL, format)
    old = store.filesystem.read(current_path(store, B))
    commit(store, {B: "newer"}, {B: ()})
    store.flush()
    path = put(store.filesystem, current_path(store, B), old)
    finding = of_kind(store, "pointer")
    assert (finding.path, finding.oid, finding.tid) == (path, oid_from(B), store.last_tid())


class FlushedAtALook(MemoryFilesystem):
    """Once its newest revision was read, a flush replaces an object's `.c` as soon as this was read too."""

    newest = current = None
    replacement = b""

    def read(self, path):
        content = super().read(path)
        if path == self.newest:
            self.newest = None
        elif path == self.current and self.newest is None:
            self.current = None
            put(self, path, self.replacement)
        return content


@classic_full
def test_a_pointer_that_a_flush_replaces_between_two_looks(format):
    """The revision is there before the pointer to it is: a check that looks between the two tells nothing."""
    filesystem = FlushedAtALook()
    store = filled(filesystem, History.FULL, format)
    path = current_path(store, B)
    old = filesystem.read(path)
    commit(store, {B: "newer"}, {B: ()})
    store.flush()
    filesystem.replacement = filesystem.read(path)
    filesystem.newest, filesystem.current = revision_path(store, B), path
    put(filesystem, path, old)
    assert found(store) == []
    assert filesystem.current is None


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
    content = filesystem.read(source)
    header, body = decode_header(content), content[FILE_HEADER_SIZE:]
    later = header._replace(tid=tid_from(number(waiting) + 9), previous=tid_from(number(waiting) + 8))
    before = header._replace(tid=flushed, previous=NO_TID)
    for path, head in ((temp, bytes(FILE_HEADER_SIZE)), (done, before.encode()), (beyond, later.encode())):
        put(filesystem, f"{make(filesystem, path)}/t", head + body)
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
    store.filesystem.unlink(f"{directories[1]}/t")
    assert of_kind(looked_at(store, tolerant=True), "journal").path == directories[1]


def test_the_last_transaction_torn():
    """Nobody was told that it is committed, so opening rolls it back."""
    store, directories = three_waiting()
    flip(store.filesystem, f"{directories[2]}/t", 70)
    assert only(looked_at(store), "leftover").path == directories[2]
