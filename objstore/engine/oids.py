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
        # Those of the block that were not handed out, the last first. It is only changed in place, since who takes
        # one asks for no lock.
        self._ready: list[Oid] = []
        self._end = 0  # where the block ends
        self._known = number(marks.get(OIDS))  # lower ones are reserved, by whomever
        self._block = SMALLEST_BLOCK
        self._lock = Lock()  # guards the fields here, but for taking one of `_ready`; before the marks' lock

    def new(self) -> Oid:
        """An oid that nobody had and nobody else will have. Raises OSError where it cannot be reserved."""
        while True:
            try:
                return self._ready.pop()
            except IndexError:
                self._next_block()

    def _next_block(self) -> None:
        with self._lock:
            if not self._ready:
                first, self._end = self._reserve(0, self._block)
                self._block = min(2 * self._block, LARGEST_BLOCK)
                self._ready += [oid_from(each) for each in reversed(range(first, self._end))]

    def cover(self, oid: Oid) -> None:
        """Never hand out `oid`, which came with copied data, nor one below it. Durable on return.

        Raises UsageError for the last oid that 64 bits can hold: none would be left.
        """
        if number(oid) == _LAST:
            raise UsageError(f"object {oid.hex()} has the last oid there is; none would be left for new objects")
        with self._lock:
            if number(oid) < self._end:
                if self._ready[-1:] <= [oid]:  # else all of them are above; others may take the last meanwhile
                    above = sum(each > oid for each in list(self._ready))
                    del self._ready[above:]
                return
            if number(oid) >= self._known:
                self._reserve(number(oid) + 1, 0)
            self._ready.clear()  # what is left of the block is below
            self._end = 0

    def _reserve(self, least: int, count: int) -> tuple[int, int]:
        """Reserve `count` oids after all that are reserved and after `least`: the first, and where they end."""
        with self._claims():
            self._marks.read()
            first = max(number(self._marks.get(OIDS)), least)
            self._marks.advance(OIDS, oid_from(first + count))
        self._known = first + count
        return first, first + count
