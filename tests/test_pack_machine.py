"""A store that is packed again and again, against a plain model: commits between all steps of a pack,
moving references, snapshots, undo, interruptions, reopening. Nothing reachable disappears."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from random import Random

import pytest
from crashing import Clock
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from packing import Progress, home_oids, packing_store, reachable
from stores import COMBINATIONS, record, refuse

from objstore.contracts import Format, History
from objstore.errors import DanglingReferenceError, HistoryMissingError, UndoError
from objstore.ids import MAX_TID, NO_TID, number, oid_from
from objstore.machine.memory import MemoryFilesystem
from objstore.revisions import Details

OBJECTS = 14
seeds = st.integers(0, 2**32)


class InterruptionError(Exception):
    """Ends a pack anywhere."""


@dataclass(frozen=True)
class State:
    """All objects at one tid: values and references by number."""

    tid: bytes
    values: dict
    links: dict

    def reached(self, known=()):
        """The numbers of the objects that the root leads to, and these do, as far as they are there."""
        found, pending = set(), [0, *known]
        while pending:
            at = pending.pop()
            if at not in found and at in self.values:
                found.add(at)
                pending += self.links[at]
        return found

    def shown(self):
        """What a view of this state reads."""
        return {at: self.values[at] for at in self.reached()}

    def reduced(self, known):
        """The same without what neither the root nor one of these leads to: all that can be found from them."""
        there = self.reached(known)
        return State(self.tid, {at: self.values[at] for at in there}, {at: self.links[at] for at in there})


class PackedStore(RuleBasedStateMachine):
    """The store and the model, and an application that knows every object it ever saw."""

    @initialize(combination=st.sampled_from(COMBINATIONS), seed=seeds)
    def begin(self, combination, seed):
        self.combination = combination
        self.filesystem = MemoryFilesystem()
        self.clock = Clock()
        self.count = 0
        self.states = [State(NO_TID, {}, {})]
        self.serials = {}
        self.views = []
        self.refused = []
        self.packing = False
        self.open()
        random = Random(seed)
        self.write({at: self.some(random, range(OBJECTS)) for at in range(OBJECTS)})

    def open(self):
        self.store = packing_store(self.filesystem, *self.combination, clock=self.clock)

    @property
    def now(self):
        return self.states[-1]

    @property
    def is_full(self):
        return self.combination[0] is History.FULL

    # --- what an application does ---

    def write(self, links, deleted=()):
        """Commit objects with these references, unless they mention what is doomed."""
        values = {at: f"{at} at {self.count}" for at in links}
        self.count += 1
        view = self.store.view()
        pending = self.store.begin(Details("machine"), view, refuse)
        try:
            for at, to in links.items():
                pending.store(
                    oid_from(at), self.serials.get(at, NO_TID), *record(values[at], tuple(map(oid_from, to)))
                )
            for at in deleted:
                pending.store(oid_from(at), self.serials[at], None, None)
            pending.vote()
        except DanglingReferenceError as error:
            if number(error.oid) in self.now.reached():
                self.refused.append(error)
            return
        finally:
            view.close()
        tid = pending.finish()
        self.serials.update(dict.fromkeys([*links, *deleted], tid))
        kept = {at: value for at, value in self.now.values.items() if at not in deleted}
        kept_links = {at: to for at, to in self.now.links.items() if at not in deleted}
        self.states.append(State(tid, kept | values, kept_links | links))

    def act(self, random):
        """One thing that an application does, while a pack runs or not."""
        known = sorted(self.now.values)
        action = random.choice(
            ["link", "link", "link", "move", "move", "create", "flush", "undo", "view", "delete"]
        )
        if action == "link":
            self.write({at: self.some(random, known) for at in random.sample(known, min(len(known), 2))})
        elif action == "move":
            self.move(random, known)
        elif action == "create":
            new = OBJECTS + self.count
            self.write({new: self.some(random, known), 0: (*self.now.links[0][:2], new)})
        elif action == "flush":
            self.store.flush()
        elif action == "undo":
            self.undo_last()
        elif action == "view" and len(self.views) < 3:
            self.views.append((self.store.view(), self.now.shown()))
        elif action == "delete":
            self.delete(random, known)

    def some(self, random, known):
        """A few objects to refer to, also such as nothing leads to any more."""
        return tuple(random.sample(known, random.randint(0, min(3, len(known)))))

    def move(self, random, known):
        """Move all references of one object to another, in one transaction."""
        source, target = random.choice(known), random.choice(known)
        links = self.now.links
        if source != target:
            self.write({source: (), target: tuple(dict.fromkeys(links[target] + links[source]))})

    def delete(self, random, known):
        """Delete an object that nothing refers to."""
        mentioned = {to for links in self.now.links.values() for to in links}
        candidates = [at for at in known if at and at not in mentioned]
        if candidates:
            self.write({}, deleted=(random.choice(candidates),))

    def undo_last(self):
        """Undo the last transaction. What is later than the time packed to can be undone."""
        if not self.is_full or len(self.states) < 3:
            return
        view = self.store.view()
        pending = self.store.begin(Details("machine"), view, refuse)
        try:
            written = pending.undo(self.now.tid)
            pending.vote()
        except (UndoError, HistoryMissingError, DanglingReferenceError):
            pending.abort()
            assert self.packing or self.now.tid <= self.store.packed_upto()
            return
        finally:
            view.close()
        tid = pending.finish()
        self.serials.update({number(oid): tid for oid in written})
        self.states.append(State(tid, self.states[-2].values, self.states[-2].links))

    # --- rules ---

    @rule(seed=seeds)
    def work(self, seed):
        random = Random(seed)
        for _ in range(random.randint(1, 8)):
            self.act(random)

    @rule(seed=seeds, busy=st.sampled_from([0, 0.1, 0.6]), stop=st.integers(0, 80))
    def pack(self, seed, busy, stop):
        random = Random(seed)
        steps = iter(range(stop)) if stop < 40 else None
        left = Counter(dict.fromkeys(("reading", "marking", "removing"), 8))

        def meanwhile(phase):
            if steps is not None and next(steps, None) is None:
                raise InterruptionError
            if left[phase] and random.random() < busy:
                left[phase] -= 1
                self.act(random)

        upto = random.choice([MAX_TID, MAX_TID, random.choice(self.states).tid])
        self.packing = True
        try:
            report = self.store.pack(upto, progress=Progress(meanwhile), dry_run=random.random() < 0.1)
            assert report.upto <= upto
        except InterruptionError:
            pass
        self.packing = False
        self.look_at_the_past(random)

    def look_at_the_past(self, random):
        if self.is_full:
            for state in random.sample(self.states[1:], min(5, len(self.states) - 1)):
                if state.tid >= self.store.packed_upto():
                    view = self.store.view(state.tid)
                    assert reachable(self.store, view) == state.shown()
                    view.close()

    @rule()
    def close_a_view(self):
        if self.views:
            self.views.pop(0)[0].close()

    @rule(flush=st.booleans(), chance=st.integers(0, 3))
    def reopen(self, flush, chance):
        """Another process has nothing in its caches: it knows what it can reach."""
        if chance:
            return
        while self.views:
            self.views.pop()[0].close()
        if flush:
            self.store.flush()
        self.store.close()
        self.open()
        known = self.now.reached()
        self.states = [state.reduced(known) for state in self.states]  # an undo brings back the one before

    # --- what must hold ---

    @invariant()
    def everything_reachable_is_there(self):
        if not hasattr(self, "store"):
            return
        assert self.refused == [], "a commit was refused that mentions what is there"
        view = self.store.view()
        assert reachable(self.store, view) == self.now.shown()
        view.close()
        for view, shown in self.views:
            assert reachable(self.store, view) == shown

    def teardown(self):
        if hasattr(self, "store"):
            for view, _ in self.views:
                view.close()
            self.store.close()


PackedStore.TestCase.settings = settings(max_examples=150, stateful_step_count=20, deadline=None)
TestPackedStore = PackedStore.TestCase


@pytest.mark.parametrize("format", Format)
def test_an_undo_after_reopening_does_not_tell_of_what_was_packed_away(format):
    """The application of the model once referred to an object that its process cannot have seen."""
    machine = PackedStore()
    machine.begin((History.FULL, format), seed=0)
    machine.write({0: (1, 2), 1: (3,), 2: (), 3: (), 4: ()})
    linked = machine.now.tid
    machine.write({0: (1, 4), 1: ()})
    machine.store.pack(linked)
    assert home_oids(machine.store) == [0, 1, 2, 3, 4]
    machine.reopen(flush=False, chance=0)
    machine.undo_last()
    assert machine.now.reached() == {0, 1, 2, 3}
    assert machine.now.values.keys() == {0, 1, 2, 3, 4}, "what it can find, and object 4, which it has seen"
    machine.everything_reachable_is_there()
    machine.write({2: (4,)})
    machine.everything_reachable_is_there()
    machine.teardown()
