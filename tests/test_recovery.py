"""What opening makes of a journal that was left behind: what counts, what is rolled back, what is damage."""

from __future__ import annotations

import pytest
from stores import commit, contents, open_on

from objstore.engine import journal
from objstore.engine.store import DirectoryStore
from objstore.errors import CorruptionError
from objstore.formats.layouts import done_name
from objstore.formats.transactions import decode_header
from objstore.ids import NO_TID, tid_from
from objstore.machine.memory import MemoryFilesystem
from objstore.machine.posix import PosixFilesystem


@pytest.fixture
def filesystem():
    return MemoryFilesystem()


def left_behind(filesystem, commits=4) -> tuple[DirectoryStore, list]:
    """A store whose process ended without closing, with transactions in the journal."""
    store = open_on(filesystem)
    tids = [commit(store, {0: at, at: at}) for at in range(1, commits + 1)]
    store._membership.close()
    return store, tids


def journal_of(store):
    return {entry.name for entry in store.filesystem.entries(store.directory.journal)}


def transaction_file(store, tids, at):
    previous = tids[at - 1] if at else NO_TID
    return f"{store.directory.journal}/{done_name(tids[at], previous)}"


def test_what_was_committed_is_adopted(filesystem):
    _, tids = left_behind(filesystem)
    again = open_on(filesystem)
    assert again.last_tid() == tids[-1]
    assert contents(again, range(6)) == {0: 4, 1: 1, 2: 2, 3: 3, 4: 4}
    assert again.statistics()["journal_transactions"] == 4


def test_what_was_being_written_is_dropped(filesystem):
    store, _ = left_behind(filesystem)
    filesystem.make_directory(f"{store.directory.journal}/working_00000000000000aa_temp")
    with filesystem.create(f"{store.directory.journal}/working_00000000000000aa_temp/t") as file:
        file.write(b"half")
    again = open_on(filesystem)
    assert all(name.endswith("_done") for name in journal_of(again))


def test_what_was_flushed_is_let_go_of(filesystem):
    store = open_on(filesystem)
    tid = commit(store, {0: 1})
    content = filesystem.read(f"{transaction_file(store, [tid], 0)}/t")
    store.close()
    left = transaction_file(store, [tid], 0)
    filesystem.make_directory(left)
    with filesystem.create(f"{left}/t") as file:
        file.write(content)
    again = open_on(filesystem)
    assert not any(name.endswith("_done") for name in journal_of(again))
    assert again.last_tid() == tid
    assert contents(again, [0]) == {0: 1}


def test_a_tail_that_the_chain_does_not_reach_is_set_aside(filesystem):
    """The names of the last two were not synced, and only the later one reached the disk."""
    store, tids = left_behind(filesystem, commits=2)
    lost = tid_from(int.from_bytes(tids[-1], "big") + 1)
    tail = tid_from(int.from_bytes(lost, "big") + 1)
    # Both were written when nothing after tids[-1] was durable, as in one group commit.
    path = f"{store.directory.journal}/{done_name(tail, lost)}"
    filesystem.make_directory(path)
    last = filesystem.read(f"{transaction_file(store, tids, 1)}/t")
    with filesystem.create(f"{path}/t") as file:
        file.write(last)
    again = open_on(filesystem)
    assert again.last_tid() == tids[-1]
    assert contents(again, range(4)) == {0: 2, 1: 1, 2: 2}
    assert [entry.name for entry in filesystem.entries(store.directory.lost_and_found)] == [done_name(tail, lost)]
    commit(again, {0: "on"})
    again.close()
    assert contents(open_on(filesystem), [0]) == {0: "on"}


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_a_missing_transaction_that_was_acknowledged_is_damage(filesystem, missing):
    store, tids = left_behind(filesystem)
    gone = transaction_file(store, tids, missing)
    filesystem.unlink(f"{gone}/t")
    filesystem.remove_directory(gone)
    before = journal_of(store)
    with pytest.raises(CorruptionError, match="missing") as caught:
        open_on(filesystem)
    assert caught.value.tid == tids[missing + 1]
    assert "objstore check" in str(caught.value)
    assert journal_of(store) == before


def damage(filesystem, path, at):
    """Change one byte of a transaction's file; a negative place counts from the end of what is meant."""
    content = bytearray(filesystem.read(path))
    content[at if at >= 0 else decode_header(content).end + at] ^= 1
    with filesystem.open_existing(path) as file:
        file.write(bytes(content))


@pytest.mark.parametrize("at", [0, 2])
@pytest.mark.parametrize("byte", [3, 20, -5])
def test_a_damaged_file_of_an_acknowledged_transaction_is_damage(filesystem, at, byte):
    store, tids = left_behind(filesystem)
    path = f"{transaction_file(store, tids, at)}/t"
    damage(filesystem, path, byte)
    before = journal_of(store)
    with pytest.raises(CorruptionError) as caught:
        open_on(filesystem)
    assert caught.value.path == path
    assert journal_of(store) == before


@pytest.mark.parametrize("byte", [3, 20, 100, 130, -5])
def test_a_torn_tail_is_set_aside(filesystem, byte):
    """Only a part of its file reached the disk, so nobody was told that it is committed."""
    store, tids = left_behind(filesystem)
    damage(filesystem, f"{transaction_file(store, tids, 3)}/t", byte)
    again = open_on(filesystem)
    assert again.last_tid() == tids[2]
    assert contents(again, range(4)) == {0: 3, 1: 1, 2: 2, 3: 3}
    name = done_name(tids[3], tids[2])
    assert [entry.name for entry in filesystem.entries(store.directory.lost_and_found)] == [name]


@pytest.mark.parametrize("content", [b"", bytes(10), bytes(5000)])
def test_a_tail_of_which_nothing_arrived_is_dropped(filesystem, content):
    store, tids = left_behind(filesystem)
    path = f"{transaction_file(store, tids, 3)}/t"
    filesystem.unlink(path)
    with filesystem.create(path) as file:
        file.write(content)
    again = open_on(filesystem)
    assert again.last_tid() == tids[2]
    assert not filesystem.exists(store.directory.lost_and_found)
    assert done_name(tids[3], tids[2]) not in journal_of(again)


OTHER_NAMES = [
    "working_00000000000000aa_temp",
    "spare_00000000000000aa",
    "working_00000000000000aa_0000000000000000_done",  # that of a transaction which was flushed
]


@pytest.mark.parametrize("name", OTHER_NAMES)
@pytest.mark.parametrize("at", [0, 3])
def test_a_recycled_directory_whose_renames_were_lost_counts(filesystem, name, at):
    """What is synced is the file; the names that it was given may be taken back by a power cut."""
    store = open_on(filesystem)
    commit(store, {9: "flushed"})
    store.close()
    store, tids = left_behind(filesystem)
    waiting = store._lookup.index.transactions()[at]
    filesystem.rename(waiting.path, f"{store.directory.journal}/{name}")
    again = open_on(filesystem)
    assert again.last_tid() == tids[-1]
    assert contents(again, range(6)) == {0: 4, 1: 1, 2: 2, 3: 3, 4: 4}
    assert [waiting.path in each.path for each in again.recovered.waiting].count(True) == 1
    assert len(journal_of(again)) == len(tids)


@pytest.mark.parametrize("name", ["working_00000000000000aa_temp", "spare_00000000000000aa"])
def test_a_recycled_directory_that_holds_what_was_flushed_does_not_count(filesystem, name):
    store = open_on(filesystem)
    tid = commit(store, {0: 1})
    content = filesystem.read(f"{transaction_file(store, [tid], 0)}/t")
    store.close()
    filesystem.make_directory(f"{store.directory.journal}/{name}")
    with filesystem.create(f"{store.directory.journal}/{name}/t") as file:
        file.write(content)
    again = open_on(filesystem)
    assert again.last_tid() == tid
    assert {each[:6] for each in journal_of(again)} == {"spare_"}


def test_a_damaged_record_is_an_error_for_its_reader_and_for_the_flusher(filesystem):
    store, tids = left_behind(filesystem)
    waiting = store._lookup.index.transactions()[2]
    damage(filesystem, f"{transaction_file(store, tids, 2)}/t", waiting.offsets[1] + waiting.sizes[1] - 1)
    again = open_on(filesystem)
    with pytest.raises(CorruptionError):
        contents(again, range(4))
    with pytest.raises(CorruptionError):
        again.flush()
    assert again.flushed in (tids[1], NO_TID)
    assert contents(again, [1, 2, 4]) == {1: 1, 2: 2, 4: 4}


def test_foreign_names_in_the_journal_are_ignored(filesystem):
    store, tids = left_behind(filesystem)
    for name in (".nfs0001", "working_~", "t"):
        filesystem.create(f"{store.directory.journal}/{name}").close()
    filesystem.make_directory(f"{store.directory.journal}/lost+found")
    again = open_on(filesystem)
    assert again.last_tid() == tids[-1]
    again.close()
    assert {".nfs0001", "working_~", "t", "lost+found"} <= journal_of(again)


def test_recovering_twice_comes_to_the_same(filesystem):
    _, tids = left_behind(filesystem)
    first = open_on(filesystem)
    first._membership.close()
    second = open_on(filesystem)
    assert [waiting.tid for waiting in second.recovered.waiting] == tids


def test_long_files_are_used_again_while_the_store_is_open(filesystem):
    """A transaction of 1,000 objects then needs one sync, as one of a single object does."""
    store = open_on(filesystem)
    commit(store, {0: "x" * 300_000})
    store.flush()
    [spare] = journal_of(store)
    before = filesystem.allocated_bytes(f"{store.directory.journal}/{spare}/t")
    assert before > 300_000
    commit(store, {0: "y" * 290_000})
    [done] = journal_of(store)
    assert filesystem.allocated_bytes(f"{store.directory.journal}/{done}/t") == before
    commit(store, {1: "short"})
    store.flush()
    assert {name[:6] for name in journal_of(store)} == {"spare_"}
    assert len(journal_of(store)) == 2
    store.close()
    assert len(journal_of(store)) == 1
    assert contents(open_on(filesystem), range(2)) == {0: "y" * 290_000, 1: "short"}


def test_spares_take_little_room(filesystem, monkeypatch):
    monkeypatch.setattr(journal, "MAX_SPARE_BYTES", 500_000)
    store = open_on(filesystem)
    for number in range(8):
        commit(store, {number: "x" * 100_000})
    commit(store, {0: "z" * 2**20})
    store.flush()
    assert len(journal_of(store)) == 4
    for _ in range(3):  # what was written over them since makes them no shorter
        for number in range(4):
            commit(store, {10 + number: "short"})
        for number in range(8):
            commit(store, {number: "x" * 100_000})
        store.flush()
        lengths = [filesystem.size(f"{store.directory.journal}/{each}/t") for each in journal_of(store)]
        assert sum(each for each in lengths if each > 64 * 2**10) <= 500_000
    assert contents(store, range(1, 8)) == dict.fromkeys(range(1, 8), "x" * 100_000)


def test_long_files_of_other_processes_are_let_go(tmp_path, monkeypatch):
    """Who closes the store knows of his own only."""
    monkeypatch.setattr("stores.PATH", str(tmp_path / "store"))
    first, second = open_on(PosixFilesystem()), open_on(PosixFilesystem())
    commit(first, {0: "x" * 100_000})
    commit(second, {1: "y" * 100_000})
    commit(second, {2: "short"})
    first.flush()
    assert len(journal_of(first)) == 2
    second.close()
    first.close()
    assert [name[:6] for name in journal_of(first)] == ["spare_"]
    assert contents(open_on(PosixFilesystem()), range(3)) == {0: "x" * 100_000, 1: "y" * 100_000, 2: "short"}


def test_a_recycled_directory_is_used_again(filesystem):
    store = open_on(filesystem)
    commit(store, {0: "x" * 500})
    store.flush()
    assert {name[:6] for name in journal_of(store)} == {"spare_"}
    commit(store, {0: "short"})
    assert {name[:8] for name in journal_of(store)} == {"working_"}
    store._membership.close()
    again = open_on(filesystem)
    assert contents(again, [0]) == {0: "short"}
    again.close()
    assert contents(open_on(filesystem), [0]) == {0: "short"}
