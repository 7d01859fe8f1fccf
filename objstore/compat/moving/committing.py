"""Committing many transactions in order, and waiting for the disk for several at once.

Most of the time that a commit takes is the sync of its file. A store of objstore's own lets the next transaction
in once this one is published, so `finish` is left to a thread, and the next one is read and written meanwhile.
Order and durability are the store's: a transaction counts after a crash only if all before it do.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

from objstore.compat.moving.places import AnyStore
from objstore.contracts import PendingTransaction
from objstore.engine.store import DirectoryStore
from objstore.ids import Tid

WIDTH = 8
"""So many transactions wait for the disk at once."""


class Committer:
    """Finishes transactions that have voted. A context manager: at its end all are durable."""

    def __init__(self, target: AnyStore) -> None:
        # Other storages hold a lock from the beginning to the end of a transaction, some for the thread.
        self._target = target if isinstance(target, DirectoryStore) else None
        self._pool = ThreadPoolExecutor(WIDTH) if self._target is not None else None
        self._running: deque[Future[Tid]] = deque()

    def finish(self, pending: PendingTransaction) -> None:
        """Commit it, after those before. Raises what it, or one before, met."""
        if self._pool is None or self._target is None:
            pending.finish()
            return
        self._running.append(self._pool.submit(pending.finish))
        with self._target.writers_held():  # it is published, so that the next one is written as what follows it
            pass
        while len(self._running) >= WIDTH:
            self._running.popleft().result()

    def settle(self) -> None:
        """Wait until all are durable. Raises what one of them met."""
        while self._running:
            self._running.popleft().result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.settle()
        finally:
            if self._pool is not None:
                self._pool.shutdown()
