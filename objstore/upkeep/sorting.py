"""Sorting the revisions of a store by transaction, in bounded memory.

Pairs of a tid and an oid are kept in memory up to a number, and sorted; more go to a temporary file, run by run,
which are merged when they are read. The file has no name and vanishes with the process.
"""

from __future__ import annotations

import heapq
import tempfile
from collections.abc import Iterator
from itertools import groupby
from types import TracebackType
from typing import IO, Self

from objstore.ids import Oid, Tid

_PAIR = 16
_CHUNK = _PAIR * 4096


class TidSorter:
    """Gathers pairs of tid and oid, then gives them by tid, as often as one likes.

    `run` is how many are kept in memory: about 100 bytes each. Raises OSError where the temporary file cannot be
    written. A context manager.
    """

    def __init__(self, run: int = 500_000) -> None:
        self._run = run
        self._pairs: list[bytes] = []
        self._file: IO[bytes] | None = None
        self._runs: list[tuple[int, int]] = []

    def add(self, tid: Tid, oid: Oid) -> None:
        """Take a pair."""
        self._pairs.append(tid + oid)
        if len(self._pairs) >= self._run:
            self._spill()

    def _spill(self) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="objstore-copy-")  # noqa: SIM115  # see close
        self._pairs.sort()
        start = self._runs[-1][1] if self._runs else 0
        self._file.seek(start)
        self._file.write(b"".join(self._pairs))
        self._file.flush()
        self._runs.append((start, start + _PAIR * len(self._pairs)))
        self._pairs.clear()

    def transactions(self) -> Iterator[tuple[Tid, tuple[Oid, ...]]]:
        """Each tid, in order, with its oids in order."""
        self._pairs.sort()
        merged = heapq.merge(self._pairs, *(self._read(*run) for run in self._runs))
        for tid, pairs in groupby(merged, lambda pair: pair[:8]):
            yield Tid(tid), tuple(Oid(pair[8:]) for pair in pairs)

    def _read(self, start: int, stop: int) -> Iterator[bytes]:
        if self._file is None:
            return
        while start < stop:
            self._file.seek(start)
            chunk = self._file.read(min(_CHUNK, stop - start))
            yield from (chunk[at : at + _PAIR] for at in range(0, len(chunk), _PAIR))
            start += len(chunk)

    def close(self) -> None:
        """Forget all of it."""
        self._pairs.clear()
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
