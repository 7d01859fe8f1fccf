"""Durus with its FileStorage, which does not sync what it commits; here a commit does, as everybody else's."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from durus.btree import BTree
from durus.connection import Connection
from durus.file_storage import FileStorage
from durus.logger import logger
from durus.persistent import Persistent
from things import fill

from peers.protocol import CACHE_SIZE, Ability

ITEMS = "items"
logger.setLevel(logging.WARNING)


class DurusItem(Persistent):
    """An item of a class that Durus can store."""

    def __init__(self, key: int) -> None:
        fill(self, key)


class SyncedFileStorage(FileStorage):
    """A FileStorage whose commits are durable when they return."""

    def end(self, handle_invalidations: Any = None) -> None:
        super().end(handle_invalidations)
        self.shelf.get_file().fsync()


class DurusSession:
    """The one connection that a Durus storage has in a process."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._items = connection.get_root()[ITEMS]
        self._held: list[DurusItem] = []

    def add(self, keys: Sequence[int]) -> None:
        for key in keys:
            self._items[key] = DurusItem(key)
        self._connection.commit()

    def remove(self, keys: Sequence[int]) -> None:
        for key in keys:
            del self._items[key]
        self._connection.commit()

    def hold(self, keys: Sequence[int]) -> None:
        self._held = [self._items[key] for key in keys]

    def change(self, number: int) -> None:
        for item in self._held:
            item.number = number
        self._connection.commit()

    def read(self) -> int:
        return sum(item.number for item in self._held)

    def scan(self) -> int:
        return sum(item.number for item in self._items.itervalues())

    def forget(self) -> None:
        """What Durus has no call for: every loaded object of its cache becomes a ghost."""
        self._connection.abort()
        for obj in list(self._connection.get_cache()):
            if obj is not None and not obj._p_is_ghost():
                obj._p_set_status_ghost()
        self._connection.get_cache().recent_objects.map.clear()

    def close(self) -> None:
        self._held = []
        self._connection.abort()


class DurusStore:
    """A storage with its connection."""

    def __init__(self, path: str) -> None:
        self._storage = SyncedFileStorage(path)
        self._connection = Connection(self._storage, cache_size=CACHE_SIZE)
        root = self._connection.get_root()
        if ITEMS not in root:
            root[ITEMS] = BTree()
            self._connection.commit()

    def session(self) -> DurusSession:
        return DurusSession(self._connection)

    def settle(self) -> None:
        """Nothing happens in the background."""

    def pack(self) -> None:
        self._connection.pack()

    def close(self) -> None:
        self._connection.abort()
        self._storage.close()


class Durus:
    """Threads are left out: a FileStorage serves one connection; more take a server in another process."""

    title = "Durus + FileStorage"
    versions = f"Durus {version('Durus')}"
    durability = "fsync at each commit (added by the benchmark: Durus itself only flushes to the system)"
    abilities = Ability.LASTS | Ability.PACKS | Ability.SYNCS_BY_PYTHON

    def open(self, directory: str) -> DurusStore:
        return DurusStore(f"{directory}/items.durus")

    def opening_script(self, directory: str) -> str:
        return (
            "from durus.connection import Connection\n"
            "from durus.file_storage import FileStorage\n"
            f"storage = FileStorage({directory + '/items.durus'!r})\n"
            "connection = Connection(storage)\n"
            "list(connection.get_root())\n"
            "storage.close()\n"
        )


def peer() -> Durus:
    return Durus()
