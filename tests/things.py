"""Persistent classes for tests of the object layer."""

from __future__ import annotations

import enum
from typing import NamedTuple

from persistent import Persistent


class Thing(Persistent):
    """Has whatever attributes it is given."""

    def __init__(self, **attributes):
        for name, value in attributes.items():
            setattr(self, name, value)


class Counter(Persistent):
    """Two that count at the same time are added up."""

    count = 0

    def add(self, number=1):
        self.count += number

    def _p_resolveConflict(self, old, committed, new):
        return {**committed, "count": committed.get("count", 0) + new.get("count", 0) - old.get("count", 0)}


class Keyed(Persistent):
    """Is created with an argument, so that references to it are by oid only."""

    def __new__(cls, key="none"):
        self = super().__new__(cls)
        self.__dict__["_v_key"] = key
        return self

    def __init__(self, key="none"):
        self.key = key

    def __getnewargs__(self):
        return (self.key,)


class Outer:
    """Holds a class within a class."""

    class Inner(Persistent):
        pass

    class Plain:
        pass


class Value:
    """A value that is not persistent, so it is part of the record of what holds it."""

    def __init__(self, number):
        self.number = number

    def __eq__(self, other):
        return isinstance(other, Value) and other.number == self.number

    def __hash__(self):
        return hash(self.number)


class Unready(Persistent):
    """Cannot be stored."""

    def __getstate__(self):
        raise LookupError("not today")


class Stated(Persistent):
    """Its state is whatever it is given, of any type."""

    _v_state = None

    def __getstate__(self):
        return self._v_state

    def __setstate__(self, state):
        self._v_state = state


class Slotted(Persistent):
    """Has no attributes but one, and no dictionary of them."""

    __slots__ = ("content",)

    def __init__(self, content):
        self.content = content


class Color(enum.Enum):
    """An enumeration, which pickles call by its value."""

    RED = 1
    BLUE = "blue"


class Number(int):
    """A number with a class of its own."""


class Text(str):
    """A string with a class of its own."""

    __slots__ = ()


class Pair(NamedTuple):
    """A tuple with a class of its own."""

    left: object
    right: object
