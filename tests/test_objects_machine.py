"""The object layer against a plain model: several connections, whatever they do, in any order.

There are a few boxes below the root; each has a number, and maybe a child, which is an object of its own.
The model knows what each connection must see, and which of its commits must conflict.
"""

from __future__ import annotations

import copy
import io
import tempfile
from pathlib import Path

import pytest
import transaction
from databases import make
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
from things import Thing

from objstore.errors import ConflictError, ReadConflictError

BOXES = st.integers(0, 2)
WHO = st.integers(0, 2)
NUMBERS = st.integers(0, 9)


class State:
    """What is stored: the numbers of the boxes, their children, and the children's numbers."""

    def __init__(self):
        self.numbers = dict.fromkeys(range(3), 0)
        self.children = dict.fromkeys(range(3))
        self.child_numbers = {}

    def of(self, thing):
        """The state of one object: a box by its number, a child by its name."""
        if isinstance(thing, int):
            return (self.numbers[thing], self.children[thing])
        return self.child_numbers.get(thing)

    def put(self, thing, state):
        if isinstance(thing, int):
            self.numbers[thing], self.children[thing] = state
        else:
            self.child_numbers[thing] = state

    def seen(self):
        """What one sees who looks at it from the root."""
        return [
            (self.numbers[box], self.child_numbers[self.children[box]] if self.children[box] else None)
            for box in range(3)
        ]


class Person:
    """A connection, and what the model knows of it."""

    def __init__(self, db):
        self.connection = db.open(transaction.TransactionManager())
        self.savepoints = []
        self.relied = set()

    def begin(self, state, version):
        self.state = copy.deepcopy(state)
        self.version = version
        self.changed = set()
        self.created = set()
        self.savepoints = []
        self.relied = set()

    def boxes(self):
        return self.connection.root.boxes

    def seen(self):
        return seen(self.boxes())


def seen(boxes):
    """What `State.seen` tells, of objects."""
    children = [getattr(box, "child", None) for box in boxes]
    return [(box.n, child.n if child is not None else None) for box, child in zip(boxes, children, strict=True)]


class Machine(RuleBasedStateMachine):
    kind = "model-full"

    @initialize()
    def start(self):
        self.directory = tempfile.TemporaryDirectory()
        options = {} if self.kind.startswith("model") else {"background": False}
        self.db = make(self.kind, Path(self.directory.name), **options)
        with self.db.transaction() as connection:
            connection.root.boxes = [Thing(n=0) for _ in range(3)]
        self.committed = State()
        self.changes = []  # of each version, what it changed
        self.past = [(self.db.lastTransaction(), copy.deepcopy(self.committed))]
        self.names = iter(range(10**6))
        self.people = [Person(self.db) for _ in range(3)]
        for person in self.people:
            person.begin(self.committed, 0)

    def teardown(self):
        if hasattr(self, "db"):
            for person in self.people:
                person.connection.transaction_manager.abort()
            self.db.close()
            self.directory.cleanup()

    # --- what people do to objects ---

    @rule(who=WHO, box=BOXES, number=NUMBERS)
    def set_number(self, who, box, number):
        person = self.people[who]
        person.boxes()[box].n = number
        person.state.numbers[box] = number
        person.changed.add(box)

    @rule(who=WHO, box=BOXES, number=NUMBERS)
    def make_child(self, who, box, number):
        person = self.people[who]
        person.boxes()[box].child = Thing(n=number)
        name = f"child{next(self.names)}"
        person.state.children[box] = name
        person.state.child_numbers[name] = number
        person.changed.add(box)
        person.created.add(name)

    @rule(who=WHO, box=BOXES, number=NUMBERS)
    def set_child_number(self, who, box, number):
        person = self.people[who]
        name = person.state.children[box]
        if name is not None:
            person.boxes()[box].child.n = number
            person.state.child_numbers[name] = number
            person.changed.add(name)

    @rule(who=WHO, box=BOXES)
    def drop_child(self, who, box):
        person = self.people[who]
        person.boxes()[box].child = None
        person.state.children[box] = None
        person.changed.add(box)

    @rule(who=WHO, box=BOXES, other=BOXES)
    def share_child(self, who, box, other):
        person = self.people[who]
        person.boxes()[box].child = getattr(person.boxes()[other], "child", None)
        person.state.children[box] = person.state.children[other]
        person.changed.add(box)

    @rule(who=WHO, box=BOXES)
    def copy_child(self, who, box):
        """By export and import: what was exported is as of the last commit or savepoint."""
        person = self.people[who]
        child = getattr(person.boxes()[box], "child", None)
        if child is not None:
            person.connection.transaction_manager.savepoint()
            file = io.BytesIO()
            person.connection.exportFile(child._p_oid, file)
            file.seek(0)
            person.boxes()[box].child = person.connection.importFile(file)
            name = f"child{next(self.names)}"
            person.state.child_numbers[name] = person.state.child_numbers[person.state.children[box]]
            person.state.children[box] = name
            person.changed.add(box)
            person.created.add(name)

    @rule(who=WHO, box=BOXES)
    def rely_on(self, who, box):
        person = self.people[who]
        person.connection.readCurrent(person.boxes()[box])
        person.relied.add(box)

    # --- transactions ---

    @rule(who=WHO)
    def savepoint(self, who):
        person = self.people[who]
        kept = (copy.deepcopy(person.state), set(person.changed), set(person.created))
        person.savepoints.append((person.connection.transaction_manager.savepoint(), kept))

    @rule(who=WHO, data=st.data())
    def rollback(self, who, data):
        person = self.people[who]
        if person.savepoints:
            at = data.draw(st.integers(0, len(person.savepoints) - 1))
            moment, (state, changed, created) = person.savepoints[at]
            moment.rollback()
            del person.savepoints[at + 1 :]
            person.state, person.changed, person.created = copy.deepcopy(state), set(changed), set(created)

    @rule(who=WHO)
    def commit(self, who):
        person = self.people[who]
        since = set().union(*self.changes[person.version :])
        writes = bool(person.changed)
        conflicts = bool(since & person.changed)
        stale = writes and bool(since & (person.relied - person.changed))
        manager = person.connection.transaction_manager
        if conflicts or stale:
            with pytest.raises(ConflictError) as caught:
                manager.commit()
            assert conflicts or isinstance(caught.value, ReadConflictError)
            manager.abort()
        else:
            manager.commit()
            if writes:
                for thing in person.changed | person.created:
                    self.committed.put(thing, person.state.of(thing))
                self.publish(person.changed | person.created)
        person.begin(self.committed, len(self.changes))

    def publish(self, changed):
        self.changes.append(set(changed))
        self.past.append((self.db.lastTransaction(), copy.deepcopy(self.committed)))

    @rule(who=WHO, how=st.sampled_from(["abort", "begin"]))
    def give_up(self, who, how):
        person = self.people[who]
        getattr(person.connection.transaction_manager, how)()
        person.begin(self.committed, len(self.changes))

    @rule(who=WHO)
    def open_again(self, who):
        person = self.people[who]
        person.connection.transaction_manager.abort()
        person.connection.close()
        self.people[who] = person = Person(self.db)
        person.begin(self.committed, len(self.changes))

    @rule(who=WHO)
    def minimize(self, who):
        self.people[who].connection.cacheMinimize()

    # --- the store ---

    @precondition(lambda self: self.db.supportsUndo() and len(self.past) > 1)
    @rule()
    def undo_the_last(self):
        """What it created is deleted, so nobody may be about to refer to that."""
        tid, _ = self.past[-1]
        before = self.past[-2][1]
        gone = self.committed.child_numbers.keys() - before.child_numbers.keys()
        used = {name for person in self.people for name in person.state.children.values()}
        log = self.db.undoLog(0, 1)
        if log and log[0]["tid"] == tid and not gone & used:
            manager = transaction.TransactionManager()
            self.db.undo(tid, manager.get())
            manager.commit()
            self.committed = copy.deepcopy(before)
            self.publish(self.changes[-1])

    @rule()
    def flush(self):
        self.db.store.flush()

    @rule()
    def pack(self):
        report = self.db.pack()
        self.past = [(tid, state) for tid, state in self.past if tid >= report.upto] or self.past[-1:]

    @precondition(lambda self: self.db.supportsUndo())
    @rule(data=st.data())
    def look_back(self, data):
        tid, state = self.past[data.draw(st.integers(0, len(self.past) - 1))]
        if tid < self.db.store.packed_upto():
            return
        connection = self.db.open(transaction.TransactionManager(), at=tid)
        boxes = connection.root.boxes
        assert seen(boxes) == state.seen()
        connection.close()

    # --- what must be so ---

    @invariant()
    def everybody_sees_what_they_should(self):
        for person in getattr(self, "people", ()):
            assert person.seen() == person.state.seen()


@pytest.mark.parametrize(
    "kind", ["model-full", "model-minimal", "memory-full", "memory-minimal", "chunky-minimal"]
)
def test_the_object_layer(kind):
    machine = type("Machine", (Machine,), {"kind": kind})
    run_state_machine_as_test(machine, settings=few)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["model-full", "memory-full", "memory-minimal", "segmented-full", "flat-minimal"])
def test_the_object_layer_for_long(kind):
    machine = type("Machine", (Machine,), {"kind": kind})
    run_state_machine_as_test(machine, settings=settings(few, max_examples=500, stateful_step_count=60))


few = settings(max_examples=40, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck))
