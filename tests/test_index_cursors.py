"""Cursors over a collection and its indexes: every verb against a sorted list, and changes below them."""

from __future__ import annotations

import pytest
import transaction
from databases import abort, commit, opened
from hypothesis import given, settings
from hypothesis import strategies as st
from people import Person, Slotted, collection, fill, misfits

from objstore.collections import Collection, Index, IndexCursor, cursor, where
from objstore.errors import ClosedError, KeyTypeError, UsageError

pytest_plugins = ["database_fixtures"]


@pytest.fixture
def people():
    """Six people, in a collection that is not stored."""
    people = Collection(
        key="name",
        indexes={
            "city": "city",
            "age": "age",
            "place": ("city", "age"),
            "tags": Index("tags", multiple=True),
            "email": Index("email", unique=True),
            "romans": Index("age", where=where(city="Rome")),
        },
    )
    for name, city, age, tags in [
        ("ada", "Rome", 30, ["x", "y"]),
        ("alan", "Oslo", 20, ["x"]),
        ("emmy", "Rome", 20, []),
        ("grace", "Paris", 40, ["y", "z"]),
        ("kurt", "Rome", 20, ["x", "z"]),
        ("max", None, 7, ["z"]),
    ]:
        people.add(Person(name=name, city=city, age=age, tags=tags, email=f"{name}@x.org"))
    return people


@pytest.fixture
def stored(databases):
    """A connection whose root has a collection of 500 people, so that its trees have many leaves."""
    connection = opened(databases("memory-full"))
    people = connection.root.people = collection()
    fill(people, 500)
    commit(connection)
    yield connection
    abort(connection)
    connection.close()


def keys(cursor):
    return list(cursor.iternext(values=False))


def names(cursor):
    return [person.name for person in cursor.iternext(keys=False)]


# --- where it is -------------------------------------------------------------------------------------


def test_the_key_is_the_default(people):
    at = people.cursor()
    assert isinstance(at, IndexCursor)
    assert keys(at) == list(people.keys())
    assert list(people.cursor()) == list(people.items())


def test_what_it_stands_on(people):
    at = people.cursor("city")
    assert not at.positioned
    assert at.first()
    assert at.positioned
    assert at.item() == (at.key(), at.value()) == (None, people["max"])
    assert people.cursor("place", ("Paris",)).next()


def test_on_nothing_there_is_nothing_to_ask_for(people):
    for index in (None, "city"):
        at = people.cursor(index)
        for ask in (at.key, at.value, at.item):
            with pytest.raises(UsageError, match="stands on no key"):
                ask()


def test_keys_are_in_the_terms_of_the_index(people):
    assert keys(people.cursor("age")) == [7, 20, 20, 20, 30, 40]
    assert keys(people.cursor("place"))[:2] == [(None, 7), ("Oslo", 20)]
    assert keys(people.cursor("email"))[0] == "ada@x.org"


def test_a_part_that_is_missing_is_none():
    some = Collection("name", {"place": ("city", "age")})
    some.add(Person(name="a", age=3))
    some.add(Person(name="b", city="Rome"))
    some.add(Person(name="c"))
    assert keys(some.cursor("place")) == [(None, 3), ("Rome", None)]


def test_a_compound_key(people):
    some = Collection(("city", "name"))
    some.update(Person(city=each.city, name=each.name) for each in people.values())
    at = some.cursor()
    assert keys(at) == list(some.keys())
    assert at.seek(("Rome", "emmy"))
    assert at.value() is some["Rome", "emmy"]
    assert names(some.cursor(prefix=("Rome",))) == ["ada", "emmy", "kurt"]


def test_members_as_values(people):
    """They are sought as themselves, and appear as their ids."""
    pets = Collection("name", {"owner": ("owner", "name")})
    for name in ("ada", "max"):
        pets.update(Person(name=f"{name}-{number}", owner=people[name]) for number in range(3))
    assert names(pets.cursor("owner", prefix=(people["max"],))) == ["max-0", "max-1", "max-2"]
    at = pets.cursor("owner")
    assert at.seek((people["ada"], "ada-1"))
    assert at.value() is pets["ada-1"]
    assert people.by_id[at.key()[0]] is people["ada"]


def test_a_partial_index_has_some(people):
    assert keys(people.cursor("romans")) == [20, 20, 30]


# --- moves -------------------------------------------------------------------------------------------


def test_to_the_ends_and_back(people):
    at = people.cursor("age")
    assert at.last()
    assert at.key() == 40
    assert not at.next()
    assert not at.positioned
    assert at.prev()
    assert at.key() == 40
    assert at.first()
    assert not at.previous()
    assert at.next()
    assert at.key() == 7
    assert people.cursor("age").prev()


def test_several_members_of_one_key_are_items_of_their_own(people):
    at = people.cursor("age")
    assert at.seek(20)
    same = [at.value()]
    while at.next() and at.key() == 20:
        same.append(at.value())
    assert same == list(people.find(age=20))
    assert {each.name for each in same} == {"alan", "emmy", "kurt"}
    assert at.seek(20)
    assert at.value() is same[0]
    assert at.seek(20, "<=")
    assert at.value() is same[-1]


@pytest.mark.parametrize(
    ("relation", "value", "found"),
    [
        ("==", 20, 20),
        ("==", 21, None),
        (">=", 20, 20),
        (">=", 21, 30),
        (">", 20, 30),
        (">", 40, None),
        ("<=", 20, 20),
        ("<=", 29, 20),
        ("<", 20, 7),
        ("<", 7, None),
        (">=", "texts come after numbers", None),
        ("<", None, None),
    ],
)
def test_seeking(people, relation, value, found):
    at = people.cursor("age")
    assert at.seek(value, relation) is (found is not None)
    assert (at.key() if at.positioned else None) == found


def test_seeking_what_is_not_there_leaves_it_in_the_gap(people):
    for step, found in ((IndexCursor.next, 30), (IndexCursor.prev, 20)):
        at = people.cursor("age")
        assert not at.set_key(25)
        assert step(at)
        assert at.key() == found


def test_seeking_exactly_or_after(people):
    at = people.cursor("city")
    assert at.set_key("Rome")
    assert at.set_key(None)
    assert at.value().name == "max"
    assert at.set_range("P")
    assert at.key() == "Paris"
    assert not at.set_range("S")


def test_seeking_the_first_parts(people):
    at = people.cursor("place")
    assert at.seek(("Rome",))
    assert at.key() == ("Rome", 20)
    assert at.seek(("Rome",), "<=")
    assert at.key() == ("Rome", 30)
    assert at.seek(("Rome",), "<")
    assert at.key() == ("Paris", 40)
    assert not at.seek(("Rome",), ">")
    assert at.seek(("Rome", 30))


def test_seeking_in_a_unique_index(people):
    at = people.cursor()
    for relation, found in (("==", "emmy"), (">=", "emmy"), (">", "grace"), ("<=", "emmy"), ("<", "alan")):
        assert at.seek("emmy", relation)
        assert at.key() == found


def test_other_relations(people):
    with pytest.raises(UsageError, match="a relation is one of"):
        people.cursor("age").seek(20, "=")


# --- spans -------------------------------------------------------------------------------------------


def test_ranges(people):
    assert keys(people.cursor("age", 20, 30)) == [20, 20, 20, 30]
    assert keys(people.cursor("age", 20, 30, excludemin=True)) == [30]
    assert keys(people.cursor("age", 20, 30, excludemax=True)) == [20, 20, 20]
    assert keys(people.cursor("email", "alan@x.org", "grace@x.org", True, True)) == ["emmy@x.org"]
    assert keys(people.cursor(min="b", max="kurt")) == ["emmy", "grace", "kurt"]
    assert keys(people.cursor("age", 30, 20)) == []


def test_ranges_of_compound_values(people):
    assert keys(people.cursor("place", ("Paris",), ("Rome",))) == keys(people.cursor("place"))[2:]
    assert keys(people.cursor("place", ("Paris",), ("Rome",), excludemax=True)) == [("Paris", 40)]
    assert keys(people.cursor("place", ("Rome", 20), excludemin=True)) == [("Rome", 30)]


def test_prefixes(people):
    assert keys(people.cursor(prefix="a")) == ["ada", "alan"]
    assert keys(people.cursor("city", prefix="R")) == ["Rome"] * 3
    assert keys(people.cursor("city", prefix="")) == ["Oslo", "Paris", "Rome", "Rome", "Rome"]
    assert keys(people.cursor("place", prefix=("Rome",))) == [("Rome", 20), ("Rome", 20), ("Rome", 30)]
    assert keys(people.cursor("place", prefix=("Rome", 30))) == [("Rome", 30)]
    assert keys(people.cursor("place", prefix=())) == keys(people.cursor("place"))
    assert keys(people.cursor("age", prefix="2")) == []


def test_prefixes_of_bytes_and_of_values_that_are_tuples():
    some = Collection("key")
    some.update(Person(key=key) for key in [b"a", b"ab", b"\xff", b"\xffa", (1,), (1, 2), (1, 2, 3), (2,)])
    assert keys(some.cursor(prefix=b"a")) == [b"a", b"ab"]
    assert keys(some.cursor(prefix=b"\xff")) == [b"\xff", b"\xffa"]
    assert keys(some.cursor(prefix=(1,))) == [(1,), (1, 2), (1, 2, 3)]
    assert keys(some.cursor(prefix=(1, 2))) == [(1, 2), (1, 2, 3)]


def test_narrowing(people):
    outer = people.cursor("age", 10, 35)
    assert keys(outer.range()) == [20, 20, 20, 30]
    assert keys(outer.range(25, 99)) == [30]
    assert [key for key, _ in outer.range(20, reverse=True)] == [30, 20, 20, 20]
    assert names(people.cursor(max="alan").prefix("a")) == ["ada", "alan"]
    assert not outer.positioned


def test_what_is_outside_is_not_stood_on(people):
    at = people.cursor("age", 10, 35)
    assert not at.seek(7)
    assert not at.positioned
    assert not at.delete()
    assert at.next()
    assert at.key() == 20
    assert at.seek(40, "<=")
    assert at.key() == 30


def test_copies(people):
    at = people.cursor("age", 10, reverse=True)
    at.seek(30)
    other = at.copy()
    assert other.item() == at.item()
    assert other.next()
    assert (at.key(), other.key()) == (30, 40)
    assert [key for key, _ in other] == [40, 30, 20, 20, 20]


def test_how_many(people):
    at = people.cursor("age", 20, 30)
    assert at.count() == at.estimate().count == 4
    assert at.estimate().exact
    assert people.cursor("tags").count() == 8
    assert people.cursor("tags", prefix="y").count() == 2
    with pytest.raises(UsageError, match="samples is 2 or more"):
        at.estimate(1)


# --- iterating ---------------------------------------------------------------------------------------


def test_backwards(people):
    items = list(people.items())
    assert list(reversed(people.cursor())) == list(people.cursor(reverse=True)) == items[::-1]
    assert list(reversed(people.cursor(reverse=True))) == items
    assert list(people.cursor().iterprev(keys=False)) == [member for _, member in items[::-1]]


def test_from_where_it_stands(people):
    at = people.cursor()
    at.set_key("grace")
    assert keys(at) == ["grace", "kurt", "max"]
    at.set_key("alan")
    assert list(at.iterprev(values=False)) == ["alan", "ada"]


def test_a_member_with_several_values_appears_for_each(people):
    found = [(key, person.name) for key, person in people.cursor("tags")]
    assert [key for key, _ in found] == ["x", "x", "x", "y", "y", "z", "z", "z"]
    assert sorted(found) == sorted((tag, each.name) for each in people.values() for tag in each.tags)


def test_along_many_leaves(stored):
    people = stored.root.people
    for index in (None, "email", "age", "place", "tags"):
        tree = people.tree(index or "")
        assert people.cursor(index).count() == len(tree)
        forwards, backwards = list(people.cursor(index)), list(people.cursor(index, reverse=True))
        assert forwards == backwards[::-1]
        assert len(forwards) == len(tree)
    assert keys(people.cursor()) == list(people.keys())
    assert people.cursor("age", 10, 19).count() == people.count(age=10) * 10


# --- changes -----------------------------------------------------------------------------------------


def test_deleting_removes_the_member_everywhere(people):
    at = people.cursor("city")
    at.set_key("Paris")
    grace = at.value()
    assert at.delete()
    assert "grace" not in people
    assert grace not in list(people.find(age=40))
    assert len(people) == 5
    assert misfits(people) == []
    assert not at.positioned
    assert not at.delete()
    assert at.next()
    assert at.key() == "Rome"


def test_after_deleting_it_moves_to_either_side(people):
    at = people.cursor()
    at.set_key("emmy")
    at.delete()
    assert at.prev()
    assert at.key() == "alan"


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("index", [None, "city", "age", "place", "email"])
def test_deleting_on_the_way_skips_nobody(people, index, reverse):
    seen = []
    for _, person in (at := people.cursor(index, reverse=reverse)):
        seen.append(person.name)
        if len(seen) % 3:
            assert at.delete()
    assert sorted(seen) == ["ada", "alan", "emmy", "grace", "kurt", "max"]
    assert len(people) == 2
    assert misfits(people) == []


def test_deleting_by_one_of_several_values(people):
    for key, person in (at := people.cursor("tags")):
        assert key in person.tags
        at.delete()
    assert list(people) == ["emmy"]


def test_deleting_what_no_index_follows():
    some = Collection("name", {"city": "city"})
    some.add(person := Slotted("a", "Rome"))
    person.name = "b"
    at = some.cursor("city")
    assert at.first()
    assert at.delete()
    assert len(some) == 0
    assert list(some.cursor()) == []


def test_what_is_deleted_is_deleted_at_commit(stored):
    people = stored.root.people
    for _ in (at := people.cursor("city", prefix="R")):
        at.delete()
    assert people.count(city="Rome") == 0
    abort(stored)
    assert at.first()
    assert people.count(city="Rome") == at.count() > 0
    for _ in at:
        at.delete()
    commit(stored)
    assert at.count() == 0
    assert misfits(people) == []


def test_nothing_is_put_or_replaced(people):
    at = people.cursor("city")
    at.first()
    with pytest.raises(UsageError, match=r"collection\.add\(obj\)"):
        at.put("Rome", people["ada"])
    with pytest.raises(UsageError, match="change the object"):
        at.replace("Rome")
    with pytest.raises(UsageError, match="change the object"):
        at.replace(value="Rome")


def test_the_collection_changes_below(people):
    at = people.cursor("age")
    at.set_key(30)
    people.add(Person(name="new", city="Bonn", age=35))
    assert at.next()
    assert at.key() == 35
    people.remove(people["new"])
    assert not at.positioned
    assert at.prev()
    assert at.key() == 30


def test_a_member_that_moves_leaves_it_behind(people):
    at = people.cursor("age")
    at.set_key(30)
    people["ada"].age = 50
    assert at.key() == 30
    people.reindex(people["ada"])
    assert not at.positioned
    assert at.next()
    assert at.key() == 40
    assert at.next()
    assert at.item() == (50, people["ada"])


def test_an_index_is_rebuilt_dropped_and_made_anew(people):
    at, spare = people.cursor("age", 10), people.cursor("age", 10)
    at.set_key(30)
    people.rebuild()
    assert at.key() == 30
    people.drop_index("age")
    for ask in (at.next, at.key, spare.first):
        with pytest.raises(UsageError, match="there is no index 'age'"):
            ask()
    people.add_index("age", "age")
    assert at.item() == (30, people["ada"])
    assert spare.next()
    assert spare.key() == 20
    people.drop_index("age")
    people.add_index("age", ("age", "name"))
    assert at.prev()
    assert at.key() == (30, "ada")
    at.close()
    people.drop_index("age")
    spare.close()


def test_what_others_commit_is_seen(stored):
    at = stored.root.people.cursor("age", 48)
    at.last()
    manager = transaction.TransactionManager()
    other = stored.db().open(manager)
    other.root.people.add(Person(name="old", age=200))
    manager.commit()
    other.close()
    assert not at.next()
    stored.sync()
    assert at.next()
    assert at.item() == (200, stored.root.people["old"])


# --- its beginning and end ---------------------------------------------------------------------------


def test_the_function_hands_over(people):
    at = cursor(people, "age", 20, excludemin=True, reverse=True)
    assert isinstance(at, IndexCursor)
    assert [key for key, _ in at] == [40, 30]


def test_unknown_indexes(people):
    with pytest.raises(UsageError, match="there is no index 'shoe'"):
        people.cursor("shoe")


def test_values_that_have_no_order(people):
    at = people.cursor("city")
    for use in (
        lambda: people.cursor("city", object()),
        lambda: people.cursor("city", max=[]),
        lambda: people.cursor("place", "Rome"),
        lambda: people.cursor("place", prefix="Rome"),
        lambda: people.cursor("place", ("Rome", 1, 2)),
        lambda: at.seek(float("nan")),
        lambda: at.set_range({}),
    ):
        with pytest.raises(KeyTypeError):
            use()


def test_spans_that_make_no_sense(people):
    with pytest.raises(UsageError, match="excludemin leaves out the key min"):
        people.cursor("age", excludemin=True)
    with pytest.raises(UsageError, match="a prefix is a str, bytes or a tuple, not 7"):
        people.cursor("age", prefix=7)


def test_closing(people):
    with people.cursor("age") as at:
        at.first()
    at.close()
    for use in (at.first, at.next, at.key, at.value, at.delete, at.copy, at.count, at.range, lambda: list(at)):
        with pytest.raises(ClosedError):
            use()
    with pytest.raises(ClosedError):
        at.seek(20)
    assert repr(at) == "<objstore cursor along index age>"
    assert repr(people.cursor()) == "<objstore cursor along index key>"


# --- all verbs against a sorted list -----------------------------------------------------------------

VALUES = st.one_of(st.none(), st.integers(0, 3), st.sampled_from(["", "a", "ab", "b"]))
MEMBERS = st.lists(
    st.fixed_dictionaries({}, optional={"one": VALUES, "two": VALUES, "many": st.lists(VALUES, max_size=3)}),
    min_size=4,
    max_size=12,
)
INDEXES = {
    "one": lambda each: [(each["one"],)] if "one" in each else [],
    "many": lambda each: {(value,) for value in each.get("many", [])},
    "both": lambda each: [(each.get("one", ...), each.get("two", ...))] if {"one", "two"} & set(each) else [],
    "some": lambda each: [(each["one"],)] if "one" in each and each.get("two") == 1 else [],
    "unique": lambda each: [(each["number"], each.get("two", ...))],
    "": lambda each: [(each["number"],)],
}
"""What each index has of the attributes of a member: tuples of its parts, `...` for one that is missing."""
COMPOUND = {"both", "unique"}
MOVES = st.one_of(
    st.sampled_from(["first", "last", "next", "next", "prev", "prev", "delete", "remove", "iternext", "iterprev"]),
    st.tuples(st.sampled_from(["==", ">=", ">", "<=", "<"]), st.tuples(VALUES, VALUES), st.integers(1, 2)),
)
END = st.one_of(st.none(), st.none(), st.none(), VALUES)
ENDS = st.tuples(END, END, st.booleans(), st.booleans())


def ordered(parts):
    """Parts of a value, so that Python puts them into the order of an index."""
    return tuple(
        (-1, 0) if each is ... else (0, 0) if each is None else (1 + isinstance(each, str), each) for each in parts
    )


class Listed:
    """A sorted list of what an index has in a span, and a place: on one of it, or before it, or not yet any."""

    def __init__(self, entries):
        self.entries = sorted(entries, key=lambda each: (ordered(each[0]), each[1]))
        self.at, self.on = None, False

    def stand(self, at, gap):
        self.on = 0 <= at < len(self.entries)
        self.at = at if self.on else gap
        return self.on

    def first(self):
        return self.stand(0, 0)

    def last(self):
        return self.stand(len(self.entries) - 1, 0)

    def next(self):
        return self.first() if self.at is None else self.stand(self.at + self.on, len(self.entries))

    def prev(self):
        return self.last() if self.at is None else self.stand(self.at - 1, 0)

    def seek(self, parts, relation):
        wanted = ordered(parts)
        heads = [ordered(each[0])[: len(wanted)] for each in self.entries]
        start, end = sum(head < wanted for head in heads), sum(head <= wanted for head in heads)
        match relation:
            case "==":
                self.at, self.on = start, start < end
                return self.on
            case ">=" | ">":
                return self.stand(start if relation == ">=" else end, len(heads))
        return self.stand((end if relation == "<=" else start) - 1, 0)

    def lose(self, obj):
        """Without the entries of a member; whoever stood on one is left in the gap."""
        if self.at is not None:
            self.on = self.on and self.entries[self.at][2] is not obj
            self.at = sum(each[2] is not obj for each in self.entries[: self.at])
        self.entries = [each for each in self.entries if each[2] is not obj]

    def iternext(self):
        found = self.entries[self.at or 0 :]
        self.at, self.on = len(self.entries), False
        return found

    def iterprev(self):
        found = self.entries[: len(self.entries) if self.at is None else self.at + self.on][::-1]
        self.at, self.on = 0, False
        return found


def told(name, parts):
    """A value in the terms of the cursor: one part alone, or a tuple."""
    values = tuple(None if each is ... else each for each in parts)
    return values if name in COMPOUND else values[0]


def within(parts, low, high, low_open, high_open):
    value = ordered(parts[:1])
    above = low is None or (ordered((low,)) < value if low_open else ordered((low,)) <= value)
    return above and (high is None or (value < ordered((high,)) if high_open else value <= ordered((high,))))


@given(st.sampled_from(sorted(INDEXES)), MEMBERS, ENDS, st.lists(MOVES, min_size=1, max_size=20), st.randoms())
@settings(max_examples=400, deadline=None)
def test_all_verbs_against_a_sorted_list(name, given_members, ends, moves, chance):
    people = Collection(
        "number",
        {
            "one": "one",
            "many": Index("many", multiple=True),
            "both": ("one", "two"),
            "some": Index("one", where=where(two=1)),
            "unique": Index(("number", "two"), unique=True),
        },
    )
    members = [Person(number=number, **each) for number, each in enumerate(given_members)]
    people.update(chance.sample(members, len(members)))
    low, high, low_open, high_open = (*ends[:2], ends[0] is not None and ends[2], ends[1] is not None and ends[3])
    listed = Listed(
        (parts, member, obj)
        for member, obj in people.by_id.items()
        for parts in INDEXES[name](vars(obj))
        if within(parts, low, high, low_open, high_open)
    )
    compound = name in COMPOUND
    bound = [None if end is None else (end,) if compound else end for end in (low, high)]
    at = people.cursor(name or None, *bound, low_open, high_open)

    def items(entries):
        return [(told(name, parts), obj) for parts, _, obj in entries]

    for move in moves:
        if isinstance(move, tuple):
            relation, parts, count = move
            if listed.entries and chance.random() < 0.6:  # what is there
                known = chance.choice(listed.entries)[0]
                parts = known if ... not in known else parts
            parts = parts[: count if compound else 1]
            assert at.seek(parts if compound else parts[0], relation) == listed.seek(parts, relation)
        elif move == "delete":
            assert at.delete() == listed.on
            if listed.on:
                listed.lose(listed.entries[listed.at][2])
        elif move == "remove":
            if len(people):
                obj = chance.choice(sorted(people.values(), key=lambda each: each.number))
                people.remove(obj)
                listed.lose(obj)
        elif move in ("iternext", "iterprev"):
            assert list(getattr(at.copy(), move)()) == items(getattr(listed, move)())
            list(getattr(at, move)())
        else:
            assert getattr(at, move)() == getattr(listed, move)()
        assert at.positioned == listed.on
        if listed.on:
            assert [at.item()] == items([listed.entries[listed.at]])
    assert at.count() == at.estimate().count == len(listed.entries)
    assert list(at.range()) == list(reversed(at.range(reverse=True))) == items(listed.entries)
    assert misfits(people) == []
