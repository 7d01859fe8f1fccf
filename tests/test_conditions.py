"""Finding: whatever indexes there are, what is found is what the condition holds for."""

from __future__ import annotations

import random
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from people import Person, initial, is_adult, names

from objstore.collections import (
    Collection,
    Index,
    above,
    any_of,
    at_least,
    at_most,
    begins_with,
    below,
    between,
    computed,
    has,
    matches,
    where,
)
from objstore.collections.conditions import And, Condition, Or
from objstore.collections.keys import encode
from objstore.collections.walking import ascending, count_about, descending
from objstore.errors import NotOneError, ScanError, UsageError

CITIES = ["", "Lima", "Paris", "Rome", None, 7]
AGES = [None, 0, 17, 18, 19, 40.5, 99, "old"]
TAGS = ["a", "b", "c", 1]


def somebody(number, chance):
    attributes = {
        "city": chance.choice(CITIES),
        "age": chance.choice(AGES),
        "tags": chance.sample(TAGS, chance.randint(0, 3)),
        "nick": chance.choice(["x", "xy", "y", ""]),
    }
    for name in chance.sample(list(attributes), chance.choice([0, 0, 1, 2])):
        del attributes[name]
    return Person(name=f"{number:03}", email=f"{number}@example.com", **attributes)


def made(indexes, count=150):
    people = Collection("name", indexes)
    chance = random.Random(5)
    people.update(somebody(number, chance) for number in range(count))
    return people


INDEXES = {
    "none": {},
    "single": {"city": "city", "age": "age", "tags": Index("tags", multiple=True), "nick": "nick"},
    "compound": {
        "place": ("city", "age"),
        "nick": ("nick", "city", "age"),
        "mail": Index(("city", "email"), unique=True),
    },
    "partial": {
        "romans": Index("age", where=where(city="Rome")),
        "tagged": Index("nick", where=where(tags=has("a")) & ~where(age=None)),
        "age": "age",
    },
    "all": {"city": "city", "age": "age", "tags": Index("tags", multiple=True), "place": ("city", "age")},
}
COLLECTIONS = {name: made(indexes) for name, indexes in INDEXES.items()}

values = {
    "city": st.sampled_from(CITIES),
    "age": st.sampled_from(AGES),
    "nick": st.sampled_from(["x", "xy", "y", "", "z"]),
}


def checks_for(name):
    value = values[name]
    return st.one_of(
        value,
        st.builds(between, value, value),
        st.builds(above, value),
        st.builds(at_least, value),
        st.builds(below, value),
        st.builds(at_most, value),
        st.builds(any_of, st.lists(value, max_size=3)),
        st.builds(begins_with, st.sampled_from(["", "x", "P", "o"])),
    )


terms = st.one_of(
    *(checks_for(name).map(lambda test, name=name: where({name: test})) for name in ("city", "age")),
    checks_for("nick").map(lambda test: where({"nick": test})),
    st.sampled_from(TAGS).map(lambda tag: where(tags=has(tag))),
    st.sampled_from(TAGS).map(lambda tag: where(tags=has(at_least(tag)))),
    st.just(where(tags=has("a")) & ~where(age=None)),
    st.just(where()),
)
conditions = st.recursive(
    terms,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda each: And(tuple(each))),
        st.lists(inner, min_size=1, max_size=3).map(lambda each: Or(tuple(each))),
        inner.map(lambda each: ~each),
    ),
    max_leaves=6,
)


def fitting(condition, people):
    """A condition without names that stand for compound indexes in this collection."""
    return "nick" not in str(condition) or people.indexes.get("nick") in (None, Index("nick"))


@pytest.mark.parametrize("kind", INDEXES)
@settings(max_examples=60)
@given(condition=conditions)
def test_what_is_found_is_what_the_condition_holds_for(kind, condition):
    people = COLLECTIONS[kind]
    if fitting(condition, people):
        found = people.find(condition)
        expected = [person.name for person in people.values() if condition.holds(person)]
        assert names(found) == expected, found.explain()
        assert found.count() == len(expected)
        assert found.exists() == bool(expected)


@pytest.mark.parametrize("kind", INDEXES)
@settings(max_examples=40)
@given(
    condition=conditions,
    order=st.lists(
        st.sampled_from(["age", "-age", "city", "-city", "name", "-name", "initial", "-email"]), max_size=3
    ),
    offset=st.sampled_from([0, 0, 1, 5]),
    limit=st.sampled_from([None, 0, 1, 10]),
)
def test_order_limit_and_offset(kind, condition, order, offset, limit):
    people = COLLECTIONS[kind]
    if fitting(condition, people):
        whole = list(people.find(condition, order=order))
        assert names(whole) == names(people.find(condition))
        end = None if limit is None else offset + limit
        page = people.find(condition, order=order, offset=offset, limit=limit)
        assert list(page) == whole[offset:end]
        assert page.count() == len(whole[offset:end])
        without = COLLECTIONS["none"].find(condition, order=order)
        assert [each.name for each in without] == [each.name for each in whole]


def test_what_lacks_the_order_comes_last():
    people = COLLECTIONS["all"]
    lacking = {person.name for person in people.values() if not hasattr(person, "age")}
    assert lacking
    for order in ("age", "-age"):
        assert {each.name for each in list(people.find(order=order))[-len(lacking) :]} == lacking


def test_texts_tell_what_is_looked_for():
    condition = where(city="Rome", age=between(1, 2)) & (~where(tags=has("a")) | where(nick=begins_with("x")))
    assert str(condition) == ("(city == 'Rome' and 1 <= age <= 2) and (not tags has 'a' or nick begins with 'x')")
    assert (
        str(where(age=above(3), city=any_of(["a"]), nick=below("b"))) == "3 < age and city in ['a'] and nick < 'b'"
    )
    assert str(where(tags=has(at_most(3)))) == "tags has one such that it <= 3"
    assert str(where()) == "everything"
    assert "everything" in repr(COLLECTIONS["all"].find())
    assert repr(between(1, 2)) == "1 <= _ <= 2"
    assert str(matches(is_adult)) == "people.is_adult()"


def test_the_smallest_index_comes_first():
    people = Collection("name", {"rare": "rare", "half": "half", "most": "most"})
    people.update(Person(name=str(n), rare=n // 10, half=n % 2, most=n % 20 == 0) for n in range(4000))
    assert people.find(most=False, half=1, rare=7).explain() == (
        "index rare: rare == 7, about 10\n"
        "check most == False, by what the indexes have\n"
        "check half == 1, by what the indexes have"
    )
    lines = people.find(most=False, half=1).explain().splitlines()
    assert lines[0] == "in all of"
    assert lines[1].startswith("  index half: half == 1, about ")
    assert lines[2].startswith("  index most: most == False, about ")
    assert (
        people.find(~where(half=1), rare=7).explain().splitlines()[1]
        == "check not half == 1, by what the indexes have"
    )
    lines = people.find(~where(rare=7)).explain().splitlines()
    assert lines == ["all members, 4,000", "without", "  index rare: rare == 7, about 10"]


def test_a_compound_index_serves_its_first_parts():
    people = COLLECTIONS["compound"]
    assert (
        "index place: city == 'Rome' and 17 <= age <= 19"
        in people.find(city="Rome", age=between(17, 19)).explain()
    )
    assert "index place: city == 'Rome'," in people.find(city="Rome").explain()
    assert "age == 17, by every object: no index has it" in people.find(age=17).explain()
    assert "index place: place == ('Rome', 17)" in people.find(place=("Rome", 17)).explain()
    assert names(people.find(place=("Rome", 17))) == names(people.find(city="Rome", age=17))
    assert names(people.find(place=at_least(("Rome", 17)))) == names(
        each
        for each in people.values()
        if getattr(each, "city", None) == "Rome" and (getattr(each, "age", None) in (17, 18, 19, 40.5, 99, "old"))
    )


@pytest.mark.parametrize("unique", [False, True])
def test_a_compound_index_has_the_order_within_its_first_part(unique):
    chance = random.Random(3)
    people = Collection("name", {"place": Index(("city", "rank"), unique=unique)})
    ranks = chance.sample([None, *range(300)], 200)
    people.update(Person(name=str(n), city=n % 2, rank=ranks[n], other=n % 5) for n in range(200))
    people.add(Person(name="bare", city=1))
    for order in ("rank", "-rank"):
        for limit in (None, 3, 150):
            found = people.find(city=1, order=order, limit=limit, scan=False)
            assert "along index place, within 1 of its parts, in the order of rank" in found.explain()
            keyed = sorted((p for p in people.values() if p.city == 1 and hasattr(p, "rank")), key=by_rank)
            expected = [*(keyed[::-1] if order == "-rank" else keyed), people["bare"]][:limit]
            assert list(found) == expected
        some = people.find(city=1, other=3, order=order, limit=2)
        assert some.explain().splitlines()[1] == "check other == 3, by every object: no index has it"
        assert [p.other for p in some] == [3, 3]
        assert list(some) == list(people.find(city=1, other=3, order=order))[:2]


def by_rank(person):
    return encode(person.rank)


def test_an_index_may_have_the_name_of_another_attribute():
    """To a search the name means the index; to a partial index, the attribute."""
    people = Collection("name", {"age": "born", "part": Index("nick", where=where(age=3))})
    people.add(Person(name="a", born=3, age=1, nick="x"))
    people.add(Person(name="b", born=1, age=3, nick="x"))
    assert names(people.find(age=3, nick="x")) == ["a"]
    assert names(people.find(age=3)) == ["a"]


def test_a_compound_index_has_members_that_lack_a_part():
    people = Collection("name", {"place": ("city", "age")})
    people.add(Person(name="a", city="Rome"))
    assert names(people.find(city="Rome", scan=False)) == ["a"]
    assert names(people.find(city="Rome", age=at_most(3))) == []
    assert names(people.find(city="Rome", age=None)) == []
    assert names(people.find(~where(age=3), city="Rome")) == ["a"]


def test_no_part_at_all_stands_for_every_value_of_a_compound_index():
    """From no part on raised IndexError."""
    people = COLLECTIONS["compound"]
    everybody = people.count(place=())
    assert 0 < everybody < len(people)
    for test in (at_least(()), at_most(()), between((), ()), any_of([()])):
        assert people.count(place=test) == everybody
    for test in (above(()), below(())):
        assert people.count(place=test) == 0


def test_a_compound_index_does_not_combine_too_many_values():
    people = Collection("name", {"place": ("city", "age", "nick")})
    people.update(Person(name=str(n), city=n % 60, age=n // 60, nick=n) for n in range(600))
    many = people.find(city=any_of(range(50)), age=any_of(range(50)))
    assert many.explain().splitlines()[1] == f"check age in {list(range(50))}, by every object: no index has it"
    assert many.count() == 500
    most = people.find(city=any_of(range(2000)), age=3)
    assert "check age == 3" in most.explain()
    assert most.count() == 60
    assert people.count(city=any_of(range(10)), age=any_of(range(3)), nick=any_of(range(100))) == 20


def test_values_without_an_order_pass_no_test():
    """They cannot be in an index, but in the way of a search without one."""
    people = Collection("name")
    people.update([Person(name="a", extra={}), Person(name="b", extra=3), Person(name="c", extra=[3])])
    assert names(people.find(extra=3)) == ["b"]
    assert names(people.find(~where(extra=3))) == ["a", "c"]
    assert names(people.find(extra=has(3))) == ["c"]


def test_a_condition_without_an_index_says_so_or_is_refused():
    people = COLLECTIONS["single"]
    found = people.find(email="3@example.com")
    assert found.explain() == "all members, 150\ncheck email == '3@example.com', by every object: no index has it"
    assert found.one().name == "003"
    for refused in (
        people.find(email="3@example.com", scan=False),
        people.find(where(city="Rome") & ~where(email="x"), scan=False),
        people.find(where(city="Rome") | where(email="x"), scan=False),
        people.find(matches(is_adult), scan=False),
        people.find(city="Rome", order="email", scan=False),
    ):
        with pytest.raises(ScanError, match="no index serves"):
            list(refused)
    with pytest.raises(ScanError) as caught:
        people.exists(email="x", scan=False)
    assert caught.value.condition == "email == 'x'"
    assert people.find(city="Rome", order="-age", scan=False).exists()


def test_computed_indexes_are_found_by_name():
    people = Collection("name", {"initial": computed("people.initial"), "same": initial})
    people.update(Person(name=name) for name in ("ab", "ac", "b"))
    assert names(people.find(initial="a", scan=False)) == names(people.find(same="a")) == ["ab", "ac"]
    assert [each.name for each in people.find(order="-initial")] == ["b", "ac", "ab"]


def test_attributes_of_attributes():
    people = Collection("name", {"street": "address.street"})
    people.add(Person(name="a", address=Person(street="s")))
    people.add(Person(name="b", address=None))
    people.add(Person(name="c"))
    assert names(people.find({"address.street": "s"}, scan=False)) == names(people.find(street="s")) == ["a"]


def test_one_and_first():
    people = COLLECTIONS["single"]
    assert people.one(name="003").name == "003"
    with pytest.raises(NotOneError, match="no member of the collection: name == 'x'") as caught:
        people.one(name="x")
    assert not caught.value.several
    with pytest.raises(NotOneError, match="more than one") as caught:
        people.one(city="Rome")
    assert caught.value.several
    assert isinstance(caught.value, LookupError)
    assert people.find(name="x").first() is None
    assert people.find(name="x").first("nobody") == "nobody"
    assert people.find(order="-name").first().name == "149"
    assert people.find(city="Rome").count() == people.count(city="Rome") > 1
    assert people.find(city="Rome", limit=1).count() == 1
    assert people.find(city="Rome", limit=1)
    assert not people.find(city="Rome", limit=0)
    assert not people.find(name="x")
    assert not hasattr(people.find(), "__len__")


def test_what_is_gone_by_its_turn_is_left_out():
    people = Collection("name")
    people.update(Person(name=f"{number:02}") for number in range(50))
    found = iter(people.find(~where(name="x")))
    assert next(found).name == "00"
    for number in range(1, 30):  # whole passes of reading ahead
        del people[f"{number:02}"]
    assert [person.name for person in found] == [f"{number:02}" for number in range(30, 50)]


def test_found_may_be_changed_while_they_are_gone_through():
    people = made(INDEXES["all"])
    for person in people.find(city="Rome"):
        people.remove(person)
    assert not people.exists(city="Rome")
    for order in ("age", "-age", "-name"):
        for person in people.find(order=order):
            person.age = 1
            people.reindex(person)
    assert people.count(age=1) == len(people)
    for limit in (5, 10):
        for person in people.find(~where(nick="nobody"), order="name", limit=limit):
            people.remove(person)
        for person in people.find(~where(age=7), order="-city", limit=limit):
            people.remove(person)
    found = iter(people.find(~where(nick="nobody")))
    next(found)
    people.remove(people[list(people)[10]])
    list(found)
    found = iter(people.find(city="Paris"))
    next(found)
    people.clear()
    assert list(found) == []


class Homemade(Condition):
    """A condition of a kind that nobody knows how to look for."""

    def holds(self, obj):
        return obj is not None


@pytest.mark.parametrize(
    "make",
    [
        lambda people: people.find("Rome"),
        lambda people: people.find(limit=-1),
        lambda people: people.find(offset=-1),
        lambda people: list(people.find(tags="a")),
        lambda _: has(has("a")),
        lambda _: begins_with(3),
        lambda _: bool(where(city="Rome")),
        lambda _: where(city="Rome") and where(age=3),
        lambda _: matches(lambda person: person),
        lambda people: list(people.find(Homemade())),
        lambda people: list(people.find(place=begins_with("x"))),
    ],
)
def test_what_makes_no_sense_is_refused(make):
    with pytest.raises(UsageError):
        make(COLLECTIONS["all"])


@pytest.mark.parametrize("value", ["x", 2.5, "2", (1,)], ids=str)
def test_limit_and_offset_are_whole_numbers(value):
    """TypeErrors and ValueErrors of whatever used them came, some only while iterating."""
    people = COLLECTIONS["all"]
    for name in ("limit", "offset"):
        with pytest.raises(UsageError, match=f"{name} is a whole number, not "):
            people.find(**{name: value})
    with pytest.raises(UsageError, match="offset is a whole number, not None"):
        people.find(offset=None)
    assert len(list(people.find(limit=True))) == 1


@pytest.mark.parametrize("order", [(), "age", "-name"])
def test_limit_and_offset_may_be_larger_than_any_number_of_members(order):
    """ValueError came while iterating: of sys.maxsize, where there was an offset."""
    people = COLLECTIONS["all"]
    everybody = list(people.find(order=order))
    for most in (sys.maxsize, 10**30, 10**400):
        assert list(people.find(order=order, limit=most)) == everybody
        assert list(people.find(order=order, limit=most, offset=3)) == everybody[3:]
        assert people.find(where(age=18), order=order, limit=most, offset=1).count() == people.count(age=18) - 1
        assert list(people.find(order=order, offset=most, limit=1)) == []


def test_conditions_are_combined_with_conditions():
    with pytest.raises(TypeError):
        where(city="Rome") & 3
    with pytest.raises(TypeError):
        3 | where(city="Rome")


def test_trees_are_walked_both_ways_while_they_change():
    people = Collection("name")
    people.update(Person(name=f"{number:04}") for number in range(2000))
    tree = people.tree()
    assert list(descending(tree)) == list(ascending(tree))[::-1] == list(tree)[::-1]
    assert list(descending(Collection("name").tree())) == list(ascending(Collection("name").tree())) == []
    forwards = [key for key in ascending(tree) if tree.pop(key) is not None]
    assert len(forwards) == 2000
    assert len(tree) == 0


@settings(max_examples=50)
@given(st.integers(0, 3000), st.integers(0, 3000))
def test_guesses_are_near(low, high):
    low, high = min(low, high), max(low, high)
    guess = count_about(GUESSED, (1, low), (1, high))
    assert guess == high - low or abs(guess - (high - low)) < 0.5 * (high - low) + 20


GUESSED = made({"number": "number"}, 0).tree("number")
GUESSED.update((1, number, number) for number in range(3000))
