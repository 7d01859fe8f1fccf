"""MultiMap and its cursors: against a sorted list of pairs, in conflicts, and as ZODB reads them."""

from __future__ import annotations

import io
import random
from bisect import bisect_left

import pytest
import transaction
import ZODB
from BTrees.OOBTree import OOTreeSet
from databases import commit, opened
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from small_trees import SmallSet
from things import Thing
from ZODB.broken import find_global
from ZODB.MappingStorage import MappingStorage

import objstore
from objstore.collections import Estimate, MultiMap, MultiMapCursor, cursor
from objstore.errors import ClosedError, ConflictError, UsageError

pytest_plugins = ["database_fixtures"]

MOVES = ["next", "prev", "next_dup", "prev_dup", "first_dup", "last_dup", "next_nodup", "prev_nodup"]
MOVES += ["delete", "delete_all"]
PAIRS = [("ada", 1), ("ada", 3), ("ben", 2), ("cleo", 1), ("cleo", 2), ("cleo", 9)]


@pytest.fixture
def people():
    return MultiMap(random.Random(1).sample(PAIRS, len(PAIRS)))


class TestTheMap:
    def test_values_are_in_order(self, people):
        assert list(people.items()) == PAIRS
        assert people["cleo"] == people.getall("cleo") == [1, 2, 9]
        assert list(people) == list(people.keys()) == ["ada", "ben", "cleo"]
        assert list(people.values()) == [value for _, value in PAIRS]
        assert people.get("cleo") == 1

    def test_a_key_that_is_not_there(self, people):
        assert "dora" not in people
        assert people.getall("dora") == []
        assert people.count("dora") == people.removeall("dora") == 0
        assert people.get("dora") is None
        assert people.get("dora", 7) == 7
        with pytest.raises(KeyError):
            people["dora"]
        for key, value in (("dora", 1), ("ada", 2)):
            assert not people.discard(key, value)
            assert not people.has(key, value)
            with pytest.raises(KeyError):
                people.remove(key, value)

    def test_adding_and_taking_away(self, people):
        assert people.add("ada", 2)
        assert not people.add("ada", 2)
        assert people["ada"] == [1, 2, 3]
        people.remove("ada", 1)
        assert people.discard("ada", 3)
        assert people["ada"] == [2]
        people.remove("ada", 2)
        assert "ada" not in people
        assert people.removeall("cleo") == 3
        assert list(people.items()) == [("ben", 2)]
        people.clear()
        assert not people
        assert len(people) == 0

    def test_counts(self, people):
        assert (len(people), people.count("cleo"), people.count("ben")) == (6, 3, 1)
        assert people
        assert people.estimate() == Estimate(6, 0, exact=True)
        assert people.estimate("b").count == 4
        many = MultiMap((number // 50, number) for number in range(5000))
        found = many.estimate(10, 80, excludemax=True)
        assert abs(found.count - 3500) < 700

    def test_ends(self, people):
        assert list(people.keys("b")) == ["ben", "cleo"]
        assert list(people.keys("ben", "cleo", excludemin=True)) == ["cleo"]
        assert list(people.items("ada", "cleo", excludemax=True)) == PAIRS[:3]
        assert list(people.values(max="ben")) == [1, 3, 2]
        assert list(people.values("ben", "ben")) == [2]
        assert list(people.keys("cleo", "ada")) == []
        assert (people.minKey(), people.maxKey()) == ("ada", "cleo")
        for ask in (MultiMap().minKey, MultiMap().maxKey):
            with pytest.raises(ValueError, match="empty"):
                ask()

    @pytest.mark.parametrize(
        ("key", "value"), [(None, 1), ("a", None), ("a", object()), (Thing(), 1), ("a", Thing())]
    )
    def test_what_has_no_order(self, key, value):
        people = MultiMap()
        for add in (people.add, people.cursor().put):
            with pytest.raises(TypeError, match="are kept in order"):
                add(key, value)
        assert not people

    def test_values_that_do_not_compare(self):
        """Under different keys they may differ; under one key the tree says so, and stays as it was."""
        people = MultiMap([("a", 1), ("b", "one")])
        with pytest.raises(TypeError):
            people.add("a", "one")
        assert list(people.items()) == [("a", 1), ("b", "one")]

    def test_keys_of_no_length_and_tuples(self):
        people = MultiMap([("", ""), ("", "x"), ("a", "")])
        assert people[""] == ["", "x"]
        places = MultiMap([((1, "a"), 5), ((1, "a"), 6), ((1, "b"), 5), ((2,), 1)])
        assert places[1, "a"] == [5, 6]
        assert list(places.cursor(prefix=(1,)).iternext_nodup()) == [(1, "a"), (1, "b")]
        assert places.count((2,)) == 1

    def test_changed_while_it_is_looked_at(self, people):
        for key in people.keys():  # noqa: SIM118 - of its own
            people.removeall(key)
        assert not people


class TestCursors:
    def test_all_pairs(self, people):
        at = people.cursor()
        assert isinstance(at, MultiMapCursor)
        assert list(at) == PAIRS
        assert list(reversed(people.cursor())) == list(people.cursor(reverse=True)) == PAIRS[::-1]
        assert list(reversed(people.cursor(reverse=True))) == PAIRS
        assert list(cursor(people, "ben")) == PAIRS[2:]
        assert list(people.cursor().iternext(values=False)) == [key for key, _ in PAIRS]
        assert list(people.cursor().iternext(keys=False, values=False)) == [key for key, _ in PAIRS]
        assert list(people.cursor().iterprev(keys=False)) == [value for _, value in PAIRS][::-1]

    def test_among_the_values_of_a_key(self, people):
        at = people.cursor()
        assert not at.next_dup()
        assert not at.first_dup()
        assert at.count_dup() == 0
        assert at.set_key("cleo")
        assert at.item() == ("cleo", 1)
        assert at.count_dup() == 3
        assert at.next_dup()
        assert at.value() == 2
        assert at.last_dup()
        assert at.value() == 9
        assert not at.next_dup()
        assert at.item() == ("cleo", 9)
        assert at.prev_dup()
        assert at.value() == 2
        assert at.first_dup()
        assert not at.prev_dup()
        assert at.item() == ("cleo", 1)
        assert list(at.iternext_dup()) == [1, 2, 9]
        assert list(at.iternext_dup(keys=True)) == [("cleo", 9)]

    def test_from_key_to_key(self, people):
        at = people.cursor()
        assert at.next_nodup()
        assert at.item() == ("ada", 1)
        at.last_dup()
        assert at.next_nodup()
        assert at.item() == ("ben", 2)
        assert at.prev_nodup()
        assert at.item() == ("ada", 3)
        assert not at.prev_nodup()
        at = people.cursor()
        assert at.prev_nodup()
        assert at.item() == ("cleo", 9)
        assert at.first_dup()
        assert not at.next_nodup()
        assert list(people.cursor().iternext_nodup(values=True)) == [("ada", 1), ("ben", 2), ("cleo", 1)]

    @pytest.mark.parametrize(
        ("key", "relation", "found"),
        [
            ("ben", "==", ("ben", 2)),
            ("cleo", "==", ("cleo", 1)),
            ("bea", "==", None),
            ("bea", ">=", ("ben", 2)),
            ("ada", ">=", ("ada", 1)),
            ("ada", ">", ("ben", 2)),
            ("cleo", ">", None),
            ("ada", "<=", ("ada", 3)),
            ("bea", "<=", ("ada", 3)),
            ("cleo", "<", ("ben", 2)),
            ("ada", "<", None),
        ],
    )
    def test_seek(self, key, relation, found, people):
        at = people.cursor()
        assert at.seek(key, relation) is (found is not None)
        assert at.positioned is (found is not None)
        if found:
            assert at.item() == found

    def test_seek_pairs(self, people):
        at = people.cursor()
        assert at.set_key_dup("cleo", 2)
        assert at.item() == ("cleo", 2)
        assert not at.set_key_dup("cleo", 3)
        assert at.next()
        assert at.item() == ("cleo", 9)
        assert at.set_range_dup("cleo", 3)
        assert at.item() == ("cleo", 9)
        assert not at.set_range_dup("ada", 4)
        assert at.next()
        assert at.item() == ("ben", 2)
        assert at.set_range("b")
        assert at.key() == "ben"
        with pytest.raises(UsageError, match="a relation is one of"):
            at.seek("a", "~")

    def test_spans(self, people):
        at = people.cursor("ben", prefix="c")
        assert list(at) == PAIRS[3:]
        assert at.count() == at.estimate().count == 3
        assert at.first()
        assert not at.prev()
        at = people.cursor("ada", "cleo", excludemin=True, excludemax=True)
        assert list(at) == [("ben", 2)]
        assert not at.set_key("ada")
        with pytest.raises(UsageError, match="outside the span"):
            at.put("ada", 7)
        assert list(people.cursor().range("b", reverse=True)) == PAIRS[:1:-1]
        assert list(people.cursor("b").prefix("a")) == []
        assert list(people.cursor().prefix("a")) == PAIRS[:2]

    def test_changes(self, people):
        at = people.cursor()
        assert at.put("ben", 5)
        assert not at.put("ben", 5)
        assert at.replace(1) == 5
        assert at.item() == ("ben", 1)
        assert people["ben"] == [1, 2]
        assert at.delete()
        assert not at.delete()
        assert not at.positioned
        assert at.next_dup()
        assert at.item() == ("ben", 2)
        assert at.set_key("cleo")
        assert at.delete(dupdata=True)
        assert "cleo" not in people
        assert not at.delete(dupdata=True)
        assert at.prev()
        assert at.key() == "ben"
        with pytest.raises(TypeError, match="kept in order"):
            at.replace(None)
        assert people["ben"] == [2]

    def test_deleting_on_the_way(self, people):
        at = people.cursor()
        for _, value in at:
            if value < 3:
                at.delete()
        assert list(people.items()) == [("ada", 3), ("cleo", 9)]
        people = MultiMap(PAIRS)
        at = people.cursor()
        at.set_key("cleo")
        for _ in at.iternext_dup():
            at.delete()
        assert list(people) == ["ada", "ben"]

    def test_its_end(self, people):
        with people.cursor() as at:
            at.first()
            assert repr(at) == "<objstore cursor at ('ada', 1)>"
        for use in (at.first, at.key, at.next_dup, at.next_nodup, at.count_dup, at.delete):
            with pytest.raises(ClosedError):
                use()
        assert repr(at) == "<objstore cursor closed>"


class TestConflicts:
    def test_values_under_one_key(self, some):
        """A new one, and one that is there; as the first of a map, and among others."""
        first, second = opened(some), opened(some)
        first.root.people = MultiMap()
        commit(first)
        for turn in range(3):
            for connection in (first, second):
                connection.sync()
            first.root.people.add(f"key {turn}", 1)
            first.root.people.add("all", turn * 2)
            second.root.people.add(f"key {turn}", 2)
            second.root.people.add("all", turn * 2 + 1)
            commit(first)
            commit(second)
        first.sync()
        assert first.root.people["all"] == [0, 1, 2, 3, 4, 5]
        assert [first.root.people[f"key {turn}"] for turn in range(3)] == [[1, 2]] * 3

    def test_adding_and_taking_away(self, some):
        first, second = opened(some), opened(some)
        first.root.people = MultiMap(PAIRS)
        commit(first)
        second.sync()
        first.root.people.remove("cleo", 2)
        second.root.people.add("cleo", 3)
        commit(first)
        commit(second)
        first.sync()
        assert first.root.people["cleo"] == [1, 3, 9]

    def test_one_pair_twice(self, some):
        """That is a conflict, as it is in a TreeSet; tried again it is there already."""
        first, second = opened(some), opened(some)
        first.root.people = MultiMap(PAIRS)
        commit(first)
        second.sync()
        for connection in (first, second):
            connection.root.people.add("cleo", 3)
        commit(first)
        with pytest.raises(ConflictError):
            commit(second)
        second.transaction_manager.abort()
        assert not second.root.people.add("cleo", 3)

    def test_large_ones(self, databases):
        """Two that write all over a map of many leaves: all that is told to be committed is there."""
        db = databases("memory-full")
        with db.transaction() as connection:
            connection.root.people = MultiMap((key, 0) for key in range(2000))
        chance = random.Random(5)
        for _ in range(20):
            first, second = opened(db), opened(db)
            for value, connection in ((1, first), (2, second)):
                for key in chance.sample(range(2000), 5):
                    connection.root.people.add(key, value)
            commit(first)
            try:
                commit(second)
            except ConflictError:  # both have split a leaf
                second.transaction_manager.abort()
            first.close()
            second.close()
        with db.transaction() as connection:
            connection.root.people._pairs._check()
            assert len(connection.root.people) > 2000 + 20 * 5 - 5


class TestZodb:
    @pytest.fixture
    def exported(self, some):
        with some.transaction() as connection:
            connection.root.people = MultiMap((key, value) for key in range(100) for value in range(3))
        with some.transaction() as connection:
            file = io.BytesIO()
            connection.exportFile(connection.root.people._p_oid, file)
        return file.getvalue()

    @pytest.fixture
    def theirs(self):
        db = ZODB.DB(MappingStorage())
        connection = db.open()
        yield connection
        transaction.abort()
        connection.close()
        db.close()

    def test_zodb_reads_and_writes_it(self, exported, theirs):
        theirs.root.people = theirs.importFile(io.BytesIO(exported))
        transaction.commit()
        theirs.cacheMinimize()
        people = theirs.root.people
        assert people[7] == [0, 1, 2]
        people.add(7, 9)
        transaction.commit()
        assert list(people.cursor(7, 7)) == [(7, 0), (7, 1), (7, 2), (7, 9)]
        assert len(people) == 301

    def test_where_objstore_is_missing_the_pairs_are_there(self, exported, theirs):
        theirs.root.people = theirs.importFile(io.BytesIO(exported))
        transaction.commit()
        theirs.db().classFactory = lambda _, module, name: find_global(module.replace("objstore", "gone"), name)
        connection = theirs.db().open(transaction.TransactionManager())
        people = connection.root.people
        people._p_activate()
        pairs = people.__Broken_state__["_pairs"]
        assert type(pairs) is OOTreeSet
        assert list(pairs) == [(key, value) for key in range(100) for value in range(3)]
        connection.close()


class MultiMapMachine(RuleBasedStateMachine):
    """A stored MultiMap and a cursor in it, against a sorted list, with commits, aborts and rollbacks."""

    keys, values = st.integers(0, 6), st.integers(0, 6)

    @initialize()
    def begin(self):
        self.db = objstore.memory()
        self.connection = self.db.open(transaction.TransactionManager())
        self.connection.root.map = self.map = MultiMap()
        self.map._pairs = SmallSet()
        self.connection.transaction_manager.commit()
        self.pairs, self.committed, self.saved = [], [], None
        self.cursor = self.map.cursor()

    @rule(pairs=st.lists(st.tuples(keys, values), max_size=12))
    def add(self, pairs):
        for pair in pairs:
            assert self.map.add(*pair) is (pair not in self.pairs)
            self.pairs = sorted({*self.pairs, pair})

    @rule(pairs=st.lists(st.tuples(keys, values), max_size=12))
    def discard(self, pairs):
        for pair in pairs:
            assert self.map.discard(*pair) is (pair in self.pairs)
            self.pairs = [each for each in self.pairs if each != pair]

    @rule(key=keys)
    def remove_all(self, key):
        assert self.map.removeall(key) == len(self.of(key))
        self.pairs = [pair for pair in self.pairs if pair[0] != key]

    @rule(key=keys)
    def look_at_a_key(self, key):
        values = self.of(key)
        assert self.map.getall(key) == values
        assert self.map.count(key) == len(values)
        assert (key in self.map) is bool(values)
        assert self.map.get(key) == (values[0] if values else None)

    @rule(low=keys, high=keys, opened=st.tuples(st.booleans(), st.booleans()))
    def look_at_a_range(self, low, high, opened):
        within = [
            (key, value)
            for key, value in self.pairs
            if (low < key or (low == key and not opened[0])) and (key < high or (key == high and not opened[1]))
        ]
        assert list(self.map.items(low, high, *opened)) == within
        assert list(self.map.keys(low, high, *opened)) == sorted({key for key, _ in within})
        assert list(reversed(self.map.cursor(low, high, *opened))) == within[::-1]
        assert self.map.cursor(low, high, *opened).count() == len(within)

    @rule(key=keys, value=values, verb=st.sampled_from(["set_key_dup", "set_range_dup"]))
    def seek_a_pair(self, key, value, verb):
        expected = [pair for pair in self.pairs if pair[0] == key and pair[1] >= value][:1]
        if verb == "set_key_dup" and expected != [(key, value)]:
            expected = []
        assert getattr(self.cursor, verb)(key, value) is bool(expected)
        assert self.standing() == expected

    @rule(key=keys, relation=st.sampled_from(["==", ">=", ">", "<=", "<"]))
    def seek(self, key, relation):
        fits = {"==": int.__eq__, ">=": int.__ge__, ">": int.__gt__, "<=": int.__le__, "<": int.__lt__}[relation]
        fitting = [pair for pair in self.pairs if fits(pair[0], key)]
        expected = fitting[-1:] if "<" in relation else fitting[:1]
        assert self.cursor.seek(key, relation) is bool(expected)
        assert self.standing() == expected

    @precondition(lambda self: self.standing())
    @rule(verb=st.sampled_from(MOVES))
    def move(self, verb):
        (pair,) = self.standing()
        at = bisect_left(self.pairs, pair)
        before, after = self.pairs[:at][::-1], self.pairs[at + 1 :]
        key, same = pair[0], [each for each in self.pairs if each[0] == pair[0]]
        if verb.startswith("delete"):
            gone = same if verb == "delete_all" else [pair]
            assert self.cursor.count_dup() == len(same)
            assert self.cursor.delete(dupdata=verb == "delete_all")
            self.pairs = [each for each in self.pairs if each not in gone]
            assert not self.cursor.positioned
            return
        expected = {
            "next": after,
            "prev": before,
            "next_dup": [each for each in after if each[0] == key],
            "prev_dup": [each for each in before if each[0] == key],
            "first_dup": same,
            "last_dup": same[::-1],
            "next_nodup": [each for each in after if each[0] > key],
            "prev_nodup": [each for each in before if each[0] < key],
        }[verb][:1]
        assert getattr(self.cursor, verb)() is bool(expected)
        stays = verb.endswith("_dup")
        assert self.standing() == (expected or ([pair] if stays else []))

    @rule(key=keys, value=values)
    def put(self, key, value):
        assert self.cursor.put(key, value) is ((key, value) not in self.pairs)
        self.pairs = sorted({*self.pairs, (key, value)})
        assert self.standing() == [(key, value)]

    @precondition(lambda self: self.standing())
    @rule(value=values)
    def replace(self, value):
        (pair,) = self.standing()
        assert self.cursor.replace(value) == pair[1]
        self.pairs = sorted({*self.pairs, (pair[0], value)} - ({pair} if pair[1] != value else set()))
        assert self.standing() == [(pair[0], value)]

    @rule()
    def commit(self):
        self.connection.transaction_manager.commit()
        self.committed, self.saved = list(self.pairs), None

    @rule()
    def abort(self):
        self.connection.transaction_manager.abort()
        self.pairs, self.saved = list(self.committed), None

    @rule()
    def savepoint(self):
        self.saved = self.connection.transaction_manager.savepoint(), list(self.pairs)

    @precondition(lambda self: self.saved is not None)
    @rule()
    def roll_back(self):
        moment, pairs = self.saved
        moment.rollback()
        self.pairs = list(pairs)

    def of(self, key):
        return [value for each, value in self.pairs if each == key]

    def standing(self):
        return [self.cursor.item()] if hasattr(self, "cursor") and self.cursor.positioned else []

    @invariant()
    def the_pairs_are_those(self):
        if hasattr(self, "map"):
            assert list(self.map.items()) == self.pairs
            assert len(self.map) == len(self.pairs)

    def teardown(self):
        if hasattr(self, "db"):
            self.connection.transaction_manager.abort()
            self.db.close()


MultiMapMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestMachine = MultiMapMachine.TestCase


def test_a_cursor_of_the_wrong_kind_says_how_to_make_one():
    with pytest.raises(UsageError, match=r"method cursor\(\)"):
        MultiMapCursor(MultiMap())
