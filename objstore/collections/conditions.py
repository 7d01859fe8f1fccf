"""What is looked for: conditions on the attributes of members, as data.

    where(city="Paris", age=between(20, 30)) & ~where(tags=has("retired"))

A condition says what is wanted, not how it is found: `planning` sees to that. It means the same with and without
indexes: `holds` decides it for one object. A member without the attribute fulfils no test of it, and so is
found by its negation. Values compare as keys do: see `keys`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from objstore.collections.indexes import Computed, Part, computed, keys_reader
from objstore.collections.keys import BEYOND, Key, encode, encode_parts
from objstore.errors import KeyTypeError, UsageError

Span = tuple[Key, Key]
"""Keys from the first, included, up to the second, excluded, whether ids stand at their ends or not."""


class Test(ABC):
    """What a value must be like."""

    of_several = False
    """Whether it is a test of several values, as a multi-valued index has them."""

    @abstractmethod
    def spans(self, parts: int) -> list[Span]:
        """The keys that pass, of an index with so many parts: spans that do not overlap. Raises KeyTypeError."""

    def points(self) -> list[Key] | None:
        """The keys of one part that pass, where they are few; else None. Raises KeyTypeError."""
        return None

    @abstractmethod
    def told(self, name: str) -> str:
        """The test, as text, of what has this name."""

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and vars(other) == vars(self)

    def __hash__(self) -> int:
        return hash(type(self))

    def __repr__(self) -> str:
        return self.told("_")


class Equal(Test):
    """The value is this one."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def spans(self, parts: int) -> list[Span]:
        key = encode_parts(self.value, parts)
        return [(key, (*key, BEYOND))]

    def points(self) -> list[Key]:
        return [encode(self.value)]

    def told(self, name: str) -> str:
        return f"{name} == {self.value!r}"


class AnyOf(Test):
    """The value is one of these."""

    def __init__(self, values: Iterable[Any]) -> None:
        self.values = tuple(values)

    def spans(self, parts: int) -> list[Span]:
        return [(key, (*key, BEYOND)) for key in sorted({encode_parts(each, parts) for each in self.values})]

    def points(self) -> list[Key]:
        return sorted({encode(each) for each in self.values})

    def told(self, name: str) -> str:
        return f"{name} in {list(self.values)!r}"


class Range(Test):
    """The value lies between two bounds, each a tuple of the bound, or empty; and whether it is included.

    With one bound only values of its kind pass: nothing is less than 3 but numbers.
    """

    def __init__(self, low: tuple[Any, ...], high: tuple[Any, ...], *, low_in: bool, high_in: bool) -> None:
        self.low = low
        self.high = high
        self.low_in = low_in
        self.high_in = high_in

    def spans(self, parts: int) -> list[Span]:
        low = encode_parts(self.low[0], parts) if self.low else None
        high = encode_parts(self.high[0], parts) if self.high else None
        first = low if low is not None else (high or ())[:1]
        last = high if high is not None else (low[0] + 1,) if low else (BEYOND,)
        if low is not None and not self.low_in:
            first = (*low, BEYOND)
        if high is not None and self.high_in:
            last = (*high, BEYOND)
        return [(first, last)] if first < last else []

    def told(self, name: str) -> str:
        low = f"{self.low[0]!r} {'<=' if self.low_in else '<'} " if self.low else ""
        high = f" {'<=' if self.high_in else '<'} {self.high[0]!r}" if self.high else ""
        return f"{low}{name}{high}"


class Prefix(Test):
    """The value is a text, or bytes, that begins so."""

    def __init__(self, prefix: str | bytes) -> None:
        self.prefix = prefix

    def spans(self, parts: int) -> list[Span]:
        if parts != 1:
            raise UsageError("a prefix is tested of one attribute, not of an index with several parts")
        rank, value = encode(self.prefix)
        following = _following(value)
        return [((rank, value), (rank, following) if following else (rank + 1,))]

    def told(self, name: str) -> str:
        return f"{name} begins with {self.prefix!r}"


def _following(prefix: Any) -> Any:
    """The first text, or bytes, after all that begin so; empty where there is none."""
    highest = 0xFF if isinstance(prefix, bytes) else 0x10FFFF
    codes = list(prefix) if isinstance(prefix, bytes) else [ord(each) for each in prefix]
    while codes and codes[-1] == highest:
        codes.pop()
    if codes:
        codes[-1] += 1
    return bytes(codes) if isinstance(prefix, bytes) else "".join(map(chr, codes))


class Has(Test):
    """One of several values passes a test."""

    of_several = True

    def __init__(self, test: Test) -> None:
        self.test = test

    def spans(self, parts: int) -> list[Span]:
        return self.test.spans(parts)

    def told(self, name: str) -> str:
        if isinstance(self.test, Equal):
            return f"{name} has {self.test.value!r}"
        return f"{name} has one such that {self.test.told('it')}"


def between(low: Any, high: Any) -> Test:
    """From one value to another, both included."""
    return Range((low,), (high,), low_in=True, high_in=True)


def above(low: Any) -> Test:
    """More than a value, and of its kind."""
    return Range((low,), (), low_in=False, high_in=False)


def at_least(low: Any) -> Test:
    """A value or more, and of its kind."""
    return Range((low,), (), low_in=True, high_in=False)


def below(high: Any) -> Test:
    """Less than a value, and of its kind."""
    return Range((), (high,), low_in=False, high_in=False)


def at_most(high: Any) -> Test:
    """A value or less, and of its kind."""
    return Range((), (high,), low_in=False, high_in=True)


def any_of(values: Iterable[Any]) -> Test:
    """One of these values."""
    return AnyOf(values)


def begins_with(prefix: str | bytes) -> Test:
    """A text, or bytes, with this beginning."""
    if not isinstance(prefix, str | bytes):
        raise UsageError(f"only text and bytes have a beginning to look for, not {prefix!r}")
    return Prefix(prefix)


def has(value: Any) -> Test:
    """Of several values, such as tags, one is this, or passes this test."""
    test = as_test(value)
    if test.of_several:
        raise UsageError("has() within has(): the values of a multi-valued attribute are single ones")
    return Has(test)


def as_test(value: Any) -> Test:
    """A test as it is, any other value as the test for it."""
    return value if isinstance(value, Test) else Equal(value)


# --- conditions --------------------------------------------------------------------------------------


class Condition(ABC):
    """What a member must be like. `&`, `|` and `~` combine conditions."""

    @abstractmethod
    def holds(self, obj: Any) -> bool:
        """Whether it holds for an object, whatever its collection."""

    def __and__(self, other: Condition) -> Condition:
        return And((self, other)) if isinstance(other, Condition) else NotImplemented

    def __or__(self, other: Condition) -> Condition:
        return Or((self, other)) if isinstance(other, Condition) else NotImplemented

    def __invert__(self) -> Condition:
        return Not(self)

    def __bool__(self) -> bool:
        raise UsageError("conditions are combined with &, | and ~, not with and, or and not")

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and vars(other) == vars(self)

    def __hash__(self) -> int:
        return hash(type(self))

    def __repr__(self) -> str:
        return str(self)


class Term(Condition):
    """An attribute, or what an index of that name is on, passes a test."""

    def __init__(self, name: str, test: Test) -> None:
        self.name = name
        self.test = test

    def holds(self, obj: Any) -> bool:
        return passes(read_keys((self.name,), self.test)(obj), self.test.spans(1))

    def __str__(self) -> str:
        return self.test.told(self.name)


class Matches(Condition):
    """A function of the member is true."""

    def __init__(self, function: Computed) -> None:
        self.function = function

    def holds(self, obj: Any) -> bool:
        return bool(self.function(obj))

    def __str__(self) -> str:
        return f"{self.function!r}()"


class And(Condition):
    """All of these hold: of none, always."""

    def __init__(self, conditions: tuple[Condition, ...]) -> None:
        self.conditions = conditions

    def holds(self, obj: Any) -> bool:
        return all(each.holds(obj) for each in self.conditions)

    def __str__(self) -> str:
        return " and ".join(map(_bracketed, self.conditions)) if self.conditions else "everything"


class Or(Condition):
    """One of these holds."""

    def __init__(self, conditions: tuple[Condition, ...]) -> None:
        self.conditions = conditions

    def holds(self, obj: Any) -> bool:
        return any(each.holds(obj) for each in self.conditions)

    def __str__(self) -> str:
        return " or ".join(map(_bracketed, self.conditions))


class Not(Condition):
    """This does not hold."""

    def __init__(self, condition: Condition) -> None:
        self.condition = condition

    def holds(self, obj: Any) -> bool:
        return not self.condition.holds(obj)

    def __str__(self) -> str:
        return f"not {_bracketed(self.condition)}"


def _bracketed(condition: Condition) -> str:
    text = str(condition)
    return f"({text})" if isinstance(condition, And | Or) and len(condition.conditions) > 1 else text


def where(*conditions: Condition | Mapping[str, Any], **attributes: Any) -> Condition:
    """The condition that all of these hold. A mapping is for names that cannot be keywords: "address.city"."""
    found: list[Condition] = []
    for each in conditions:
        if isinstance(each, Condition):
            found.append(each)
        elif isinstance(each, Mapping):
            found += _terms(each)
        else:
            raise UsageError(f"a condition is made with where(...) or matches(...); {each!r} is none")
    found += _terms(attributes)
    return found[0] if len(found) == 1 else And(tuple(found))


def _terms(tests: Mapping[str, Any]) -> list[Term]:
    return [Term(name, as_test(value)) for name, value in tests.items()]


def matches(function: str | Callable[[Any], Any]) -> Condition:
    """The condition that a function is true of a member: a function of a module, or its dotted name.

    No index serves it but those that have it for their `where`.
    """
    return Matches(computed(function))


def conjuncts(condition: Condition) -> list[Condition]:
    """The conditions that all must hold where this one does."""
    if isinstance(condition, And):
        return [each for inner in condition.conditions for each in conjuncts(inner)]
    return [condition]


def read_keys(parts: tuple[Part, ...], test: Test) -> Callable[[Any], tuple[Key, ...]]:
    """Reads what a test looks at from an object. What is no key passes no test."""
    read = keys_reader(parts, multiple=test.of_several)

    def read_or_nothing(obj: Any) -> tuple[Key, ...]:
        try:
            return read(obj)
        except KeyTypeError:
            return ()

    return read_or_nothing


def passes(keys: Iterable[Key], spans: list[Span]) -> bool:
    """Whether one of an object's keys is in one of the spans."""
    return any(low <= key < high for key in keys for low, high in spans)
