"""The segmented home from inside: when segments are merged, which are open, and what does not count."""

from __future__ import annotations

import errno
import gc
import os
from contextlib import suppress
from itertools import accumulate, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pasts import PLACE, Bench, agree, home_on, paths_below, put, some_past
from simulated import SimulatedFilesystem
from stores import commit, contents, open_on

from objstore.contracts import Format, History, Removal, StoreOptions
from objstore.engine import buckets
from objstore.engine.merging import FAN, SMALLEST_TIER, due, merged, tier
from objstore.engine.opening import open_store
from objstore.errors import NotAStoreError
from objstore.formats.segments import Kind, Segment, SegmentWriter
from objstore.ids import MAX_TID, NO_TID, oid_from, tid_from
from objstore.machine.memory import MemoryFilesystem
from objstore.machine.posix import PosixFilesystem
from objstore.upkeep.pack import pack

SIZES = st.lists(st.integers(1, 9).map(lambda power: 8**power), max_size=120)


def segmented(filesystem=None, history=History.FULL, path=PLACE):
    return Bench(filesystem or MemoryFilesystem(), history, Format.SEGMENTED, path)


def segments_of(bench, directory="0000000000/00"):
    return sorted(name for name in bench.files() if name.startswith(directory))


class TestWhenToMerge:
    def test_tiers_grow_by_four(self):
        edges = [SMALLEST_TIER * 4**power for power in range(6)]
        assert tier(0) == tier(SMALLEST_TIER - 1) == 0
        assert [tier(edge) for edge in edges] == [1, 2, 3, 4, 5, 6]
        assert [tier(edge - 1) for edge in edges] == [0, 1, 2, 3, 4, 5]

    def flushed(self, sizes):
        """The sizes that stand there after segments of the given sizes were added one by one, and how much
        was written in merging."""
        there: list[int] = []
        written = 0
        for size in sizes:
            there.append(size)
            while count := due(there):
                assert FAN <= count <= len(there)
                there[-count:] = [sum(there[-count:])]
                written += there[-1]
            assert len(there) <= (FAN - 1) * (tier(max(there)) + 1)
        return there, written

    @given(SIZES)
    def test_there_are_never_more_than_three_of_a_tier(self, sizes):
        there, _ = self.flushed(sizes)
        assert sum(there) == sum(sizes)
        assert due(there) == 0

    @given(SIZES)
    def test_what_is_newer_than_a_merged_segment_is_merged_too(self, sizes):
        """Only neighbours are merged, so that the newest revision stays in the newest segment."""
        count = due(sizes)
        older, newer = sizes[: len(sizes) - count], sizes[len(sizes) - count :]
        assert not count or not older or tier(older[-1]) > max(map(tier, newer))

    def test_a_large_segment_is_not_rewritten_for_a_few_small_ones(self):
        assert due([2**30, 1, 1, 1]) == 0
        assert due([2**30, 1, 1, 1, 1]) == 4

    @pytest.mark.parametrize("size", [1_000, 100_000, 2**20])
    def test_a_byte_is_written_once_for_each_tier_that_it_climbs(self, size):
        sizes = [size] * 2_000
        there, written = self.flushed(sizes)
        rewritten_in_the_lowest_tier = sum(sizes) * SMALLEST_TIER / size / 6 if size < SMALLEST_TIER else 0
        assert written <= sum(sizes) * tier(sum(sizes)) + rewritten_in_the_lowest_tier
        assert len(there) <= 3 * (tier(sum(sizes)) + 1)


def entries_of(stretch):
    """The entries of a stretch one by one."""
    content = b"".join(stretch.parts)
    ends = list(accumulate(stretch.sizes, initial=0))
    assert ends[-1] == len(content)
    return [
        (low, tid, content[start:end])
        for low, tid, (start, end) in zip(stretch.lows, stretch.tids, pairwise(ends), strict=True)
    ]


KEYS = st.dictionaries(
    st.tuples(st.integers(0, 3), st.integers(1, 9)), st.binary(min_size=1, max_size=3), max_size=12
)


class TestMerging:
    def segment(self, filesystem, name, entries):
        with filesystem.create(f"/{name}") as file:
            writer = SegmentWriter(file, Kind.REVISIONS, 0)
            for (low, tid), entry in sorted(entries.items()):
                writer.add(low, tid, entry)
            writer.finish(tid_from(1), tid_from(9))
        return Segment(f"/{name}", filesystem.map(f"/{name}"))

    @given(st.lists(KEYS, min_size=1, max_size=4), st.none() | st.integers(0, 10))
    def test_all_is_there_once_but_what_may_be_dropped(self, parts, droppable):
        """`droppable` is the horizon of a Minimal store: who reads at it, or later, misses nothing."""
        filesystem = MemoryFilesystem()
        everything = {key: value for part in parts for key, value in part.items()}
        parts = [{key: everything[key] for key in part} for part in parts]
        made = [self.segment(filesystem, str(at), part) for at, part in enumerate(parts)]
        found = [entry for stretch in merged(made, droppable) for entry in entries_of(stretch)]
        assert found == sorted(set(found))
        assert {(low, tid): entry for low, tid, entry in found}.items() <= everything.items()
        kept = {(low, tid) for low, tid, _ in found}
        for low, tid in everything.keys() - kept:
            assert any(low == other and tid < later <= droppable for other, later in kept)
        superseded = {
            (low, tid)
            for low, tid in everything
            if any(low == other and tid < later <= (droppable or 0) for other, later in everything)
        }
        assert kept == everything.keys() - superseded

    @pytest.mark.parametrize("history", list(History))
    def test_a_bucket_with_many_segments_is_merged(self, history):
        bench = segmented(history=history)
        for at in range(30):
            bench.past.write({1: b"%d" % at, 2 + at % 5: b"x"})
            bench.apply()
            bench.home.maintain(NO_TID)
            assert len(segments_of(bench)) <= 3
            bench.agree()
        assert bench.home.counters.merges == (9 if history is History.MINIMAL else 18)  # details are merged too
        assert bench.home.counters.merged_bytes > 0
        bench.reopen()
        bench.agree()

    def test_minimal_drops_what_is_superseded_at_the_horizon_and_no_more(self):
        bench = segmented(history=History.MINIMAL)
        tids = []
        for at in range(4):
            tids.append(bench.past.write({1: b"%d" % at, 10 + at: b"once"}))
            bench.apply()
        bench.home.maintain(tids[2])
        assert [found.tid for found in bench.home.summaries(oid_from(1))] == [tids[3], tids[2]]
        assert bench.home.load(oid_from(1), tids[2]).data == b"2"
        assert bench.home.load(oid_from(1), tids[1]) is None
        bench.agree(tids[2])
        assert all(bench.home.load(oid_from(10 + at), MAX_TID).data == b"once" for at in range(4))

    def test_full_drops_nothing(self):
        bench = segmented()
        for at in range(20):
            bench.past.write({1: b"%d" % at})
            bench.apply()
            bench.home.maintain(MAX_TID)
        assert len(list(bench.home.summaries(oid_from(1)))) == 20
        bench.agree()

    def test_a_reader_keeps_what_it_began_with(self):
        bench = segmented()
        for at in range(8):
            bench.past.write({1: b"%d" % at})
            bench.apply()
        summaries = bench.home.summaries(oid_from(1))
        assert next(summaries).tid == bench.past.last
        bench.home.maintain(NO_TID)
        bench.remove([Removal(oid_from(1), (), whole=True)])
        assert len(list(summaries)) == 7
        bench.agree()


def open_below(directory):
    """The files below `directory` that this process has open; a file that is mapped is one of them."""
    opened = []
    for entry in os.scandir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # the listing's own
            opened.append(os.readlink(entry.path))
    return [path for path in opened if path.startswith(f"{directory}/")]


class TestOpenBuckets:
    def test_a_transaction_over_many_buckets(self):
        bench = segmented()
        values = {at * 65536 + at: b"%d" % at for at in range(1_000)}
        bench.past.write(values)
        bench.apply()
        for at, data in values.items():
            assert bench.home.load(oid_from(at), MAX_TID).data == data
        assert bench.home._buckets.count <= buckets.MAX_OPEN_SEGMENTS
        assert list(bench.home.oids()) == sorted(map(oid_from, values))
        assert list(bench.home.findings()) == []
        bench.reopen()
        assert len(list(bench.home.oids())) == 1_000

    def test_reading_many_buckets_takes_few_descriptors(self, tmp_path):
        """A process may have 1,024, or 256. Mapping a file takes one for as long as it is mapped."""
        bench = segmented(PosixFilesystem(), path=f"{tmp_path}/A")
        bench.past.write({at * 65536: b"x" for at in range(600)})
        bench.apply()
        assert len(open_below(tmp_path)) <= buckets.MAX_OPEN_SEGMENTS + 2
        bench.reopen()
        assert len(list(bench.home.oids())) == 600
        assert all(bench.home.current(oid_from(at * 65536)) for at in range(600))
        assert bench.home.current(oid_from(10**15)) is None
        assert len(open_below(tmp_path)) <= buckets.MAX_OPEN_SEGMENTS + 2
        bench.home.close()
        assert open_below(tmp_path) == []
        assert bench.home.load(oid_from(0), MAX_TID).data == b"x"

    def test_a_closed_store_has_no_file_open(self, tmp_path):
        options = StoreOptions(format=Format.SEGMENTED, background=False)
        store = open_store(f"{tmp_path}/store", options, filesystem=PosixFilesystem(), packer=pack)
        for at in range(5):
            commit(store, {0: at, at * 65536: at})
            store.flush()
        assert contents(store, range(1)) == {0: 4}
        assert len(open_below(tmp_path)) > 1
        store.close()
        del store  # with it goes the map of the board
        gc.collect()
        assert open_below(tmp_path) == []

    @pytest.mark.parametrize("history", list(History))
    @pytest.mark.parametrize("limit", [1, 3])
    def test_closing_buckets_loses_nothing(self, monkeypatch, history, limit):
        """A bucket that is opened again knows what was flushed since the home was opened."""
        monkeypatch.setattr(buckets, "MAX_OPEN_SEGMENTS", limit)
        bench = segmented(history=history)
        for at in range(12):
            bench.past.write({1: b"%d" % at, (at % 4) * 65536 + 9: b"other", at * 65536: b"once"})
            bench.apply()
            bench.agree()
            bench.home.maintain(NO_TID)
            bench.agree()
        bench.remove([Removal(oid_from(9 + at * 65536), (), whole=True) for at in range(4)])
        bench.agree()
        assert bench.home._buckets.count <= limit + 1  # the details stay open

    def test_a_bucket_that_was_never_written_to_is_empty(self):
        bench = segmented()
        for at in range(1_000):
            assert bench.home.load(oid_from(at << 16), MAX_TID) is None
        assert bench.home._buckets.count <= buckets.MAX_OPEN_SEGMENTS
        bench.past.write({3 << 16: b"x"})
        bench.apply()
        bench.agree()


class Refusing(SimulatedFilesystem):
    """A filesystem that runs out of descriptors for mapping."""

    refuses = False

    def map(self, path):
        if self.refuses:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), path)
        return super().map(path)


class TestFailures:
    """Something fails in the middle, the process goes on, and tries again with more to flush."""

    def fail_in_the_middle(self, bench, index):
        """Fail at the operation of this index of a flush; whether it came to that."""
        filesystem = bench.filesystem
        filesystem.fail_at(filesystem.operations + index, OSError(errno.EIO, os.strerror(errno.EIO)))
        try:
            bench.apply()
        except OSError:
            return True
        finally:
            filesystem.make_room()
        return False

    @pytest.mark.parametrize("history", list(History))
    def test_a_flush_that_failed_leaves_nothing_that_counts_later(self, history):
        index = 0
        failed = True
        while failed:
            bench = segmented(SimulatedFilesystem(), history)
            some_past(bench, rounds=1)
            bench.past.write({1: b"new", 65536 * 3: b"far", 5: b"gone soon"})
            failed = self.fail_in_the_middle(bench, index)
            bench.past.write({1: b"newer"})
            bench.apply()
            bench.agree()
            bench.remove([Removal(oid_from(5), (), whole=True)])
            assert list(bench.home.findings()) == [], index
            bench.reopen()
            bench.agree()
            index += 1
        assert index > 12

    @pytest.mark.parametrize("history", list(History))
    def test_a_merge_or_removal_that_failed_can_be_done_again(self, history):
        index = 0
        failed = True
        while failed:
            bench = segmented(SimulatedFilesystem(), history)
            some_past(bench, rounds=4)
            filesystem = bench.filesystem
            filesystem.fail_at(filesystem.operations + index, OSError(errno.EIO, os.strerror(errno.EIO)))
            failed = False
            try:
                bench.home.maintain(NO_TID)
                bench.home.remove([Removal(oid_from(2), (), whole=True)])
            except OSError:
                failed = True
            filesystem.make_room()
            bench.home.maintain(NO_TID)
            bench.remove([Removal(oid_from(2), (), whole=True)])
            bench.agree()
            bench.past.write({1: b"on", 65536: b"and on"})
            bench.apply()
            bench.reopen()
            bench.agree()
            index += 1
        assert index > 8

    def test_no_descriptor_left_to_show_what_was_flushed(self):
        bench = segmented(Refusing())
        some_past(bench, rounds=1)
        bench.past.write({1: b"new"})
        bench.filesystem.refuses = True
        bench.apply()
        with pytest.raises(OSError, match="Too many open files"):
            bench.home.load(oid_from(1), MAX_TID)
        bench.filesystem.refuses = False
        bench.agree()

    def test_temporary_files_are_gone_when_the_disk_was_full(self):
        bench = segmented(SimulatedFilesystem())
        some_past(bench, rounds=1)
        before = bench.files()
        bench.past.write({1: bytes(2**21)})
        bench.filesystem.fill_at(bench.filesystem.operations + 1)
        with pytest.raises(OSError, match="No space"):
            bench.apply()
        assert bench.files() == before
        bench.filesystem.make_room()
        bench.apply()
        bench.agree()


class TestLeftovers:
    def test_segments_of_a_flush_that_was_not_completed_do_not_count(self):
        bench = segmented()
        some_past(bench, rounds=1)
        before = bench.files()
        first = bench.past.write({1: b"not flushed", 7: b"nor this"})
        bench.past.write({1: b"nor this"})
        bench.home.apply(bench.past.batch(bench.flushed))
        bench.reopen()
        assert bench.home.load(oid_from(7), MAX_TID) is bench.home.transaction(first) is None
        assert bench.home.current(oid_from(1)) == bench.flushed
        left = bench.files() - before
        assert {found.path for found in bench.home.findings()} == {f"{PLACE}/{name}" for name in left}
        assert {found.kind for found in bench.home.findings()} == {"leftover"}
        bench.apply(first)
        assert not left & bench.files()
        bench.apply()
        bench.agree()
        assert list(bench.home.findings()) == []

    def test_what_was_given_up_with_the_journal_does_not_come_back(self):
        """An operator moves transactions out of the journal that a flush had begun with; others follow."""
        bench = segmented()
        bench.past.write({1: b"kept"})
        bench.past.write({2: b"given up", 65536: b"given up"})
        bench.home.apply(bench.past.batch())
        given_up = bench.past.all.pop()[0]
        for revision in (oid_from(2), oid_from(65536)):
            del bench.past.revisions[revision]
        del bench.past.details[given_up.tid]
        bench.reopen(NO_TID)
        bench.apply()
        bench.reopen()
        assert bench.home.load(oid_from(65536), MAX_TID) is None
        bench.agree()

    def test_what_a_crash_left_of_a_merge_does_not_count(self):
        bench = segmented()
        for at in range(4):
            bench.past.write({1: b"%d" % at})
            bench.apply()
        before = {name: bench.filesystem.read(f"{PLACE}/{name}") for name in bench.files()}
        bench.home.maintain(NO_TID)
        after = bench.files()
        assert len(after) == 2
        for name, content in before.items():
            put(bench.filesystem, f"{PLACE}/{name}", content)
        put(bench.filesystem, f"{PLACE}/{segments_of(bench)[0]}.tmp", b"half")
        bench.reopen()
        bench.agree()
        assert {found.kind for found in bench.home.findings()} == {"leftover"}
        # What was replaced would come back if its replacement went first.
        bench.remove([Removal(oid_from(1), (), whole=True)])
        bench.home.remove_transactions(bench.past.tids)
        bench.past.forget_transactions(bench.past.tids)
        assert bench.files() == set()
        bench.agree()


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_two_processes_one_after_the_other_at_random(data):
    """Each opens the home at what the mark says, which may be behind what the one before had applied."""
    filesystem = MemoryFilesystem()
    bench = segmented(filesystem, data.draw(st.sampled_from(list(History))))
    for _ in range(data.draw(st.integers(1, 5))):
        for _ in range(data.draw(st.integers(1, 3))):
            bench.past.write(dict.fromkeys(data.draw(st.sets(st.sampled_from([0, 1, 65536, 2**30]))), b"x"))
        upto = data.draw(st.sampled_from(bench.past.tids))
        batch = bench.past.batch(bench.flushed, upto)
        bench.home.apply(batch)
        if batch and data.draw(st.booleans()):
            bench.flushed = batch[-1][0].tid
            bench.home.maintain(NO_TID)
        bench.reopen()
    if bench.flushed != bench.past.last:
        bench.apply()
    agree(home_on(filesystem, bench.history, Format.SEGMENTED, bench.flushed), bench.past)
    assert not any(name.endswith(".tmp") for name in paths_below(filesystem))


def test_a_home_whose_settings_are_lost_is_data():
    """FileStorage creates an empty file where there is none: nothing is created over what is there."""
    filesystem = MemoryFilesystem()
    store = open_on(filesystem, format=Format.SEGMENTED)
    commit(store, {0: "x" * 100_000})
    store.close()
    assert filesystem.entries(store.directory.journal) == []
    filesystem.unlink(store.directory.settings)
    with pytest.raises(NotAStoreError, match="settings"):
        open_on(filesystem, format=Format.SEGMENTED)
