"""New oids: handed out from blocks that are reserved durably, so that no crash makes one come twice."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from threading import Lock

from objstore.engine.marks import OIDS, Marks
from objstore.errors import UsageError
from objstore.ids import Oid, number, oid_from

_LAST = 2**64 - 1
SMALLEST_BLOCK, LARGEST_BLOCK = 64, 8192


class Oids:
    """Hands out oids. May be used by any thread.

    What a process reserved and did not use is lost, so blocks begin small and double: a process that makes
    a few objects wastes few oids, and one that makes a million syncs a directory for every 8,192 of them.
    """

    def __init__(self, marks: Marks, claims: Callable[[], AbstractContextManager[None]]) -> None:
        """`claims` keeps all others from reserving meanwhile, those of other processes too."""
        self._marks = marks
        self._claims = claims
        self._next = self._end = 0
        self._known = number(marks.get(OIDS))  # lower ones are reserved, by whomever
        self._block = SMALLEST_BLOCK
        self._lock = Lock()  # guards the fields here; taken before the marks' lock

    def new(self) -> Oid:
        """An oid that nobody had and nobody else will have. Raises OSError where it cannot be reserved."""
        with self._lock:
            if self._next >= self._end:
                self._next, self._end = self._reserve(0, self._block)
                self._block = min(2 * self._block, LARGEST_BLOCK)
            oid = oid_from(self._next)
            self._next += 1
            return oid

    def cover(self, oid: Oid) -> None:
        """Never hand out `oid`, which came with copied data, nor one below it. Durable on return.

        Raises UsageError for the last oid that 64 bits can hold: none would be left.
        """
        if number(oid) == _LAST:
            raise UsageError(f"object {oid.hex()} has the last oid there is; none would be left for new objects")
        with self._lock:
            if number(oid) < self._end:
                self._next = max(self._next, number(oid) + 1)
                return
            if number(oid) >= self._known:
                self._reserve(number(oid) + 1, 0)
            self._next = self._end = 0  # what is left of the block is below

    def _reserve(self, least: int, count: int) -> tuple[int, int]:
        """Reserve `count` oids after all that are reserved and after `least`: the first, and where they end."""
        with self._claims():
            self._marks.read()
            first = max(number(self._marks.get(OIDS)), least)
            self._marks.advance(OIDS, oid_from(first + count))
        self._known = first + count
        return first, first + count
