"""What packs have doomed: objects that no commit may mention any more, in whatever process it is made.

A pack writes them into `locks/doomed`, with writers held, and counts that on the board. Who takes the writer lock
afterwards reads the file before it looks at its own transaction. It means something only while the processes live
that may hold removed objects in their caches: who opens a store alone begins without.
"""

from __future__ import annotations

import contextlib
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from sys import byteorder

from objstore.contracts import Filesystem
from objstore.formats.layouts import TEMPORARY
from objstore.ids import Oid, number
from objstore.machine.board import DOOMS, Board


class SharedDooms:
    """The doomed objects that another process has told of: callable with an oid, iterable by numbers."""

    def __init__(self, packed: bytes) -> None:
        self._numbers = array("Q")
        self._numbers.frombytes(packed)
        if byteorder == "little":
            self._numbers.byteswap()

    def __call__(self, oid: Oid) -> bool:
        wanted = number(oid)
        at = bisect_left(self._numbers, wanted)
        return at < len(self._numbers) and self._numbers[at] == wanted

    def __iter__(self) -> Iterator[int]:
        return iter(self._numbers)


class Dooms:
    """What is doomed, as far as this process knows."""

    def __init__(self, board: Board, filesystem: Filesystem, path: str) -> None:
        self._words = board.words
        self._filesystem = filesystem
        self._path = path
        self._seen = 0
        self._current: Callable[[Oid], bool] | None = None

    @property
    def current(self) -> Callable[[Oid], bool] | None:
        """Tells of an oid whether it is doomed; None where nothing is. Raises OSError."""
        if self._words[DOOMS] != self._seen:
            seen = self._words[DOOMS]
            try:
                self._current = SharedDooms(self._filesystem.read(self._path))
            except FileNotFoundError:  # taken back
                self._current = None
            self._seen = seen
        return self._current

    def tell(self, is_doomed: Callable[[Oid], bool] | None) -> None:
        """From here on this is doomed, for all processes. Called with writers held. Raises OSError.

        Where it cannot be iterated, by the numbers of oids, it counts for this process only.
        """
        self._current = is_doomed
        if is_doomed is not None and not isinstance(is_doomed, Iterable):
            return
        if is_doomed is None:
            with contextlib.suppress(FileNotFoundError):
                self._filesystem.unlink(self._path)
        else:
            self._write(array("Q", is_doomed))
        self._words[DOOMS] += 1
        self._seen = self._words[DOOMS]

    def _write(self, packed: array[int]) -> None:
        if byteorder == "little":
            packed.byteswap()
        temporary = self._path + TEMPORARY
        with contextlib.suppress(FileNotFoundError):  # left by a pack that was killed
            self._filesystem.unlink(temporary)
        try:
            with self._filesystem.create(temporary) as file:
                file.write(packed.tobytes())
            self._filesystem.rename(temporary, self._path)
        except OSError:
            with contextlib.suppress(OSError):
                self._filesystem.unlink(temporary)
            raise
