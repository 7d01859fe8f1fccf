"""The floor: `pickle.dumps`, append to one file, `fdatasync`. No durable store of pickles can do less.

Where a pickle is, is known in a dict that is lost with the process, so it takes no part where a store is opened.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from threading import Lock

from peers.pickles import Pair, PickleSession
from peers.protocol import Ability, Unavailable

_HEADER = 12
"""Eight bytes for the key and four for the length."""


class AppendedFile:
    """One file, and where each key's newest pickle is in it. The table of every session."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC)
        self._end = os.fstat(self._file).st_size
        self._places: dict[int, tuple[int, int]] = {}
        self._lock = Lock()

    def put(self, pairs: Sequence[Pair]) -> None:
        parts = []
        with self._lock:
            at = self._end
            for key, data in pairs:
                parts += [key.to_bytes(8, "big"), len(data).to_bytes(4, "big"), data]
                self._places[key] = (at + _HEADER, len(data))
                at += _HEADER + len(data)
            whole = memoryview(b"".join(parts))
            while whole:
                whole = whole[os.write(self._file, whole) :]
            os.fdatasync(self._file)
            self._end = at

    def delete(self, keys: Sequence[int]) -> None:
        self.put([(key, b"") for key in keys])
        for key in keys:
            del self._places[key]

    def get(self, key: int) -> bytes:
        offset, length = self._places[key]
        return os.pread(self._file, length, offset)

    def all(self) -> Iterator[bytes]:
        return (self.get(key) for key in sorted(self._places))

    def close(self) -> None:
        """The file is the store's."""

    def close_file(self) -> None:
        os.close(self._file)


class FloorStore:
    """The file."""

    def __init__(self, path: str) -> None:
        self._file = AppendedFile(path)

    def session(self) -> PickleSession:
        return PickleSession(self._file)

    def settle(self) -> None:
        """Nothing happens in the background."""

    def pack(self) -> None:
        raise Unavailable("the floor does not pack")

    def close(self) -> None:
        self._file.close_file()


class Floor:
    """What the disk and the pickles cost."""

    title = "floor: dumps, append, fdatasync"
    versions = "the standard library's pickle"
    durability = "fdatasync at each commit"
    abilities = Ability.THREADS | Ability.SYNCS_BY_PYTHON

    def open(self, directory: str) -> FloorStore:
        return FloorStore(f"{directory}/pickles")

    def opening_script(self, directory: str) -> str:
        raise Unavailable(f"{directory}: the floor keeps no index to open")


def peer() -> Floor:
    return Floor()
