"""Numbers that are given out once, by however many processes and threads.

A `Sequence` reserves a block of numbers in a transaction of its own, and gives them out from memory. So whoever
draws changes nothing in the transaction that the number is for, and conflicts with nobody. What was reserved and
not given out when a process ends, and what a transaction drew that was aborted, is lost: there are gaps, and the
numbers of several processes are not in the order of time.

A `GapFreeSequence` counts in the transaction itself, as numbers of invoices must: a number is taken when the
transaction commits, and given back when it aborts, so there are no gaps, and the order is that of the commits. Of
two transactions that draw at the same time the second always conflicts; it is to be tried again, as `DB.run` does.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from threading import Lock
from typing import Any, Final
from weakref import WeakKeyDictionary

from persistent import Persistent

from objstore.collections.arguments import whole
from objstore.errors import UsageError
from objstore.ids import NO_TID, Oid
from objstore.objects import DB, Connection

RETRIES: Final = 100
"""How often reserving is tried again, because others reserve at the same moment."""


class Sequence(Persistent):
    """Numbers from `start` on, `step` apart, reserved by `block`s: none is ever given out twice.

    Any thread may draw, by an object of its own connection. A store that keeps its history keeps a small
    transaction for each block; whoever undoes one of these has its numbers given out again.
    """

    def __init__(self, start: int = 1, step: int = 1, block: int = 100) -> None:
        """Raises UsageError where `step` is 0, `block` less than 1, or any of them no whole number."""
        self._next, self._step = _checked(start, step)
        self._block = whole("block", block)
        if self._block < 1:
            raise UsageError(f"a block has 1 number or more, not {block}")

    def draw(self) -> int:
        """A number that nobody had. May commit a transaction of its own, and then raises what that raises."""
        return self.take(1)[0]

    def take(self, count: int) -> list[int]:
        """Several numbers, in order, from as many blocks as it takes. Raises UsageError."""
        count = whole("count", count)
        if count < 0:
            raise UsageError(f"one takes 0 numbers or more, not {count}")
        self._p_activate()
        if self._p_jar is None or self._p_serial == NO_TID:  # nobody else can see it before it is committed
            return self._advance(count)
        db = self._p_jar.db()
        if not isinstance(db, DB):
            raise UsageError(
                "a Sequence reserves its numbers in a database of objstore; a GapFreeSequence needs none"
            )
        return _stock_of(db, Oid(self._p_oid)).take(self, db, count)

    def __next__(self) -> int:
        return self.draw()

    def __iter__(self) -> Iterator[int]:
        return self

    def _advance(self, count: int) -> list[int]:
        """Take numbers within the transaction."""
        first = self._next
        self._next = first + count * self._step
        return list(range(first, self._next, self._step))


class GapFreeSequence(Persistent):
    """Numbers from `start` on, `step` apart, without a gap, in the order in which transactions commit.

    Whoever draws while another transaction does gets a ConflictError at the commit: draw in `DB.run`, late in
    the transaction.
    """

    def __init__(self, start: int = 1, step: int = 1) -> None:
        """Raises UsageError where `step` is 0, or either no whole number."""
        self._next, self._step = _checked(start, step)

    def draw(self) -> int:
        """The next number, which is this transaction's if it commits."""
        number: int = self._next
        self._next = number + self._step
        return number


def _checked(start: int, step: int) -> tuple[int, int]:
    checked = whole("start", start), whole("step", step)
    if not checked[1]:
        raise UsageError("step is not 0")
    return checked


class _Stock:
    """What this process has reserved of a sequence and not given out. The lock guards it, while reserving too."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._numbers: list[int] = []  # the next one last

    def take(self, sequence: Sequence, db: DB, count: int) -> list[int]:
        """Give numbers out, reserving more if need be."""
        with self._lock:
            missing = count - len(self._numbers)
            if missing > 0:
                oid, more = Oid(sequence._p_oid), max(missing, sequence._block)

                def reserve(connection: Connection) -> list[int]:
                    stored: Any = connection.get(oid)
                    numbers: list[int] = stored._advance(more)
                    return numbers

                self._numbers[:0] = reversed(db.run(reserve, RETRIES, note="numbers of a sequence reserved"))
            return [self._numbers.pop() for _ in range(count)]


class _Stocks:
    """The stocks of all sequences of all databases of this process. The lock guards which there are."""

    def __init__(self) -> None:
        self._begin()
        os.register_at_fork(after_in_child=self._begin)  # what the parent has reserved is the parent's

    def _begin(self) -> None:
        self._lock = Lock()
        self._stocks: WeakKeyDictionary[DB, dict[Oid, _Stock]] = WeakKeyDictionary()

    def of(self, db: DB, oid: Oid) -> _Stock:
        """The stock of one sequence."""
        with self._lock:
            return self._stocks.setdefault(db, {}).setdefault(oid, _Stock())


_stock_of: Final = _Stocks().of
