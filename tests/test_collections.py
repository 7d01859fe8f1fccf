"""Collections: members by key, and indexes that follow them."""

from __future__ import annotations

import copy
import random

import pytest
import transaction
from databases import abort, commit, opened
from people import Adding, Forgetful, Person, Slotted, collection, fill, is_adult, misfits, names

import objstore
from objstore.collections import (
    Collection,
    Index,
    at_least,
    at_most,
    computed,
    has,
    matches,
    where,
)
from objstore.errors import (
    ConflictError,
    CorruptionError,
    ImmutableKeyError,
    IndexingError,
    KeyTypeError,
    NotMemberError,
    POSKeyError,
    ReadConflictError,
    ReadOnlyError,
    SerializationError,
    UniqueError,
    UsageError,
)
from objstore.objects.following import set_followers

pytest_plugins = ["database_fixtures"]


@pytest.fixture
def some(databases):
    """A database: none of this depends on which."""
    return databases("memory-full")


@pytest.fixture
def connection(some):
    """A connection whose root has a collection of 100 people."""
    connection = opened(some)
    people = connection.root.people = collection()
    fill(people, 100)
    commit(connection)
    yield connection
    abort(connection)
    connection.close()


@pytest.fixture
def people(connection):
    return connection.root.people


def snapshot(people):
    """All that a collection knows, to be compared."""
    return (
        len(people),
        list(people.by_id.items()),
        [list(people.tree(name).keys()) for name in ("", *people.indexes)],
        list(people._entries.items()),
    )


# --- members -----------------------------------------------------------------------------------------


def test_members_are_had_by_key(people):
    person = people["00007"]
    assert person.name == "00007"
    assert people.get("00007") is person
    assert people.get("nobody") is None
    assert people.get("nobody", 1) == 1
    assert "00007" in people
    assert "nobody" not in people
    assert len(people) == 100
    with pytest.raises(NotMemberError, match="no member 'nobody'") as caught:
        people["nobody"]
    assert isinstance(caught.value, KeyError)


def test_members_are_in_the_order_of_their_keys(people):
    assert list(people) == [f"{number:05}" for number in range(100)]
    assert list(people.keys("00003", "00005")) == ["00003", "00004", "00005"]
    assert [person.name for person in people.values(min="00098")] == ["00098", "00099"]
    assert [key for key, person in people.items(max="00001") if person.name == key] == ["00000", "00001"]


def test_members_go(people):
    person = people["00007"]
    people.remove(person)
    assert "00007" not in people
    assert not hasattr(person, "_objstore_followers")
    assert len(people) == 99
    assert people.count(email="7@example.com") == 0
    del people["00008"]
    assert people.pop("00009").name == "00009"
    people.discard(person)
    with pytest.raises(NotMemberError):
        people.remove(person)
    assert misfits(people) == []
    people.clear()
    assert (len(people), list(people.find()), misfits(people)) == (0, [], [])


@pytest.mark.usefixtures("connection")
def test_a_collection_is_stored(some):
    other = opened(some)
    people = other.root.people
    assert people.one(email="7@example.com").name == "00007"
    assert misfits(people) == []
    other.close()


def test_an_empty_key_is_a_key(connection, people):
    people.add(Person(name="", city=""))
    commit(connection)
    assert people[""].city == ""
    assert names(people.find(city="")) == [""]
    assert next(iter(people)) == ""


def test_adding_a_member_again_indexes_it_as_it_is(people):
    person = people["00007"]
    person.city = "Lima"
    people.add(person)
    assert len(people) == 100
    assert people.one(city="Lima") is person


def test_keys_may_be_of_any_mixture(connection):
    mixed = connection.root.mixed = Collection("key", {"value": "value"})
    keys = [None, 3, "3", b"3", (3, "x"), 2.5, True]
    for key in keys:
        mixed.add(Person(name=str(key), key=key, value=key))
    commit(connection)
    assert list(mixed) == [None, True, 2.5, 3, "3", b"3", (3, "x")]
    assert [person.key for person in mixed.find(order="value")] == list(mixed)
    assert [person.key for person in mixed.find(order="-value")] == list(mixed)[::-1]
    assert [person.key for person in mixed.find(value=at_least(2), order="value")] == [2.5, 3]
    assert [person.key for person in mixed.find(value=None)] == [None]


def test_a_compound_key(connection):
    places = connection.root.places = Collection(("country", "city"))
    places.add(Person(country="fr", city="Paris"))
    places.add(Person(country="us", city="Paris"))
    assert list(places) == [("fr", "Paris"), ("us", "Paris")]
    assert places["us", "Paris"].country == "us"
    with pytest.raises(KeyTypeError, match="2 parts"):
        places["us"]


def test_an_object_may_be_in_several_collections(connection, people):
    others = connection.root.others = Collection("email", {"city": "city"})
    person = people["00007"]
    others.add(person)
    commit(connection)
    person.city = "Lima"
    commit(connection)
    assert people.one(city="Lima") is others.one(city="Lima") is person
    others.remove(person)
    person.city = "Bonn"
    commit(connection)
    assert people.one(city="Bonn") is person
    assert (len(others), misfits(people), misfits(others)) == (0, [], [])


def test_children_of_a_container_are_a_scope(connection):
    """A compound index whose first part is the parent, a member of another collection."""
    folders = connection.root.folders = Collection("name")
    docs = connection.root.docs = Collection("title", {"in": Index(("parent", "rank"), unique=True)})
    for name in "ab":
        folders.add(Person(name=name))
        for rank in range(3):
            docs.add(Person(title=f"{name}{rank}", parent=folders[name], rank=2 - rank))
    commit(connection)
    connection.cacheMinimize()
    found = docs.find(parent=folders["b"], rank=at_most(1))
    assert sorted(doc.title for doc in found) == ["b1", "b2"]
    assert "index in" in found.explain()
    with pytest.raises(UniqueError):
        docs.add(Person(title="other", parent=folders["a"], rank=0))
    with pytest.raises(KeyTypeError, match="member of a collection"):
        docs.add(Person(title="stray", parent=Person(), rank=0))


def test_a_parent_that_has_left_is_no_value_any_more(connection):
    folders = connection.root.folders = Collection("name")
    docs = connection.root.docs = Collection(("parent", "title"))
    folders.add(Person(name="a"))
    docs.add(Person(title="t", parent=folders["a"]))
    commit(connection)
    del folders["a"]
    commit(connection)
    docs.find(title="t").one().title = "u"
    with pytest.raises(KeyTypeError, match="member of a collection"):
        commit(connection)
    abort(connection)


def test_what_is_no_persistent_object_is_refused(people):
    with pytest.raises(UsageError, match="not of dict"):
        people.add({})


@pytest.mark.parametrize("stranger", ["00007", 7, None, {}], ids=str)
def test_what_is_no_persistent_object_is_no_member(people, stranger):
    """AttributeErrors came, such as where a key was given to `remove`."""
    for verb in (people.remove, people.reindex):
        with pytest.raises(NotMemberError, match="no member"):
            verb(stranger)
    people.discard(stranger)
    assert len(people) == 100


def test_an_object_without_a_key_is_refused(people):
    with pytest.raises(IndexingError, match="a Person without name has no key"):
        people.add(Person(city="Rome"))
    assert misfits(people) == []


def test_a_member_that_loses_its_key_fails_the_commit(connection, people):
    del people["00007"].name
    with pytest.raises(IndexingError, match="without name"):
        commit(connection)
    abort(connection)
    assert people["00007"].name == "00007"


@pytest.mark.parametrize(
    "make",
    [
        lambda: Collection(Index("name", multiple=True)),
        lambda: Collection(Index("name", where=where(age=1))),
        lambda: Collection("name", {"": "age"}),
        lambda: Collection("name", {3: "age"}),
        lambda: Index(()),
        lambda: Index(("a", "b"), multiple=True),
        lambda: Index(3),
        lambda: Index("a", where={"city": "Rome"}),
        lambda: Index(lambda person: person.name),
        lambda: computed("people.missing"),
        lambda: computed("missing_module.function"),
        lambda: computed("nothing"),
    ],
)
def test_definitions_that_make_no_sense_are_refused(make):
    with pytest.raises(UsageError):
        make()


# --- following ---------------------------------------------------------------------------------------


def test_indexes_follow_at_commit(connection, people):
    person = people["00007"]
    person.city = "Lima"
    person.tags = ["z"]
    person.name = "renamed"
    assert people.count(city="Lima") == 0
    commit(connection)
    assert people.one(city="Lima") is person
    assert people.one(tags=has("z")) is person
    assert people["renamed"] is person
    assert "00007" not in people
    assert people.one(initial="r") is person
    assert misfits(people) == []


def test_indexes_follow_at_once_on_demand(connection, people):
    person = people["00007"]
    person.city = "Lima"
    people.reindex(person)
    assert people.one(city="Lima") is person
    abort(connection)
    assert people.count(city="Lima") == 0
    assert misfits(people) == []


def test_indexes_follow_though_the_collection_is_not_loaded(connection, people, some):
    connection.root.favourite = people["00007"]
    commit(connection)
    other = opened(some)
    other.root.favourite.city = "Lima"
    assert other.cached(people._p_oid) is None or other.cached(people._p_oid)._p_changed is None
    commit(other)
    other.close()
    commit(connection)
    assert people.one(city="Lima").name == "00007"
    assert misfits(people) == []


def test_indexes_follow_at_savepoints_and_their_rollback(connection, people):
    manager = connection.transaction_manager
    person = people["00007"]
    person.city = "Lima"
    first = manager.savepoint()
    assert people.one(city="Lima") is person
    person.city = "Bonn"
    second = manager.savepoint()
    person.city = "Kiev"
    manager.savepoint()
    assert [people.count(city=city) for city in ("Lima", "Bonn", "Kiev")] == [0, 0, 1]
    second.rollback()
    assert [people.count(city=city) for city in ("Lima", "Bonn", "Kiev")] == [0, 1, 0]
    first.rollback()
    assert people.one(city="Lima") is person
    people["00008"].city = "Lima"
    commit(connection)
    assert names(people.find(city="Lima")) == ["00007", "00008"]
    assert misfits(people) == []


def test_an_addition_that_is_rolled_back_can_be_made_again(connection, people):
    savepoint = connection.transaction_manager.savepoint()
    person = Person(name="new", city="Lima")
    people.add(person)
    savepoint.rollback()
    assert "new" not in people
    assert misfits(people) == []
    people.add(person)
    person.city = "Bonn"
    commit(connection)
    assert people.one(city="Bonn") is person
    assert misfits(people) == []


def test_what_was_never_a_member_in_the_end_is_stored_all_the_same(connection, people):
    savepoint = connection.transaction_manager.savepoint()
    person = Person(name="new", city="Lima")
    people.add(person)
    savepoint.rollback()
    connection.root.stray = person
    commit(connection)
    person.city = "Bonn"
    commit(connection)
    assert "new" not in people
    assert misfits(people) == []


def test_an_aborted_change_leaves_all_as_it_was(connection, people):
    before = snapshot(people)
    people["00007"].city = "Lima"
    people.add(Person(name="new"))
    del people["00008"]
    connection.transaction_manager.savepoint()
    abort(connection)
    assert snapshot(people) == before


def test_members_of_a_new_collection_may_change_before_it_is_stored(some):
    connection = opened(some)
    people = connection.root.people = collection()
    person = Person(name="a", city="Rome")
    people.add(person)
    person.city = "Lima"
    commit(connection)
    assert people.one(city="Lima") is person
    assert misfits(people) == []
    connection.close()


def test_a_new_collection_whose_commit_failed_can_be_stored_again(some):
    connection, other = opened(some), opened(some)
    other.root.blocking = 1
    people = connection.root.people = collection()
    person = Person(name="a", city="Rome")
    people.add(person)
    commit(other)
    with pytest.raises(ConflictError):
        commit(connection)
    abort(connection)
    person.city = "Lima"
    connection.root.people = people
    person.name = "b"
    commit(connection)
    assert people["b"] is people.one(city="Lima") is person
    assert misfits(people) == []
    connection.close()
    other.close()


def test_members_in_the_root_by_another_path_first(some):
    """The member is written before the collection is met."""
    connection = opened(some)
    people = collection()
    person = Person(name="a", city="Rome")
    people.add(person)
    connection.add(person)
    person.city = "Lima"
    connection.root.person = person
    connection.root.people = people
    commit(connection)
    person.city = "Bonn"
    commit(connection)
    assert people.one(city="Bonn") is person
    assert misfits(people) == []
    connection.close()


def test_existing_objects_join_a_new_collection(connection, people):
    person = people["00007"]
    others = connection.root.others = Collection("name", {"city": "city"})
    others.add(person)
    person.city = "Lima"
    commit(connection)
    assert others.one(city="Lima") is people.one(city="Lima")
    assert misfits(others) == misfits(people) == []


def test_a_missing_attribute_is_not_in_an_index(connection, people):
    people.add(Person(name="bare"))
    commit(connection)
    assert "bare" not in names(people.find(city=at_least("")))
    assert "bare" in names(people.find(~where(city="Rome")))
    people["bare"].city = None
    commit(connection)
    assert names(people.find(city=None)) == ["bare"]
    del people["bare"].city
    commit(connection)
    assert people.count(city=None) == 0
    assert misfits(people) == []


def test_objects_without_a_dictionary_are_indexed_on_demand(connection):
    things = connection.root.things = Collection("name", {"city": "city"})
    thing = Slotted("a", "Rome")
    things.add(thing)
    commit(connection)
    thing.city = "Lima"
    commit(connection)
    assert things.count(city="Rome") == 1
    assert ("unindexed", "city") in misfits(things)
    things.reindex(thing)
    commit(connection)
    assert things.one(city="Lima") is thing
    assert misfits(things) == []
    things.remove(thing)
    assert len(things) == 0


def test_objects_that_do_not_store_who_follows_them_are_found_out(connection, some):
    things = connection.root.things = Collection("name", {"city": "city"})
    things.add(Forgetful(name="a", city="Rome"))
    commit(connection)
    other = opened(some)
    assert misfits(other.root.things) == [("unfollowed", "")]
    other.root.things["a"].city = "Lima"
    other.root.things.reindex(other.root.things["a"])
    commit(other)
    assert other.root.things.count(city="Lima") == 1
    other.close()


def test_following_calls_nobody_else(connection):
    """Objects that nobody follows, and BTrees, are written as ever."""
    connection.root.stray = Person(name="x")
    commit(connection)
    connection.root.stray.city = "Lima"
    commit(connection)
    assert connection.root.stray.city == "Lima"


@pytest.mark.usefixtures("connection")
def test_a_read_only_connection_changes_nothing(some):
    if some.supportsUndo():
        past = opened(some, at=some.lastTransaction())
        with pytest.raises(ReadOnlyError):
            past.root.people.add(Person(name="new"))
        with pytest.raises(ReadOnlyError):
            del past.root.people["00007"]
        abort(past)
        assert names(past.root.people.find(city="Rome", age=4)) == ["00004"]
        past.close()


# --- what may not be ---------------------------------------------------------------------------------


def test_an_object_of_another_connection_is_refused(people, other):
    stranger = Person(name="new")
    other.add(stranger)
    with pytest.raises(SerializationError, match="another connection"):
        people.add(stranger)
    assert "new" not in people
    assert not hasattr(stranger, "_objstore_followers")


def test_tokens_of_other_followers_are_no_ids(connection, people):
    watched = Person(name="new")
    set_followers(watched, ((people.by_id, 7),))
    people.add_index("friend", "friend")
    with pytest.raises(KeyTypeError, match="member of a collection"):
        people.add(Person(name="x", friend=watched))
    set_followers(watched, ())
    people.add(watched)
    people.add(Person(name="x", friend=watched))
    commit(connection)
    assert people.one(friend=watched).name == "x"


@pytest.mark.parametrize("joins", ["the same collection", "another collection"])
def test_a_copy_of_a_member_is_no_member(connection, people, joins):
    """As a value of an index it counted as the one that it was copied of."""
    others = connection.root.others = Collection("name")
    docs = connection.root.docs = Collection("title", {"place": ("parent", "rank")})
    others.add(people["00001"])
    commit(connection)
    twin = copy.copy(people["00001"])
    twin.name, twin.email = "twin", "twin@example.com"
    with pytest.raises(KeyTypeError, match="member of a collection"):
        docs.add(Person(title="x", parent=twin, rank=1))
    (people if joins == "the same collection" else others).add(twin)
    docs.add(Person(title="x", parent=twin, rank=1))
    docs.add(Person(title="y", parent=people["00001"], rank=1))
    commit(connection)
    assert [each.title for each in docs.find(parent=twin)] == ["x"]
    assert [each.title for each in docs.find(parent=people["00001"])] == ["y"]
    assert misfits(people) == misfits(others) == misfits(docs) == []


def test_who_was_not_added_in_the_end_is_no_value(connection, people):
    docs = connection.root.docs = Collection("title", {"parent": "parent"})
    commit(connection)
    nobody = Person(name="nobody")
    people.add(nobody)
    abort(connection)
    with pytest.raises(KeyTypeError, match="member of a collection"):
        docs.add(Person(title="x", parent=nobody))


def test_a_second_holder_of_a_key_is_refused(connection, people):
    before = snapshot(people)
    with pytest.raises(UniqueError) as caught:
        people.add(Person(name="00007", email="new"))
    error = caught.value
    assert (error.index, error.key, error.holder) == ("key", "00007", people["00007"])
    assert error.other.email == "new"
    assert f"a new Person has the key '00007', which Person {people['00007']._p_oid.hex()} has already" in str(
        error
    )
    new = Person(name="new", email="7@example.com")
    with pytest.raises(UniqueError, match="index 'email'"):
        people.add(new)
    assert new._p_oid is None
    assert not hasattr(new, "_objstore_followers")
    assert snapshot(people) == before
    commit(connection)
    assert misfits(people) == []


def test_a_second_holder_fails_reindexing_and_leaves_all_as_it_was(people):
    before = snapshot(people)
    people["00007"].email = "8@example.com"
    people["00007"].city = "Lima"
    with pytest.raises(UniqueError):
        people.reindex(people["00007"])
    assert snapshot(people) == before


def test_a_second_holder_fails_the_commit(connection, people):
    before = snapshot(people)
    people["00007"].email = "8@example.com"
    people["00009"].city = "Lima"
    with pytest.raises(UniqueError, match="8@example"):
        commit(connection)
    abort(connection)
    assert snapshot(people) == before


def test_two_new_holders_fail_the_commit(connection, people):
    people["00007"].email = people["00008"].email = "same"
    with pytest.raises(UniqueError) as caught:
        commit(connection)
    assert {caught.value.holder, caught.value.other} == {people["00007"], people["00008"]}
    abort(connection)


def test_members_may_exchange_unique_keys(connection, people):
    one, other = people["00007"], people["00008"]
    one.email, other.email = other.email, one.email
    one.name, other.name = other.name, one.name
    commit(connection)
    assert people.one(email="7@example.com") is people["00007"] is other
    assert misfits(people) == []


def test_who_has_given_a_key_up_makes_way_at_once(connection, people):
    people["00007"].email = "moved"
    people.add(Person(name="new", email="7@example.com"))
    assert people.one(email="moved").name == "00007"
    people["00008"].email, people["00009"].email = "9@example.com", "8@example.com"
    people.reindex(people["00008"])
    assert people.one(email="8@example.com").name == "00009"
    commit(connection)
    assert misfits(people) == []


def test_an_update_is_all_or_nothing(people):
    before = snapshot(people)
    with pytest.raises(UniqueError):
        people.update([Person(name="new"), people["00007"], Person(name="newer"), Person(name="00008")])
    assert snapshot(people) == before
    people.update(Person(name=f"new{number}") for number in range(3))
    assert len(people) == 103


def test_an_immutable_key_stays(connection, people):
    people.add_index("born", Index("born", immutable=True))
    person = people["00007"]
    person.born = 1970
    commit(connection)
    person.born = 1971
    with pytest.raises(ImmutableKeyError, match="from 1970 to 1971") as caught:
        people.reindex(person)
    assert (caught.value.obj, caught.value.old, caught.value.new) == (person, 1970, 1971)
    with pytest.raises(ImmutableKeyError):
        commit(connection)
    abort(connection)
    assert people.one(born=1970) is person
    people.remove(person)
    person.born = 1971
    people.add(person)
    commit(connection)
    assert people.one(born=1971) is person


def test_an_immutable_primary_key(connection):
    fixed = connection.root.fixed = Collection(Index("name", immutable=True))
    fixed.add(Person(name="a"))
    commit(connection)
    fixed["a"].name = "b"
    with pytest.raises(ImmutableKeyError):
        commit(connection)
    abort(connection)


@pytest.mark.parametrize(
    ("attribute", "value"), [("city", []), ("age", float("nan")), ("tags", "ab"), ("tags", 3)]
)
def test_values_that_are_no_keys_are_refused(connection, people, attribute, value):
    before = snapshot(people)
    with pytest.raises(KeyTypeError):
        people.add(Person(**{"name": "new", attribute: value}))
    setattr(people["00007"], attribute, value)
    with pytest.raises(KeyTypeError):
        commit(connection)
    abort(connection)
    assert snapshot(people) == before


# --- indexes come and go -----------------------------------------------------------------------------


def test_an_index_is_added_to_a_full_collection(connection, people):
    told = []
    people["00007"].nick = "seven"
    people.add_index("nick", Index("nick", unique=True), progress=lambda *each: told.append(each), batch=40)
    assert told == [("index nick", 40, 100), ("index nick", 80, 100), ("index nick", 100, 100)]
    assert people.one(nick="seven", scan=False).name == "00007"
    people["00008"].nick = "eight"
    commit(connection)
    assert people.one(nick="eight", scan=False).name == "00008"
    assert misfits(people) == []


@pytest.mark.parametrize("batch", [None, 10])
def test_an_index_that_cannot_be_added_is_not_there(connection, people, batch):
    before = people.indexes
    with pytest.raises(UniqueError):
        people.add_index("lone", Index("city", unique=True), batch=batch)
    assert people.indexes == before
    commit(connection)
    people.add_index("lone", Index("age"), batch=batch)
    commit(connection)
    assert misfits(people) == []


@pytest.mark.parametrize("batch", [None, 10])
def test_an_index_in_the_place_of_a_dropped_one(connection, people, batch):
    """What members had in the dropped index counts for nothing."""
    people.drop_index("age")
    commit(connection)
    assert "no index has it" in people.find(age=7).explain()
    people["00099"].age = 99
    people.add_index("years", "age", batch=batch)
    people["00098"].age = 99
    commit(connection)
    assert names(people.find(age=99, scan=False)) == names(people.find(years=99)) == ["00098", "00099"]
    assert misfits(people) == []


def test_names_of_indexes_are_used_once(people):
    with pytest.raises(UsageError, match="already"):
        people.add_index("city", "age")
    with pytest.raises(UsageError, match="no index 'nick', only city"):
        people.drop_index("nick")
    with pytest.raises(UsageError, match="no index"):
        people.tree("nick")


def test_partial_indexes_have_some(connection, people):
    people.add_index("adults", Index("email", unique=True, where=matches(is_adult)))
    people.add_index("romans", Index("age", where=where(city="Rome")))
    commit(connection)
    assert len(people.tree("adults")) == sum(person.age >= 18 for person in people.values())
    found = people.find(matches(is_adult), email="19@example.com")
    assert found.one().name == "00019"
    found = people.find(city="Rome", age=4)
    assert "index romans: age == 4" in found.explain() or "index place" in found.explain()
    assert names(found) == ["00004"]
    assert "romans" not in people.find(city="Oslo", age=5).explain()
    people.add_index("grown", Index("name", where=matches("people.is_adult")))
    adults = people.find(matches(is_adult), scan=False)
    assert names(adults) == names(person for person in people.values() if person.age >= 18)
    people["00004"].city = "Oslo"
    commit(connection)
    assert people.count(city="Rome", age=4) == 0
    assert misfits(people) == []


def test_verifying_finds_each_damage_and_rebuilding_repairs_it(connection, people):
    first, second = people["00001"], people["00002"]
    ids = {person.name: member for member, person in people.by_id.items()}
    people.tree("city").remove((2, "Rome", ids["00001"]))
    people.tree("age").insert((1, 77, ids["00002"]))
    people.tree("email")[2, "stolen"] = 12345
    del first._objstore_followers
    people._tally.members = 50
    people._entries[99999] = ()
    commit(connection)
    found = set(misfits(people))
    assert found == {
        ("unindexed", "city"),
        ("outdated", "age"),
        ("outdated", "email"),
        ("unfollowed", ""),
        ("outdated", ""),
        ("count", ""),
    }
    told = [each for each in people.verify() if each.kind == "unindexed"]
    assert told[0].oid == first._p_oid
    assert people.rebuild() == 100
    commit(connection)
    assert misfits(people) == []
    second.city = "Lima"
    commit(connection)
    assert people.one(city="Lima") is second


@pytest.mark.parametrize("way", [Collection.verify, Collection.keys])
def test_a_damaged_tree_is_told_and_not_gone_round_for_ever(people, way):
    for tree in (people.by_id, people.tree()):
        first = tree._firstbucket
        _keys, second = first.__getstate__()
        second.__setstate__((second.__getstate__()[0], first))
    with pytest.raises(CorruptionError):
        list(way(people))


def test_verifying_writes_nothing(connection, people, some):
    last = some.lastTransaction()
    assert list(people.verify()) == []
    commit(connection)
    assert some.lastTransaction() == last
    assert not connection.joined


def test_rebuilding_sees_what_was_changed_in_the_same_transaction(connection, people):
    people["00007"].city = "Lima"
    people.add(Person(name="new", city="Lima"))
    del people["00008"]
    assert people.rebuild() == 100
    commit(connection)
    assert names(people.find(city="Lima")) == ["00007", "new"]
    assert misfits(people) == []


def test_rebuilding_that_is_refused_changes_nothing(people):
    before = snapshot(people)
    people["00007"].email = "8@example.com"
    with pytest.raises(UniqueError):
        people.rebuild()
    assert snapshot(people) == before


def test_a_member_whose_object_is_gone(connection, people, monkeypatch):
    person = people["00007"]
    oid = person._p_oid
    connection.cacheMinimize()
    load = type(connection)._load

    def gone(self, each):
        if each == oid:
            raise POSKeyError(each)
        return load(self, each)

    monkeypatch.setattr(type(connection), "_load", gone)
    assert misfits(people) == [("missing", "")]
    assert people.rebuild() == 99
    commit(connection)
    assert misfits(people) == []


@pytest.mark.usefixtures("connection")
def test_an_index_whose_function_is_gone_says_so(some, monkeypatch):

    monkeypatch.delattr("people.initial")
    other = opened(some)
    assert other.root.people["00007"].name == "00007"
    other.root.people["00007"].name = "x"
    with pytest.raises(UsageError, match=r"people\.initial .*cannot be imported"):
        commit(other)
    abort(other)
    other.close()


@pytest.fixture
def elsewhere(connection, some, monkeypatch):
    """A connection that cannot import the class of one member, `00100`, which another connection can."""
    connection.root.people.add(Adding(name="00100", city="Rome", age=7))
    commit(connection)
    monkeypatch.delattr("people.Adding")
    other = opened(some)
    yield other
    abort(other)
    other.close()


def test_an_index_of_a_member_whose_class_is_missing_is_refused(elsewhere):
    """It was made without the member, and nothing was raised."""
    people = elsewhere.root.people
    oid = people["00100"]._p_oid.hex()
    before, indexes = snapshot(people), people.indexes
    for raising in (
        lambda: people.add_index("old", "age"),
        lambda: people.add_index("cities", Index("city", where=where(age=1)), batch=None),
        people.rebuild,
        lambda: people.add(people["00100"]),
        lambda: people.reindex(people["00100"]),
    ):
        with pytest.raises(IndexingError, match=rf"object {oid} .* class people\.Adding cannot be imported"):
            raising()
        assert people.indexes == indexes
        assert snapshot(people)[:3] == before[:3]
    assert misfits(people) == [("unreadable", "")]


def test_a_member_whose_class_is_missing_can_be_removed(connection, elsewhere, monkeypatch):
    """It was said to be no member, by whichever way it was to go."""
    people = elsewhere.root.people
    for number, removing in enumerate(
        (
            lambda: people.remove(people["00100"]),
            lambda: people.discard(people["00100"]),
            lambda: people.pop("00100"),
            lambda: people.__delitem__("00100"),
            people.clear,
        )
    ):
        removing()
        assert "00100" not in people
        assert len(people) == (0 if number == 4 else 100)
        assert misfits(people) == []
        if number < 4:
            abort(elsewhere)
    abort(elsewhere)
    gone = people.pop("00100")
    with pytest.raises(NotMemberError):
        people.remove(gone)
    elsewhere.root.gone = gone
    commit(elsewhere)
    monkeypatch.undo()
    connection.sync()
    people, gone = connection.root.people, connection.root.gone
    gone.city = "Oslo"
    commit(connection)
    assert "00100" not in people
    assert misfits(people) == []
    people.add(gone)
    gone.city = "Bonn"
    commit(connection)
    assert people.one(city="Bonn") is gone
    assert misfits(people) == []


def test_only_what_collections_are_made_of_need_not_be_allowed(tmp_path):
    with objstore.open(tmp_path / "store") as db, db.transaction() as connection:
        connection.root.people = collection()
        connection.root.people.add_index("romans", Index("age", where=where(city="Rome") & ~where(age=None)))
        fill(connection.root.people, 3)
    with objstore.open(tmp_path / "store", allowed_classes=["people."]) as db, db.transaction() as connection:
        assert connection.root.people.one(initial="0", city="Rome").name == "00001"
    with (
        objstore.open(tmp_path / "store", allowed_classes=["people.Person"]) as db,
        db.transaction() as connection,
        pytest.raises(objstore.errors.ClassNotAllowedError, match=r"people\.initial"),
    ):
        connection.root.people.one(initial="0", city="Rome")


# --- conflicts ---------------------------------------------------------------------------------------


@pytest.fixture
def other(some, connection):  # noqa: ARG001  # which makes the collection
    other = opened(some)
    yield other
    abort(other)
    other.close()


def both(connection, other, change):
    """Two transactions at once, each with its own number; how often the second had to begin again."""
    change(connection.root.people, 0)
    change(other.root.people, 1)
    commit(connection)
    try:
        commit(other)
    except ConflictError:  # a leaf was split
        abort(other)
        change(other.root.people, 1)
        commit(other)
        again = 1
    else:
        again = 0
    connection.transaction_manager.begin()
    return again


def test_two_that_add_different_members_merge(connection, people, other):
    """Next to each other in every index. Only where a leaf of a tree is split one of them begins again."""
    again = 0
    for step in range(40):

        def add(people, number, step=step):
            name = f"z{step:02}{number}"
            people.add(Person(name=name, city="Zug", age=99, tags=["z"], email=name))

        again += both(connection, other, add)
    assert again < 20
    assert people.count(city="Zug", tags=has("z")) == 80
    assert len(people) == 180
    assert misfits(people) == []


def test_two_that_change_different_members_merge(connection, people, other):
    """But BTrees do not merge what takes the first key out of a leaf."""
    chance = random.Random(1)
    some = chance.sample(list(people), 80)
    again = 0
    for step in range(20):

        def change(people, number, step=step):
            people[some[2 * step + number]].city = "Zug"
            del people[some[40 + 2 * step + number]]

        again += both(connection, other, change)
    assert again < 18
    assert people.count(city="Zug") == 40
    assert (len(people), misfits(people)) == (60, [])


def test_two_that_take_one_unique_key_conflict(connection, people, other):
    people.add(Person(name="x", email="same"))
    other.root.people.add(Person(name="y", email="same"))
    commit(connection)
    with pytest.raises(ConflictError):
        commit(other)
    abort(other)
    with pytest.raises(UniqueError):
        other.root.people.add(Person(name="y", email="same"))
    assert misfits(other.root.people) == []


@pytest.mark.parametrize("first", [0, 1])
def test_a_removal_conflicts_with_a_change(connection, people, other, first):
    del people["00007"]
    other.root.people["00007"].city = "Zug"
    pair = [connection, other]
    commit(pair[first])
    with pytest.raises(ConflictError):
        commit(pair[1 - first])
    abort(pair[1 - first])
    assert misfits(pair[1 - first].root.people) == []


def test_members_are_not_merged_by_their_own_rule(connection, people, other):
    """What is merged might not be what either has indexed."""
    people.add(Adding(name="x", visits=1))
    connection.root.alone = Adding(name="y", visits=1)
    commit(connection)
    commit(other)
    people["x"].visits += 1
    other.root.people["x"].visits += 1
    commit(connection)
    with pytest.raises(ConflictError, match="it is followed"):
        commit(other)
    abort(other)
    connection.root.alone.visits += 1
    other.root.alone.visits += 1
    commit(connection)
    commit(other)
    assert other.root.alone.visits == 3


@pytest.mark.parametrize("joins", [True, False])
@pytest.mark.parametrize("first", [0, 1])
def test_a_change_is_not_merged_with_joining_or_leaving(connection, people, other, joins, first):
    """Who joined was indexed as it was before the other's change."""
    person = connection.root.person = Adding(name="x", visits=1)
    if not joins:
        people.add(person)
    commit(connection)
    commit(other)
    (people.add if joins else people.remove)(person)
    person.visits += 1
    other.root.person.visits += 1
    pair = [connection, other]
    commit(pair[first])
    with pytest.raises(ConflictError, match="it is followed"):
        commit(pair[1 - first])
    abort(pair[1 - first])
    assert misfits(pair[1 - first].root.people) == []


def renewing(people):
    """Each way to change what indexes there are."""
    return {
        "add": lambda: people.add_index("nick", "nick"),
        "drop": lambda: people.drop_index("age"),
        "rebuild": people.rebuild,
    }


def changing(people):
    """Each way to change a collection, or what would be in a new index."""
    return {
        "add": lambda: people.add(Person(name="new", nick="n")),
        "remove": lambda: people.remove(people["00007"]),
        "move": lambda: setattr(people["00007"], "city", "Zug"),
        "change": lambda: setattr(people["00007"], "nick", "n"),
    }


@pytest.mark.parametrize("change", ["add", "remove", "move", "change"])
@pytest.mark.parametrize("renewal", ["add", "drop", "rebuild"])
@pytest.mark.parametrize("first", [0, 1])
def test_renewed_indexes_lose_nothing(connection, people, other, renewal, change, first):
    """Whichever commits first, what the other has changed is indexed, or the second is refused."""
    renewing(people)[renewal]()
    changing(other.root.people)[change]()
    pair = [connection, other]
    commit(pair[first])
    try:
        commit(pair[1 - first])
    except ConflictError:
        abort(pair[1 - first])
    else:
        # Dropping relies on no object.
        assert (renewal, change, first) == ("drop", "change", 1)
    commit(pair[first])
    assert misfits(connection.root.people) == misfits(other.root.people) == []


def test_a_change_relies_on_the_indexes_that_there_are(connection, people, other):
    people.add_index("nick", "nick")
    other.root.people["00007"].nick = "n"
    commit(connection)
    with pytest.raises(ReadConflictError):
        commit(other)
    abort(other)
    other.root.people["00007"].nick = "n"
    commit(other)
    assert other.root.people.one(nick="n", scan=False).name == "00007"


def test_undoing_what_indexes_there_are_after_other_changes_is_refused(databases):
    """A dropped index that came back would lack what was added since."""
    db = databases("memory-full")
    connection = opened(db)
    people = connection.root.people = collection()
    fill(people, 10)
    commit(connection)
    people.drop_index("city")
    commit(connection)
    dropped = db.undoLog(0, 1)[0]["id"]
    people.add(Person(name="new", city="Lima"))
    commit(connection)
    db.undo(dropped, connection.transaction_manager.get())
    with pytest.raises(objstore.errors.ObjstoreError):
        commit(connection)
    abort(connection)
    assert misfits(people) == []
    connection.close()


def test_undoing_a_change_undoes_it_in_the_indexes(databases):
    db = databases("memory-full")
    connection = opened(db)
    people = connection.root.people = collection()
    fill(people, 100)
    commit(connection)
    people["00007"].city = "Oslo"
    commit(connection)
    change = db.undoLog(0, 1)[0]["id"]
    people["00020"].city = "Rome"
    people.add(Person(name="new", city="Paris"))
    commit(connection)
    db.undo(change, connection.transaction_manager.get())
    commit(connection)
    assert people["00007"].city == "Rome"
    assert "00007" in names(people.find(city="Rome"))
    assert "00007" not in names(people.find(city="Oslo"))
    assert misfits(people) == []
    connection.close()


# --- what follows others -----------------------------------------------------------------------------


def test_the_thread_of_the_transaction_is_not_needed(people):
    transaction.abort()
    assert people.exists(city="Rome")
