"""Keys in an order that is total: whatever an index holds can be compared with whatever is looked for in it.

A key is a flat tuple: for each part the rank of its kind, then its value. Values are compared only where their
ranks are equal, so `None` and mixed types are no trouble to a BTree; texts and numbers stand in it as they
are. In the order of ranks: None; numbers (bool, int, float, Decimal), equal where Python has them equal; texts;
bytes; dates; datetimes without a zone; datetimes with one, as UTC; times without a zone; durations; UUIDs; tuples,
part by part; members of collections, by their ids.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from persistent import Persistent

from objstore.errors import KeyTypeError
from objstore.objects.following import followers

Key = tuple[Any, ...]
"""A flat tuple of ranks and values, one pair for each part."""

BEYOND = 2**63
"""Comes after every id and every rank: appended to a key, it is the end of what begins with that key."""

MISSING: Key = (-1, None)
"""Stands in a key of several parts for one that an object does not have. No value has this key."""

_NUMBER, _TEXT, _BYTES, _DATE, _NAIVE, _AWARE, _TIME, _DURATION, _UUID, _TUPLE, _MEMBER = range(1, 12)


class NamesMembers:
    """The kind of follower whose tokens are ids: they name an object for good, though oids change elsewhere."""

    _by_id: Any
    """The objects by their ids."""

    def is_named(self, obj: Persistent, member: int) -> bool:
        """Whether it is this object that has an id. A copy of a member has its followers too."""
        return self._by_id.get(member) is obj


PLAIN = {
    type(None): 0,
    bool: _NUMBER,
    int: _NUMBER,
    str: _TEXT,
    bytes: _BYTES,
    date: _DATE,
    timedelta: _DURATION,
    UUID: _UUID,
}
"""Ranks of what is its own key."""


def encode(value: Any) -> Key:
    """The key of one value. Raises KeyTypeError for what has no order."""
    rank = PLAIN.get(type(value))
    return (rank, value) if rank is not None else _encode(value)


def encode_parts(value: Any, parts: int) -> Key:
    """The key of a value of an index of so many parts: of several, it is a tuple. Raises KeyTypeError."""
    if parts == 1:
        return encode(value)
    if not isinstance(value, tuple) or len(value) > parts:
        raise KeyTypeError(value, f"of an index of {parts} parts the value is a tuple of as many")
    return tuple(each for part in value for each in encode(part))


def bounds(low: Any, high: Any, parts: int) -> tuple[Key | None, Key | None]:
    """The span from one value to another, both included; None is no bound. Raises KeyTypeError."""
    first = encode_parts(low, parts) if low is not None else None
    last = (*encode_parts(high, parts), BEYOND) if high is not None else None
    return first, last


def decode(key: Key) -> Any:
    """The value of a key: of several parts, a tuple. A member of a collection is only its id."""
    values = tuple(_decode(rank, value) for rank, value in zip(key[::2], key[1::2], strict=True))
    return values[0] if len(values) == 1 else values


def is_whole(key: Key) -> bool:
    """Whether no part of a key is missing."""
    return MISSING[0] not in key[::2]


def _decode(rank: int, value: Any) -> Any:
    if rank == _TUPLE:
        return tuple(_decode(*each) for each in zip(value[::2], value[1::2], strict=True))
    return value


def _encode(value: Any) -> Key:
    if isinstance(value, float | Decimal):
        if value.is_nan() if isinstance(value, Decimal) else value != value:  # comparing a signaling one raises
            raise KeyTypeError(value, "NaN has no place in any order")
        kind = float if isinstance(value, float) else Decimal
        return (_NUMBER, value if type(value) is kind else kind(value))
    if isinstance(value, datetime):
        return (_NAIVE, _plain(value)) if value.tzinfo is None else (_AWARE, _plain(_as_utc(value)))
    if isinstance(value, time) and value.tzinfo is None:
        return (_TIME, value if type(value) is time else datetime.combine(date.min, value).time())
    if isinstance(value, tuple):
        return (_TUPLE, tuple(each for part in value for each in encode(part)))
    if isinstance(value, Persistent):
        return (_MEMBER, _member_id(value))
    return _encode_derived(value)


def _plain(value: datetime) -> datetime:
    return value if type(value) is datetime else datetime.combine(datetime.date(value), datetime.timetz(value))


def _as_utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError as error:
        raise KeyTypeError(value, f"{value.isoformat()} is outside the years 1 to 9999 in UTC") from error


def _encode_derived(value: Any) -> Key:
    """The key of a value of a class of its own, such as an enumeration's, is that of what it is derived from."""
    if isinstance(value, int):
        return (_NUMBER, int.__index__(value))
    if isinstance(value, str):
        return (_TEXT, str.__str__(value))
    if isinstance(value, bytes):
        return (_BYTES, bytes(memoryview(value)))
    if isinstance(value, date):
        return (_DATE, date.fromordinal(date.toordinal(value)))
    if isinstance(value, timedelta):
        return (_DURATION, timedelta.__pos__(value))
    if isinstance(value, UUID):
        return (_UUID, UUID(int=value.int))
    raise KeyTypeError(value, "it has no defined order among others")


def ids_of(obj: Persistent, pairs: Iterable[tuple[Any, Any]]) -> Iterator[int]:
    """The ids by which collections know an object, of its followers."""
    for follower, token in pairs:
        if isinstance(follower, NamesMembers) and follower.is_named(obj, token):
            yield token


def _member_id(obj: Persistent) -> int:
    for member in ids_of(obj, followers(obj)):
        return member
    raise KeyTypeError(obj, "an object is a key only if it is a member of a collection: add it to one first")
