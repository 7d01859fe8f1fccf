"""RelStorage on SQLite, keeping history, with the synchronous setting at which a commit survives a power cut."""

from __future__ import annotations

import os
import sqlite3
from importlib.metadata import version

import ZODB
from relstorage.adapters.sqlite.adapter import Sqlite3Adapter
from relstorage.options import Options
from relstorage.storage import RelStorage

from peers.persistent_sessions import PersistentStore
from peers.protocol import CACHE_SIZE, POOL_SIZE, Ability

_PROGRAM = """\
import ZODB
from relstorage.adapters.sqlite.adapter import Sqlite3Adapter
from relstorage.options import Options
from relstorage.storage import RelStorage
options = Options(keep_history=True)
storage = RelStorage(Sqlite3Adapter({path!r}, {{"synchronous": "FULL"}}, options=options), options=options)
db = ZODB.DB(storage)
connection = db.open()
list(connection.root())
connection.close()
db.close()
"""


class RelStorageSqlite:
    """Its cache of records (10 MB by default) stays as it comes: loads that it serves touch no database."""

    title = "RelStorage + SQLite"
    versions = f"RelStorage {version('RelStorage')}, SQLite {sqlite3.sqlite_version}"
    durability = "keep_history, PRAGMA journal_mode=WAL, synchronous=FULL; cache_local_mb=10 (its default)"
    abilities = Ability.LASTS | Ability.THREADS | Ability.PACKS

    def open(self, directory: str) -> PersistentStore:
        path = f"{directory}/relstorage"
        os.makedirs(path, exist_ok=True)
        options = Options(keep_history=True)
        adapter = Sqlite3Adapter(path, {"synchronous": "FULL"}, options=options)
        storage = RelStorage(adapter, options=options)
        return PersistentStore(ZODB.DB(storage, pool_size=POOL_SIZE, cache_size=CACHE_SIZE))

    def opening_script(self, directory: str) -> str:
        return _PROGRAM.format(path=f"{directory}/relstorage")


def peer() -> RelStorageSqlite:
    return RelStorageSqlite()
