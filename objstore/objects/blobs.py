"""Blobs: binary values of any size, kept in files of their own and not in records.

A `Blob` is a persistent object that has no state: what it refers to is a file, found by its oid and serial. What
a transaction writes goes to a temporary file of the store, the blob's *working file*, which a savepoint or the
commit takes over whole. So a blob of any size takes no more memory than the pieces in which it is read or written.

Its record is that of `ZODB.blob.Blob`, byte for byte, and wherever a record names that class, this one is meant:
data go from ZODB to objstore and back, and ZODB is not needed for it.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import weakref
from collections.abc import Iterator
from io import RawIOBase
from typing import TYPE_CHECKING, Any, Protocol, cast

from persistent import Persistent

from objstore.contracts import BlobFiles, BlobStore, Store, TemporaryFiles, View
from objstore.errors import BlobError, BlobMissingError, StorageError, StorageFullError, UsageError
from objstore.formats.pickles import BLOB_RECORD
from objstore.ids import NO_TID, Oid, Tid
from objstore.later import Later

if TYPE_CHECKING:
    import shutil
    import tempfile
else:
    shutil, tempfile = Later("shutil"), Later("tempfile")

RECORD = BLOB_RECORD
MODES = ("r", "w", "a", "r+", "c")
BUFFER = 2**16
"""Bytes that an open blob reads and writes at a time, where it is asked for less."""


class BlobsJar(Protocol):
    """What a blob asks of its connection."""

    @property
    def view(self) -> View: ...

    def blob_files(self) -> BlobFiles:
        """The files of its store. Raises ClosedError, UsageError where the store keeps no blobs."""

    def saved_blob(self, oid: Oid) -> str | None:
        """The temporary file that the last savepoint has of a blob; None where there is none."""


class OutsideFiles:
    """Where the data are of a blob that belongs to no database yet: in the system's temporary directory."""

    def temporary(self) -> str:
        """Make an empty file."""
        descriptor, path = tempfile.mkstemp(prefix="objstore-blob-")
        os.close(descriptor)
        return path

    def take(self, outside: str) -> str:
        """Rename or copy a file to there."""
        path = self.temporary()
        try:
            shutil.move(outside, path)
        except BaseException:
            self.discard(path)
            raise
        return path

    def copied(self, path: str) -> str:
        """A copy of a file."""
        fresh = self.temporary()
        try:
            shutil.copyfile(path, fresh)
        except BaseException:
            self.discard(fresh)
            raise
        return fresh

    def open(self, path: str, mode: str) -> RawIOBase:
        """Open a file."""
        return io.FileIO(path, f"{mode}b")

    def outside(self, path: str) -> str:
        """The path."""
        return path

    def discard(self, path: str) -> None:
        """Remove a file, if it is there."""
        with contextlib.suppress(OSError):
            os.unlink(path)


_outside = OutsideFiles()


def blob_files_of(store: Store) -> BlobFiles:
    """The files of a store's blobs. Raises UsageError where it keeps none."""
    if not isinstance(store, BlobStore):
        raise UsageError(f"the store {store.name} keeps no blobs")
    return store.blobs


class Working:
    """The file that a blob's uncommitted data are in. It goes when nobody has it any more."""

    def __init__(self, files: TemporaryFiles, path: str) -> None:
        self.files = files
        self.path = path
        self.failure: OSError | None = None
        """What kept something from being written: what the file holds now is not what was meant."""
        self._end = weakref.finalize(self, _discard, files, path, os.getpid())

    def discard(self) -> None:
        """Remove the file."""
        self._end()

    def hand_over(self) -> str:
        """Its path; whoever asks is responsible for it from now on."""
        self._end.detach()
        return self.path


def _discard(files: TemporaryFiles, path: str, pid: int) -> None:
    if pid == os.getpid():  # a forked child leaves its parent's alone
        files.discard(path)


class Blob(Persistent):
    """A large binary value.

        blob = Blob(b"first")
        with blob.open("w") as file:
            file.write(b"second")

    What is written belongs to the transaction, as the changes of other objects do, and so do its savepoints.
    """

    _p_blob_working: Working | None = None
    _p_blob_given = False  # a commit, or a savepoint, has taken the working file over

    def __init__(self, data: bytes | None = None) -> None:
        """A new blob, empty or of some bytes."""
        self.__setstate__(None)
        if data is not None:
            with self.open("w") as file:
                file.write(data)

    def __init_subclass__(cls) -> None:
        raise TypeError("Blob cannot be subclassed: its record has room for nothing but the data")

    def __getstate__(self) -> None:
        return None

    def __setstate__(self, _state: object) -> None:
        self.readers: list[weakref.ref[Any]] = []
        self.writers: list[weakref.ref[Any]] = []

    # --- reading and writing ---

    def open(self, mode: str = "r") -> io.BufferedIOBase:
        """Open it as a binary file: "r" to read, "w" to write anew, "a" to append, "r+" to read and write.

        "c" reads what is committed, of a blob that this transaction has not changed. A reader sees what this
        transaction has written so far; it is closed when the connection moves on to what another has written.
        Several may read at a time, or one write. Close what was opened for writing before the commit. Raises
        BlobError where that does not go together, ReadOnlyError, ClosedError, BlobMissingError; the file raises
        OSError where the disk does.
        """
        if mode not in MODES:
            raise ValueError(f"a blob is opened in mode {', '.join(MODES)}, not {mode!r}")
        self._p_activate()
        if mode == "c":
            return _Reader(self, self._committed_file())
        if _open_ones(self.writers):
            raise BlobError("the blob is open for writing already; close that file first")
        if mode == "r":
            return _Reader(self, self._present())
        self._require_no_readers()
        working = self._begin_to_write(empty=mode == "w")
        if mode == "r+":
            return _Updater(self, working)
        file = _Writer(self, working, "w" if mode == "w" else "r+")
        if mode == "a":
            file.seek(0, os.SEEK_END)
        return file

    def consume(self, path: str | os.PathLike[str]) -> None:
        """Make a file the data of this blob; the file is no longer where it was.

        On the filesystem of the store it is renamed, which costs nothing however large it is; else copied and
        removed. Raises BlobError where the blob is open, ReadOnlyError, UsageError for a file of the store itself,
        OSError; then the file is where it was.
        """
        self._p_activate()
        if _open_ones(self.writers):
            raise BlobError("the blob is open for writing; close that file first")
        self._require_no_readers()
        files = self._files()
        self._p_changed = True
        taken = Working(files, files.take(os.path.abspath(os.fspath(path))))
        if self._p_blob_working is not None:
            self._p_blob_working.discard()
        self._p_blob_working = taken

    def consumeFile(self, filename: str | os.PathLike[str]) -> None:
        """`consume`, as ZODB calls it."""
        self.consume(filename)

    def committed(self) -> str:
        """The path of a file with the committed data, for other programs to read. Nobody may change it.

        It stays where it is while this revision of the blob is kept. Raises BlobError where the transaction has
        changed the blob, BlobMissingError.
        """
        self._p_activate()
        jar, oid, serial = self._require_committed()
        return jar.blob_files().path(oid, serial)

    def opened(self) -> bool:
        """Whether it is open."""
        self._p_activate()
        return bool(_open_ones(self.readers) or _open_ones(self.writers))

    # --- what is there ---

    def _files(self) -> TemporaryFiles:
        jar = self._jar()
        return jar.blob_files() if jar is not None else _outside

    def _jar(self) -> BlobsJar | None:
        return cast("BlobsJar | None", self._p_jar)

    def _require_no_readers(self) -> None:
        if _open_ones(self.readers):
            raise BlobError("the blob is open for reading; close that file before it is changed")

    def _require_committed(self) -> tuple[BlobsJar, Oid, Tid]:
        jar, oid, serial = self._jar(), self._p_oid, self._p_serial
        is_changed = serial == NO_TID or self._p_blob_working is not None
        if jar is None or is_changed or jar.saved_blob(oid) is not None:
            raise BlobError("the blob has data that are not committed; commit first, or open it to read them")
        return jar, Oid(oid), Tid(serial)

    def _committed_file(self) -> RawIOBase:
        jar, oid, serial = self._require_committed()
        return jar.blob_files().open_committed(oid, serial)

    def _present(self) -> RawIOBase:
        """What it holds now, to be read."""
        jar, working = self._jar(), self._p_blob_working
        if working is None and jar is not None:
            files = jar.blob_files()
            saved = jar.saved_blob(self._p_oid)
            if saved is not None:
                return files.open(saved, "r")
            if self._p_serial != NO_TID:
                try:
                    return files.open_committed(self._p_oid, self._p_serial)
                except BlobMissingError:
                    jar.view.load(self._p_oid)  # raises where the snapshot was given up: that is the reason then
                    raise
        if working is None:
            working = self._p_blob_working = self._new(self._files())
        return working.files.open(working.path, "r")

    def _new(self, files: TemporaryFiles) -> Working:
        """The working file of a blob that was never stored."""
        if self._p_blob_given:
            raise BlobError(
                "the data of this new blob were given up with the transaction that failed; write them again"
            )
        return Working(files, files.temporary())

    def _begin_to_write(self, *, empty: bool) -> Working:
        """The working file; of a blob that has none, with what it holds now unless it is to be `empty`."""
        files = self._files()
        self._p_changed = True  # first, because it may be refused
        working = self._p_blob_working
        if empty and (working is None or working.failure is not None):
            working = Working(files, files.temporary())
            self._p_blob_given = False
        elif working is None:
            working = self._copy()
        self._p_blob_working = working
        return working

    def _copy(self) -> Working:
        """A working file with what it holds now."""
        jar = self._jar()
        if jar is None:
            return self._new(_outside)
        files, saved = jar.blob_files(), jar.saved_blob(self._p_oid)
        if saved is not None:
            return Working(files, files.copied(saved))
        if self._p_serial == NO_TID:
            return self._new(files)
        return Working(files, files.copied_committed(self._p_oid, self._p_serial))

    # --- what the connection asks ---

    def _p_blob_hand_over(self) -> str:
        """The temporary file that is to be stored, of this store. Raises BlobError, StorageError."""
        if self.opened():
            raise BlobError("the blob is open; close it before the transaction commits, or makes a savepoint")
        files = self._files()
        try:
            working = self._p_blob_working or self._copy()
            if working.failure is not None:
                raise working.failure
            if working.files is files:
                path = working.hand_over()
            else:
                path = files.take(working.files.outside(working.path))
                working.discard()
        except OSError as error:
            reason = f"a blob could not be written: {error.strerror or error}"
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise StorageFullError(error.filename or "a temporary file", reason) from error
            raise StorageError(f"{error.filename or 'a temporary file'}: {reason}") from error
        self._p_blob_working, self._p_blob_given = None, True
        return path

    def _p_deactivate(self) -> None:
        if self._p_changed is None or not self.opened():
            super()._p_deactivate()

    def _p_invalidate(self) -> None:
        if self._p_changed is not None:
            for each in _open_ones(self.readers) + _open_ones(self.writers):
                with contextlib.suppress(OSError, ValueError):  # what could not be written is given up anyway
                    each.close()
            if self._p_blob_working is not None:
                self._p_blob_working.discard()
        super()._p_invalidate()


def _open_ones(files: list[weakref.ref[Any]]) -> list[Any]:
    """Those that were not closed, nor forgotten."""
    there = [file for reference in files if (file := reference()) is not None and not file.closed]
    files[:] = [weakref.ref(file) for file in there]
    return there


class _Reader(io.BufferedReader):
    """A blob open for reading."""

    def __init__(self, blob: Blob, raw: RawIOBase) -> None:
        super().__init__(raw, BUFFER)
        self.blob = blob  # which keeps the file that it reads
        blob.readers.append(weakref.ref(self))


class _Noting:
    """What writes into a working file, and notes there what kept it from that."""

    _working: Working

    def write(self, data: Any) -> int:
        """Write all of it."""
        with _noting(self._working):
            return int(super().write(data))  # type: ignore[misc]

    def flush(self) -> None:
        """Write what is held back."""
        with _noting(self._working):
            super().flush()  # type: ignore[misc]

    def truncate(self, size: int | None = None) -> int:
        """Cut it, or let it grow by zeros."""
        with _noting(self._working):
            return int(super().truncate(size))  # type: ignore[misc]


@contextlib.contextmanager
def _noting(working: Working) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        working.failure = error
        raise


class _Writer(_Noting, io.BufferedWriter):
    """A blob open for writing."""

    def __init__(self, blob: Blob, working: Working, mode: str) -> None:
        self._working = working
        super().__init__(working.files.open(working.path, mode), BUFFER)
        self.blob = blob
        blob.writers.append(weakref.ref(self))


class _Updater(_Noting, io.BufferedRandom):
    """A blob open for reading and writing."""

    def __init__(self, blob: Blob, working: Working) -> None:
        self._working = working
        super().__init__(working.files.open(working.path, "r+"), BUFFER)
        self.blob = blob
        blob.writers.append(weakref.ref(self))
