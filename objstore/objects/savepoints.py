"""Where a transaction keeps what its savepoints have written, until it commits or aborts.

Records go to one temporary file, in memory up to a bound. A savepoint is a mark in the log of what was
written; rolling back takes the log back to the mark, so its cost is that of the changes since. A temporary
file has no name and is gone when it is closed, or when the process ends. The data of blobs stay in the temporary
files of the store that they are in, one for each savepoint that has changed them.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import IO, NamedTuple

from objstore.errors import StorageError, StorageFullError
from objstore.ids import Oid, Tid
from objstore.objects.scratch import temporary_file, temporary_place


class Written(NamedTuple):
    """An object as a savepoint has it. `references` are packed oids, None where nobody knows them; `blob` is the
    path of a blob's data."""

    serial: Tid
    data: bytes
    references: bytes | None
    blob: str | None = None


class _Place(NamedTuple):
    offset: int
    size: int
    serial: Tid
    references: bytes | None
    blob: str | None


class Mark(NamedTuple):
    """A moment in the life of a `SavepointStore`."""

    entries: int
    end: int


def _leave(path: str) -> None:
    """Leave the data of a blob where they are."""


class SavepointStore:
    """The records written by the savepoints of one transaction. Used by one thread at a time.

    Up to `memory` bytes are kept in memory. Raises StorageFullError and StorageError where the temporary
    file cannot be written.
    """

    def __init__(self, memory: int, discard: Callable[[str], None] = _leave) -> None:
        """`discard` removes the data of a blob, if they are there."""
        self._memory = memory
        self._discard = discard
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
        self._store(oid, serial, data, references, None)

    def store_blob(
        self,
        oid: Oid,
        serial: Tid,
        data: bytes,
        references: bytes | None,
        path: str,
        copied_from: Tid | None = None,  # noqa: ARG002
    ) -> None:
        """The same of a blob, whose data are in a temporary file of the store."""
        self._store(oid, serial, data, references, path)

    def _store(self, oid: Oid, serial: Tid, data: bytes, references: bytes | None, blob: str | None) -> None:
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
        self._places[oid] = _Place(self._end, len(data), serial, references, blob)
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
        return Written(place.serial, data, place.references, place.blob)

    def blob(self, oid: Oid) -> str | None:
        """The path of a blob's data; None where it was not written."""
        place = self._places.get(oid)
        return place.blob if place is not None else None

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
            self._drop(self._places[oid])
            changed.add(oid)
            if place is None:
                del self._places[oid]
            else:
                self._places[oid] = place
        self._end = mark.end
        return changed

    def _drop(self, place: _Place | None) -> None:
        if place is not None and place.blob is not None:
            self._discard(place.blob)

    def close(self) -> None:
        """Let go of the files. Closing twice is allowed."""
        for place in (*self._places.values(), *(before for _, before in self._log)):
            self._drop(place)
        with suppress(OSError):  # what could not be written is not wanted any more
            self._file.close()
