"""`objstore copy` and `objstore.copy`: what they print, what they end with, and what they leave."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from persistent.mapping import PersistentMapping

import objstore
from objstore.cli.main import main
from objstore.errors import HistoryMissingError, NotAStoreError, SnapshotTooOldError, StoreLockedError
from objstore.machine.posix import PosixFilesystem
from objstore.upkeep.check import check


def run(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(main, [str(each) for each in arguments], prog_name="objstore")
    assert result.exit_code == code, result.output + repr(result.exception)
    return result


@pytest.fixture
def source(tmp_path) -> Path:
    path = tmp_path / "source"
    with objstore.open(path) as db:
        for value in range(3):
            with db.transaction(note=f"number {value}") as connection:
                connection.root()["it"] = PersistentMapping(value=value)
                connection.root()["all"] = PersistentMapping()
    return path


def content_of(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


class TestTheCommand:
    def test_it_tells_what_it_did(self, source, tmp_path):
        result = run("copy", source, tmp_path / "dest", "--verify")
        assert f"created {tmp_path}/dest: history full, format segmented" in result.output
        assert "copied and verified 4 transactions" in result.output

    def test_json(self, source, tmp_path):
        before = content_of(source)
        done = run("copy", source, tmp_path / "dest", "--json", "--format", "lawn", "--history", "minimal")
        told = json.loads(done.stdout)
        facts = {
            "path",
            "history",
            "format",
            "upto",
            "transactions",
            "revisions",
            "objects",
            "bytes",
            "blobs",
            "blob_bytes",
        }
        assert told.keys() == facts | {"verified", "seconds"}
        assert (told["history"], told["format"], told["verified"]) == ("minimal", "lawn", False)
        assert told["objects"] == told["revisions"] == 7
        assert content_of(source) == before

    def test_urls(self, source, tmp_path):
        run("copy", f"objstore://{source}", f"objstore://{tmp_path}/dest?format=flat&history=minimal")
        with objstore.open(tmp_path / "dest", create=False) as db:
            assert db.statistics()["format"] == "flat"
        run("copy", source, f"objstore://{tmp_path}/other?format=flat", "--format", "lawn", code=2)

    @pytest.mark.parametrize(
        ("dest", "code", "message"),
        [
            ("source", 2, "lies within"),
            ("source/inside", 2, "lies within"),
            ("file", 3, "Not a directory"),
            ("full", 3, "not empty"),
            ("store", 3, "a store here already"),
            ("nowhere/dest", 3, "make it first"),
            ("", 2, "empty"),
        ],
    )
    def test_what_is_in_the_way(self, source, tmp_path, dest, code, message):
        (tmp_path / "file").touch()
        (tmp_path / "full").mkdir()
        (tmp_path / "full" / "letter").touch()
        run("init", tmp_path / "store")
        before = content_of(tmp_path)
        result = run("copy", source, tmp_path / dest if dest else "", code=code)
        assert message in result.stderr
        assert content_of(tmp_path) == before

    def test_no_source(self, tmp_path):
        assert "there is no store here" in run("copy", tmp_path / "none", tmp_path / "dest", code=3).stderr
        assert list(tmp_path.iterdir()) == []

    def test_a_source_that_is_written_to(self, source, tmp_path):
        with objstore.open(source):
            run("copy", source, tmp_path / "dest")
        with objstore.open(source, exclusive=True):
            assert "open" in run("copy", source, tmp_path / "other", code=3).stderr
        assert not (tmp_path / "other").exists()

    def test_a_source_that_others_read(self, source, tmp_path):
        with objstore.open(source, read_only=True):
            run("copy", source, tmp_path / "dest")

    def test_choices(self, source, tmp_path):
        run("copy", source, tmp_path / "dest", "--format", "round", code=2)
        run("copy", source, tmp_path / "dest", "--history", "some", code=2)

    def test_a_full_disk(self, source, tmp_path, monkeypatch):
        monkeypatch.setattr(PosixFilesystem, "free_bytes", lambda *_: 10)
        assert "the copy takes about" in run("copy", source, tmp_path / "dest", code=6).stderr
        assert not (tmp_path / "dest").exists()

    def test_a_damaged_record(self, source, tmp_path):
        segment = max((source / "A").rglob("*.seg"), key=lambda path: path.stat().st_size)
        content = bytearray(segment.read_bytes())
        content[len(content) // 3] ^= 0xFF
        segment.write_bytes(content)
        run("copy", source, tmp_path / "dest", code=7)
        if (tmp_path / "dest").exists():
            assert "was not finished" in run("info", tmp_path / "dest", code=3).stderr

    def test_an_unfinished_copy_is_refused_by_every_command(self, source, tmp_path, monkeypatch):
        def interrupt(*_):
            raise KeyboardInterrupt

        monkeypatch.setattr("objstore.engine.importing.Import.finish", interrupt)
        run("copy", source, tmp_path / "dest", code=130)
        monkeypatch.undo()
        for command in (["info"], ["log"], ["check"], ["show", "0"]):
            result = run(command[0], tmp_path / "dest", *command[1:], code=3)
            assert "a copy into this directory was not finished" in result.stderr
        run("init", tmp_path / "dest", code=3)
        run("copy", source, tmp_path / "dest", "--verify")
        assert "nothing found" in run("check", tmp_path / "dest").output

    def test_progress_on_a_terminal(self, source, tmp_path):
        ours, theirs = pty.openpty()
        done = subprocess.run(
            [sys.executable, "-m", "objstore", "copy", str(source), str(tmp_path / "dest"), "--verify"],
            stdout=subprocess.PIPE,
            stderr=theirs,
            check=True,
        )
        os.close(theirs)
        shown = os.read(ours, 65536).decode()
        os.close(ours)
        assert "copying" in shown
        assert "verifying" in shown
        assert b"\x1b" not in done.stdout


class TestTheFunction:
    def test_a_path(self, source, tmp_path):
        report = objstore.copy(source, tmp_path / "dest", format="chunky", verify=True)
        assert (report.history, report.format, report.transactions) == ("full", "chunky", 4)
        with objstore.open(tmp_path / "dest", create=False) as db:
            assert db.lastTransaction() == report.upto
            assert [entry["description"] for entry in db.undoLog()][:3] == ["number 2", "number 1", "number 0"]
            with db.transaction() as connection:
                db.undo(db.undoLog()[0]["id"], connection.transaction_manager.get())
            with db.transaction() as connection:
                assert connection.root()["it"]["value"] == 1
            assert list(check(db.store)) == []

    def test_an_open_database(self, source, tmp_path):
        with objstore.open(source) as db:
            with db.transaction() as connection:
                connection.root()["it"]["value"] = 5
                report = objstore.copy(db, tmp_path / "dest")
                assert report.upto == db.lastTransaction()
            assert db.lastTransaction() > report.upto
        with objstore.open(tmp_path / "dest") as db, db.transaction() as connection:
            assert connection.root()["it"]["value"] == 2

    def test_a_database_in_memory_is_put_on_the_disk(self, tmp_path):
        with objstore.memory() as db:
            with db.transaction() as connection:
                connection.root()["it"] = 1
            objstore.copy(db, tmp_path / "dest", verify=True)
        with objstore.open(tmp_path / "dest", create=False) as db, db.transaction() as connection:
            assert connection.root()["it"] == 1

    def test_history_begins_in_a_full_copy_of_a_minimal_store(self, source, tmp_path):
        objstore.copy(source, tmp_path / "small", history="minimal")
        objstore.copy(tmp_path / "small", tmp_path / "full", history="full")
        with objstore.open(tmp_path / "full") as db:
            assert db.undoLog() == []
            with pytest.raises(HistoryMissingError):
                db.open(at=list(db.store.transactions())[-1].tid)
            with db.transaction(note="first") as connection:
                connection.root()["it"]["value"] = 9
            with db.transaction() as connection:
                db.undo(db.undoLog()[0]["id"], connection.transaction_manager.get())
            with db.transaction() as connection:
                assert connection.root()["it"]["value"] == 2

    def test_errors(self, source, tmp_path):
        with pytest.raises(objstore.UsageError, match="format is one of"):
            objstore.copy(source, tmp_path / "dest", format="round")
        with pytest.raises(objstore.StoreMissingError):
            objstore.copy(tmp_path / "none", tmp_path / "dest")
        with objstore.open(source, exclusive=True), pytest.raises(StoreLockedError):
            objstore.copy(source, tmp_path / "dest")
        assert issubclass(NotAStoreError, objstore.OpenError)
        assert issubclass(SnapshotTooOldError, objstore.TransientStoreError)
        assert not (tmp_path / "dest").exists()
