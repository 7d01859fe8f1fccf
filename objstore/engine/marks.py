"""Watermarks: numbers that only grow, each kept as the name of an empty file.

`flushed_<tid>` is the newest transaction that the home holds with all before it, `packed_<tid>` the time
that history was packed to, `oids_<oid>` the first oid that was never reserved.

Advancing: 1. create the file of the new name; 2. sync the directory; 3. remove the old name. A crash before
2 may leave either name alone or both, after it the new one is there: reading takes the greatest, so a mark
never goes back.
"""

from __future__ import annotations

import contextlib
from threading import Lock

from objstore.contracts import Filesystem
from objstore.errors import CorruptionError
from objstore.formats.layouts import mark_name, parse_mark_name

FLUSHED, PACKED, OIDS = "flushed", "packed", "oids"
NOTHING = bytes(8)


class Marks:
    """The watermarks of a store. May be used by any thread."""

    def __init__(self, filesystem: Filesystem, path: str) -> None:
        self._filesystem = filesystem
        self._path = path
        self._values: dict[str, bytes] = {}
        self._lock = Lock()  # guards _values and the directory; a leaf: nothing is locked under it

    def read(self) -> None:
        """Read what is there. Raises CorruptionError where a mark that every store has is missing."""
        for entry in self._filesystem.entries(self._path):
            mark = parse_mark_name(entry.name)
            if mark is not None:
                kind, value = mark
                self._values[kind] = max(value, self._values.get(kind, NOTHING))
        for kind in (FLUSHED, OIDS):
            if kind not in self._values:
                raise CorruptionError(
                    self._path,
                    f"the mark {kind}_* is missing, so the ids in use are unknown; restore it from a backup",
                )

    def get(self, kind: str) -> bytes:
        """The value of a mark; zeros where it was never set."""
        return self._values.get(kind, NOTHING)

    def advance(self, kind: str, value: bytes) -> None:
        """Raise a mark to `value`, durably on return; a lower value changes nothing. Raises OSError."""
        with self._lock:
            old = self._values.get(kind)
            if old is not None and value <= old:
                return
            # The file is there already when an earlier call created it and could not sync.
            with contextlib.suppress(FileExistsError):
                self._filesystem.create(f"{self._path}/{mark_name(kind, value)}").close()
            self._filesystem.sync_directory(self._path)
            self._values[kind] = value
            if old is not None:
                with contextlib.suppress(FileNotFoundError):
                    self._filesystem.unlink(f"{self._path}/{mark_name(kind, old)}")

    def settle(self) -> None:
        """Make durable what was read, then remove the lower names that a crash has left.

        A process that was killed before it could sync leaves a name that a power cut still takes away.
        """
        self._filesystem.sync_directory(self._path)
        for entry in self._filesystem.entries(self._path):
            mark = parse_mark_name(entry.name)
            if mark is not None and mark[1] < self._values[mark[0]]:
                self._filesystem.unlink(f"{self._path}/{entry.name}")
