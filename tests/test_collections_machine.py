"""Collections against plain dictionaries: two connections, whatever they do, in any order.

The model knows what is committed, what each connection has made of it, and what its indexes show: that lags behind
the objects until the next savepoint, commit, or reindexing. A commit may be refused with a conflict; it may not be
let through where both have changed one person, or gave one email to two.
"""

from __future__ import annotations

import copy

import pytest
import transaction
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from people import Person, initial, misfits

import objstore
from objstore.collections import Collection, Index, at_least, has, where
from objstore.errors import ConflictError, UniqueError

WHO = st.integers(0, 1)
KEYS = st.sampled_from(["", "a", "b", "c", "aa"])
VALUES = {
    "city": st.sampled_from(["Paris", "Rome", None, 3]),
    "age": st.integers(0, 3),
    "email": st.sampled_from(["x", "y", "z"]),
    "tags": st.sampled_from([(), ("a",), ("a", "b"), ("b", 1)]),
}
ATTRIBUTES = st.fixed_dictionaries({}, optional=VALUES)
CHANGES = st.one_of(*(st.tuples(st.just(name), values) for name, values in VALUES.items()))


def collection():
    return Collection(
        "name",
        {
            "city": "city",
            "place": ("city", "age"),
            "email": Index("email", unique=True),
            "tags": Index("tags", multiple=True),
            "initial": initial,
            "romans": Index("age", where=where(city="Rome")),
        },
    )


class Session:
    """One connection, and what it should see."""

    def __init__(self, db):
        self.manager = transaction.TransactionManager()
        self.connection = db.open(self.manager)
        self.objects = {}
        self.marks = []

    def begin(self, committed):
        self.people = copy.deepcopy(committed)
        self.base = copy.deepcopy(committed)
        self.marks = []
        self.indexed = copy.deepcopy(committed)
        self.touched = set()

    @property
    def collection(self):
        return self.connection.root.people

    def by_id(self):
        return {id(obj): obj for obj in self.collection.by_id.values()}


class Collections(RuleBasedStateMachine):
    """People have names that are their keys, and numbers by which the model knows them."""

    kind = "full"

    @initialize()
    def open(self):
        self.db = objstore.memory(history=self.kind)
        self.committed = {}
        self.sessions = [Session(self.db) for _ in range(2)]
        first = self.sessions[0]
        first.connection.root.people = collection()
        first.manager.commit()
        self.versions = {}
        self.count = 0
        for session in self.sessions:
            session.manager.begin()
            session.begin(self.committed)
            session.seen = dict(self.versions)

    def teardown(self):
        if hasattr(self, "db"):
            for session in self.sessions:
                session.manager.abort()
                session.connection.close()
            self.db.close()

    def person(self, session, number):
        """The object of somebody who is a member in this session."""
        name = session.indexed[number]["name"]
        return session.collection[name]

    def taken(self, state, number, attributes):
        """Whether somebody else has what must be unique."""
        return any(
            other != number and attributes.get(name) is not None and theirs.get(name) == attributes.get(name)
            for other, theirs in state.items()
            for name in ("name", "email")
            if name in attributes and name in theirs
        )

    def settle(self, session):
        """The indexes follow."""
        session.indexed = copy.deepcopy(session.people)

    # --- what is done ---

    @rule(who=WHO, name=KEYS, attributes=ATTRIBUTES)
    def add(self, who, name, attributes):
        session = self.sessions[who]
        number = self.count + 1
        person = {"name": name, "number": number, **attributes}
        before = copy.deepcopy(session.people), copy.deepcopy(session.indexed)
        try:
            session.collection.add(Person(**person))
        except UniqueError:
            assert self.taken(before[0], number, person) or self.taken(before[1], number, person)
            return
        staying = {other: theirs for other, theirs in before[0].items() if theirs == before[1][other]}
        assert not self.taken(staying, number, person)
        # Who stood in the way, and had changed already, was moved on.
        for other, theirs in session.indexed.items():
            if self.taken({other: theirs}, number, person):
                session.indexed[other] = copy.deepcopy(session.people[other])
                self.follow_ways(session)
        self.count = number
        session.people[number] = person
        session.indexed[number] = copy.deepcopy(person)
        session.touched.add(number)

    def follow_ways(self, session):
        """Making way may push others, who make way too."""
        again = True
        while again:
            again = False
            for number, person in session.indexed.items():
                for other, theirs in session.indexed.items():
                    if (
                        other != number
                        and theirs != session.people[other]
                        and self.taken({other: theirs}, number, person)
                    ):
                        session.indexed[other] = copy.deepcopy(session.people[other])
                        again = True

    @precondition(lambda self: any(session.indexed for session in self.sessions))
    @rule(who=WHO, pick=st.integers(0, 99), change=CHANGES)
    def change(self, who, pick, change):
        session = self.sessions[who]
        if session.indexed:
            number = sorted(session.indexed)[pick % len(session.indexed)]
            setattr(self.person(session, number), *change)
            session.people[number][change[0]] = change[1]
            session.touched.add(number)

    @rule(who=WHO, pick=st.integers(0, 99), name=KEYS)
    def rename(self, who, pick, name):
        session = self.sessions[who]
        if session.indexed:
            number = sorted(session.indexed)[pick % len(session.indexed)]
            self.person(session, number).name = name
            session.people[number]["name"] = name
            session.touched.add(number)

    @rule(who=WHO, pick=st.integers(0, 99), name=st.sampled_from(["city", "age", "email", "tags"]))
    def forget(self, who, pick, name):
        session = self.sessions[who]
        if session.indexed:
            number = sorted(session.indexed)[pick % len(session.indexed)]
            if name in session.people[number]:
                delattr(self.person(session, number), name)
                del session.people[number][name]
                session.touched.add(number)

    @rule(who=WHO, pick=st.integers(0, 99))
    def remove(self, who, pick):
        session = self.sessions[who]
        if session.indexed:
            number = sorted(session.indexed)[pick % len(session.indexed)]
            session.collection.remove(self.person(session, number))
            del session.people[number], session.indexed[number]
            session.touched.add(number)

    @rule(who=WHO, pick=st.integers(0, 99))
    def reindex(self, who, pick):
        session = self.sessions[who]
        if session.indexed:
            number = sorted(session.indexed)[pick % len(session.indexed)]
            person = session.people[number]
            try:
                session.collection.reindex(self.person(session, number))
            except UniqueError:
                assert self.taken(session.people, number, person) or self.taken(session.indexed, number, person)
            else:
                session.indexed[number] = copy.deepcopy(person)
                self.follow_ways(session)

    @rule(who=WHO)
    def rebuild(self, who):
        session = self.sessions[who]
        try:
            session.collection.rebuild()
        except UniqueError:
            assert self.clashing(session)
        else:
            assert not self.clashing(session)
            self.settle(session)
            session.touched.add("indexes")

    @rule(who=WHO)
    def renew_an_index(self, who):
        session = self.sessions[who]
        session.collection.drop_index("city")
        session.collection.add_index("city", "city")
        for number, person in session.people.items():
            session.indexed[number].pop("city", None)
            if "city" in person:
                session.indexed[number]["city"] = person["city"]
        session.touched.add("indexes")
        # The other indexes on the city lag behind still: all are made to follow, so that the model stays simple.
        self.savepoint(who)

    def clashing(self, session):
        return any(self.taken(session.people, number, person) for number, person in session.people.items())

    @rule(who=WHO)
    def savepoint(self, who):
        session = self.sessions[who]
        try:
            savepoint = session.manager.savepoint()
        except UniqueError:
            assert self.clashing(session)
            self.abort(who)
            return
        assert not self.clashing(session)
        self.settle(session)
        session.marks.append((savepoint, copy.deepcopy(session.people), set(session.touched)))

    @rule(who=WHO, pick=st.integers(0, 9))
    def rollback(self, who, pick):
        session = self.sessions[who]
        if session.marks:
            at = pick % len(session.marks)
            savepoint, people, touched = session.marks[at]
            savepoint.rollback()
            session.people, session.indexed = copy.deepcopy(people), copy.deepcopy(people)
            session.touched = set(touched)
            del session.marks[at + 1 :]

    @rule(who=WHO)
    def abort(self, who):
        self.renew(self.sessions[who])

    @rule(who=WHO)
    def minimize(self, who):
        self.sessions[who].connection.cacheMinimize()

    def renew(self, session):
        session.manager.abort()
        session.manager.begin()
        session.begin(self.committed)
        session.seen = dict(self.versions)

    @rule(who=WHO)
    def commit(self, who):
        session = self.sessions[who]
        outdated = {
            number for number in session.touched if self.versions.get(number, 0) != session.seen.get(number, 0)
        }
        try:
            session.manager.commit()
        except UniqueError:
            assert self.clashing(session)
        except ConflictError:
            assert self.versions != session.seen
        else:
            assert not outdated
            assert not self.clashing(session)
            after = {**self.committed}
            for number in session.touched - {"indexes"}:
                if number in session.people:
                    after[number] = copy.deepcopy(session.people[number])
                else:
                    after.pop(number, None)
            self.committed = after
            for number in session.touched:
                self.versions[number] = self.versions.get(number, 0) + 1
        self.renew(session)

    # --- what must be so ---

    @invariant()
    def all_is_found(self):
        if not hasattr(self, "db"):
            return
        for session in self.sessions:
            people, indexed = session.collection, session.indexed
            assert len(people) == len(indexed)
            assert list(people) == sorted(person["name"] for person in indexed.values())
            self.same(session, people.find(city="Rome"), lambda each: each.get("city", 0) == "Rome")
            self.same(session, people.find(city=None), lambda each: each.get("city", 0) is None)
            self.same(session, people.find(tags=has("b")), lambda each: "b" in each.get("tags", ()))
            self.same(session, people.find(email="x"), lambda each: each.get("email") == "x")
            self.same(session, people.find(initial="a"), lambda each: each["name"][:1] == "a")
            self.same(
                session,
                people.find(city="Rome", age=at_least(2)),
                lambda each: each.get("city") == "Rome" and each.get("age", 0) >= 2,
            )
            if session.people == session.indexed:
                assert misfits(people) == []

    def same(self, session, found, holds):
        expected = sorted(number for number, person in session.indexed.items() if holds(person))
        assert sorted(person.number for person in found) == expected, found.explain()


class MinimalCollections(Collections):
    kind = "minimal"


@pytest.mark.parametrize("machine", [Collections, MinimalCollections])
def test_collections_are_what_the_model_says(machine):
    run_state_machine_as_test(machine, settings=settings(max_examples=20, stateful_step_count=25))


@pytest.mark.long
@pytest.mark.parametrize("machine", [Collections, MinimalCollections])
def test_collections_are_what_the_model_says_for_long(machine):
    run_state_machine_as_test(machine, settings=settings(max_examples=1500, stateful_step_count=60))
