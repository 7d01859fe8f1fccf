"""Blobs of several processes, of killed ones, and of a size that no memory holds."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import transaction
from blob_work import pattern
from databases import commit, opened
from siblings import Nursery, Pipe
from test_blobs import content, write

import objstore
from objstore.upkeep.check import check

WORK = str(Path(__file__).with_name("blob_work.py"))


# --- killed ------------------------------------------------------------------------------------------


def run_and_kill(path: Path, rng: random.Random, history: str) -> int:
    """Start a writer, kill it after some commits; the last number that it acknowledged."""
    child = subprocess.Popen(
        [sys.executable, WORK, "write", str(path), history], stdout=subprocess.PIPE, text=True
    )
    with child:
        told = [child.stdout.readline() for _ in range(rng.randint(1, 30))]
        for _ in range(rng.randint(0, 20_000)):  # so that the kill meets any step of what comes next
            pass
        child.send_signal(signal.SIGKILL)
        told += child.stdout.read().splitlines()
    assert told[0], "the writer failed"
    return int([each for each in told if each][-1])


@pytest.mark.parametrize("history", ["full", "minimal"])
def test_nothing_acknowledged_is_lost(tmp_path, history, record_property):
    """RelStorage#505, zodb-pgjsonb#108: what kills left made every blob broken, or orphaned it."""
    rng = random.Random(1)
    path = tmp_path / "store"
    number = 0
    for _ in range(3):
        acknowledged = run_and_kill(path, rng, history)
        with objstore.open(path, create=False) as db:
            assert os.listdir(db.store.directory.temporary_blobs) == []
            with db.transaction() as connection:
                number = connection.root.number
                assert number >= acknowledged, "an acknowledged transaction is lost"
                for blob in connection.root.blobs.values():
                    assert content(blob) == pattern(number)
            kinds = {finding.kind for finding in check(db.store, blobs=True)}
            assert kinds <= {"unreachable", "leftover"}
    with objstore.open(path, create=False) as db:
        db.pack()
        db.pack()
        assert [each for each in check(db.store, blobs=True) if "blob" in each.path] == []
    record_property("commits that survived kills", number)


# --- side by side ------------------------------------------------------------------------------------


def append_and_check(pipe: Pipe, path: str, name: str, rounds: int) -> None:
    """Append to one blob, as the other process does, and look at what is there meanwhile."""
    with objstore.open(path, flush_transactions=3, flush_age=0.01) as db:
        pipe.send("ready")
        pipe.receive()
        for at in range(rounds):

            def append(connection, at=at):
                blob = connection.root.blob
                before = content(blob)
                write(blob, f"{name}{at:03} ".encode(), "a")
                assert content(blob) == before + f"{name}{at:03} ".encode()

            db.run(append, retries=1000)
            with db.transaction() as connection:
                blob = connection.root.blob
                seen = content(blob)
                with open(blob.committed(), "rb") as file:
                    assert file.read() == seen
        pipe.send("done")
        pipe.receive()


@pytest.mark.parametrize("history", ["full", "minimal"])
def test_two_processes_append_to_one_blob(tmp_path, history):
    path, rounds = str(tmp_path / "store"), 15
    with objstore.open(path, history=history) as db, db.transaction() as connection:
        connection.root.blob = objstore.Blob()
    with Nursery() as nursery:
        both = [nursery.start(append_and_check, path, name, rounds) for name in "ab"]
        for each in both:
            assert each.receive() == "ready"
        with objstore.open(path) as reader:
            connection = opened(reader)
            for each in both:
                each.send()
            for _ in range(20):
                connection.transaction_manager.begin()
                assert len(content(connection.root.blob)) % 5 == 0
            connection.close()
        for each in both:
            assert each.receive() == "done"
            each.send()
    with objstore.open(path) as db, db.transaction() as connection:
        words = content(connection.root.blob).decode().split()
        for name in "ab":
            assert [word for word in words if word[0] == name] == [f"{name}{at:03}" for at in range(rounds)]
        assert len(words) == 2 * rounds


def read_while_others_flush(pipe: Pipe, path: str) -> None:
    """Read a blob for as long as the test flushes."""
    with objstore.open(path, background=False) as db:
        connection = db.open()
        pipe.send("ready")
        while pipe.receive() == "look":
            transaction.begin()
            pipe.send(content(connection.root.blob).decode())
        connection.close()


def test_a_reader_in_another_process_follows(tmp_path):
    path = str(tmp_path / "store")
    with objstore.open(path, background=False) as db, Nursery() as nursery:
        connection = opened(db)
        blob = connection.root.blob = objstore.Blob(b"0")
        commit(connection)
        other = nursery.start(read_while_others_flush, path)
        assert other.receive() == "ready"
        for at in range(12):
            write(blob, b"%d" % at)
            commit(connection)
            if at % 3 == 1:
                db.store.flush()
            if at % 4 == 2:
                blob.committed()
            other.send("look")
            assert other.receive() == str(at)
        other.send("end")
        connection.close()


def test_a_forked_child_leaves_uncommitted_data_to_its_parent(tmp_path):
    with objstore.open(tmp_path / "store") as db:
        connection = opened(db)
        blob = connection.root.blob = objstore.Blob(b"first")
        commit(connection)
        write(blob, b"second")
        child = os.fork()
        if not child:
            code = 1
            try:
                with db.transaction() as mine:
                    code = 0 if content(mine.root.blob) == b"first" else 2
                del blob, connection
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert content(blob) == b"second"
        commit(connection)
        assert content(blob) == b"second"
        connection.close()


# --- large -------------------------------------------------------------------------------------------


def memory_of(path: Path, size: int) -> int:
    done = subprocess.run(
        [sys.executable, WORK, "stream", str(path), str(size)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_a_large_blob_takes_little_memory(tmp_path, record_property):
    taken = memory_of(tmp_path / "store", 64 * 2**20)
    record_property("memory for a blob of 64 MiB, in MiB", taken >> 20)
    assert taken < 24 * 2**20


@pytest.mark.long
def test_a_blob_of_five_gib(tmp_path, record_property):
    free = os.statvfs(tmp_path)
    if free.f_bavail * free.f_frsize < 12 * 2**30:
        pytest.skip("this takes 12 GiB of the disk for a while")
    taken = memory_of(tmp_path / "store", 5 * 2**30)
    record_property("memory for a blob of 5 GiB, in MiB", taken >> 20)
    assert taken < 24 * 2**20
