"""SQLite by the standard library's module, with one pickle an object."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence

from peers.pickles import Pair, PickleSession
from peers.protocol import Ability

_PRAGMAS = ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL")
_BUSY_SECONDS = 60.0


def connect(path: str) -> sqlite3.Connection:
    """A connection that begins transactions only when told to, used by one thread at a time."""
    connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    for pragma in _PRAGMAS:
        connection.execute(pragma)
    return connection


class SqliteTable:
    """The table of pickles, over a connection of the thread's own."""

    def __init__(self, path: str) -> None:
        self._connection = connect(path)

    def put(self, pairs: Sequence[Pair]) -> None:
        self._write("INSERT OR REPLACE INTO items VALUES (?, ?)", pairs)

    def delete(self, keys: Sequence[int]) -> None:
        self._write("DELETE FROM items WHERE key = ?", [(key,) for key in keys])

    def _write(self, statement: str, rows: Sequence[tuple[int, bytes]] | Sequence[tuple[int]]) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.executemany(statement, rows)
        self._connection.execute("COMMIT")

    def get(self, key: int) -> bytes:
        (data,) = self._connection.execute("SELECT data FROM items WHERE key = ?", (key,)).fetchone()
        return bytes(data)

    def all(self) -> Iterator[bytes]:
        return (data for (data,) in self._connection.execute("SELECT data FROM items ORDER BY key"))

    def close(self) -> None:
        self._connection.close()


class SqliteStore:
    """A database file; every session connects by itself."""

    def __init__(self, path: str) -> None:
        self._path = path
        connection = connect(path)
        connection.execute("CREATE TABLE IF NOT EXISTS items (key INTEGER PRIMARY KEY, data BLOB NOT NULL)")
        connection.close()

    def session(self) -> PickleSession:
        return PickleSession(SqliteTable(self._path))

    def settle(self) -> None:
        """Nothing happens in the background."""

    def pack(self) -> None:
        """Nothing is kept that is superseded."""

    def close(self) -> None:
        """The sessions have closed their connections."""


class Sqlite:
    """Two records that differ in nothing but the key: an index of ints, and the pickles."""

    title = "sqlite3, a pickle an object"
    versions = f"SQLite {sqlite3.sqlite_version}"
    durability = "PRAGMA journal_mode=WAL, synchronous=FULL (a sync at each commit)"
    abilities = Ability.LASTS | Ability.THREADS

    def open(self, directory: str) -> SqliteStore:
        return SqliteStore(f"{directory}/items.sqlite3")

    def opening_script(self, directory: str) -> str:
        return (
            "import sqlite3, pickle\n"
            f"connection = sqlite3.connect({directory + '/items.sqlite3'!r})\n"
            "connection.execute('PRAGMA schema_version').fetchone()\n"
            "connection.close()\n"
        )


def peer() -> Sqlite:
    return Sqlite()
