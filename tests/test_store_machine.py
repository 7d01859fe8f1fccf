"""The store against a small model, at random: commits, conflicts, undo, snapshots, the past, flushes, packs,
reopening, and processes that end without closing."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from stores import COMBINATIONS, commit, open_on, record, refuse, serial_of, value_of

from objstore.contracts import History
from objstore.errors import (
    ConflictError,
    DanglingReferenceError,
    HistoryMissingError,
    POSKeyError,
    ReadConflictError,
    UndoError,
)
from objstore.ids import MAX_TID, NO_TID, number, oid_from, split_oids, tid_from
from objstore.machine.memory import MemoryFilesystem
from objstore.revisions import Details

NAMES = (0, 1, 2, 3, 4, 65535, 65536, 2**40)
GENERATION = 2**20
names = st.sampled_from(NAMES)
links = st.sets(names, min_size=1, max_size=4)
writes = st.dictionaries(names, links | links | st.none(), min_size=1, max_size=4)
"""Which objects a transaction writes, and what they refer to; None deletes one.

A name is the oid of the first object that has it. What a pack may have removed is never named again: the name
then means another object.
"""


@dataclass(frozen=True)
class Thing:
    """An object's state: a value that no other has, unless undo copied it, and what it refers to."""

    value: int
    links: tuple[int, ...]


@dataclass(frozen=True)
class Moment:
    """What one transaction wrote, and all there is since."""

    tid: bytes
    wrote: dict
    things: dict

    def reached(self):
        """The numbers that lead on from the root, whether there is an object or not."""
        found, pending = set(), [0]
        while pending:
            at = pending.pop()
            if at not in found:
                found.add(at)
                pending += self.things[at].links if at in self.things else ()
        return found


class Reader:
    """A view, the moment that it must show, and the transactions that were committed on its ground."""

    def __init__(self, view, moment):
        self.view = view
        self.moment = moment
        self.own = set()


class StoreMachine(RuleBasedStateMachine):
    """One store, of a format and history mode chosen at random."""

    def __init__(self):
        super().__init__()
        self.filesystem = MemoryFilesystem()
        self.moments = [Moment(NO_TID, {}, {})]
        self.readers = []
        self.count = 0
        self.now = 1_700_000_000.0
        self.numbers = {name: name for name in NAMES}  # which object each name means
        self.known = set(NAMES)
        self.gone = set()  # what a pack may have removed
        self.packed = NO_TID

    @initialize(pair=st.sampled_from(COMBINATIONS), batch=st.integers(1, 4))
    def begin(self, pair, batch):
        self.pair = pair
        self.is_full = pair[0] is History.FULL
        self.open(batch)
        self.write({0: NAMES[1:4], 1: (4,), 2: (65535, 65536), 3: (2,)}, 0.0)

    def open(self, batch):
        self.store = open_on(self.filesystem, *self.pair, clock=self.clock, flush_transactions=batch)

    def clock(self):
        return self.now

    @property
    def last(self):
        return self.moments[-1]

    def since(self, moment):
        """The moments after one."""
        return [found for found in self.moments if found.tid > moment.tid]

    # --- writing ---

    def things_for(self, wanted):
        """What a transaction writes, by number: new things, and deletions of what there is."""
        chosen = {}
        for name, to in wanted.items():
            at = self.numbers[name]
            if to is not None:
                self.count += 1
                chosen[at] = Thing(self.count, tuple(sorted(self.numbers[name] for name in to)))
            elif at in self.last.things and at != 0:
                chosen[at] = None
        return chosen

    def committed(self, tid, wrote):
        things = {at: thing for at, thing in (self.last.things | wrote).items() if thing is not None}
        assert tid > self.last.tid
        self.moments.append(Moment(tid, wrote, things))

    def commit(self, wrote, view=None):
        values = {at: thing and thing.value for at, thing in wrote.items()}
        references = {at: thing.links for at, thing in wrote.items() if thing is not None}
        return commit(self.store, values, references, view=view)

    @rule(wanted=writes, step=st.sampled_from([0.0, 0.001, 5.0, -3600.0]))
    def write(self, wanted, step):
        self.now += step
        wrote = self.things_for(wanted)
        if wrote:
            self.committed(self.commit(wrote), wrote)

    @rule(several=st.lists(writes, min_size=2, max_size=6))
    def write_several(self, several):
        for wanted in several:
            self.write(wanted, 0.5)

    @precondition(lambda self: self.readers)
    @rule(data=st.data(), wanted=writes, overtaken=st.booleans())
    def write_on_the_ground_of_a_snapshot(self, data, wanted, overtaken):
        reader = data.draw(st.sampled_from(self.readers))
        if overtaken:
            self.write({data.draw(st.sampled_from(sorted(wanted))): ()}, 0.1)
        chosen = self.things_for(wanted).items()
        wrote = {at: thing for at, thing in chosen if thing or at in reader.moment.things}
        if not wrote:
            return
        if any(moment.wrote.keys() & wrote.keys() for moment in self.since(reader.moment)):
            with pytest.raises(ConflictError) as caught:
                self.commit(wrote, reader.view)
            assert number(caught.value.oid) in wrote
        else:
            tid = self.commit(wrote, reader.view)
            self.committed(tid, wrote)
            reader.own.add(tid)

    @precondition(lambda self: self.readers)
    @rule(data=st.data(), writer=names, relied=st.sets(names, min_size=1, max_size=2))
    def write_relying_on_what_was_read(self, data, writer, relied):
        reader = data.draw(st.sampled_from(self.readers))
        wrote = self.things_for({writer: ()})
        at, relied = self.numbers[writer], {self.numbers[name] for name in relied}
        changed = set().union(*(moment.wrote for moment in self.since(reader.moment)))
        if at in changed | relied:
            return
        pending = self.store.begin(Details(), reader.view, refuse)
        for n in relied:
            pending.check_current(oid_from(n), serial_of(self.store, reader.view, oid_from(n)))
        pending.store(oid_from(at), serial_of(self.store, reader.view, oid_from(at)), *record(wrote[at].value))
        if relied & changed:
            with pytest.raises(ReadConflictError) as caught:
                pending.vote()
            assert number(caught.value.oid) in relied
        else:
            assert pending.vote() == frozenset()
            tid = pending.finish()
            self.committed(tid, wrote)
            reader.own.add(tid)

    @rule(wanted=writes, voted=st.booleans())
    def abort(self, wanted, voted):
        view = self.store.view()
        pending = self.store.begin(Details(), view, refuse)
        for at, thing in self.things_for(wanted).items():
            oid = oid_from(at)
            data = record(thing.value) if thing else (None, None)
            pending.store(oid, serial_of(self.store, view, oid), *data)
        if voted:
            pending.vote()
        pending.abort()
        view.close()

    @precondition(lambda self: self.is_full and len(self.moments) > 1)
    @rule(data=st.data())
    def undo(self, data):
        at = data.draw(st.integers(1, len(self.moments) - 1))
        moment, before = self.moments[at], self.moments[at - 1]
        wrote = {n: before.things.get(n) for n in moment.wrote}
        later = {n for found in self.since(moment) for n in found.wrote}
        changed = any(n in later and self.last.things.get(n) != thing for n, thing in moment.wrote.items())
        # Of what a pack may have removed, undo may find no record, or must not bring it back.
        mentioned = wrote.keys() | {to for thing in wrote.values() if thing for to in thing.links}
        view = self.store.view()
        pending = self.store.begin(Details("undoer", "undo"), view, refuse)
        try:
            assert pending.undo(moment.tid) == set(map(oid_from, wrote))
            pending.vote()
            tid = pending.finish()
        except HistoryMissingError:
            assert moment.tid <= self.packed
        except (UndoError, DanglingReferenceError):
            assert changed or mentioned & self.gone
        else:
            assert moment.tid > self.packed
            assert not changed
            self.committed(tid, wrote)
        finally:
            pending.abort()
            view.close()

    # --- reading ---

    @rule()
    def open_a_view(self):
        if len(self.readers) < 3:
            self.readers.append(Reader(self.store.view(), self.last))

    @precondition(lambda self: self.readers)
    @rule(data=st.data())
    def advance(self, data):
        reader = data.draw(st.sampled_from(self.readers))
        changed = reader.view.advance()
        others = [moment.wrote for moment in self.since(reader.moment) if moment.tid not in reader.own]
        if changed is not None:
            assert changed == {oid_from(at) for wrote in others for at in wrote}
        assert reader.view.snapshot == self.last.tid
        reader.moment = self.last

    @precondition(lambda self: self.readers)
    @rule(data=st.data())
    def close_a_view(self, data):
        self.readers.pop(data.draw(st.integers(0, len(self.readers) - 1))).view.close()

    @precondition(lambda self: len(self.moments) > 1)
    @rule(data=st.data(), step=st.sampled_from([-1, 0, 1]))
    def look_into_the_past(self, data, step):
        at = tid_from(number(data.draw(st.sampled_from(self.moments[1:])).tid) + step)
        moment = next(found for found in reversed(self.moments) if found.tid <= at)
        if at < self.last.tid and (not self.is_full or at < self.packed):
            with pytest.raises(HistoryMissingError):
                self.store.view(at)
            return
        view = self.store.view(at)
        self.compare(view, moment)
        assert view.advance() == frozenset()
        view.close()

    def compare(self, view, moment):
        """What can be reached is there; what cannot is there too, unless a pack has removed it."""
        reached = moment.reached() if self.gone else set()
        for at in self.known:
            thing = moment.things.get(at)
            try:
                data, tid = view.load(oid_from(at))
            except POSKeyError:
                assert thing is None or (at in self.gone and at not in reached), at
            else:
                assert value_of(data) == thing.value
                assert tid == max(
                    found.tid for found in self.moments if at in found.wrote and found.tid <= moment.tid
                )

    # --- behind everybody's back ---

    @rule()
    def flush(self):
        self.store.flush()

    @rule(to=st.integers(0, 30), everything=st.booleans())
    def pack(self, to, everything):
        upto = MAX_TID if everything else self.moments[to % len(self.moments)].tid
        report = self.store.pack(upto)
        assert report.upto <= min([upto, self.last.tid, *(reader.moment.tid for reader in self.readers)])
        self.packed = max(self.packed, report.upto)
        self.gone |= self.known - self.last.reached()
        for name, at in self.numbers.items():
            if at in self.gone:
                self.numbers[name] = max(self.known) + GENERATION + name
                self.known.add(self.numbers[name])

    @rule(batch=st.integers(1, 4))
    def reopen(self, batch):
        self.store.close()
        held_back = bool(self.readers)
        self.readers.clear()
        self.open(batch)
        assert self.store.flushed == self.last.tid or held_back

    @rule(batch=st.integers(1, 4))
    def end_without_closing(self, batch):
        self.store._membership.close()
        self.readers.clear()
        self.open(batch)

    # --- what always holds ---

    @invariant()
    def agrees(self):
        if len(self.moments) == 1:
            return
        assert self.store.last_tid() == self.last.tid
        assert self.store.packed_upto() == self.packed
        view = self.store.view()
        self.compare(view, self.last)
        view.close()
        for reader in self.readers:
            self.compare(reader.view, reader.moment)

    @invariant()
    def history_agrees(self):
        if len(self.moments) == 1 or not self.is_full:
            return
        told = [transaction.tid for transaction in self.store.transactions()]
        known = [moment.tid for moment in reversed(self.moments[1:])]
        assert told == (known if self.packed == NO_TID else [tid for tid in known if tid in set(told)])
        assert told[:2] == known[:2]
        for at in self.known:
            revisions = [moment for moment in reversed(self.moments) if at in moment.wrote]
            try:
                summaries = list(self.store.summaries(oid_from(at)))
            except POSKeyError:
                summaries = []
            tids = [moment.tid for moment in revisions]
            assert [found.tid for found in summaries] == tids[: len(summaries)]
            assert len(summaries) == len(tids) or self.packed != NO_TID
            for found, moment in zip(summaries, revisions, strict=False):
                thing = moment.wrote[at]
                assert found.deleted == (thing is None)
                if thing is not None:
                    assert split_oids(found.references) == [oid_from(to) for to in thing.links]

    def teardown(self):
        if len(self.moments) > 1:
            assert list(self.store.home.findings()) == []
            self.store.close()


TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = settings(max_examples=250, stateful_step_count=30, deadline=None)
