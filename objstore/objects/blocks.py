"""Within which transactions code runs: blocks of `DB.transaction` and functions of `DB.run`, the innermost last.

Kept by context, so each thread and each task of asyncio has its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import transaction

from objstore.objects.connection import Connection

_blocks: ContextVar[tuple[Connection, ...]] = ContextVar("objstore_blocks", default=())


@contextmanager
def block_of(connection: Connection) -> Iterator[None]:
    """While inside, the transaction is this connection's."""
    before = _blocks.get()
    _blocks.set((*before, connection))
    try:
        yield
    finally:
        _blocks.set(before)


def current_manager(db: object) -> Any:
    """The transaction manager of the innermost block of a database; outside of all, that of the thread."""
    for connection in reversed(_blocks.get()):
        # A task that was begun inside may have outlived the block.
        if connection.transaction_manager is not None and connection.db() is db:
            return connection.transaction_manager
    return transaction.manager
