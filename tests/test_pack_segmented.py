"""Packing bucket by bucket: what is written anew, what is left alone, what it needs, and how fast it goes."""

from __future__ import annotations

from itertools import pairwise

import pytest
from packing import Progress, age, files_of, packing_store, reachable
from simulated import Crash, SimulatedFilesystem
from stores import commit, contents

import objstore
from objstore.contracts import Format, History
from objstore.errors import StorageFullError, UsageError
from objstore.ids import MAX_TID, NO_TID
from objstore.machine.memory import MemoryFilesystem
from objstore.upkeep.pacing import Pace
from objstore.upkeep.pack import PackLimits

FAR = 65_536


class Tight(MemoryFilesystem):
    """A disk with little room."""

    room = 2**40

    def free_bytes(self, path):  # noqa: ARG002 - the same everywhere
        return self.room


def store_on(filesystem, history=History.FULL, limits=None, **options):
    chosen = {} if limits is None else {"limits": limits}
    return packing_store(filesystem, history, Format.SEGMENTED, **chosen, **options)


def segments_in(store, directory):
    """The segments of a bucket's directory, and what they hold."""
    return files_of(store.filesystem, f"{store.directory.home}/{directory}")


@pytest.mark.parametrize("history", list(History))
def test_only_segments_of_which_something_goes_are_written_anew(history):
    store = store_on(MemoryFilesystem(), history)
    links = {0: (1, FAR, 2 * FAR)}
    commit(store, {0: "root", 1: "kept", FAR: "kept", 2 * FAR: "kept", 3 * FAR: "all garbage"}, links)
    store.flush()
    commit(store, {FAR + 1: "garbage", 3 * FAR + 1: "all garbage"})
    age(store)
    store.flush()
    before = {name: segments_in(store, f"0000000000/0{name}") for name in range(4)}
    assert [len(found) for found in before.values()] == [2, 2, 1, 2]
    store.pack(MAX_TID)
    after = {name: segments_in(store, f"0000000000/0{name}") for name in range(4)}
    assert after[2] == before[2]
    assert set(after[1]) == set(sorted(before[1])[:1])
    assert after[3] == {}
    assert contents(store, [0, 1, FAR, FAR + 1, 2 * FAR, 3 * FAR]) == {
        0: "root",
        1: "kept",
        FAR: "kept",
        2 * FAR: "kept",
    }
    store.close()


@pytest.mark.parametrize("outlines", [0, 140_000, 200_000])
def test_references_that_are_not_kept_in_memory_are_read_again(outlines):
    limits = PackLimits(step=2, moment=2, patience=2, outlines=outlines)
    store = store_on(MemoryFilesystem(), limits=limits)
    chain = [0, FAR, 1, FAR + 1, 2 * FAR, 2, FAR + 2, 2 * FAR + 1]
    wide = range(3 * FAR, 3 * FAR + 300)
    links = {at: (to,) for at, to in pairwise(chain)} | {chain[-1]: tuple(wide)}
    links |= {at: (at + 1_000,) for at in wide}
    leaves = range(3 * FAR + 1_000, 3 * FAR + 1_300)
    values = dict.fromkeys([*chain, *wide, *leaves], "kept")
    commit(store, values | dict.fromkeys(range(10, 20), "garbage"), links)
    age(store)
    assert store.pack(MAX_TID).objects_removed == 10
    assert reachable(store, store.view()) == values
    store.close()


class TestRoom:
    def filled(self):
        store = store_on(Tight())
        commit(store, {0: "root", **dict.fromkeys(range(1, 30), "x" * 1_000)}, {0: tuple(range(1, 15))})
        age(store)
        store.flush()
        return store

    def test_it_is_refused_before_anything_is_removed(self):
        store = self.filled()
        there = files_of(store.filesystem, store.directory.path)
        store.filesystem.room = 10_000
        with pytest.raises(StorageFullError, match="nothing was changed"):
            store.pack(MAX_TID)
        assert files_of(store.filesystem, store.directory.path) == there
        assert store.packed_upto() == NO_TID
        commit(store, {0: "nothing is doomed"}, {0: (29,)})
        store.close()

    def test_a_dry_run_takes_none(self):
        store = self.filled()
        store.filesystem.room = 0
        assert store.pack(MAX_TID, dry_run=True).objects_removed == 15
        store.close()

    def test_what_is_removed_whole_takes_none(self):
        store = store_on(Tight())
        commit(store, {0: "root"})
        commit(store, {FAR: "garbage" * 1_000})
        age(store)
        store.flush()
        store.filesystem.room = 2_000
        assert store.pack(MAX_TID).objects_removed == 1
        store.close()

    def test_as_much_as_the_largest_segment_takes_is_enough(self):
        store = self.filled()
        store.filesystem.room = 20_000
        assert store.pack(MAX_TID).objects_removed == 15
        store.close()


def leftovers(store):
    return [found for found in store.home.findings() if found.kind == "leftover"]


@pytest.mark.parametrize("history", list(History))
def test_what_a_killed_pack_leaves_goes_with_the_next_though_nothing_changes_there(history):
    """ZODB#21: leftovers of any interrupted run are swept."""
    index, left = 0, 0
    killed = True
    while killed:
        filesystem = SimulatedFilesystem()
        store = store_on(filesystem, history)
        commit(store, {0: "root", 1: "garbage", FAR: "kept", FAR + 1: "garbage"}, {0: (FAR,)})
        commit(store, {1: "all of this transaction is garbage"})
        age(store)
        store.flush()
        filesystem.stop_before(filesystem.operations + index)
        killed = False
        try:
            store.pack(MAX_TID)
        except Crash:
            killed = True
        filesystem.restart()
        store = store_on(filesystem, history, create=False)
        left += len(leftovers(store))
        store.pack(MAX_TID)
        assert leftovers(store) == [], index
        assert reachable(store, store.view()) == {0: "root", FAR: "kept"}
        store.close()
        index += 1
    assert left > 3


class TestPace:
    def test_it_rests_for_the_other_share_of_the_time(self):
        now = [0.0]
        rests = []

        def rest(seconds):
            rests.append(seconds)
            now[0] += seconds

        told = Progress()
        pace = Pace(0.25, told, rest=rest, clock=lambda: now[0])
        for work in (1.0, 0.0, 2.0):
            now[0] += work
            pace("working", 1, None)
        assert rests == [3.0, 0.0, 6.0]
        assert told.calls == [("working", 1, None)] * 3

    def test_at_full_speed_it_never_rests(self):
        pace = Pace(1.0, rest=lambda _seconds: pytest.fail("it rests"))
        pace("working", 1, None)

    @pytest.mark.parametrize("share", [0, -1, 1.1, float("nan")])
    def test_a_share_is_more_than_nothing_and_at_most_all(self, share):
        with pytest.raises(UsageError, match="throttle"):
            Pace(share)

    def test_a_pack_rests_between_all_its_steps(self):
        store = store_on(MemoryFilesystem())
        commit(store, {at: at for at in range(8)}, {0: (1, 2), 2: (3,)})
        age(store)
        rests = []
        store.pack(MAX_TID, progress=Pace(0.5, rest=rests.append))
        assert len(rests) > 5
        assert contents(store, range(8)) == {0: 0, 1: 1, 2: 2, 3: 3}
        store.close()

    def test_a_database_hands_it_on(self):
        with objstore.memory() as db:
            for share in (0.0, 2.0):
                with pytest.raises(UsageError, match="throttle"):
                    db.pack(throttle=share)
            assert db.pack(throttle=0.9).objects_kept == 1
