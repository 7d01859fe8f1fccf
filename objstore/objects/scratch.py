"""Temporary files: nameless, and gone when they are closed or the process ends."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING

from objstore.later import Later

if TYPE_CHECKING:
    import tempfile
else:
    tempfile = Later("tempfile")


def temporary_file(purpose: str) -> IO[bytes]:
    """A file to write and read. `purpose` is part of its name where the system insists on one. Raises OSError."""
    return tempfile.TemporaryFile(prefix=f"objstore-{purpose}-")


def temporary_place() -> str:
    """The directory that temporary files are made in, for messages."""
    return tempfile.gettempdir()
