"""ZODB: with FileStorage, the peer that all others are compared with, and with MappingStorage, without a disk."""

from __future__ import annotations

from importlib.metadata import version

import ZODB
from ZODB.FileStorage import FileStorage
from ZODB.MappingStorage import MappingStorage

from peers.persistent_sessions import PersistentStore
from peers.protocol import CACHE_SIZE, POOL_SIZE, Ability, Unavailable

_VERSIONS = f"ZODB {version('ZODB')}, persistent {version('persistent')}, BTrees {version('BTrees')}"


class ZodbFile:
    """ZODB with FileStorage, as it comes."""

    title = "ZODB + FileStorage"
    versions = _VERSIONS
    durability = "fsync of Data.fs at each commit (its default)"
    abilities = Ability.LASTS | Ability.THREADS | Ability.PACKS | Ability.SYNCS_BY_PYTHON

    def open(self, directory: str) -> PersistentStore:
        return PersistentStore(
            ZODB.DB(FileStorage(f"{directory}/Data.fs"), pool_size=POOL_SIZE, cache_size=CACHE_SIZE)
        )

    def opening_script(self, directory: str) -> str:
        return (
            "import ZODB\n"
            "from ZODB.FileStorage import FileStorage\n"
            f"db = ZODB.DB(FileStorage({directory + '/Data.fs'!r}))\n"
            "connection = db.open()\n"
            "list(connection.root())\n"
            "connection.close()\n"
            "db.close()\n"
        )


class ZodbMapping:
    """ZODB with its storage in memory: what the object layer of ZODB costs without any disk."""

    title = "ZODB + MappingStorage"
    versions = _VERSIONS
    durability = "none: everything is in memory"
    abilities = Ability.THREADS | Ability.PACKS | Ability.SYNCS_BY_PYTHON

    def open(self, directory: str) -> PersistentStore:  # noqa: ARG002 - it needs no directory
        return PersistentStore(ZODB.DB(MappingStorage(), pool_size=POOL_SIZE, cache_size=CACHE_SIZE))

    def opening_script(self, directory: str) -> str:
        raise Unavailable(f"{directory}: a MappingStorage has nothing to open")


def peer(storage: str) -> ZodbFile | ZodbMapping:
    return ZodbFile() if storage == "file" else ZodbMapping()
