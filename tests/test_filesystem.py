"""What `contracts.Filesystem` promises, of every filesystem there is."""

from __future__ import annotations

import errno
import gc
import mmap
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from simulated import SimulatedFilesystem

from objstore.contracts import Entry, Filesystem, LockedError
from objstore.machine.memory import MemoryFilesystem
from objstore.machine.posix import PosixFilesystem


def _base(filesystem: Filesystem) -> str:
    filesystem.make_directory("/base")
    return "/base"


@pytest.fixture(params=["posix", "memory", "simulated"])
def fs(request: pytest.FixtureRequest) -> Filesystem:
    made: dict[str, Callable[[], Filesystem]] = {
        "posix": PosixFilesystem,
        "memory": MemoryFilesystem,
        "simulated": SimulatedFilesystem,
    }
    return made[request.param]()


@pytest.fixture
def base(fs: Filesystem, tmp_path: Path) -> str:
    return str(tmp_path) if isinstance(fs, PosixFilesystem) else _base(fs)


@pytest.fixture(autouse=True)
def no_leaks() -> Iterator[None]:
    """No test here leaves a descriptor open."""
    gc.collect()  # what earlier tests have left is not to be closed amid this one
    before = len(os.listdir("/proc/self/fd"))
    yield
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before


def put(fs: Filesystem, path: str, data: bytes) -> None:
    with fs.create(path) as file:
        file.write(data)


# --- files -------------------------------------------------------------------------------------------


def test_what_was_written_is_read(fs: Filesystem, base: str) -> None:
    path = f"{base}/a"
    with fs.create(path) as file:
        file.write(b"one")
        file.write(memoryview(b"two"))
        file.write(b"")
        file.sync()
    assert fs.read(path) == b"onetwo"
    assert fs.size(path) == 6
    assert type(fs.read(path)) is bytes


def test_an_empty_file(fs: Filesystem, base: str) -> None:
    put(fs, f"{base}/a", b"")
    assert fs.read(f"{base}/a") == b""
    assert fs.read_at(f"{base}/a", 0, 10) == b""
    assert fs.size(f"{base}/a") == 0


def test_reading_a_part(fs: Filesystem, base: str) -> None:
    path = f"{base}/a"
    put(fs, path, b"0123456789")
    assert fs.read_at(path, 2, 3) == b"234"
    assert fs.read_at(path, 8, 10) == b"89"
    assert fs.read_at(path, 20, 10) == b""
    assert fs.read_at(path, 3, 0) == b""
    assert fs.read_at(path, 0, 2**61) == b"0123456789"
    assert fs.read_at(path, 2**61, 2**61) == b""
    with pytest.raises(OSError, match="Invalid argument"):
        fs.read_at(path, 0, -1)


def test_a_mapped_file_outlives_its_name(fs: Filesystem, base: str) -> None:
    path = f"{base}/a"
    put(fs, path, b"0123456789" * 1000)
    data = fs.map(path)
    assert data.readonly
    fs.unlink(path)
    put(fs, path, b"another")
    assert data == b"0123456789" * 1000
    assert fs.map(path) == b"another"
    put(fs, f"{base}/empty", b"")
    assert fs.map(f"{base}/empty") == b""
    with pytest.raises(FileNotFoundError):
        fs.map(f"{base}/missing")


def test_a_large_file(fs: Filesystem, base: str) -> None:
    data = random.Random(1).randbytes(3_000_001)
    put(fs, f"{base}/a", data)
    assert fs.read(f"{base}/a") == data
    assert fs.read_at(f"{base}/a", 10, 2_900_000) == data[10:2_900_010]


def test_write_at_leaves_the_position(fs: Filesystem, base: str) -> None:
    path = f"{base}/a"
    with fs.create(path) as file:
        file.write(b"aaaa")
        file.write_at(1, b"XY")
        file.write(b"bb")
        file.write_at(8, memoryview(b"Z"))
    assert fs.read(path) == b"aXYabb\0\0Z"


def test_create_refuses_what_is_there(fs: Filesystem, base: str) -> None:
    put(fs, f"{base}/a", b"kept")
    with pytest.raises(FileExistsError):
        fs.create(f"{base}/a")
    fs.make_directory(f"{base}/d")
    with pytest.raises(FileExistsError):
        fs.create(f"{base}/d")
    assert fs.read(f"{base}/a") == b"kept"


def test_a_recycled_file_keeps_its_length(fs: Filesystem, base: str) -> None:
    path = f"{base}/a"
    put(fs, path, b"0123456789")
    with fs.open_existing(path) as file:
        file.write(b"ab")
        file.write(b"cd")
    assert fs.read(path) == b"abcd456789"
    with fs.open_existing(path) as file:
        file.write(b"x" * 12)
    assert fs.read(path) == b"x" * 12


def test_two_handles_of_one_file(fs: Filesystem, base: str) -> None:
    path = f"{base}/a"
    with fs.create(path) as first, fs.open_existing(path) as second:
        first.write(b"1111")
        second.write(b"22")
        assert fs.read(path) == b"2211"
        first.write(b"33")
        assert fs.read(path) == b"221133"


def test_an_open_file_follows_its_names(fs: Filesystem, base: str) -> None:
    with fs.create(f"{base}/a") as file:
        fs.rename(f"{base}/a", f"{base}/b")
        file.write(b"moved")
        assert fs.read(f"{base}/b") == b"moved"
        fs.unlink(f"{base}/b")
        file.write(b"gone")
        file.sync()
    assert fs.entries(base) == []


def test_a_closed_file(fs: Filesystem, base: str) -> None:
    file = fs.create(f"{base}/a")
    file.close()
    file.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        file.write(b"x")
    with pytest.raises(OSError, match="Bad file descriptor"):
        file.sync()


@pytest.mark.parametrize("call", ["read", "open_existing", "unlink", "size", "entries", "sync_directory"])
def test_what_is_missing(fs: Filesystem, base: str, call: str) -> None:
    with pytest.raises(FileNotFoundError):
        getattr(fs, call)(f"{base}/missing")
    put(fs, f"{base}/file", b"")
    with pytest.raises(NotADirectoryError):
        getattr(fs, call)(f"{base}/file/below")


@pytest.mark.parametrize("call", ["read", "open_existing", "unlink"])
def test_a_directory_is_no_file(fs: Filesystem, base: str, call: str) -> None:
    fs.make_directory(f"{base}/d")
    with pytest.raises(IsADirectoryError):
        getattr(fs, call)(f"{base}/d")


@pytest.mark.parametrize("call", ["entries", "sync_directory", "remove_directory"])
def test_a_file_is_no_directory(fs: Filesystem, base: str, call: str) -> None:
    put(fs, f"{base}/a", b"")
    with pytest.raises(NotADirectoryError):
        getattr(fs, call)(f"{base}/a")


# --- names -------------------------------------------------------------------------------------------


def test_entries_and_existence(fs: Filesystem, base: str) -> None:
    assert fs.entries(base) == []
    put(fs, f"{base}/a", b"")
    fs.make_directory(f"{base}/d")
    put(fs, f"{base}/d/below", b"")
    found = sorted(fs.entries(base), key=lambda entry: entry.name)
    assert found == [Entry("a", False), Entry("d", True)]
    there = [name for name in ("a", "d", "d/below", "b", "a/below") if fs.exists(f"{base}/{name}")]
    assert there == ["a", "d", "d/below"]


def test_directories(fs: Filesystem, base: str) -> None:
    fs.make_directory(f"{base}/d")
    with pytest.raises(FileExistsError):
        fs.make_directory(f"{base}/d")
    with pytest.raises(FileNotFoundError):
        fs.make_directory(f"{base}/x/y")
    with pytest.raises(FileNotFoundError):
        fs.create(f"{base}/x/y")
    put(fs, f"{base}/d/a", b"")
    with pytest.raises(OSError, match="not empty") as raised:
        fs.remove_directory(f"{base}/d")
    assert raised.value.errno == errno.ENOTEMPTY
    fs.unlink(f"{base}/d/a")
    fs.sync_directory(f"{base}/d")
    fs.remove_directory(f"{base}/d")
    fs.sync_directory(base)
    assert not fs.exists(f"{base}/d")


def test_rename_replaces_a_file(fs: Filesystem, base: str) -> None:
    put(fs, f"{base}/a", b"new")
    put(fs, f"{base}/b", b"old")
    fs.rename(f"{base}/a", f"{base}/b")
    assert fs.entries(base) == [Entry("b", False)]
    assert fs.read(f"{base}/b") == b"new"
    fs.rename(f"{base}/b", f"{base}/b")
    assert fs.read(f"{base}/b") == b"new"


def test_rename_moves_directories(fs: Filesystem, base: str) -> None:
    fs.make_directory(f"{base}/d")
    fs.make_directory(f"{base}/d/e")
    put(fs, f"{base}/d/e/a", b"deep")
    fs.make_directory(f"{base}/empty")
    fs.rename(f"{base}/d", f"{base}/moved")
    assert fs.read(f"{base}/moved/e/a") == b"deep"
    fs.rename(f"{base}/moved/e", f"{base}/empty")
    assert fs.read(f"{base}/empty/a") == b"deep"
    assert fs.entries(f"{base}/moved") == []


def test_rename_refuses(fs: Filesystem, base: str) -> None:
    put(fs, f"{base}/a", b"kept")
    fs.make_directory(f"{base}/d")
    fs.make_directory(f"{base}/full")
    put(fs, f"{base}/full/a", b"")
    for old, new, expected in (
        ("missing", "b", errno.ENOENT),
        ("missing", "missing", errno.ENOENT),
        ("a", "missing/b", errno.ENOENT),
        ("a", "d", errno.EISDIR),
        ("d", "a", errno.ENOTDIR),
        ("d", "full", errno.ENOTEMPTY),
        ("d", "d/below", errno.EINVAL),
        ("a", "a/below", errno.ENOTDIR),
    ):
        with pytest.raises(OSError, match=r".") as raised:
            fs.rename(f"{base}/{old}", f"{base}/{new}")
        assert (old, new, raised.value.errno) == (old, new, expected)
    assert fs.read(f"{base}/a") == b"kept"
    assert fs.entries(f"{base}/d") == []


# --- room --------------------------------------------------------------------------------------------


def test_room(fs: Filesystem, base: str) -> None:
    with fs.create(f"{base}/a") as file:
        file.write(random.Random(2).randbytes(65536))
        file.sync()
    assert fs.free_bytes(base) > 0
    assert fs.allocated_bytes(f"{base}/a") >= 65536


def test_a_full_memory() -> None:
    fs = MemoryFilesystem(capacity=10)
    base = _base(fs)
    put(fs, f"{base}/a", b"123456")
    with fs.create(f"{base}/b") as file:
        with pytest.raises(OSError, match="No space left") as raised:
            file.write(b"abcdef")
        assert raised.value.errno == errno.ENOSPC
    assert fs.read(f"{base}/b") == b"abcd"
    with fs.open_existing(f"{base}/a") as file:
        file.write(b"654321")
        with pytest.raises(OSError, match="No space left"):
            file.write(b"7")
    put(fs, f"{base}/empty", b"")
    assert fs.free_bytes(base) == 0
    fs.unlink(f"{base}/b")
    assert fs.free_bytes(base) == 4
    fs.rename(f"{base}/empty", f"{base}/a")
    assert fs.free_bytes(base) == 10
    put(fs, f"{base}/c", b"0123456789")
    assert fs.free_bytes(base) == 0


def test_a_full_disk() -> None:
    with PosixFilesystem().open_existing("/dev/full") as file, pytest.raises(OSError, match="No space left"):
        file.write(b"x")


# --- writes that are short ---------------------------------------------------------------------------


def _few(descriptor: int, data: memoryview) -> int:
    return os.write(descriptor, data[:3])


def _few_at(descriptor: int, data: memoryview, offset: int) -> int:
    return os.pwrite(descriptor, data[:3], offset)


def test_short_writes_are_continued(tmp_path: Path) -> None:
    """py-lmdb 2.3.0: a write of more than 2 GiB was taken in part, and nobody looked."""
    fs = PosixFilesystem(write=_few, pwrite=_few_at)
    with fs.create(f"{tmp_path}/a") as file:
        file.write(b"0123456789")
        file.write_at(5, memoryview(b"abcde"))
        file.write(b"XYZW")
    assert fs.read(f"{tmp_path}/a") == b"01234abcdeXYZW"


def test_a_write_that_takes_nothing_is_an_error(tmp_path: Path) -> None:
    fs = PosixFilesystem(write=lambda _file, _data: 0, pwrite=lambda _file, _data, _offset: 0)
    with fs.create(f"{tmp_path}/a") as file:
        file.write(b"")
        with pytest.raises(OSError, match="took none") as raised:
            file.write(b"x")
        assert raised.value.errno == errno.EIO
        with pytest.raises(OSError, match="took none"):
            file.write_at(0, b"x")


def test_a_write_of_3_gib_in_the_portions_of_the_system(tmp_path: Path) -> None:
    """py-lmdb 2.3.0: the system takes at most 0x7ffff000 bytes at a time. The bytes here take no memory."""
    portions = []

    def count(_descriptor: int, data: memoryview) -> int:
        portions.append(min(len(data), 0x7FFFF000))
        return portions[-1]

    size = 3 * 2**30
    with (
        mmap.mmap(-1, size, prot=mmap.PROT_READ) as room,
        memoryview(room) as data,
        PosixFilesystem(write=count).create(f"{tmp_path}/a") as file,
    ):
        file.write(data)
    assert portions == [0x7FFFF000, size - 0x7FFFF000]


# --- locks -------------------------------------------------------------------------------------------


def test_an_exclusive_lock_excludes(fs: Filesystem, base: str) -> None:
    path = f"{base}/lock"
    lock = fs.lock(path)
    for shared in (False, True):
        with pytest.raises(LockedError) as raised:
            fs.lock(path, shared=shared)
        assert (raised.value.path, raised.value.pid) == (path, os.getpid())
    lock.close()
    lock.close()
    assert fs.exists(path)
    fs.lock(path).close()


def test_shared_locks_share(fs: Filesystem, base: str) -> None:
    path = f"{base}/lock"
    fs.lock(path).close()
    first, second = fs.lock(path, shared=True), fs.lock(path, shared=True)
    with pytest.raises(LockedError) as raised:
        fs.lock(path)
    assert raised.value.pid is None
    first.close()
    with pytest.raises(LockedError):
        fs.lock(path)
    second.close()
    fs.lock(path).close()


def test_a_shared_lock_creates_nothing(fs: Filesystem, base: str) -> None:
    lock = fs.lock(f"{base}/lock", shared=True)
    lock.close()
    lock.close()
    assert fs.entries(base) == []


def test_a_lock_in_a_missing_directory(fs: Filesystem, base: str) -> None:
    with pytest.raises(FileNotFoundError):
        fs.lock(f"{base}/missing/lock")


HOLDER = """
import sys
from objstore.machine.posix import PosixFilesystem
lock = PosixFilesystem().lock(sys.argv[1], shared=sys.argv[2] == "shared")
print("held", flush=True)
sys.stdin.readline()
"""


def _hold(path: str, how: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, path, how], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    return process


def test_locks_hold_between_processes_and_end_with_them(tmp_path: Path) -> None:
    fs = PosixFilesystem()
    path = f"{tmp_path}/lock"
    with _hold(path, "exclusive") as process:
        for shared in (False, True):
            with pytest.raises(LockedError) as raised:
                fs.lock(path, shared=shared)
            assert raised.value.pid == process.pid
        process.send_signal(signal.SIGKILL)
        process.wait()
        fs.lock(path, shared=True).close()
    with _hold(path, "shared") as process:
        fs.lock(path, shared=True).close()
        with pytest.raises(LockedError) as raised:
            fs.lock(path)
        assert raised.value.pid is None  # the file holds the pid of one that was killed
        process.communicate(b"\n")
    fs.lock(path).close()


@pytest.mark.parametrize("content", [b"", b"junk", b"0\n", b"-1\n", b"99999999999999999999\n"])
def test_a_lock_file_that_names_nobody(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "lock"
    fs = PosixFilesystem()
    path.touch()
    lock = fs.lock(str(path), shared=True)
    path.write_bytes(content)
    with pytest.raises(LockedError) as raised:
        fs.lock(str(path))
    assert raised.value.pid is None
    lock.close()


def test_a_child_program_inherits_nothing(tmp_path: Path) -> None:
    fs = PosixFilesystem()
    fs.lock(f"{tmp_path}/other").close()
    with fs.create(f"{tmp_path}/a"):
        locks = [fs.lock(f"{tmp_path}/lock"), fs.lock(f"{tmp_path}/other", shared=True)]
        listing = "import os; print([os.path.realpath(f'/proc/self/fd/{n}') for n in range(64)])"
        shown = subprocess.run([sys.executable, "-c", listing], capture_output=True, check=True, close_fds=False)
        for lock in locks:
            lock.close()
    assert str(tmp_path).encode() not in shown.stdout


# --- threads -----------------------------------------------------------------------------------------


def test_threads_share_a_filesystem(fs: Filesystem, base: str) -> None:
    failed: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(50):
                path = f"{base}/{number}"
                put(fs, f"{path}.tmp", b"%d" % turn)
                fs.rename(f"{path}.tmp", path)
                fs.sync_directory(base)
                assert fs.read(path) == b"%d" % turn
        except (OSError, AssertionError) as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert sorted(entry.name for entry in fs.entries(base)) == ["0", "1", "2", "3"]


# --- files as Python has them ------------------------------------------------------------------------


def test_a_file_as_python_has_it(fs: Filesystem, base: str) -> None:
    path = f"{base}/a"
    with fs.open_file(path, "w") as file:
        assert (file.readable(), file.writable(), file.seekable()) == (False, True, True)
        assert file.write(b"0123456789") == 10
        assert file.tell() == 10
    with fs.open_file(path, "r") as file:
        assert (file.readable(), file.writable()) == (True, False)
        assert file.read(3) == b"012"
        assert file.seek(-2, os.SEEK_END) == 8
        assert file.read() == b"89"
        assert file.read(5) == b""
        buffer = bytearray(4)
        file.seek(4)
        assert file.readinto(buffer) == 4
        assert buffer == b"4567"
        with pytest.raises(OSError, match=r"not open for writing|open for reading only"):
            file.write(b"x")
        with pytest.raises((OSError, ValueError)):
            file.seek(-1)
    with fs.open_file(path, "r+") as file:
        assert file.read(2) == b"01"
        file.write(b"--")
        file.seek(0, os.SEEK_CUR)
        assert file.read() == b"456789"
    assert fs.read(path) == b"01--456789"
    with pytest.raises(ValueError, match="closed"):
        file.read()
    for mode in ("r", "r+"):
        with pytest.raises(FileNotFoundError):
            fs.open_file(f"{base}/missing", mode)
    with fs.open_file(path, "w") as file, pytest.raises(OSError, match=r"not open for reading|for writing only"):
        file.read()


def test_a_file_is_cut_and_grows(fs: Filesystem, base: str) -> None:
    if isinstance(fs, SimulatedFilesystem):
        pytest.skip("it records no cuts")
    path = f"{base}/a"
    put(fs, path, b"0123456789")
    with fs.open_file(path, "r+") as file:
        assert file.truncate(4) == 4
        assert fs.read(path) == b"0123"
        assert file.truncate(6) == 6
        assert fs.read(path) == b"0123\0\0"
        file.seek(2)
        assert file.truncate() == 2
    assert fs.read(path) == b"01"
    fs.open_file(path, "w").close()
    assert fs.size(path) == 0


def test_an_open_file_outlives_its_name(fs: Filesystem, base: str) -> None:
    put(fs, f"{base}/a", b"one")
    with fs.open_file(f"{base}/a", "r") as file:
        fs.rename(f"{base}/a", f"{base}/b")
        assert file.read(1) == b"o"
        fs.unlink(f"{base}/b")
        assert file.read() == b"ne"


@pytest.mark.parametrize("size", [0, 10, 3 * 2**20 + 1])
def test_copying(fs: Filesystem, base: str, size: int) -> None:
    data = random.Random(1).randbytes(size)
    put(fs, f"{base}/a", data)
    fs.copy(f"{base}/a", f"{base}/b")
    assert fs.read(f"{base}/a") == fs.read(f"{base}/b") == data
    with pytest.raises(FileExistsError):
        fs.copy(f"{base}/a", f"{base}/b")
    with pytest.raises(FileNotFoundError):
        fs.copy(f"{base}/missing", f"{base}/c")
    assert not fs.exists(f"{base}/c")


def test_taking_a_file_of_the_system(fs: Filesystem, base: str, tmp_path: Path) -> None:
    source = tmp_path / "outside"
    source.write_bytes(b"data" * 1000)
    put(fs, f"{base}/a", b"")
    fs.take(str(source), f"{base}/a")
    assert fs.read(f"{base}/a") == b"data" * 1000
    assert not source.exists()
    with pytest.raises(FileNotFoundError):
        fs.take(str(source), f"{base}/a")
    assert fs.read(f"{base}/a") == b"data" * 1000


def test_showing_a_file_to_the_system(fs: Filesystem, base: str) -> None:
    put(fs, f"{base}/a", b"data")
    shown = fs.outside(f"{base}/a")
    assert Path(shown).read_bytes() == b"data"
    fs.rename(f"{base}/a", f"{base}/b")
    again = fs.outside(f"{base}/b")
    assert Path(again).read_bytes() == b"data"
    assert isinstance(fs, PosixFilesystem) or shown == again


def test_what_memory_shows_goes_with_it() -> None:
    fs = MemoryFilesystem()
    for name in "ab":
        put(fs, f"/{name}", b"data")
    shown, other = Path(fs.outside("/a")), Path(fs.outside("/b"))
    fs.unlink("/a")
    gc.collect()
    assert not shown.exists()
    assert other.exists()
    directory = other.parent
    del fs
    gc.collect()
    assert not directory.exists()


def test_copying_without_the_systems_help(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not every filesystem, or kernel, copies from file to file."""

    def refuses(*_: object) -> int:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "copy_file_range", refuses)
    data = random.Random(1).randbytes(3 * 2**20 + 1)
    fs, path = PosixFilesystem(), str(tmp_path / "a")
    put(fs, path, data)
    fs.copy(path, f"{path}.copy")
    assert fs.read(f"{path}.copy") == data


def test_a_copy_that_fails_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def is_full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    fs, path = PosixFilesystem(), str(tmp_path / "a")
    put(fs, path, b"data")
    monkeypatch.setattr(os, "copy_file_range", is_full)
    with pytest.raises(OSError, match="No space left"):
        fs.copy(path, f"{path}.copy")
    assert not fs.exists(f"{path}.copy")
    os.link(path, f"{path}.link")  # so that it is not renamed
    put(fs, f"{path}.taken", b"")
    with pytest.raises(OSError, match="No space left"):
        fs.take(path, f"{path}.taken")
    assert fs.read(path) == b"data"
