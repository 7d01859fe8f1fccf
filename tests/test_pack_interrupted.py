"""Packs that do not come to their end: what they leave is sound, and the next pack completes it."""

from __future__ import annotations

import errno
import re
import tracemalloc
from contextlib import nullcontext, suppress
from random import Random
from zlib import crc32

import pytest
from crashing import Clock
from packing import Progress, age, files_of, packing_store, reachable, tids_of
from simulated import Crash, SimulatedFilesystem
from stores import COMBINATIONS, commit, contents

from objstore.contracts import History
from objstore.errors import DanglingReferenceError, StorageError
from objstore.ids import MAX_TID, NO_TID, number, oid_from, tid_from
from objstore.machine.memory import MemoryFilesystem
from objstore.revisions import RevisionSummary
from objstore.upkeep.pack import PackLimits, pack
from objstore.upkeep.reachable import OidSet

every_store = pytest.mark.parametrize(("history", "format"), COMBINATIONS)
LIVE = {0: "root", 1: "kept 3", 2: "kept 3", 3: "below 2", 70_000: "far"}


def prepared(filesystem, history, format):
    """A store with garbage, a cycle, superseded revisions and transactions of which nothing stays."""
    store = packing_store(filesystem, history, format, clock=Clock())
    garbage = dict.fromkeys(range(10, 15), "garbage")
    links = {0: (1, 2, 70_000), 2: (3,), 10: (11,), 11: (12,), 12: (10, 3)}
    commit(store, {0: "root", 3: "below 2", 70_000: "far", 80_000: "far garbage", **garbage}, links)
    for at in range(4):
        commit(store, {1: f"kept {at}", 2: f"kept {at}", 10: "garbage"}, links)
    commit(store, {12: None})
    age(store)
    store.flush()
    store.close()
    return packing_store(filesystem, history, format, clock=Clock(), create=False)


def opened_again(filesystem, history, format):
    return packing_store(filesystem, history, format, create=False)


def names_of(store):
    """The files of the home, whichever generation they are: what nobody needs must not be among them."""
    return sorted(
        re.sub(r"\.[0-9]+\.seg$", ".seg", path) for path in files_of(store.filesystem, store.directory.home)
    )


def outcome(store):
    """What a store tells of its objects and transactions."""
    revisions = {number(oid): tids_of(store, number(oid)) for oid in store.home.oids()}
    return revisions, [transaction.tid for transaction in store.transactions()]


def packed(history, format):
    """What a pack comes to that nothing interrupts, and the names of its files."""
    store = prepared(MemoryFilesystem(), history, format)
    store.pack(MAX_TID)
    assert reachable(store, store.view()) == LIVE
    found = outcome(store), names_of(store)
    store.close()
    return found


class InterruptionError(Exception):
    """Something that nobody expects."""


@every_store
@pytest.mark.parametrize("error", [KeyboardInterrupt, InterruptionError])
def test_interrupted_at_every_step(history, format, error):
    expected, names = packed(history, format)
    steps = Progress()
    counted = prepared(MemoryFilesystem(), history, format)
    counted.pack(MAX_TID, progress=steps)
    counted.close()
    for step in range(len(steps.calls)):
        store = prepared(MemoryFilesystem(), history, format)
        calls = iter(range(step))

        def stop(_phase, calls=calls):
            if next(calls, None) is None:
                raise error

        with pytest.raises(error):
            store.pack(MAX_TID, progress=Progress(stop))
        view = store.view()
        assert reachable(store, view) == LIVE
        view.close()
        if not step % 2:
            store.close()
            store = opened_again(store.filesystem, history, format)
        store.pack(MAX_TID)
        assert outcome(store) == expected
        assert names_of(store) == names
        commit(store, {0: "goes on", 5: "new"}, {0: (5, 1)})
        assert contents(store, (0, 1, 5)) == {0: "goes on", 1: "kept 3", 5: "new"}
        store.close()


@every_store
def test_a_pack_that_was_interrupted_while_it_removed_keeps_what_it_doomed_out(history, format):
    store = prepared(MemoryFilesystem(), history, format)

    def stop(phase):
        if phase == "removing":
            raise InterruptionError

    with pytest.raises(InterruptionError):
        store.pack(MAX_TID, progress=Progress(stop))
    with pytest.raises(DanglingReferenceError):
        commit(store, {1: "refers to garbage"}, {1: (80_000,)})
    store.close()


@every_store
@pytest.mark.parametrize("step", range(4))
def test_a_pack_to_an_earlier_time_takes_back_nothing_that_was_doomed(history, format, step):
    """It keeps revisions that refer to what is gone: the pack before did not come to them, or left them to
    merges."""
    store = packing_store(MemoryFilesystem(), history, format)
    commit(store, {0: "root", 1: "kept", 2: "garbage", 80_000: "before"}, {0: (1, 80_000), 80_000: (2,)})
    store.flush()
    commit(store, {80_000: "after"})
    age(store)
    phases = []

    def stop(phase):
        phases.append(phase)
        if phases.count("removing") > step:
            raise InterruptionError

    with suppress(InterruptionError):
        store.pack(MAX_TID, progress=Progress(stop))
    store.pack(NO_TID)
    with pytest.raises(DanglingReferenceError):
        commit(store, {1: "refers to garbage"}, {1: (2,)})
    assert reachable(store, store.view()) == {0: "root", 1: "kept", 80_000: "after"}
    store.close()


@every_store
def test_one_that_was_interrupted_before_that_dooms_nothing(history, format):
    store = prepared(MemoryFilesystem(), history, format)

    def stop(phase):
        if phase == "marking":
            raise InterruptionError

    with pytest.raises(InterruptionError):
        store.pack(MAX_TID, progress=Progress(stop))
    commit(store, {1: "refers to what was garbage"}, {1: (80_000,)})
    assert reachable(store, store.view())[80_000] == "far garbage"
    store.close()


# --- killed ------------------------------------------------------------------------------------------


def span(history, format):
    """The operations of a pack, by their indices."""
    fs = SimulatedFilesystem()
    store = prepared(fs, history, format)
    begin = fs.operations
    store.pack(MAX_TID)
    return range(begin, fs.operations)


@every_store
def test_killed_at_every_operation(history, format):
    """RelStorage#505, ZODB#21: interrupted packs broke what stayed, leftovers blocked every write."""
    expected, names = packed(history, format)
    for index in span(history, format):
        fs = SimulatedFilesystem()
        store = prepared(fs, history, format)
        fs.stop_before(index)
        with pytest.raises(Crash):
            store.pack(MAX_TID)
        fs.restart()
        store = opened_again(fs, history, format)
        assert reachable(store, store.view()) == LIVE
        store.close()
        store = opened_again(fs, history, format)
        store.pack(MAX_TID)
        assert outcome(store) == expected
        assert names_of(store) == names
        store.close()


@every_store
def test_the_power_is_cut_at_every_operation(history, format, record_property):
    """RelStorage#505, zodb-pgjsonb#108: whatever reached the disk, running it again completes it."""
    expected, _ = packed(history, format)
    fs = SimulatedFilesystem()
    store = prepared(fs, history, format)
    begin = fs.operations
    store.pack(MAX_TID)
    tried = set()
    for after in range(begin, fs.operations + 1):
        for state in fs.crash_states(after, rng=Random(after), limit=12):
            if state.digest in tried:
                continue
            tried.add(state.digest)
            again = opened_again(SimulatedFilesystem(state), history, format)
            view = again.view()
            assert reachable(again, view) == LIVE, state.describe()
            view.close()
            again.pack(MAX_TID)
            assert outcome(again) == expected, state.describe()
            again.close()
    record_property("crash states tried", len(tried))


@every_store
def test_killed_again_and_again(history, format):
    """RelStorage#505: repeatedly interrupted packs, each coming a little further."""
    expected, names = packed(history, format)
    fs = SimulatedFilesystem()
    prepared(fs, history, format)
    for steps in range(200):
        fs.restart()
        store = opened_again(fs, history, format)
        assert reachable(store, store.view()) == LIVE
        store.close()
        store = opened_again(fs, history, format)
        fs.stop_before(fs.operations + 8 + steps % 5)
        try:
            store.pack(MAX_TID)
        except Crash:
            continue
        break
    assert outcome(store) == expected
    assert names_of(store) == names


# --- what cannot be removed --------------------------------------------------------------------------


class ForeignFiles:
    """A filesystem where some files belong to somebody else, so that they cannot be removed."""

    def __init__(self, filesystem, are_foreign):
        self._filesystem = filesystem
        self.are_foreign = are_foreign

    def __getattr__(self, name):
        return getattr(self._filesystem, name)

    def unlink(self, path):
        if self.are_foreign(path) and self._filesystem.exists(path):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        self._filesystem.unlink(path)


def paths_removed(history, format):
    """What a pack removes."""
    filesystem = MemoryFilesystem()
    store = prepared(filesystem, history, format)
    there = files_of(filesystem, store.directory.home)
    store.pack(MAX_TID)
    return there.keys() - files_of(filesystem, store.directory.home)


@every_store
@pytest.mark.parametrize("part", range(4))
def test_files_that_belong_to_others(history, format, part):
    """DirectoryStorage 1.1.14: marks in file modes failed under foreign uids, and live objects went.

    The pack says which file stands in its way; nothing live goes; once the owner is right it completes.
    """
    expected, names = packed(history, format)
    filesystem = ForeignFiles(MemoryFilesystem(), lambda _: False)
    store = prepared(filesystem, history, format)
    home = store.directory.home
    removed = paths_removed(history, format)
    filesystem.are_foreign = lambda path: path.startswith(home) and crc32(path.encode()) % 4 == part
    stands_in_the_way = any(map(filesystem.are_foreign, removed))
    with pytest.raises(StorageError, match=f"{home}.*Permission denied") if stands_in_the_way else nullcontext():
        store.pack(MAX_TID)
    filesystem.are_foreign = lambda _: False
    view = store.view()
    assert reachable(store, view) == LIVE
    view.close()
    store.close()
    store = opened_again(filesystem, history, format)
    store.pack(MAX_TID)
    assert outcome(store) == expected
    assert names_of(store) == names
    store.close()


# --- size --------------------------------------------------------------------------------------------


class Chain:
    """A home in no memory: each object refers to the next one, and to the middle of the chain nothing leads.

    It is its own `contracts.PackTarget`, of a store to which nobody commits meanwhile.
    """

    name = "a chain"
    history = History.FULL
    doomed = None
    old, new = tid_from(1), tid_from(2)

    def __init__(self, length):
        self.length = length
        self.removed = OidSet()
        self.batches = []
        self.recorded = NO_TID

    @property
    def home(self):
        return self

    def oids(self):
        return map(oid_from, range(self.length))

    def summaries(self, oid):
        """Two revisions of each object; the newer one refers to the next."""
        at = number(oid)
        if at not in self.removed:
            after = b"" if at + 1 in (self.length // 2, self.length) else oid_from(at + 1)
            yield RevisionSummary(oid, self.new, self.old, 100, False, after)
            yield RevisionSummary(oid, self.old, NO_TID, 100, False, b"")

    committed = summaries

    def transactions(self, upto):  # noqa: ARG002
        return iter(())

    def flush(self):
        pass

    def begin_pack(self, upto):
        return min(upto, self.new)

    def last_tids(self, count):  # noqa: ARG002
        return []

    def waiting(self):
        return iter(())

    def changed(self):
        return b""

    def blobs_there(self):
        return iter(())

    def writers_held(self):
        return nullcontext()

    def doom(self, is_doomed):
        self.doomed = is_doomed

    def record_pack(self, upto):
        self.recorded = upto

    def remove(self, removals):
        self.batches.append(len(removals))
        for removal in removals:
            if removal.whole:
                self.removed.add(number(removal.oid))
            else:
                assert removal.tids == (self.old,)
        return 0


@pytest.mark.parametrize("length", [60_000, pytest.param(1_000_000, marks=pytest.mark.long)])
def test_a_long_chain_is_packed(length):
    """DirectoryStorage 1.1a1: a pack met the limit of recursion."""
    chain = Chain(length)
    half = length // 2
    report = pack(chain, MAX_TID)
    assert (report.objects_removed, report.objects_kept, report.revisions_removed) == (half, half, length + half)
    assert list(chain.removed) == list(range(half, length))
    assert chain.recorded == chain.new
    assert chain.doomed(oid_from(half))
    assert not chain.doomed(oid_from(half - 1))


def test_its_memory_is_bounded():
    """RelStorage#8 and #275, ZEO#97: packing took gigabytes, and hours."""
    peaks = []
    for length in (10_000, 50_000):
        tracemalloc.start()
        try:
            pack(Chain(length), MAX_TID, limits=PackLimits(batch=1_000))
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert peaks[1] < 2**19
    assert peaks[1] - peaks[0] < 100_000


@pytest.mark.parametrize("batch", [1_000, 100_000])
def test_batches_are_bounded_and_follow_the_buckets(batch):
    """A segmented home rewrites a bucket's segments once for each batch."""
    chain = Chain(150_000)
    pack(chain, MAX_TID, limits=PackLimits(batch=batch))
    assert sum(chain.batches) == 150_000
    assert max(chain.batches) <= batch
    if batch > 65_536:
        assert len(chain.batches) <= 2 * (150_000 // 65_536 + 1)
