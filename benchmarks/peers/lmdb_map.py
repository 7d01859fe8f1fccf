"""LMDB, with one pickle an object."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import lmdb

from peers.pickles import Pair, PickleSession
from peers.protocol import Ability

_MAP_SIZE = 8 * 2**30
"""Address space, not disk: the file is sparse and grows as it is written."""


class LmdbTable:
    """The pickles by their key's eight bytes."""

    def __init__(self, environment: lmdb.Environment) -> None:
        self._environment = environment

    def put(self, pairs: Sequence[Pair]) -> None:
        with self._environment.begin(write=True) as transaction:
            for key, data in pairs:
                transaction.put(key.to_bytes(8, "big"), data)

    def delete(self, keys: Sequence[int]) -> None:
        with self._environment.begin(write=True) as transaction:
            for key in keys:
                transaction.delete(key.to_bytes(8, "big"))

    def get(self, key: int) -> bytes:
        with self._environment.begin() as transaction:
            return bytes(transaction.get(key.to_bytes(8, "big")))

    def all(self) -> Iterator[bytes]:
        with self._environment.begin() as transaction:
            for _, data in transaction.cursor():
                yield data

    def close(self) -> None:
        """The environment is the store's."""


class LmdbStore:
    """An environment, which a process opens once."""

    def __init__(self, directory: str) -> None:
        self._environment = lmdb.open(
            f"{directory}/items.lmdb", map_size=_MAP_SIZE, subdir=False, sync=True, metasync=True, max_readers=64
        )

    def session(self) -> PickleSession:
        return PickleSession(LmdbTable(self._environment))

    def settle(self) -> None:
        """Nothing happens in the background."""

    def pack(self) -> None:
        """Nothing is kept that is superseded."""

    def close(self) -> None:
        self._environment.close()


class Lmdb:
    """A B+tree in a mapped file."""

    title = "lmdb, a pickle an object"
    versions = "py-lmdb {}, LMDB {}.{}.{}".format(lmdb.__version__, *lmdb.version())
    durability = "sync=True, metasync=True (its defaults: fdatasync of data and of the meta page at each commit)"
    abilities = Ability.LASTS | Ability.THREADS

    def open(self, directory: str) -> LmdbStore:
        return LmdbStore(directory)

    def opening_script(self, directory: str) -> str:
        return (
            "import lmdb, pickle\n"
            f"environment = lmdb.open({directory + '/items.lmdb'!r}, map_size={_MAP_SIZE}, subdir=False)\n"
            "with environment.begin() as transaction:\n"
            "    transaction.cursor().first()\n"
            "environment.close()\n"
        )


def peer() -> Lmdb:
    return Lmdb()
