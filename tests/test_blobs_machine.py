"""Blobs against a plain model: two connections that write, roll back, commit, flush and pack, in any order."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from databases import make, opened
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from test_blobs import content, files_of, write

import objstore
from objstore.contracts import History
from objstore.errors import ConflictError
from objstore.upkeep.check import check

NAMES = st.sampled_from(["a", "b", "c"])
WHO = st.integers(0, 1)
DATA = st.binary(max_size=12)


class Person:
    """A connection, what it must see, what it has written, and its savepoints."""

    def __init__(self, db: objstore.DB) -> None:
        self.connection = opened(db)
        self.seen: dict[str, bytes] = {}
        self.written: set[str] = set()
        self.savepoints: list[tuple[object, dict[str, bytes], set[str]]] = []

    def begin(self, state: dict[str, bytes], version: int) -> None:
        self.seen, self.version = dict(state), version
        self.written, self.savepoints = set(), []


class Machine(RuleBasedStateMachine):
    kind = "memory-full"

    @initialize()
    def start(self):
        self.directory = tempfile.TemporaryDirectory()
        self.db = make(self.kind, Path(self.directory.name), background=False)
        self.state = dict.fromkeys("abc", b"")
        with self.db.transaction() as connection:
            connection.root.blobs = {name: objstore.Blob() for name in "abc"}
        self.changed = []  # what each commit has written
        self.past = [(self.db.lastTransaction(), dict(self.state))]
        self.people = [Person(self.db) for _ in range(2)]
        for person in self.people:
            person.begin(self.state, 0)

    def teardown(self):
        if hasattr(self, "db"):
            for person in self.people:
                person.connection.transaction_manager.abort()
            for person in self.people:
                person.connection.close()
            self.db.store.flush()
            allowed = ("unreachable", "leftover")
            assert [each for each in check(self.db.store, blobs=True) if each.kind not in allowed] == []
            assert [name for name in files_of(self.db) if name.endswith(".tmp")] == []
            self.db.close()
            self.directory.cleanup()

    # --- what people do ---

    @rule(who=WHO, name=NAMES, data=DATA)
    def write_anew(self, who, name, data):
        person = self.people[who]
        write(person.connection.root.blobs[name], data)
        person.seen[name] = data
        person.written.add(name)

    @rule(who=WHO, name=NAMES, data=DATA)
    def append(self, who, name, data):
        person = self.people[who]
        write(person.connection.root.blobs[name], data, "a")
        person.seen[name] += data
        person.written.add(name)

    @rule(who=WHO, name=NAMES, data=DATA)
    def write_over(self, who, name, data):
        person = self.people[who]
        write(person.connection.root.blobs[name], data, "r+")
        person.seen[name] = data + person.seen[name][len(data) :]
        person.written.add(name)

    @rule(who=WHO, name=NAMES, data=DATA)
    def consume(self, who, name, data):
        person = self.people[who]
        source = Path(self.directory.name, "source")
        source.write_bytes(data)
        person.connection.root.blobs[name].consume(source)
        assert not source.exists()
        person.seen[name] = data
        person.written.add(name)

    @rule(who=WHO)
    def savepoint(self, who):
        person = self.people[who]
        point = person.connection.transaction_manager.savepoint()
        person.savepoints.append((point, dict(person.seen), set(person.written)))

    @precondition(lambda self: any(person.savepoints for person in self.people))
    @rule(who=WHO, data=st.data())
    def roll_back(self, who, data):
        person = self.people[who]
        if person.savepoints:
            at = data.draw(st.integers(0, len(person.savepoints) - 1))
            point, seen, written = person.savepoints[at]
            point.rollback()
            del person.savepoints[at + 1 :]
            person.seen, person.written = dict(seen), set(written)

    @rule(who=WHO)
    def abort(self, who):
        person = self.people[who]
        person.connection.transaction_manager.abort()
        person.begin(self.state, len(self.changed))

    @rule(who=WHO)
    def commit(self, who):
        person = self.people[who]
        conflicts = person.written & set().union(*self.changed[person.version :])
        try:
            person.connection.transaction_manager.commit()
        except ConflictError:
            assert conflicts
            person.connection.transaction_manager.abort()
        else:
            assert not conflicts
            if person.written:
                self.state.update({name: person.seen[name] for name in person.written})
                self.changed.append(set(person.written))
                self.past.append((self.db.lastTransaction(), dict(self.state)))
        person.begin(self.state, len(self.changed))

    # --- what happens to the store ---

    @rule()
    def flush(self):
        self.db.store.flush()

    @rule()
    def pack(self):
        before = self.db.store.packed_upto()
        self.db.pack()
        if self.db.store.packed_upto() > before:
            self.past = [each for each in self.past if each[0] >= self.db.store.packed_upto()]

    @rule(who=WHO)
    def minimize(self, who):
        self.people[who].connection.cacheMinimize()

    @precondition(lambda self: len(self.changed) > 0 and self.db.store.history_mode is History.FULL)
    @rule()
    def undo(self):
        newest, packed = self.past[-1][0], self.db.store.packed_upto()
        if len(self.past) < 2 or newest <= packed or self.past[-2][0] < packed:
            return
        connection = opened(self.db)
        self.db.undo(newest, connection.transaction_manager.get())
        connection.transaction_manager.commit()
        connection.close()
        self.changed.append(set(self.changed[-1]))
        self.state = dict(self.past[-2][1])
        self.past.append((self.db.lastTransaction(), dict(self.state)))

    # --- what must hold ---

    @invariant()
    def everybody_sees_what_they_should(self):
        for person in getattr(self, "people", []):
            blobs = person.connection.root.blobs
            assert {name: content(blob) for name, blob in blobs.items()} == person.seen
            for name in blobs.keys() - person.written:
                with open(blobs[name].committed(), "rb") as file:
                    assert file.read() == person.seen[name]

    @precondition(lambda self: self.db.store.history_mode is History.FULL)
    @rule(data=st.data())
    def look_at_the_past(self, data):
        if self.past:
            tid, state = data.draw(st.sampled_from(self.past))
            past = opened(self.db, at=tid)
            assert {name: content(blob) for name, blob in past.root.blobs.items()} == state
            past.close()


def run(kind: str, **how: int) -> None:
    machine = type(f"Machine_{kind}", (Machine,), {"kind": kind})
    checks = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
    run_state_machine_as_test(machine, settings=settings(deadline=None, suppress_health_check=checks, **how))


@pytest.mark.parametrize("kind", ["memory-full", "memory-minimal"])
def test_in_memory(kind):
    run(kind, max_examples=25, stateful_step_count=30)


@pytest.mark.parametrize("kind", ["segmented-full", "flat-minimal"])
def test_on_the_disk(kind):
    run(kind, max_examples=4, stateful_step_count=20)


@pytest.mark.long
@pytest.mark.parametrize(
    "kind", ["segmented-full", "segmented-minimal", "flat-minimal", "lawn-full", "memory-full"]
)
def test_for_long(kind):
    run(kind, max_examples=100, stateful_step_count=50)
