"""objstore, in any history mode and format."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import objstore
from peers.persistent_sessions import PersistentStore
from peers.protocol import CACHE_SIZE, POOL_SIZE, Ability


class ObjstoreStore(PersistentStore):
    """What it does in the background is to move transactions from the journal to the home."""

    def settle(self) -> None:
        self.db.store.flush()

    @property
    def amplification(self) -> float | None:
        """How often a byte was written into the home, merges included; None in a format that never merges."""
        facts = self.db.store.statistics()
        flushed = facts.get("segment_flushed_bytes")
        return (flushed + facts["segment_merged_bytes"]) / flushed if flushed else None


class Objstore:
    """The default is Full, in the default format."""

    versions = f"persistent {version('persistent')}, BTrees {version('BTrees')}"
    durability = (
        "fdatasync of the transaction's file, and fsync of its names where no directory can be recycled; "
        "the background flusher works during the rounds, and is waited for after each"
    )
    abilities = Ability.LASTS | Ability.THREADS | Ability.PACKS | Ability.SYNCS_BY_PYTHON

    def __init__(self, history: str, format: str | None) -> None:
        self.title = f"objstore, {history.capitalize()}, {format or 'default format'}"
        self._options: dict[str, Any] = {"history": history}
        if format is not None:
            self._options["format"] = format

    def open(self, directory: str) -> ObjstoreStore:
        return ObjstoreStore(
            objstore.open(f"{directory}/store", pool_size=POOL_SIZE, cache_size=CACHE_SIZE, **self._options)
        )

    def opening_script(self, directory: str) -> str:
        return (
            "import objstore\n"
            f"db = objstore.open({directory + '/store'!r}, create=False)\n"
            "connection = db.open()\n"
            "list(connection.root())\n"
            "connection.close()\n"
            "db.close()\n"
        )


def peer(history: str = "full", format: str | None = None) -> Objstore:
    return Objstore(history, format)
