"""Keys of indexes: one order over everything that may be a key."""

from __future__ import annotations

import enum
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from itertools import pairwise
from typing import NamedTuple
from uuid import UUID

import pytest
from databases import abort, commit, opened
from hypothesis import given
from hypothesis import strategies as st
from people import Person, misfits
from persistent import Persistent

from objstore.collections import Collection, at_least, at_most
from objstore.collections.keys import BEYOND, decode, encode, encode_parts
from objstore.errors import DataError, KeyTypeError

pytest_plugins = ["database_fixtures"]

PLAIN = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.decimals(allow_nan=False),
    st.text(),
    st.binary(),
    st.dates(),
    st.datetimes(),
    st.datetimes(timezones=st.just(UTC)),
    st.times(),
    st.timedeltas(),
    st.uuids(),
)
VALUES = st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=5)


@given(st.lists(VALUES, min_size=2, max_size=8))
def test_all_values_have_one_order(values):
    keys = sorted(map(encode, values))
    for first, second in pairwise(keys):
        assert first == second or first < second


@given(VALUES)
def test_keys_lead_back_to_their_values(value):
    assert decode(encode(value)) == value


@given(VALUES, VALUES)
def test_equal_keys_are_equal_values_of_one_kind(one, other):
    if encode(one) == encode(other):
        assert one == other


@given(VALUES, VALUES, st.integers(0, 2**63 - 1))
def test_what_begins_with_a_key_is_a_span(one, other, number):
    low, high = encode(one), (*encode(one), BEYOND)
    key = (*encode(other), number)
    assert (low <= key < high) == (encode(one) == encode(other))


@pytest.mark.parametrize(
    "in_order",
    [
        [None, False, True, 2, 2.5, Decimal(3), "", "a", "b", b"", b"a", date(2020, 1, 1)],
        [datetime(2020, 1, 1), datetime(2020, 1, 1, tzinfo=UTC), time(1), timedelta(1), UUID(int=1), (), (None,)],
        [(1,), (1, None), (1, 2), (1, "a"), ("",), ("", 1), ((),)],
    ],
)
def test_the_order_is_the_documented_one(in_order):
    keys = [encode(each) for each in in_order]
    assert keys == sorted(keys)
    assert len(set(keys)) == len(keys)


def test_texts_and_numbers_are_their_own_keys():
    text, number = "some text", 123456789
    assert encode(text)[1] is text
    assert encode(number)[1] is number


def test_equal_moments_are_one_key_whatever_their_zone():
    noon = datetime(2020, 6, 1, 12, tzinfo=UTC)
    assert encode(noon) == encode(noon.astimezone(timezone(timedelta(hours=5))))


class Color(enum.StrEnum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


class Point(NamedTuple):
    x: int
    y: int


class Raw(bytes):
    pass


class Ratio(float):
    pass


class Price(Decimal):
    pass


class Day(date):
    pass


class Moment(datetime):
    pass


class Hour(time):
    pass


class Pause(timedelta):
    pass


class Token(UUID):
    pass


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Color.RED, "red"),
        (Level.LOW, 1),
        (Point(1, 2), (1, 2)),
        (Raw(b"x"), b"x"),
        (Ratio(1.5), 1.5),
        (Price("0.1"), Decimal("0.1")),
        (Day(2020, 2, 29), date(2020, 2, 29)),
        (Moment(2020, 2, 29, 12, 30, 5, 7), datetime(2020, 2, 29, 12, 30, 5, 7)),
        (Moment(2020, 2, 29, 12, tzinfo=UTC), datetime(2020, 2, 29, 12, tzinfo=UTC)),
        (Hour(12, 30, 5, 7), time(12, 30, 5, 7)),
        (Pause(3, 4, 5), timedelta(3, 4, 5)),
        (Token(int=3), UUID(int=3)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_derived_values_have_the_keys_of_what_they_derive_from(value, plain):
    assert encode(value) == encode(plain)
    assert type(encode(value)[1]) is type(encode(plain)[1])


class Stranger(Persistent):
    pass


@pytest.mark.parametrize(
    "value",
    [float("nan"), Decimal("nan"), [], {}, {1}, object(), 1j, time(1, tzinfo=UTC), Stranger(), (1, []), len],
    ids=lambda value: type(value).__name__,
)
def test_what_has_no_order_is_refused(value):
    with pytest.raises(KeyTypeError) as caught:
        encode(value)
    assert isinstance(caught.value, TypeError)
    assert isinstance(caught.value, DataError)
    assert "cannot be a key" in str(caught.value)


WEST, EAST = timezone(timedelta(hours=-5)), timezone(timedelta(hours=5))
UNENCODABLE = [
    Decimal("sNaN"),
    Decimal("-sNaN123"),
    datetime.max.replace(tzinfo=WEST),
    datetime.min.replace(tzinfo=EAST),
    (1, Decimal("sNaN")),
]
"""What raised InvalidOperation and OverflowError."""


@pytest.mark.parametrize("value", UNENCODABLE, ids=str)
def test_what_cannot_be_encoded_is_refused(value):
    with pytest.raises(
        KeyTypeError, match=r"cannot be a key: (NaN has no place|.* is outside the years 1 to 9999)"
    ):
        encode(value)


@pytest.mark.parametrize("value", UNENCODABLE, ids=str)
def test_what_cannot_be_encoded_is_refused_by_collections(databases, value):
    db = databases("memory-full")
    connection = opened(db)
    people = connection.root.people = Collection(key="name", indexes={"born": "born"})
    people.add(Person(name="a", born=datetime.max.replace(tzinfo=UTC), joined=None))
    commit(connection)
    for raising in (
        lambda: people.add(Person(name="b", born=value)),
        lambda: people.add(Person(name=value)),
        lambda: people.get(value),
        lambda: people.find(born=value).count(),
        lambda: people.find(joined=value).count(),
        lambda: people.find(born=at_least(value)).count(),
        lambda: people.find(joined=at_most(value)).count(),
    ):
        with pytest.raises(KeyTypeError):
            raising()
    people["a"].born = value
    with pytest.raises(KeyTypeError):
        commit(connection)
    abort(connection)
    assert len(people) == 1
    assert misfits(people) == []
    connection.close()


@pytest.mark.parametrize("value", ["text", ("a", "b", "c")])
def test_a_key_of_several_parts_is_a_tuple_of_as_many(value):
    with pytest.raises(KeyTypeError, match="2 parts"):
        encode_parts(value, 2)
