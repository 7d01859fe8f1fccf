"""What objstore asks of an operating system.

`Filesystem` is the only way to the disk, so tests run the whole engine on one that loses what was not synced.
"""

from __future__ import annotations

from io import RawIOBase
from types import TracebackType
from typing import NamedTuple, Protocol, Self


class WritableFile(Protocol):
    """A file open for writing. Nothing is durable before `sync` has returned."""

    def write(self, data: bytes | memoryview) -> None:
        """Append all of `data` at the position, however often the system writes less. Raises OSError."""

    def write_at(self, offset: int, data: bytes | memoryview) -> None:
        """Write all of `data` at `offset`; the position stays."""

    def allocate(self, size: int) -> None:
        """Let no write up to `size` fail for want of room. A shorter file grows, by zeros. Raises OSError."""

    def sync(self) -> None:
        """Make the content, and the size, durable (fdatasync). The file's name may still be lost."""

    def close(self) -> None:
        """Close without syncing. Closing twice is allowed."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Entry(NamedTuple):
    """A name in a directory. A symbolic link is neither followed nor a directory."""

    name: str
    is_directory: bool


class Filesystem(Protocol):
    """All that objstore asks of an operating system. Paths are absolute; errors are those of `os`.

    A change of a directory (a name made, renamed or removed) is durable once `sync_directory` of that
    directory has returned; of the changes since, a crash may keep any.
    """

    def create(self, path: str) -> WritableFile:
        """Create and open a file. Raises FileExistsError where the name is taken."""

    def open_existing(self, path: str) -> WritableFile:
        """Open a file to write over its content from the start, without truncating it."""

    def read(self, path: str) -> bytes:
        """The whole content of a file."""

    def read_at(self, path: str, offset: int, length: int) -> bytes:
        """Up to `length` bytes from `offset`: fewer only where the file ends."""

    def map(self, path: str) -> memoryview:
        """The content of a file that nobody changes any more, read as it is looked at.

        It stays readable after the file's removal, for as long as somebody holds it.
        """

    def release(self, mapped: memoryview) -> None:
        """Let go of the memory that looking at a map has taken. Looking at it again reads it again."""

    def open_file(self, path: str, mode: str) -> RawIOBase:
        """A file as Python has it, which reads and writes at its position, at most as much as it is asked for.

        "r" reads one that exists, "r+" reads and writes it, "w" writes one that is made, or emptied.
        """

    def copy(self, old: str, new: str) -> None:
        """Make a file with the content of another. Raises FileExistsError where the name is taken."""

    def take(self, outside: str, path: str) -> None:
        """Make a file of the system, wherever it is, one of this filesystem, in place of its empty file `path`.

        It is renamed, or copied and removed where that is impossible or where others know the file too. After an
        error it is where it was.
        """

    def outside(self, path: str) -> str:
        """A path under which the system knows the content of a file that nobody changes."""

    def protect(self, path: str) -> None:
        """Let nobody write into a file any more who only knows its path. Nothing that lasts depends on it."""

    def size(self, path: str) -> int:
        """The length of a file in bytes."""

    def exists(self, path: str) -> bool:
        """Whether there is a file or a directory of this name."""

    def entries(self, path: str) -> list[Entry]:
        """What a directory holds, in no order."""

    def rename(self, old: str, new: str) -> None:
        """Give a file or directory another name, replacing a file of that name atomically."""

    def unlink(self, path: str) -> None:
        """Remove a file."""

    def make_directory(self, path: str) -> None:
        """Make a directory whose parent exists. Raises FileExistsError."""

    def remove_directory(self, path: str) -> None:
        """Remove an empty directory."""

    def sync_directory(self, path: str) -> None:
        """Make the names in a directory durable (fsync)."""

    def free_bytes(self, path: str) -> int:
        """How much may still be written on the filesystem of `path`."""

    def allocated_bytes(self, path: str) -> int:
        """How much of the disk a file occupies."""

    def lock(self, path: str, *, shared: bool = False) -> FileLock:
        """Lock a file, creating it for an exclusive lock. Held until closed or the process ends.

        A shared lock writes nothing, and where the file is missing on a filesystem that cannot be written,
        locks nothing. Raises LockedError at once where another holds it.
        """

    def file_number(self, path: str) -> int:
        """What tells a file from all others of this machine, also from its copies."""

    def network_type(self, path: str) -> str | None:
        """The type of the filesystem where `path` is or would be, if it is one of another machine's; else None."""

    def mutex(self, path: str) -> Mutex:
        """A lock between processes on a file, created where it is missing, not yet taken."""

    def share(self, path: str, size: int) -> memoryview:
        """Words of 64 bits that all processes share who ask for the same path: `size` bytes, zeros at first.

        Raises OSError, also where the file may not be written.
        """


class Mutex(Protocol):
    """A lock between processes, which the system takes back from a process that ends.

    It does not keep the threads of a process apart: whoever takes it holds a lock of the process's own.
    """

    def acquire(self, *, blocking: bool = True) -> bool:
        """Take it; whether that was possible, if not `blocking`."""

    def release(self) -> None:
        """Let go of it, if it is held."""

    def close(self) -> None:
        """Close its file. In a forked child this leaves to the parent what the parent holds."""


class FileLock(Protocol):
    """A lock that is held."""

    def close(self) -> None:
        """Let go of it. The file stays."""


class LockedError(Exception):
    """Another process holds the lock of `path`; `pid` is that process, where the file says so."""

    def __init__(self, path: str, pid: int | None) -> None:
        super().__init__(path, pid)
        self.path = path
        self.pid = pid
