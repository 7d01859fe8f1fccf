"""Where ids come from: spans of an index, and sets made of these.

A source knows about how many ids it has before it has them, and says what it does.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from functools import cached_property
from itertools import chain
from operator import itemgetter

from BTrees.LLBTree import LLSet, difference, union

from objstore.collections.conditions import Span
from objstore.collections.members import Built, Members
from objstore.collections.walking import count_about

_last = itemgetter(-1)


class Source(ABC):
    """A set of ids, not yet looked up."""

    @property
    @abstractmethod
    def estimate(self) -> int:
        """About how many there are."""

    @abstractmethod
    def ids(self) -> LLSet:
        """All of them."""

    def ascending(self) -> Iterable[int]:
        """All of them, each once, from the least on."""
        yield from self.ids()

    def unordered(self) -> Iterable[int]:
        """All of them, in any order, and perhaps some more than once."""
        yield from self.ids()

    def exists(self) -> bool:
        """Whether there is any."""
        return bool(self.ids())

    @abstractmethod
    def lines(self) -> list[str]:
        """What it does, for people; what is indented belongs to the line before."""


class Spans(Source):
    """What an index has in some spans of its keys."""

    def __init__(self, built: Built, spans: list[Span], text: object) -> None:
        self._built = built
        self._spans = spans
        self._text = text

    @cached_property
    def estimate(self) -> int:
        return sum(count_about(self._built.tree, low, high) for low, high in self._spans)

    def ids(self) -> LLSet:
        return LLSet(sorted(self.unordered()))  # what is sorted is put into a set fast

    def ascending(self) -> Iterable[int]:
        # In one span of an index that has one key of a member, no id comes twice.
        is_plain = len(self._spans) == 1 and not self._built.definition.multiple
        return sorted(self.unordered()) if is_plain else self.ids()

    def unordered(self) -> Iterable[int]:
        tree = self._built.tree
        if self._built.definition.unique:
            return chain.from_iterable(tree.values(low, high, excludemax=True) for low, high in self._spans)
        return map(_last, chain.from_iterable(tree.keys(low, high, excludemax=True) for low, high in self._spans))

    def exists(self) -> bool:
        tree = self._built.tree
        return any(True for low, high in self._spans for _ in tree.keys(low, high, excludemax=True))

    def lines(self) -> list[str]:
        return [f"index {self._built.title}: {self._text}, about {self.estimate:,}"]


class Everything(Source):
    """All members."""

    def __init__(self, members: Members) -> None:
        self._members = members

    @property
    def estimate(self) -> int:
        return self._members.tally.members

    def ids(self) -> LLSet:
        return LLSet(self._members.by_id.keys())

    def lines(self) -> list[str]:
        return [f"all members, {self.estimate:,}"]


class Both(Source):
    """What all sources have. The first is looked up first, and should be the smallest."""

    def __init__(self, sources: list[Source]) -> None:
        self._sources = sources

    @property
    def estimate(self) -> int:
        return min(each.estimate for each in self._sources)

    def ids(self) -> LLSet:
        return LLSet(self.ascending())

    def ascending(self) -> Iterable[int]:
        # Python's sets, since what indexes have would have to be sorted first for BTrees' intersection.
        first, *others = self._sources
        found = set(first.unordered())
        for each in others:
            if not found:
                break
            found.intersection_update(each.unordered())
        return sorted(found)

    def lines(self) -> list[str]:
        return ["in all of", *(f"  {line}" for each in self._sources for line in each.lines())]


class Either(Source):
    """What any source has."""

    def __init__(self, sources: list[Source]) -> None:
        self._sources = sources

    @property
    def estimate(self) -> int:
        return sum(each.estimate for each in self._sources)

    def ids(self) -> LLSet:
        found = LLSet()
        for each in self._sources:
            found = union(found, each.ids())
        return found

    def lines(self) -> list[str]:
        return ["in any of", *(f"  {line}" for each in self._sources for line in each.lines())]


class Without(Source):
    """What one source has and others do not."""

    def __init__(self, source: Source, others: list[Source]) -> None:
        self._source = source
        self._others = others

    @property
    def estimate(self) -> int:
        return max(self._source.estimate - sum(each.estimate for each in self._others), 1)

    def ids(self) -> LLSet:
        found = self._source.ids()
        for each in self._others:
            if not found:
                break
            found = difference(found, each.ids())
        return found

    def lines(self) -> list[str]:
        without = [f"  {line}" for each in self._others for line in each.lines()]
        return [*self._source.lines(), "without", *without]


class Filtered(Source):
    """What a source has and passes a check that reads no objects."""

    def __init__(self, source: Source, passes: Callable[[int], bool], texts: list[str]) -> None:
        self._source = source
        self._passes = passes
        self._texts = texts

    @property
    def estimate(self) -> int:
        return self._source.estimate

    def ids(self) -> LLSet:
        return LLSet(list(self.ascending()))

    def ascending(self) -> Iterable[int]:
        return filter(self._passes, self._source.ascending())

    def lines(self) -> list[str]:
        return [*self._source.lines(), *(f"check {each}, by what the indexes have" for each in self._texts)]
