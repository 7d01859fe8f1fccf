"""Which keys a cursor moves among: a span from one key to another, each end open or closed.

Keys are compared as BTrees compare them: None is a key, and lower than everything. So an end that is absent has a
value of its own here, `UNBOUNDED`, though BTrees take None for it.
"""

from __future__ import annotations

import enum
import sys
from typing import Any, Final, NamedTuple

from objstore.errors import UsageError


class _Unbounded(enum.Enum):
    UNBOUNDED = "UNBOUNDED"

    def __repr__(self) -> str:
        return "UNBOUNDED"


Prefix = str | bytes | tuple[Any, ...]
"""What keys begin with: text, bytes, or the items of a tuple."""

UNBOUNDED: Final = _Unbounded.UNBOUNDED
"""In place of a key: there is no end on this side."""


class Top:
    """Is greater than whatever it is compared with: the end of all tuples with a prefix is the prefix and this."""

    def __lt__(self, _: object) -> bool:
        return False

    def __gt__(self, _: object) -> bool:
        return True


TOP: Final = Top()


def lower(key: Any, other: Any) -> bool:
    """Whether a key comes before another, as BTrees see it."""
    if key is None or other is None:
        return key is None and other is not None
    return bool(key < other)


class Span(NamedTuple):
    """The keys from `low` to `high`; `low_open` and `high_open` leave out the end itself."""

    low: Any = UNBOUNDED
    high: Any = UNBOUNDED
    low_open: bool = False
    high_open: bool = False

    def __contains__(self, key: object) -> bool:
        return self.below(key) and not self.above(key)

    def below(self, key: Any) -> bool:
        """Whether the lower end is below a key, or admits it."""
        if self.low is UNBOUNDED:
            return True
        return lower(self.low, key) if self.low_open else not lower(key, self.low)

    def above(self, key: Any) -> bool:
        """Whether a key is past the upper end."""
        if self.high is UNBOUNDED:
            return False
        return not lower(key, self.high) if self.high_open else lower(self.high, key)

    def __and__(self, other: Span) -> Span:
        """What is in both."""
        return self.upwards(other.low, other.low_open).downwards(other.high, other.high_open)

    def upwards(self, low: Any, low_open: bool) -> Span:
        """What of it is above a key, or begins there."""
        if low is UNBOUNDED or not self.below(low):
            return self
        return Span(low, self.high, low_open, self.high_open)

    def downwards(self, high: Any, high_open: bool) -> Span:
        """What of it is below a key, or ends there."""
        if high is UNBOUNDED or self.above(high):
            return self
        return Span(self.low, high, self.low_open, high_open)

    def beginning(self, prefix: Prefix | None) -> Span:
        """What of it begins with a prefix, if there is one. Raises UsageError."""
        return self if prefix is None else self & prefix_span(prefix)


def span_of(min: Any, max: Any, excludemin: bool, excludemax: bool) -> Span:
    """A span from what `BTree.keys` takes, None for no end. Raises UsageError where it is to leave out no end."""
    for end, excluded, name in ((min, excludemin, "min"), (max, excludemax, "max")):
        if end is None and excluded:
            raise UsageError(f"exclude{name} leaves out the key {name}, and none is given")
    return Span(
        UNBOUNDED if min is None else min,
        UNBOUNDED if max is None else max,
        low_open=excludemin,
        high_open=excludemax,
    )


def prefix_span(prefix: Prefix) -> Span:
    """The keys that begin with a text, with bytes, or with the items of a tuple. Raises UsageError."""
    if isinstance(prefix, tuple):
        return Span(prefix, (*prefix, TOP))
    if isinstance(prefix, str):
        stem = prefix.rstrip(chr(sys.maxunicode))
        after: Any = stem[:-1] + chr(ord(stem[-1]) + 1) if stem else UNBOUNDED
    elif isinstance(prefix, bytes):
        rest = prefix.rstrip(b"\xff")
        after = rest[:-1] + bytes([rest[-1] + 1]) if rest else UNBOUNDED
    else:
        raise UsageError(f"a prefix is a str, bytes or a tuple, not {prefix!r}")
    return Span(prefix, after, high_open=True)
