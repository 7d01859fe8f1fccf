"""What of a FileStorage's file is read, and what is not.

ZODB reads such a file up to the first transaction that makes no sense to it: because the file was cut off, because
a commit was interrupted, or because bytes are damaged. It logs that at most, and what follows is not there for its
callers, who could take the beginning of the data for all of it. Here it is told where reading ends, and why. The
layout is that of `ZODB/FileStorage/format.py`; nothing in it has a checksum, so damage inside of an object's data
is not noticed here.

What was never committed is no loss: a commit writes its transaction with status `c`, and takes that mark away at
last. Only such a transaction at the very end of the file is taken for one.
"""

from __future__ import annotations

import errno
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from ZODB.FileStorage import FileStorage
from ZODB.FileStorage.FileStorage import packed_version
from ZODB.FileStorage.format import CorruptedError

from objstore.errors import CorruptionError, NotAStoreError
from objstore.ids import NO_TID, Oid, Tid

BEGIN = len(packed_version)
"""Where the first transaction stands."""
LENGTH = 8
"""Bytes of the length of a transaction, which is repeated behind it."""
_TRANSACTION = struct.Struct(">8sQcHHH")  # tid, length, status, lengths of user, description and extension
_RECORD = struct.Struct(">8s8sQQHQ")  # oid, tid, previous, transaction, always 0, length of the data
_LONGEST = 2**40
"""No transaction is as long as that: what says so is no transaction."""
NONSENSE = (CorruptedError, ValueError, struct.error, zlib.error, OverflowError, MemoryError, AssertionError)
"""What ZODB raises where it reads damaged bytes, beside its own errors: a length that is none is a MemoryError."""


@dataclass(frozen=True, slots=True)
class Unread:
    """The part of a file that is not read. `tid` and `oid` are those at its begin, where they are known."""

    path: str
    offset: int
    size: int
    """Bytes from there to the end of the file."""
    reason: str
    tid: Tid | None = None
    oid: Oid | None = None
    interrupted: bool = False
    """Whether this is a transaction that was never committed: nothing is lost then."""
    cut_off: bool = False
    """Whether this is the begin of a transaction, of which nothing can be saved."""

    def error(self) -> CorruptionError:
        """The damage as an error."""
        reason = (
            f"what can be read ends here, and {self.size:,} bytes follow: {self.reason}. Take a copy of the file "
            "that is whole"
        )
        if not self.cut_off:  # else ZODB's program saves no more, and may run for ever
            reason += f", or see what `python -m ZODB.fsrecover {self.path} RECOVERED` saves of it"
        return CorruptionError(self.path, reason, offset=self.offset, tid=self.tid, oid=self.oid)


def require_data_file(path: str) -> None:
    """Raises NotAStoreError where `path` has something else than a FileStorage's file, or than nothing."""
    if os.path.isdir(path):
        reason = "this is a directory, and no Data.fs of ZODB's; a store of objstore's is opened by its path"
        raise NotAStoreError(path, reason)
    with suppress(OSError), open(path, "rb") as file:  # what opens it tells the system's error
        found = file.read(BEGIN)
        if found not in (b"", packed_version):
            raise NotAStoreError(
                path, f"this is no Data.fs of ZODB's: it does not begin with {packed_version.decode()}"
            )


def file_storage(storage: Any) -> Any | None:
    """The FileStorage that answers for a storage: itself, or what that stands around; else None."""
    owner = getattr(getattr(storage, "lastTransaction", None), "__self__", None)
    return owner if isinstance(owner, FileStorage) else None


def last_read(storage: Any) -> Tid:
    """The tid of the newest whole transaction of a FileStorage.

    Where another follows that is not whole, `lastTransaction` gives the tid of that, or whatever stands there.
    """
    descriptor, end = storage._file.fileno(), storage._pos
    if end <= BEGIN:
        return NO_TID
    length = int.from_bytes(os.pread(descriptor, LENGTH, end - LENGTH), "big")
    return Tid(os.pread(descriptor, len(NO_TID), end - LENGTH - length))


def unread(storage: Any) -> Unread | None:
    """What is not read of a FileStorage, as its file is now; None where it is whole.

    It is the file that was opened: when it is packed meanwhile, another one takes its place.
    """
    return first_unread(storage._file.fileno(), storage.getName(), storage._pos, last_read(storage))


def first_unread_of(path: str) -> Unread | None:
    """The same of a file from its begin, every header of which is read. Raises OSError."""
    with open(path, "rb") as file:
        return first_unread(file.fileno(), path, BEGIN, NO_TID)


def first_unread(descriptor: int, path: str, at: int, last: Tid) -> Unread | None:
    """What follows the transactions, from the offset `at` on, that are whole, and each later than that before."""
    size = os.fstat(descriptor).st_size
    while at < size:
        found = _transaction(descriptor, at, size, last)
        if isinstance(found, _Whole):
            at, last = found.end, found.tid
            continue
        now = os.fstat(descriptor).st_size
        if now == size:
            rest = size - at
            return Unread(path, at, rest, found.reason, found.tid, found.oid, found.interrupted, found.cut_off)
        size = now  # it was being written while it was looked at
    return None


@dataclass(frozen=True, slots=True)
class _Whole:
    tid: Tid
    end: int


@dataclass(frozen=True, slots=True)
class _Damaged:
    reason: str
    tid: Tid | None = None
    oid: Oid | None = None
    interrupted: bool = False
    cut_off: bool = False


def _transaction(descriptor: int, at: int, size: int, last: Tid) -> _Whole | _Damaged:
    """The transaction that stands at an offset of a file of `size` bytes."""
    header = os.pread(descriptor, _TRANSACTION.size, at)
    if len(header) < _TRANSACTION.size:
        return _Damaged("too few for a transaction", cut_off=True)
    raw, length, status, *lengths = _TRANSACTION.unpack(header)
    tid, begin, end = Tid(raw), at + _TRANSACTION.size + sum(lengths), at + length
    if begin > end or length > _LONGEST or not status.isascii():
        return _Damaged("they do not begin with a transaction")
    if tid <= last:
        return _Damaged(f"their first transaction is not later than {last.hex()}, which is before it", tid)
    if status == b"c":
        if end + LENGTH < size:
            return _Damaged("their first transaction is marked as not committed, and is not the last", tid)
        return _Damaged("a transaction that was not committed", tid, interrupted=True)
    if end + LENGTH > size:
        if _ends_whole(descriptor, size):
            return _Damaged("the length of their first transaction is damaged", tid)
        return _Damaged(f"a transaction of {length + LENGTH:,} bytes, which is cut off", tid, cut_off=True)
    if os.pread(descriptor, LENGTH, end) != length.to_bytes(LENGTH, "big"):
        return _Damaged("the length of their first transaction is not what it says at its end", tid)
    return _damaged_record(descriptor, begin, end, at, tid) or _Whole(tid, end + LENGTH)


def _ends_whole(descriptor: int, size: int) -> bool:
    """Whether a whole transaction stands at the end of a file."""
    length = os.pread(descriptor, LENGTH, size - LENGTH)
    begin = size - LENGTH - int.from_bytes(length, "big")
    return begin >= BEGIN and os.pread(descriptor, LENGTH, begin + len(NO_TID)) == length


def _damaged_record(descriptor: int, at: int, end: int, transaction: int, tid: Tid) -> _Damaged | None:
    """The first record of a transaction that makes no sense."""
    while at < end:
        header = os.pread(descriptor, _RECORD.size, at)
        if len(header) < _RECORD.size:
            return _Damaged(f"the record at byte {at} is cut off", tid)
        oid, _, _, owner, nothing, length = _RECORD.unpack(header)
        at, begin = at + _RECORD.size + (length or LENGTH), at
        if at > end or owner != transaction or nothing:
            return _Damaged(f"the header of the record at byte {begin} is damaged", tid, Oid(oid))
    return None


# --- reading all of it -------------------------------------------------------------------------------


@contextmanager
def sound(name: str, tid: Tid | None = None) -> Iterator[None]:
    """While inside, what ZODB raises for bytes that make no sense becomes a CorruptionError."""
    try:
        yield
    except (OSError, *NONSENSE) as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # that of an offset that no file has
            raise
        reason = f"damaged bytes, which cannot be read ({str(error) or type(error).__name__})"
        offset, oid = None, None
        if isinstance(error, CorruptedError):
            reason = "there is no record here, where one should be"
            offset, oid = getattr(error, "pos", None), getattr(error, "oid", None)
        raise CorruptionError(name, reason, offset=offset, tid=tid, oid=Oid(oid) if oid else None) from error


def iterator(storage: Any, first: Tid | None, last: Tid | None) -> Any:
    """The transactions of a storage from one to another, both included, as it iterates over them.

    A FileStorage goes by the end of its file when it looks for the first, and fails where no whole transaction
    stands there: then those before are passed over one by one.
    """
    base = file_storage(storage)
    if base is None or first is None:
        return storage.iterator(first, last)
    if unread(base) is None:
        with suppress(AttributeError, *NONSENSE):  # another process has begun to write a transaction since
            return storage.iterator(first, last)
    return _from(storage.iterator(None, last), first)


def _from(found: Any, first: Tid) -> Iterator[Any]:
    try:
        for each in found:
            if each.tid >= first:
                yield each
    finally:
        if hasattr(found, "close"):
            found.close()


def require_whole(storage: Any) -> None:
    """To be called where iterating over a FileStorage has ended before its newest transaction.

    Where damage stands amid the file, ZODB's iterator passes over what follows. Raises CorruptionError, OSError.
    """
    damage = first_unread_of(storage.getName())
    if damage is not None and not damage.interrupted:  # else it was packed meanwhile
        raise damage.error()


def with_its_last_transaction(storage: Any, reopen: Callable[[], Any]) -> Any:
    """A storage that has just been opened, or the same opened anew, such that `lastTransaction` is what is read.

    A FileStorage that was not whole takes the tid of what it left out for its newest. One that is to be written to
    has cut that off, so that it is whole by now, and is opened once more; one that is only read from is told.
    """
    base = file_storage(storage)
    if base is None or base.lastTransaction() == last_read(base):
        return storage
    if not base.isReadOnly():
        storage.close()
        return reopen()
    base._ltid = last_read(base)
    return storage
