"""A set of tids that takes eight bytes for each, and is read in order: the transactions that a pack keeps."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from heapq import merge

CHUNK = 65_536
"""So many tids are collected before they are sorted away."""


class TidSet:
    """Tids, given as numbers, to be read once from the newest to the oldest.

    One that is added again long after the first time takes its eight bytes again.
    """

    def __init__(self) -> None:
        self._open: set[int] = set()
        self._chunks: list[array[int]] = []

    def add(self, number: int) -> None:
        self._open.add(number)
        if len(self._open) == CHUNK:
            self._chunks.append(array("Q", sorted(self._open)))
            self._open.clear()

    def update(self, numbers: set[int]) -> None:
        """Add many at once."""
        self._open |= numbers
        if len(self._open) >= CHUNK:
            self._chunks.append(array("Q", sorted(self._open)))
            self._open.clear()

    def descending(self) -> Iterator[int]:
        """The numbers, each once, the greatest first."""
        last = None
        for number in merge(*map(reversed, [*self._chunks, sorted(self._open)]), reverse=True):
            if number != last:
                last = number
                yield number
