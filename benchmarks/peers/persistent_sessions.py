"""Sessions of the databases that store `persistent` objects with the `transaction` package: ZODB and objstore.

The items are the values of an IOBTree below the root. One implementation serves both, so nothing but the
database makes the difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from BTrees.IOBTree import IOBTree
from things import Item
from transaction import TransactionManager

ITEMS = "items"


class PersistentSession:
    """A session over a connection with a transaction manager of its own. `db` is a `DB` of either."""

    def __init__(self, db: Any) -> None:
        self._manager = TransactionManager()
        self._connection = db.open(self._manager)
        root = self._connection.root()
        if ITEMS not in root:
            root[ITEMS] = IOBTree()
            self._manager.commit()
        self._items = root[ITEMS]
        self._held: list[Item] = []

    def add(self, keys: Sequence[int]) -> None:
        self._manager.begin()
        items = self._items
        for key in keys:
            items[key] = Item(key)
        self._manager.commit()

    def remove(self, keys: Sequence[int]) -> None:
        self._manager.begin()
        for key in keys:
            del self._items[key]
        self._manager.commit()

    def hold(self, keys: Sequence[int]) -> None:
        self._held = [self._items[key] for key in keys]

    def change(self, number: int) -> None:
        self._manager.begin()
        for item in self._held:
            item.number = number
        self._manager.commit()

    def read(self) -> int:
        return sum(item.number for item in self._held)

    def scan(self) -> int:
        return sum(item.number for item in self._items.values())

    def forget(self) -> None:
        self._manager.abort()
        self._connection.cacheMinimize()

    def close(self) -> None:
        self._held = []
        self._manager.abort()
        self._connection.close()


class PersistentStore:
    """An open database; what it is closed, packed and settled with is the peer's affair."""

    def __init__(self, db: Any) -> None:
        self.db = db
        PersistentSession(db).close()

    def session(self) -> PersistentSession:
        return PersistentSession(self.db)

    def settle(self) -> None:
        """Nothing happens in the background."""

    def pack(self) -> None:
        self.db.pack()

    def close(self) -> None:
        self.db.close()
