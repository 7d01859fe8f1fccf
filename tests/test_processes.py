"""Real processes on one store: what all of them see, and what is left when some are killed."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest
from BTrees.check import check
from BTrees.LOBTree import LOBTree
from transferring import ACCOUNTS, TOTAL

import objstore
from objstore.errors import (
    ForkedConnectionError,
    NetworkFilesystemError,
    SnapshotTooOldError,
    StorageError,
    StoreLockedError,
    ThreadMismatchError,
)
from objstore.machine.posix import PosixFilesystem

WORKER = Path(__file__).with_name("transferring.py")
STORES = [
    {"history": history, "format": layout} for history in ("full", "minimal") for layout in ("segmented", "chunky")
]
every_store = pytest.mark.parametrize(
    "options",
    [
        pytest.param(
            each, id="-".join(each.values()), marks=[pytest.mark.long] if each["format"] != "segmented" else []
        )
        for each in STORES
    ],
)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "store")


def prepare(path: str, options: dict[str, object]) -> None:
    with objstore.open(path, **options) as db, db.transaction() as connection:
        connection.root()["accounts"] = LOBTree(dict.fromkeys(range(ACCOUNTS), TOTAL // ACCOUNTS))
        connection.root()["log"] = LOBTree()


def start(path: str, seconds: float, options: dict[str, object]) -> subprocess.Popen[str]:
    arguments = [
        sys.executable,
        str(WORKER),
        path,
        str(seconds),
        json.dumps({**options, "flush_transactions": 40}),
    ]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def acknowledged(output: str) -> set[int]:
    return {int(line.split()[1]) for line in output.splitlines() if line.startswith("+ ") and line[2:].isdigit()}


def verify(path: str, told: set[int]) -> int:
    """Nothing that was acknowledged is missing, and the total is what it was; how many transactions are there."""
    with objstore.open(path, create=False) as db, db.transaction() as connection:
        log = connection.root()["log"]
        assert told <= set(log)
        assert sum(connection.root()["accounts"].values()) == TOTAL
        check(log)
        count = len(log)
    checked = subprocess.run([sys.executable, "-m", "objstore", "check", path], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout
    return count


@every_store
@pytest.mark.parametrize("seconds", [2.5, pytest.param(15.0, marks=pytest.mark.long)])
def test_eight_processes_transfer(path, options, seconds, record_property):
    """ZEO#155, ZODB#290: the sum is the same in every snapshot of every process, and splits leave whole trees."""
    prepare(path, options)
    workers = [start(path, seconds, options) for _ in range(8)]
    told: set[int] = set()
    for worker in workers:
        output, errors = worker.communicate(timeout=seconds + 60)
        assert worker.returncode == 0, errors
        told |= acknowledged(output)
    assert verify(path, told) == len(told) > 0
    record_property("transactions of processes", len(told))


@every_store
@pytest.mark.parametrize("kills", [8, pytest.param(30, marks=pytest.mark.long)])
def test_processes_are_killed(path, options, kills, record_property):
    """ZEO#209: a writer, a reader, a flusher or a packer may go at any moment; nothing acknowledged is lost."""
    prepare(path, options)
    rng = random.Random(kills)
    told: set[int] = set()
    workers = [start(path, 0, options) for _ in range(3)]
    packer = None
    for _ in range(kills):
        at = rng.randrange(len(workers))
        for _ in range(rng.randint(1, 30)):
            line = workers[at].stdout.readline()
            assert line, workers[at].stderr.read()
            told |= acknowledged(line)
        if packer is not None and rng.random() < 0.5:
            packer.kill()
            packer.communicate()
            packer = None
        if packer is None:
            packer = subprocess.Popen(
                [sys.executable, "-m", "objstore", "pack", path, "--days", "0"], stdout=subprocess.PIPE
            )
        workers[at].send_signal(signal.SIGKILL)
        told |= acknowledged(workers[at].communicate()[0])
        workers[at] = start(path, 0, options)
    for worker in workers:
        worker.send_signal(signal.SIGKILL)
        output, errors = worker.communicate()
        assert "Error" not in errors, errors
        told |= acknowledged(output)
    packer.communicate()
    verify(path, told)
    record_property("processes killed", kills + len(workers))


def test_fifty_processes_create_one_store(path):
    """DC#266, PITFALLS 36: one creates, all open."""
    script = "import sys, objstore; db = objstore.open(sys.argv[1]); print(db.store.settings.identity); db.close()"
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", script, path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(50)
    ]
    outputs = [worker.communicate(timeout=120) for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * 50, [errors for _, errors in outputs if errors][:1]
    assert len({output for output, _ in outputs}) == 1
    assert verify_empty(path)


def verify_empty(path: str) -> bool:
    with objstore.open(path, create=False) as db, db.transaction() as connection:
        return len(connection.root()) == 0


def test_no_oid_is_handed_out_twice(path):
    """RelStorage#283, ZODB#401: eight processes take oids, and are killed."""
    objstore.open(path).close()
    script = (
        "import os, sys, objstore\n"
        "store = objstore.open(sys.argv[1]).store\n"
        "for _ in range(500): print(store.new_oid().hex())\n"
        "sys.stdout.flush(); os.kill(os.getpid(), 9)"
    )
    for _ in range(2):
        workers = [
            subprocess.Popen([sys.executable, "-c", script, path], stdout=subprocess.PIPE, text=True)
            for _ in range(8)
        ]
        oids = [oid for worker in workers for oid in worker.communicate()[0].split()]
        assert len(set(oids)) == len(oids) == 4000


@contextmanager
def two(path: str, **options: object) -> Iterator[tuple[objstore.DB, objstore.DB]]:
    """The same path opened twice: each behaves as a process of its own."""
    with objstore.open(path, **options) as one, objstore.open(path, **options) as other:
        yield one, other


@every_store
def test_the_same_path_twice_in_a_process(path, options):
    with two(path, **options) as (one, other):
        with one.transaction() as connection:
            connection.root()["a"] = 1
        with other.transaction() as connection:
            assert connection.root()["a"] == 1
            connection.root()["b"] = 2
        one.store.flush()
        other.pack()
        with one.transaction() as connection:
            assert dict(connection.root()) == {"a": 1, "b": 2}


def test_what_one_packs_away_the_other_cannot_commit(path):
    """A cached object that another process has packed away is not referred to again."""
    with two(path) as (one, other):
        with one.transaction() as connection:
            connection.root()["a"] = LOBTree()
        holder = other.open()
        cached = holder.root()["a"]
        cached._p_activate()
        with one.transaction() as connection:
            del connection.root()["a"]
        for number in range(2):  # the newest transactions are never packed away
            with one.transaction() as connection:
                connection.root()["n"] = number
        holder.sync()
        assert one.pack().objects_removed == 1
        holder.root()["again"] = cached
        with pytest.raises(objstore.errors.DanglingReferenceError):
            holder.transaction_manager.commit()
        holder.transaction_manager.abort()
        holder.close()


def test_a_pack_that_was_killed_does_not_hide_the_past(path):
    """While a pack runs nobody gets a view of what it removes. One that died does not run any more."""
    with objstore.open(path) as db:
        for number in range(5):
            with db.transaction() as connection:
                connection.root()["n"] = number
        tids = [entry["id"] for entry in db.undoLog(0, 5)]
        db.store.flush()
        script = (
            "import os, sys, objstore\n"
            "from objstore.ids import MAX_TID\n"
            "store = objstore.open(sys.argv[1]).store\n"
            "store.pack(MAX_TID, progress=lambda *_: os.kill(os.getpid(), 9))"
        )
        killed = subprocess.run([sys.executable, "-c", script, path], check=False)
        assert killed.returncode == -signal.SIGKILL
        past = db.open(at=tids[-1])
        assert past.root()["n"] == 0
        past.close()


def test_a_reader_follows_what_others_write(path):
    objstore.open(path).close()
    with objstore.open(path) as db, objstore.open(path, read_only=True) as reader:
        connection = reader.open()
        for number in range(50):
            with db.transaction() as writing:
                writing.root()["n"] = number
            connection.sync()
            assert connection.root()["n"] == number
        connection.close()


def test_alone(path):
    with objstore.open(path), pytest.raises(StoreLockedError) as caught:
        objstore.open(path, exclusive=True)
    assert caught.value.pids == (os.getpid(),)
    with objstore.open(path, exclusive=True):
        for options in ({}, {"read_only": True}):
            with pytest.raises(StoreLockedError):
                objstore.open(path, **options)


def test_a_forked_child_opens_the_store_anew(path):
    """PITFALLS 37: a child that ends leaves to its parent what the parent holds."""
    with objstore.open(path) as db:
        connection = db.open()
        connection.root()["n"] = 0
        connection.transaction_manager.commit()
        child = os.fork()
        if not child:
            status = 1
            try:
                connection.cacheMinimize()
                with pytest.raises(ForkedConnectionError):
                    connection.root()["n"]
                with db.transaction() as mine:
                    mine.root()["n"] += 1
                db.close()
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        connection.sync()
        assert connection.root()["n"] == 1
        connection.root()["n"] = 2
        connection.transaction_manager.commit()
        with pytest.raises(StoreLockedError):
            objstore.open(path, exclusive=True)
        connection.close()


def test_a_connection_from_before_a_fork_is_refused_though_all_is_in_memory(path):
    """What a connection had in its cache was given to the child as if it were the store's present state."""
    with objstore.open(path) as db:
        connection = db.open()
        assert dict(connection.root()) == {}
        child = os.fork()
        if not child:
            status = 1
            try:
                for use in (lambda: connection.root, connection.sync, lambda: connection.get(bytes(8))):
                    with pytest.raises(ForkedConnectionError):
                        use()
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        connection.sync()
        connection.close()


def test_readers_are_listed(path):
    with objstore.open(path) as db:
        connection = db.open()
        told = subprocess.run(
            [sys.executable, "-m", "objstore", "readers", path, "--json"],
            capture_output=True,
            text=True,
            check=True,
        )
        (reader, *_) = map(json.loads, told.stdout.splitlines())
        assert (reader["pid"], reader["state"]) == (os.getpid(), "alive")
        connection.close()


def test_a_reader_that_holds_up_a_pack_can_be_given_up(path):
    """However long ago a snapshot was taken, an operator need not wait for its reader."""
    with objstore.open(path) as db:
        for number in range(3):
            with db.transaction() as connection:
                connection.root()["n"] = number
        old = db.open()
        old.root()
        held = old.view.snapshot
        for number in range(3, 6):
            with db.transaction() as connection:
                connection.root()["n"] = number
        assert bytes(db.pack().upto) <= held

        def expire(seconds):
            command = [sys.executable, "-m", "objstore", "readers", path, "--expire", seconds]
            return subprocess.run(command, capture_output=True, text=True, check=False)

        assert "0 snapshots taken" in expire("3600").stderr
        old.cacheMinimize()
        assert old.root()["n"] == 2
        told = expire("0")
        assert told.returncode == 0
        assert "taken from" in told.stderr
        assert "expired" in told.stdout
        old.cacheMinimize()
        with pytest.raises(SnapshotTooOldError):
            old.root()["n"]
        assert bytes(db.pack().upto) > held
        old.sync()
        assert old.root()["n"] == 5
        old.close()
        assert expire("-1").returncode == 2


def test_a_connection_stays_in_its_thread(path):
    caught: list[BaseException] = []

    def use(connection: objstore.Connection) -> None:
        try:
            connection.get(bytes(8))
        except ThreadMismatchError as error:
            caught.append(error)

    with objstore.open(path, check_threads=True) as db:
        connection = db.open()
        thread = Thread(target=use, args=(connection,))
        thread.start()
        thread.join()
        connection.get(bytes(8))
        connection.close()
    assert "MainThread" in str(caught[0])


def test_a_network_filesystem_is_refused(path, monkeypatch):
    monkeypatch.setattr(PosixFilesystem, "network_type", lambda *_: "nfs4")
    for options in ({}, {"read_only": True}):
        with pytest.raises(NetworkFilesystemError, match="nfs4"):
            objstore.open(path, **options)
    assert not os.path.exists(path)
    objstore.open(path, force=True).close()
    with objstore.open(path, read_only=True, force=True) as db:
        assert db.isReadOnly()


def test_the_type_of_a_filesystem_is_told_from_its_mount(tmp_path):
    assert PosixFilesystem().network_type(str(tmp_path / "not" / "there")) is None


def test_what_a_failed_flush_has_left_is_not_met_by_another_process(path, monkeypatch):
    """A temporary file that could not be removed, as on a full disk, is known to whoever flushes next."""
    with two(path, background=False, flush_on_close=False) as (one, other):
        for number, db in enumerate((one, other)):
            with db.transaction() as connection:
                connection.root()[f"n{number}"] = number
            db.store.flush()  # so that both have looked at the bucket
        with one.transaction() as connection:
            connection.root()["n"] = 3
        with monkeypatch.context() as patched:
            for name in ("rename", "unlink"):
                patched.setattr(PosixFilesystem, name, refuse_segments(getattr(PosixFilesystem, name)))
            with pytest.raises(StorageError):
                one.store.flush()
        other.store.flush()
        with other.transaction() as connection:
            assert dict(connection.root()) == {"n0": 0, "n1": 1, "n": 3}


def refuse_segments(method):
    """A method of a filesystem that fails for segments."""

    def refusing(self, path, *rest):
        if ".seg" in path:
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        return method(self, path, *rest)

    return refusing


def test_a_view_that_outlives_its_store_takes_nobody_elses_place(path):
    """What a closed store had on the board is given to the next who opens it."""
    with objstore.open(path) as keeper:
        other = objstore.open(path)
        view = other.store.view()
        other.close()
        with objstore.open(path) as third:
            held = third.store.view()
            with keeper.transaction() as connection:
                connection.root()["a"] = 1
            view.close()
            assert keeper.store.statistics()["horizon_tid"] == held.snapshot.hex()
            held.close()
