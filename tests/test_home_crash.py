"""Homes whose power is cut, after every single operation: what was flushed is there, and what was cut short
can be done again. `test_crash` does the same to whole stores."""

from __future__ import annotations

import contextlib
from random import Random

import pytest
from pasts import COMBINATIONS, Bench, agree, agree_in_contents, home_on, paths_below
from simulated import Crash, SimulatedFilesystem

from objstore.contracts import Format, History, Removal
from objstore.ids import MAX_TID, NO_TID, oid_from
from objstore.machine.memory import MemoryFilesystem

STATES = 5
"""So many outcomes of each crash are tried."""


@pytest.fixture(params=COMBINATIONS, ids="-".join)
def bench(request):
    filesystem = SimulatedFilesystem()
    bench = Bench(filesystem, *request.param)
    filesystem.sync_directory("/")
    for at in range(3):
        bench.past.write({1: b"%d" % at, 2: b"two %d" % at, 65536 + at: b"once"})
        bench.apply()
    return bench


@pytest.fixture
def crashed(bench, record_property):
    """Benches on what crashes since some operation may have left, and after how many operations these were."""

    def benches(since):
        rng = Random(1)
        count = 0
        for after in range(since, bench.filesystem.operations + 1):
            for state in bench.filesystem.crash_states(after, rng=rng, limit=STATES):
                left = MemoryFilesystem(tree=state.tree())
                count += 1
                yield after, left
        record_property("crash states tried", count)

    return benches


def opened(bench, filesystem, flushed):
    return home_on(filesystem, bench.history, bench.format, flushed)


def test_a_flush_that_is_cut_short_is_repeated(bench, crashed):
    before, since = bench.flushed, bench.filesystem.operations
    bench.past.write({1: b"new", 3: b"three", 2**40: b"far"})
    bench.past.write({2: None, 65536: b"again"})
    bench.apply()
    bench.past.write({1: b"newer"})
    done = bench.filesystem.operations
    for after, left in crashed(since):
        home = opened(bench, left, before)
        if bench.history is History.FULL:
            for oid, revisions in bench.past.revisions.items():
                for revision in revisions:
                    if revision.tid <= before:
                        assert home.load(oid, revision.tid) == revision
        if after == done:
            assert opened(bench, left, bench.flushed).load(oid_from(3), MAX_TID).data == b"three"
        home.apply(bench.past.batch(before))
        agree(home, bench.past)


def test_what_was_flushed_is_there_when_that_has_returned(bench, crashed):
    bench.past.write({1: b"new", 3: b"three", 2**40: b"far"})
    bench.apply()
    for _, left in crashed(bench.filesystem.operations):
        agree(opened(bench, left, bench.flushed), bench.past)


def test_what_a_killed_process_has_seen_is_made_durable_by_the_next(bench):
    """The process is killed, not the machine; the next one relies on what it sees, until the power is cut."""
    bench.past.write({1: b"new", 2**40: b"far"})
    operations = 0
    while True:
        filesystem = SimulatedFilesystem()
        process = Bench(filesystem, bench.history, bench.format)
        filesystem.sync_directory("/")
        filesystem.stop_before(filesystem.operations + operations)
        process.past = bench.past
        with contextlib.suppress(Crash):
            process.home.apply(bench.past.batch())
        killed = filesystem.stopped
        filesystem.restart()
        process.reopen(NO_TID)
        process.apply()
        for state in filesystem.crash_states(rng=Random(operations), limit=STATES):
            agree(opened(bench, MemoryFilesystem(tree=state.tree()), process.flushed), bench.past)
        if not killed:
            break
        operations += 1
    assert operations > 10


def test_a_merge_that_is_cut_short_loses_nothing(bench, crashed):
    for at in range(4):
        bench.past.write({1: b"more %d" % at, 2: b"more"})
        bench.apply()
    horizon, since = bench.past.tids[-2], bench.filesystem.operations
    bench.home.maintain(horizon)
    for _, left in crashed(since):
        home = opened(bench, left, bench.flushed)
        agree(home, bench.past, horizon)
        home.maintain(horizon)
        agree(home, bench.past, horizon)


def test_a_removal_that_is_cut_short_has_removed_less_and_is_repeated(bench, crashed):
    whole = [Removal(oid_from(at), (), whole=True) for at in (2, 65536)]
    some = bench.past.revisions[oid_from(1)][:2]
    partly = [Removal(oid_from(1), tuple(found.tid for found in some), whole=False)]
    removals = whole + (partly if bench.history is History.FULL else [])
    before = {oid: list(bench.home.summaries(oid)) for oid in bench.home.oids()}
    since = bench.filesystem.operations
    bench.remove(removals)
    done = bench.filesystem.operations
    doomed = {oid_from(2), oid_from(65536)}
    for after, left in crashed(since):
        home = opened(bench, left, bench.flushed)
        for oid, told in before.items():
            found = list(home.summaries(oid))
            assert [summary for summary in told if summary in found] == found
            assert found[:1] == told[:1] or oid in doomed
            assert home.current(oid) == (found[0].tid if found else None)
            for summary in found:
                assert home.load(oid, summary.tid).tid == summary.tid
        if after == done:
            agree(home, bench.past)
        home.remove(removals)
        agree(home, bench.past)


def test_the_pack_after_an_interrupted_one_leaves_no_file_behind(bench, crashed):
    """RelStorage#505, zodb-pgjsonb#108: it removes what it finds by looking objects up, as the first one did."""
    for at in range(4):
        bench.past.write({1: b"again %d" % at, 3: b"%d" % at})
        bench.apply()
    doomed = {oid: {found.tid for found in bench.past.revisions[oid][:-1]} for oid in (oid_from(1), oid_from(3))}
    since = bench.filesystem.operations

    def pack(home):
        removals = [Removal(oid, (), whole=True) for oid in home.oids() if oid == oid_from(2)]
        if bench.history is History.FULL:
            for oid, tids in doomed.items():
                found = tuple(summary.tid for summary in home.summaries(oid) if summary.tid in tids)
                removals += [Removal(oid, found, whole=False)] if found else []
        home.remove(removals)
        return removals

    bench.past.forget(pack(bench.home))
    for _, left in crashed(since):
        home = opened(bench, left, bench.flushed)
        pack(home)
        agree(home, bench.past)
        if bench.format is not Format.SEGMENTED:
            assert paths_below(left) == bench.files()


def test_what_was_removed_stays_removed(bench, crashed):
    """A file that replaced another goes in turn, while the removal of the other may not be durable yet."""
    bench.past.write({2**40: b"neighbours", 2**40 + 1: b"in one segment"})
    bench.apply()
    for at in (1, 2, 65536, 65537, 65538, 2**40, 2**40 + 1):
        since = bench.filesystem.operations
        bench.remove([Removal(oid_from(at), (), whole=True)])
        for after, left in crashed(since):
            home = opened(bench, left, bench.flushed)
            assert set(home.oids()) - {oid_from(at)} == bench.past.revisions.keys()
            if after == bench.filesystem.operations:
                agree_in_contents(home, bench.past)
