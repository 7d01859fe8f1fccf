"""Files of a tree in memory as Python has them: what `Filesystem.open_file` gives where there is no disk."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from typing import Any

from objstore.machine.tree import File

WriteInto = Callable[[int, bytes], object]
"""Writes bytes at an offset of the file. Raises OSError."""


class NodeFile(io.RawIOBase):
    """A position in a file: for reading, and for writing where it is told how to write and to cut."""

    def __init__(
        self,
        file: File,
        *,
        readable: bool = True,
        write: WriteInto | None = None,
        cut: Callable[[int], object] | None = None,
    ) -> None:
        self._file = file
        self._position = 0
        self._readable = readable
        self._write_into = write
        self._cut = cut

    def readable(self) -> bool:
        return self._readable

    def writable(self) -> bool:
        return self._write_into is not None

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Read what is there at the position."""
        self._require_open()
        if not self._readable:
            raise io.UnsupportedOperation("the file is open for writing only")
        with memoryview(buffer).cast("B") as room:
            found = bytes(self._file.data[self._position : self._position + len(room)])
            room[: len(found)] = found
        self._position += len(found)
        return len(found)

    def write(self, data: Any) -> int:
        """Write all of it at the position."""
        self._require_open()
        if self._write_into is None:
            raise io.UnsupportedOperation("the file is open for reading only")
        content = bytes(data)
        self._write_into(self._position, content)
        self._position += len(content)
        return len(content)

    def truncate(self, size: int | None = None) -> int:
        """Cut the file, or let it grow by zeros; the position stays."""
        self._require_open()
        if self._write_into is None or self._cut is None:
            raise io.UnsupportedOperation("the file cannot be cut")
        wanted = self._position if size is None else size
        length = len(self._file.data)
        if wanted > length:
            self._write_into(length, bytes(wanted - length))
        elif wanted < length:
            self._cut(wanted)
        return wanted

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move the position."""
        self._require_open()
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: len(self._file.data)}[whence]
        if start + offset < 0:
            raise ValueError(f"there is no position {start + offset}")
        self._position = start + offset
        return self._position

    def _require_open(self) -> None:
        if self.closed:
            raise ValueError("the file is closed")
