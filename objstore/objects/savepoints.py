"""Where a transaction keeps what its savepoints have written, until it commits or aborts.

Records go to one temporary file, in memory up to a bound. A savepoint is a mark in the log of what was
written; rolling back takes the log back to the mark, so its cost is that of the changes since. A temporary
file has no name and is gone when it is closed, or when the process ends.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import suppress
from typing import IO, NamedTuple

from objstore.errors import StorageError, StorageFullError
from objstore.ids import Oid, Tid
from objstore.objects.scratch import temporary_file, temporary_place


class Written(NamedTuple):
    """An object as a savepoint has it. `references` are packed oids, None where nobody knows them."""

    serial: Tid
    data: bytes
    references: bytes | None


class _Place(NamedTuple):
    offset: int
    size: int
    serial: Tid
    references: bytes | None


class Mark(NamedTuple):
    """A moment in the life of a `SavepointStore`."""

    entries: int
    end: int


class SavepointStore:
    """The records written by the savepoints of one transaction. Used by one thread at a time.

    Up to `memory` bytes are kept in memory. Raises StorageFullError and StorageError where the temporary
    file cannot be written.
    """

    def __init__(self, memory: int) -> None:
        self._memory = memory
        self._file: IO[bytes] = io.BytesIO()
        self._spilled = False
        self._places: dict[Oid, _Place] = {}
        self._log: list[tuple[Oid, _Place | None]] = []  # what an oid's place was before
        self._end = 0

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, oid: Oid) -> bool:
        return oid in self._places

    def oids(self) -> list[Oid]:
        """The objects that were written, in order."""
        return sorted(self._places)

    def store(self, oid: Oid, serial: Tid, data: bytes, references: bytes | None) -> None:
        """Write an object's record; what it was before stays, for a rollback."""
        try:
            if not self._spilled and self._end + len(data) > self._memory:
                self._spill()
            self._file.seek(self._end)
            self._file.write(data)
            self._file.flush()
        except OSError as error:
            reason = f"a savepoint cannot be written: {error.strerror or error}"
            raise StorageFullError(temporary_place(), reason) from error
        self._log.append((oid, self._places.get(oid)))
        self._places[oid] = _Place(self._end, len(data), serial, references)
        self._end += len(data)

    def _spill(self) -> None:
        """Go on in a temporary file."""
        file = temporary_file("savepoint")  # see close
        try:
            self._file.seek(0)
            file.write(self._file.read())
        except BaseException:
            file.close()
            raise
        self._file, self._spilled = file, True

    def load(self, oid: Oid) -> Written | None:
        """What was written of an object; None where nothing was."""
        place = self._places.get(oid)
        if place is None:
            return None
        try:
            self._file.seek(place.offset)
            data = self._file.read(place.size)
        except OSError as error:
            raise StorageError(f"the temporary file of a savepoint cannot be read: {error}") from error
        if len(data) != place.size:
            raise StorageError(f"the temporary file of a savepoint is cut off at object {oid.hex()}")
        return Written(place.serial, data, place.references)

    def all(self) -> Iterator[tuple[Oid, Written]]:
        """Everything that was written, by oid, read as it is asked for."""
        for oid in self.oids():
            written = self.load(oid)
            if written is not None:
                yield oid, written

    def mark(self) -> Mark:
        """The present moment, to roll back to."""
        return Mark(len(self._log), self._end)

    def rollback(self, mark: Mark) -> set[Oid]:
        """Take back what was written after a moment; the oids of it."""
        changed = set()
        while len(self._log) > mark.entries:
            oid, place = self._log.pop()
            changed.add(oid)
            if place is None:
                del self._places[oid]
            else:
                self._places[oid] = place
        self._end = mark.end
        return changed

    def close(self) -> None:
        """Let go of the file. Closing twice is allowed."""
        with suppress(OSError):  # what could not be written is not wanted any more
            self._file.close()
