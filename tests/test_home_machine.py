"""A home against the past that it was told, at random: flushes, interrupted ones, merges, removals, processes."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from pasts import COMBINATIONS, Bench

from objstore.contracts import History, Removal
from objstore.ids import NO_TID, number, oid_from
from objstore.machine.memory import MemoryFilesystem


class HomeMachine(RuleBasedStateMachine):
    """One home, of a format and history mode chosen at random."""

    numbers = st.sampled_from([0, 1, 2, 3, 255, 256, 65535, 65536, 2**40, 2**64 - 1])
    values = st.sampled_from([b"a", b"bb", b"undo", None, b"large"])
    writes = st.lists(st.dictionaries(numbers, values, max_size=4), min_size=1, max_size=4)

    @initialize(pair=st.sampled_from(COMBINATIONS))
    def begin(self, pair):
        self.bench = Bench(MemoryFilesystem(), *pair)
        self.horizon = NO_TID

    def write(self, writes):
        for write in writes:
            # What was removed as a whole was out of reach, and is not written again.
            known = {at for at in write if oid_from(at) in self.bench.past.revisions or at not in self.written()}
            values = {at: data * 14_000 if data == b"large" else data for at, data in write.items() if at in known}
            self.bench.past.write(values)

    def written(self):
        return {number(revision.oid) for _, revisions in self.bench.past.all for revision in revisions}

    @rule(writes=writes)
    def flush(self, writes):
        self.write(writes)
        self.bench.apply()

    @rule(writes=writes)
    def flush_twice(self, writes):
        self.write(writes)
        batch = self.bench.past.batch(self.bench.flushed)
        self.bench.home.apply(batch)
        self.bench.apply()

    @rule(writes=writes, more=writes, sizes=st.lists(st.integers(1, 4), min_size=1))
    def flush_that_is_interrupted_and_repeated(self, writes, more, sizes):
        bench = self.bench
        self.write(writes)
        bench.home.apply(bench.past.batch(bench.flushed))
        bench.reopen()
        self.write(more)
        sizes = iter(sizes)
        while left := bench.past.batch(bench.flushed):
            batch = left[: next(sizes, 3)]
            bench.home.apply(batch)
            bench.flushed = batch[-1][0].tid
            bench.home.maintain(self.horizon)

    @rule(at=st.integers(0, 50))
    def maintain(self, at):
        tids = [tid for tid in self.bench.past.tids if tid <= self.bench.flushed]
        self.horizon = max(self.horizon, tids[at % len(tids)] if tids else NO_TID)
        self.bench.home.maintain(self.horizon)

    @precondition(lambda self: self.bench.past.revisions)
    @rule(data=st.data())
    def remove(self, data):
        past = self.bench.past
        removals = []
        for oid in data.draw(st.sets(st.sampled_from(sorted(past.revisions)), max_size=4)):
            tids = [found.tid for found in past.revisions[oid]]
            whole = self.bench.history is History.MINIMAL or data.draw(st.booleans())
            count = len(tids) if whole else data.draw(st.integers(0, len(tids) - 1))
            removals.append(Removal(oid, tuple(tids[:count]), whole))
        self.bench.remove(removals)

    @precondition(lambda self: self.bench.past.details)
    @rule(data=st.data())
    def remove_transactions(self, data):
        gone = data.draw(st.sets(st.sampled_from(sorted(self.bench.past.details)), max_size=3))
        self.bench.home.remove_transactions(sorted(gone))
        self.bench.past.forget_transactions(gone)

    @rule()
    def reopen(self):
        self.bench.reopen()

    @invariant()
    def agrees(self):
        self.bench.agree(self.horizon)


TestHomeMachine = HomeMachine.TestCase
TestHomeMachine.settings = settings(max_examples=100, stateful_step_count=15, deadline=None)
