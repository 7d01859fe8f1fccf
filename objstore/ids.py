"""Object ids and transaction ids: what they are, how they are written, how they are counted.

An *oid* is eight bytes, big-endian, so that bytes compare as the numbers do. It is written as 16
hexadecimal digits. The root of every store is oid 0.

A *tid* is eight bytes too, a `persistent.TimeStamp`: the upper four count minutes, the lower four are the
fraction of the minute. Tids increase strictly along the history of a store, whatever the clock does; the
tid of a revision is also called its *serial*.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import NewType

from persistent.timestamp import TimeStamp

Oid = NewType("Oid", bytes)
Tid = NewType("Tid", bytes)

ROOT = Oid(bytes(8))
NO_TID = Tid(bytes(8))
"""The serial of an object that was never stored, and the predecessor of the first transaction."""
MAX_TID = Tid(b"\x7f" + b"\xff" * 7)
"""Later than every transaction."""


def oid_from(number: int) -> Oid:
    """The oid with this number. Raises `OverflowError` outside of 64 bits."""
    return Oid(number.to_bytes(8, "big"))


def tid_from(number: int) -> Tid:
    """The tid with this number. Raises `OverflowError` outside of 64 bits."""
    return Tid(number.to_bytes(8, "big"))


def number(identity: bytes) -> int:
    """An oid or a tid as an integer."""
    return int.from_bytes(identity, "big")


def parse_oid(text: str) -> Oid:
    """Read an oid as people write it: up to 16 hexadecimal digits, with or without `0x`.

    Raises `ValueError` that says what was expected.
    """
    return Oid(_parse(text, "an oid"))


def parse_tid(text: str) -> Tid:
    """Read a tid written as up to 16 hexadecimal digits. Raises `ValueError`."""
    return Tid(_parse(text, "a tid"))


def _parse(text: str, what: str) -> bytes:
    digits = text.lower().removeprefix("0x")
    if not 1 <= len(digits) <= 16 or set(digits) - set("0123456789abcdef"):
        raise ValueError(f"{what} is 1 to 16 hexadecimal digits, not {text!r}")
    return int(digits, 16).to_bytes(8, "big")


def tid_at(moment: datetime) -> Tid:
    """The tid of a moment. A naive datetime is taken as UTC, as ZODB does."""
    if moment.tzinfo is not None:
        moment = moment.astimezone(UTC)
    seconds = moment.second + moment.microsecond / 1e6
    stamp = TimeStamp(moment.year, moment.month, moment.day, moment.hour, moment.minute, seconds)
    return Tid(stamp.raw())


def tid_seconds(tid: Tid) -> float:
    """The moment of a tid in seconds since 1970, UTC. `NO_TID` is a moment in 1900."""
    return float(TimeStamp(tid).timeTime())


def tid_moment(tid: Tid) -> datetime:
    """The moment of a tid as an aware datetime in UTC."""
    return datetime.fromtimestamp(tid_seconds(tid), UTC)


def next_tid(last: Tid, seconds: float) -> Tid:
    """The tid for a transaction that commits `seconds` after 1970, following `last`.

    The clock's tid where it is later than `last`, else the very next number after `last`: so tids increase
    though the clock steps back, and no step of the clock is carried further than it went.
    """
    now = tid_at(datetime.fromtimestamp(seconds, UTC))
    return now if now > last else tid_from(number(last) + 1)


def pack_oids(oids: Iterable[Oid]) -> bytes:
    """Many oids as one value, eight bytes each: the form in which references are carried."""
    return b"".join(oids)


def split_oids(packed: bytes) -> list[Oid]:
    """The oids of a packed value, in order, repeats included."""
    return [Oid(packed[at : at + 8]) for at in range(0, len(packed), 8)]


def oid_numbers(packed: bytes) -> tuple[int, ...]:
    """The numbers of a packed value's oids: what marking needs, without making an object for each."""
    return struct.unpack(f">{len(packed) // 8}Q", packed)
