"""Undo and copy round trips at random: an original and its copies live the same life, and stay the same.

ZODB#395, #409: restoring after several undos gave a wrong state.
"""

from __future__ import annotations

import pytest
from copying import NAMES, SMALL, kinds, opened_copy, revisions_of, sound, undo
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from stores import commit, open_on

from objstore.contracts import Format, History
from objstore.ids import oid_from
from objstore.machine.memory import MemoryFilesystem
from objstore.upkeep.copy import copy

names = st.sampled_from(NAMES)
formats = st.sampled_from(Format)
values = st.dictionaries(names, st.none() | st.integers(0, 3) | st.just(10**700), min_size=1, max_size=4)


class CopyMachine(RuleBasedStateMachine):
    """A Full store that was never copied, and one that is a copy of a copy of a copy, under the same commands."""

    def __init__(self):
        super().__init__()
        self.filesystem = MemoryFilesystem()
        self.copies = 0
        self.tids = []
        self.now = 1_700_000_000.0

    def clock(self):
        return self.now

    @initialize(format=formats)
    def begin(self, format):
        self.original = open_on(self.filesystem, History.FULL, format, self.clock)
        self.latest = open_on(MemoryFilesystem(), History.FULL, format, self.clock)
        self.write({0: 1, 1: 1, 2: 1}, set())

    def both(self, do):
        """Do something to both, at the same time, so that the tids are the same."""
        self.now += 0.001
        mine, its = do(self.original), do(self.latest)
        assert mine == its
        return mine

    def mentionable(self, at):
        return not any(store.doomed is not None and store.doomed(oid_from(at)) for store in self.stores)

    @property
    def stores(self):
        return (self.original, self.latest)

    @rule(wanted=values, links=st.sets(names))
    def write(self, wanted, links):
        wanted = {
            at: value for at, value in wanted.items() if self.mentionable(at) and not (at == 0 and value is None)
        }
        if wanted:
            to = tuple(sorted(filter(self.mentionable, links)))
            self.tids.append(self.both(lambda store: commit(store, wanted, dict.fromkeys(wanted, to))))

    @rule(data=st.data(), count=st.integers(1, 3))
    def undo(self, data, count):
        """Undos, of several at once, and of undos."""
        chosen = data.draw(st.lists(st.sampled_from(self.tids), min_size=1, max_size=count, unique=True))
        tid = self.both(lambda store: undo(store, chosen))
        if tid is not None:
            self.tids.append(tid)

    @rule(on_original=st.booleans())
    def flush(self, on_original):
        self.stores[not on_original].flush()

    @rule(data=st.data())
    def pack(self, data):
        tid = data.draw(st.sampled_from(self.tids))
        for store in self.stores:
            store.flush()
        self.both(lambda store: store.pack(tid).objects_removed)

    @rule(format=formats, verify=st.booleans(), background=st.booleans())
    def copy(self, format, verify, background):
        """From now on the copy lives on, in place of what it was copied from."""
        self.copies += 1
        dest = f"/copy{self.copies}"
        if background:
            self.latest.flush()
        copy(self.latest, dest, self.filesystem, format=format, verify=verify, limits=SMALL)
        made = opened_copy(self.filesystem, dest, self.clock)
        made.doom(self.latest.doomed)
        sound(self.latest, made)
        self.latest.close()
        self.latest = made

    @rule(format=formats)
    def reduce(self, format):
        """What a Minimal copy has is the current state, and what a Full one of that has is so too."""
        self.copies += 1
        small, full = f"/small{self.copies}", f"/full{self.copies}"
        copy(
            self.latest, small, self.filesystem, history=History.MINIMAL, format=format, limits=SMALL, verify=True
        )
        reduced = opened_copy(self.filesystem, small)
        copy(reduced, full, self.filesystem, history=History.FULL, limits=SMALL, verify=True)
        again = opened_copy(self.filesystem, full)
        newest = {oid: revisions[:1] for oid, revisions in revisions_of(self.original).items()}
        assert revisions_of(reduced) == revisions_of(again) == newest
        reduced.close()
        again.close()

    @rule()
    def compare(self):
        assert revisions_of(self.latest) == revisions_of(self.original)
        assert list(self.latest.transactions()) == list(self.original.transactions())
        assert self.latest.packed_upto() == self.original.packed_upto()
        assert self.latest.last_tid() == self.original.last_tid()

    @precondition(lambda self: self.copies)
    @rule()
    def check(self):
        assert kinds(self.latest) - {"leftover"} == kinds(self.original) - {"leftover"}

    def teardown(self):
        if self.tids:
            self.compare()
            self.original.close()
            self.latest.close()


TestUndosAndCopies = CopyMachine.TestCase
TestUndosAndCopies.settings = settings(max_examples=40, stateful_step_count=25)


@pytest.mark.long
class TestManyUndosAndCopies(CopyMachine.TestCase):
    settings = settings(max_examples=1000, stateful_step_count=40)
