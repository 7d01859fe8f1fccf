"""Copying: every history mode and format into every other, with undos, deletions and packs in the past.

DirectoryStorage 1.1.6: a wrong redundant serial after restore. ZODB#395, #409: restoring after several undos gave
a wrong state. RelStorage#344: copying a history-free store under writes dropped objects.
"""

from __future__ import annotations

import threading
from random import Random

import pytest
from copying import (
    DEST,
    NAMES,
    Clock,
    agree,
    copied,
    goes_on,
    kinds,
    opened_copy,
    revisions_of,
    sound,
    undo,
    write_some,
)
from packing import Progress, files_of
from stores import COMBINATIONS, PATH, commit, open_on

import objstore
from objstore.contracts import Format, History
from objstore.errors import (
    CorruptionError,
    HistoryMissingError,
    NotAStoreError,
    OpenError,
    SnapshotTooOldError,
    StorageFullError,
    StoreLockedError,
    StoreMissingError,
    UsageError,
)
from objstore.formats.layouts import HomeDirectory
from objstore.ids import NO_TID, ROOT, number, oid_from
from objstore.machine.memory import MemoryFilesystem
from objstore.revisions import Details
from objstore.upkeep.copy import LazyRevisions
from objstore.upkeep.selection import UNKNOWN

every_target = pytest.mark.parametrize(("to_history", "to_format"), COMBINATIONS)
every_source = pytest.mark.parametrize(("history", "format"), COMBINATIONS)


@pytest.fixture
def filesystem():
    return MemoryFilesystem()


class TestEveryPair:
    @every_target
    @every_source
    def test_a_past_at_random(self, history, format, to_history, to_format, filesystem):
        """ZODB#395, #409; DirectoryStorage 1.1.6."""
        source = open_on(filesystem, history, format, Clock())
        seed = f"{history} {format} {to_history} {to_format}"
        write_some(source, Random(seed), 30)
        report = copied(source, to_history, to_format, verify=True)
        made = opened_copy(filesystem)
        assert (made.history_mode, made.settings.format) == (to_history, to_format)
        agree(source, made)
        sound(source, made)
        found = revisions_of(made)
        assert report.objects == len(found)
        assert report.revisions == sum(map(len, found.values()))
        assert report.upto == source.last_tid()
        goes_on(made)

    @every_target
    @every_source
    def test_nothing_is_found_by_a_check(self, history, format, to_history, to_format, filesystem):
        source = open_on(filesystem, history, format, Clock())
        commit(source, {0: "root", 1: 1, 2: 2, 65536: 3}, {0: (1, 2, 65536), 1: (2,)})
        source.flush()
        commit(source, {1: 10, 65536: 30}, {1: (2,)})
        copied(source, to_history, to_format)
        made = opened_copy(filesystem)
        assert kinds(made) == set()
        agree(source, made)

    @every_target
    @every_source
    def test_an_empty_store(self, history, format, to_history, to_format, filesystem):
        source = open_on(filesystem, history, format, Clock())
        report = copied(source, to_history, to_format, verify=True)
        assert (report.transactions, report.revisions, report.objects, report.upto) == (0, 0, 0, NO_TID)
        made = opened_copy(filesystem)
        agree(source, made)
        assert kinds(made) == set()
        goes_on(made)

    @every_source
    def test_what_it_was_is_kept_where_nothing_else_is_said(self, history, format, filesystem):
        source = open_on(filesystem, history, format, Clock())
        write_some(source, Random(1))
        copied(source)
        made = opened_copy(filesystem)
        assert (made.history_mode, made.settings.format) == (history, format)

    @pytest.mark.parametrize("format", Format)
    def test_a_copy_of_a_copy_of_a_copy_is_the_same(self, format, filesystem):
        source = open_on(filesystem, History.FULL, format, Clock())
        write_some(source, Random(2), 40)
        at = source
        for step, to in enumerate([*Format, format]):
            copied(at, None, to, dest=f"/copy{step}")
            at = opened_copy(filesystem, f"/copy{step}")
        agree(source, at)


class TestRecords:
    def test_undone_deleted_and_linked_records_stay_what_they_are(self, filesystem):
        source = open_on(filesystem, History.FULL, Format.CHUNKY, Clock())
        first = commit(source, {0: 1, 1: 2}, {0: (1,)}, details=Details("ada", "é", b"\x80\x03}."))
        second = commit(source, {1: 3})
        third = undo(source, [second])
        fourth = commit(source, {1: None})
        copied(source)
        made = opened_copy(filesystem)
        oid = oid_from(1)
        assert [made.revision(oid, tid).previous for tid in (first, second, third, fourth)] == [
            NO_TID,
            first,
            second,
            third,
        ]
        assert made.revision(oid, third).copied_from == first
        assert made.revision(oid, fourth).data is None
        assert made.revision(ROOT, first).references == oid
        assert made.transaction(first).details == Details("ada", "é", b"\x80\x03}.")
        assert undo(made, [fourth])
        assert made.view().load(oid)[0] == source.revision(oid, third).data

    def test_records_that_no_pickle_is_in(self, filesystem):
        """Nothing is unpickled, so nothing minds."""
        source = open_on(filesystem, History.FULL, Format.SEGMENTED, Clock())
        view = source.view()
        pending = source.begin(Details(), view, None)
        pending.store(ROOT, NO_TID, b"no pickle at all", b"")
        pending.vote()
        pending.finish()
        copied(source, History.MINIMAL, Format.LAWN)
        assert opened_copy(filesystem).view().load(ROOT)[0] == b"no pickle at all"

    def test_history_begins_with_what_a_minimal_store_has(self, filesystem):
        source = open_on(filesystem, History.MINIMAL, Format.SEGMENTED, Clock())
        first = commit(source, {0: 1, 1: 2}, {0: (1,)})
        second = commit(source, {1: 3})
        copied(source, History.FULL)
        made = opened_copy(filesystem)
        assert [(found.tid, found.details) for found in made.transactions()] == [
            (second, UNKNOWN),
            (first, UNKNOWN),
        ]
        with pytest.raises(HistoryMissingError):
            made.view(first)
        third = commit(made, {1: 4})
        assert made.view(second).load(oid_from(1)) == source.view().load(oid_from(1))
        assert undo(made, [second]) is None
        assert undo(made, [third])

    @every_target
    def test_a_transaction_larger_than_what_is_held_in_memory(self, to_history, to_format, filesystem):
        source = open_on(filesystem, History.FULL, Format.SEGMENTED, Clock())
        commit(source, {at: at for at in range(100)}, {0: tuple(range(1, 100))})
        commit(source, {0: 0}, {0: tuple(range(1, 100))})
        copied(source, to_history, to_format, verify=True)
        agree(source, opened_copy(filesystem))

    def test_what_is_read_when_it_is_looked_at(self):
        read = []
        revisions = LazyRevisions([oid_from(at) for at in range(5)], lambda oid: read.append(oid) or oid)
        assert len(revisions) == 5
        assert read == []
        assert list(revisions[1:3]) == [oid_from(1), oid_from(2)] == read

    @every_target
    def test_a_store_whose_pack_was_interrupted(self, to_history, to_format):
        """What is left of removed objects does not come back."""
        for layout in (Format.CHUNKY, Format.SEGMENTED):
            for steps in range(1, 40, 3):
                filesystem = MemoryFilesystem()
                source = open_on(filesystem, History.FULL, layout, Clock())
                commit(source, {0: 0, 1: 1, 2: 2, 3: 3}, {0: (1, 2), 2: (3,), 3: (2,)})
                for value in range(3):
                    commit(source, {1: value, 2: value, 3: value}, {2: (3,), 3: (2,)})
                commit(source, {0: 0}, {0: (1,)})
                last = [commit(source, {0: at}, {0: (1,)}) for at in range(3)][-1]
                interrupt(source, last, steps)
                copied(source, to_history, to_format, verify=True)
                made = opened_copy(filesystem)
                agree(source, made)
                sound(source, made)


def interrupt(store, upto, steps):
    """Pack, and fail at a removal."""
    filesystem = store.filesystem
    unlink, count = filesystem.unlink, 0

    def failing(path):
        nonlocal count
        count += 1
        if count > steps:
            raise OSError(5, "Input/output error", path)
        unlink(path)

    filesystem.unlink = failing
    try:
        store.pack(upto)
    except objstore.StorageError:
        pass
    finally:
        filesystem.unlink = unlink


class TestOneTid:
    @pytest.mark.parametrize(("history", "format"), COMBINATIONS)
    def test_what_is_committed_meanwhile_is_not_copied(self, history, format, filesystem):
        """RelStorage#344, and DirectoryStorage 1.1.2: a copy during commits equals one tid."""
        source = open_on(filesystem, history, format, Clock())
        write_some(source, Random(5))
        commit(source, dict.fromkeys(NAMES, 7), {0: NAMES[1:]})
        upto, before = source.last_tid(), revisions_of(source)
        new = []

        def meanwhile(_):
            new.append(number(source.new_oid()))
            commit(source, {new[-1]: 1, 0: len(new), 2: len(new)}, {0: (*NAMES[1:], *new)})
            if len(new) % 2:
                source.flush()

        report = copied(source, progress=Progress(meanwhile), verify=True)
        assert new
        assert report.upto == upto
        made = opened_copy(filesystem)
        assert made.last_tid() == upto
        found = revisions_of(made)
        if history is History.FULL:
            assert found == before
        else:
            assert found == {oid: revisions[:1] for oid, revisions in before.items()}
        assert kinds(made) <= {"unreachable"}

    @pytest.mark.parametrize("history", History)
    @pytest.mark.parametrize("format", [Format.SEGMENTED, Format.CHUNKY])
    def test_under_threads_that_write(self, history, format, filesystem, record_property):
        """RelStorage#344: no dangling references, and all objects hold the number of one transaction."""
        source = open_on(filesystem, history, format, background=True, flush_transactions=3, flush_age=0.01)
        commit(source, dict.fromkeys(NAMES, 0), {0: NAMES[1:]})
        stop = threading.Event()
        grown = list(NAMES[1:])

        def write():
            count = 0
            while not stop.wait(0.001):
                count += 1
                if count % 5 == 0 and len(grown) < 30:
                    grown.append(number(source.new_oid()))
                commit(source, dict.fromkeys((0, *grown), count), {0: tuple(grown)})

        writer = threading.Thread(target=write)
        writer.start()
        try:
            for at in range(3):
                copied(source, dest=f"/copy{at}", verify=True)
        finally:
            stop.set()
            writer.join()
        source.close()
        for at in range(3):
            made = opened_copy(filesystem, f"/copy{at}")
            assert kinds(made) == set()
            newest = {revisions[0].tid for revisions in revisions_of(made).values()}
            assert newest == {made.last_tid()}
        record_property("copies made under writes", 3)

    def test_a_pack_waits_for_another_day(self, filesystem):
        source = open_on(filesystem, clock=Clock())
        tid = commit(source, {0: 0})
        refused = []

        def meanwhile(_):
            with pytest.raises(UsageError, match="being packed or copied"):
                source.pack(tid)
            refused.append(tid)

        copied(source, progress=Progress(meanwhile))
        assert refused
        source.pack(tid)

    def test_a_snapshot_that_is_given_up_ends_it(self, filesystem):
        source = open_on(filesystem, History.MINIMAL, Format.CHUNKY, Clock(), pin_limit=2000, journal_limit=1000)
        commit(source, dict.fromkeys(NAMES, 0), {0: NAMES[1:]})

        def meanwhile(phase):
            if phase == "copying":
                for value in range(5):
                    commit(source, dict.fromkeys(NAMES, value), {0: NAMES[1:]})
                    source.flush()

        with pytest.raises(SnapshotTooOldError):
            copied(source, progress=Progress(meanwhile))
        with pytest.raises(NotAStoreError):
            opened_copy(filesystem)

    def test_what_waits_in_the_journal_is_copied_from_a_store_opened_for_reading(self, filesystem):
        source = open_on(filesystem, clock=Clock(), flush_on_close=False)
        write_some(source, Random(7))
        commit(source, {1: 1})
        source.close()
        before = files_of(filesystem, PATH)
        reading = open_on(filesystem, create=False, read_only=True)
        copied(reading, History.FULL, Format.SEGMENTED, verify=True)
        made = opened_copy(filesystem)
        agree(reading, made)
        assert files_of(filesystem, PATH) == before


class TestWhatIsInTheWay:
    @pytest.fixture
    def source(self, filesystem):
        source = open_on(filesystem, clock=Clock())
        write_some(source, Random(3))
        return source

    def test_a_store(self, source, filesystem):
        copied(source)
        before = files_of(filesystem, DEST)
        with pytest.raises(OpenError, match="there is a store here already"):
            copied(source)
        assert files_of(filesystem, DEST) == before

    def test_somebody_elses_files(self, source, filesystem):
        filesystem.make_directory(DEST)
        filesystem.create(f"{DEST}/letter").close()
        with pytest.raises(NotAStoreError, match="not empty"):
            copied(source)
        assert [entry.name for entry in filesystem.entries(DEST)] == ["letter"]

    def test_a_store_that_lost_its_settings(self, source, filesystem):
        copied(source)
        filesystem.unlink(HomeDirectory(DEST).settings)
        before = files_of(filesystem, DEST)
        with pytest.raises(NotAStoreError, match="there is data"):
            copied(source)
        assert files_of(filesystem, DEST) == before

    def test_a_file(self, source, filesystem):
        filesystem.create(DEST).close()
        with pytest.raises(OpenError):
            copied(source)

    def test_no_parent(self, source):
        with pytest.raises(OpenError, match="make it first"):
            copied(source, dest="/nowhere/copy")

    @pytest.mark.parametrize("place", [PATH, f"{PATH}/copy", f"{PATH}/A/copy"])
    def test_the_store_itself(self, source, place, filesystem):
        before = files_of(filesystem, PATH)
        with pytest.raises(UsageError, match="lies within the store"):
            copied(source, dest=place)
        assert files_of(filesystem, PATH) == before

    def test_an_empty_directory_is_not(self, source, filesystem):
        filesystem.make_directory(DEST)
        copied(source)
        agree(source, opened_copy(filesystem))

    def test_another_copy_into_the_same_place(self, source):
        refused = []

        def meanwhile(phase):
            if phase == "copying" and not refused:
                other = open_on(MemoryFilesystem(), clock=Clock())
                with pytest.raises(StoreLockedError):
                    copied(other, filesystem=source.filesystem)
                refused.append(phase)

        copied(source, progress=Progress(meanwhile))
        assert refused
        agree(source, opened_copy(source.filesystem))

    def test_a_closed_store(self, source):
        source.close()
        with pytest.raises(objstore.errors.ClosedError):
            copied(source)


class TestFailing:
    @pytest.fixture
    def source(self, filesystem):
        source = open_on(filesystem, clock=Clock())
        write_some(source, Random(3))
        source.flush()
        return source

    def test_too_little_room_is_known_before_anything_is_written(self, source):
        small = MemoryFilesystem(capacity=100)
        with pytest.raises(StorageFullError, match="the copy takes about"):
            copied(source, filesystem=small)
        assert small.entries("/") == []

    @every_target
    def test_damage_in_the_source(self, source, to_history, to_format, filesystem):
        path = next(path for path in files_of(filesystem, f"{PATH}/A") if not path.startswith(f"{PATH}/A/t"))
        content = bytearray(filesystem.read(path))
        content[-5] ^= 0xFF
        filesystem.unlink(path)
        with filesystem.create(path) as file:
            file.write(bytes(content))
        source.close()
        again = open_on(filesystem, create=False, read_only=True)
        with pytest.raises(CorruptionError):
            copied(again, to_history, to_format)
        with pytest.raises((NotAStoreError, StoreMissingError)):
            opened_copy(filesystem)

    def test_missing_details_in_the_source(self, filesystem):
        source = open_on(filesystem, format=Format.LAWN, clock=Clock())
        commit(source, {0: 0})
        tid = commit(source, {0: 1})
        source.flush()
        filesystem.unlink(f"{PATH}/A/t{tid.hex()}")
        with pytest.raises(CorruptionError, match="details of the transaction"):
            copied(source)
        assert not filesystem.exists(DEST)

    @every_target
    def test_a_copy_that_differs_is_no_store(self, source, to_history, to_format, filesystem):
        """Damage between writing and reading again."""

        def spoil(phase):
            if phase == "verifying":
                paths = [path for path in files_of(filesystem, f"{DEST}/A") if "/A/t" not in path]
                path = next(path for path in paths if not path.endswith(".c"))
                content = bytearray(filesystem.read(path))
                content[len(content) // 2] ^= 1
                filesystem.unlink(path)
                with filesystem.create(path) as file:
                    file.write(bytes(content))

        with pytest.raises(CorruptionError):
            copied(source, to_history, to_format, progress=Progress(spoil), verify=True)
        with pytest.raises(NotAStoreError, match="was not finished"):
            opened_copy(filesystem)

    @every_target
    @pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(5, "Input/output error"), MemoryError])
    def test_interrupted_it_is_refused_and_made_again(self, source, to_history, to_format, error, filesystem):
        def interrupt(phase):
            if phase in ("copying", "verifying"):
                raise error

        expected = objstore.StorageError if isinstance(error, OSError) else error
        with pytest.raises(expected):
            copied(source, to_history, to_format, progress=Progress(interrupt))
        for create in (False, True):
            with pytest.raises(NotAStoreError, match=r"was not finished.*make the copy again"):
                opened_copy(filesystem, create=create)
        assert sorted(entry.name for entry in filesystem.entries(DEST)) == ["config", "locks"]
        copied(source, to_history, to_format, verify=True)
        made = opened_copy(filesystem)
        agree(source, made)
        sound(source, made)
