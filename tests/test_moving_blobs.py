"""`objstore import` and `objstore export` with blobs: their bytes beside the records, in both directions."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import transaction
import ZODB
from persistent.mapping import PersistentMapping
from servers import postgresql, why_no_postgresql
from test_blobs import content, write
from test_moving_zodb import run
from test_zodb_blobs import all_of
from ZODB.blob import Blob
from ZODB.FileStorage import FileStorage

import objstore
from objstore.compat.moving import Mover, moving, opened_source, opened_target
from objstore.compat.moving.verifying import Verification
from objstore.contracts import Format
from objstore.errors import MissingAbilityError, OpenError, UsageError

COUNT = 9
"""Blobs that the file has, all revisions counted."""


def made(directory):
    """A file with blobs, each with a past; one was undone, one removed, and one is lost."""
    storage = FileStorage(str(directory / "Data.fs"), blob_dir=str(directory / "blobs"))
    db = ZODB.DB(storage)
    manager = transaction.TransactionManager()
    connection = db.open(manager)
    root = connection.root()

    def commit(note):
        manager.get().note(note)
        manager.commit()

    root["blobs"] = PersistentMapping({at: Blob(b"%d" % at * 1000) for at in range(3)})
    root["empty"] = Blob()
    commit("several")
    for at in range(3):
        write(root["blobs"][at], b"second %d" % at)
        commit("one changes")
    db.undo(db.undoInfo()[0]["id"], manager.get())
    commit("undone")
    root["lost"] = Blob(b"lost")
    commit("one that gets lost")
    os.unlink(root["lost"].committed())
    del root["blobs"][1]
    commit("a removed one")
    connection.close()
    db.close()
    return directory / "Data.fs"


def go_on(source):
    db = ZODB.DB(FileStorage(str(source), blob_dir=str(source.parent / "blobs")))
    with db.transaction() as connection:
        write(connection.root()["blobs"][0], b"third")
        connection.root()["new"] = Blob(b"new")
    db.close()


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return made(tmp_path_factory.mktemp("original"))


@pytest.fixture
def source(original, tmp_path):
    """A file of its own, which may be changed."""
    shutil.copytree(original.parent, tmp_path / "source")
    return tmp_path / "source" / "Data.fs"


def move(source, target, *, verify=True, from_blobs=None, to_blobs=None, history=None, format=None, **how):
    with (
        opened_source(str(source), blobs=from_blobs and str(from_blobs)) as there,
        opened_target(str(target), history=history, format=format, blobs=to_blobs and str(to_blobs)) as here,
    ):
        return Mover(there, here, **how).run(verify=verify)


def moved(source, target, **how):
    report = move(source, target, **how)
    assert report.differences == []
    return report


def everything(path, blobs):
    with closing(FileStorage(str(path), blob_dir=str(blobs), read_only=True)) as storage:
        return all_of(storage)


def blobs_of(source):
    return source.parent / "blobs"


@pytest.mark.parametrize("format", [Format.SEGMENTED, Format.BUSHY])
def test_a_file_comes_back_as_it_was(original, tmp_path, format):
    report = moved(original, tmp_path / "store", from_blobs=blobs_of(original), format=format)
    assert (report.blobs, report.missing_blobs) == (COUNT - 1, 1)
    assert report.blob_bytes == 3 * 1000 + 3 * len("second 0") + 1000
    report = moved(tmp_path / "store", tmp_path / "back.fs", to_blobs=tmp_path / "back")
    assert (report.blobs, report.missing_blobs) == (COUNT - 1, 1)
    expected = everything(original, blobs_of(original))
    assert everything(tmp_path / "back.fs", tmp_path / "back") == expected
    assert sum(blob is not None for *_, blob in expected) == COUNT
    assert any(copied and blob for *_, copied, blob in expected), "no blob that an undo brought back"
    assert os.listdir(tmp_path / "store" / "blobs" / "tmp") == os.listdir(tmp_path / "back" / "tmp") == []


def test_the_application_finds_them(original, tmp_path):
    moved(original, tmp_path / "store", from_blobs=blobs_of(original))
    with objstore.open(tmp_path / "store") as db, db.transaction() as connection:
        root = connection.root()
        assert [content(root["blobs"][at]) for at in (0, 2)] == [b"second 0", b"2" * 1000]
        assert content(root["empty"]) == b""
        with pytest.raises(objstore.errors.BlobMissingError):
            content(root["lost"])
        assert [len(db.history(root["blobs"][2]._p_oid, 9))] == [3]


@pytest.mark.parametrize("history", ["full", "minimal"])
def test_what_is_current(original, tmp_path, history):
    report = moved(original, tmp_path / "store", from_blobs=blobs_of(original), history=history, current=True)
    assert (report.blobs, report.missing_blobs) == (4, 1)
    report = moved(tmp_path / "store", tmp_path / "back.fs", to_blobs=tmp_path / "back", current=True)
    assert (report.blobs, report.missing_blobs) == (4, 1)


def test_only_what_is_missing_is_moved(source, tmp_path):
    moved(source, tmp_path / "store", from_blobs=blobs_of(source))
    go_on(source)
    assert moved(source, tmp_path / "store", from_blobs=blobs_of(source)).blobs == 2
    assert moved(tmp_path / "store", tmp_path / "back.fs", to_blobs=tmp_path / "back").blobs == COUNT + 1
    assert everything(tmp_path / "back.fs", tmp_path / "back") == everything(source, blobs_of(source))


@pytest.mark.parametrize("into", ["store", "back.fs"])
def test_interrupted_in_the_middle(original, tmp_path, monkeypatch, into):
    """What was given up leaves nothing, and the next run goes on there."""
    how = {"from_blobs": blobs_of(original)} if into == "store" else {"to_blobs": tmp_path / "back"}
    source = original
    if into != "store":
        source = tmp_path / "full"
        moved(original, source, from_blobs=blobs_of(original))
    calls = []

    def interrupted(self, pending, tid, record):
        calls.append(record)
        store(self, pending, tid, record)
        if len(calls) == 8:
            raise KeyboardInterrupt

    store = moving.Mover._store
    with monkeypatch.context() as patch:
        patch.setattr(moving.Mover, "_store", interrupted)
        with pytest.raises(KeyboardInterrupt):
            move(source, tmp_path / into, **how)
    report = moved(source, tmp_path / into, **how)
    assert 0 < report.blobs < COUNT - 1
    if into == "store":
        moved(tmp_path / "store", tmp_path / "back.fs", to_blobs=tmp_path / "back")
    assert everything(tmp_path / "back.fs", tmp_path / "back") == everything(original, blobs_of(original))


@pytest.mark.parametrize("into", ["store", "back.fs"])
def test_killed_in_the_middle(original, tmp_path, into):
    script = Path(__file__).parent / "killed_mover.py"
    blobs = ["", str(tmp_path / "back")] if into != "store" else [str(blobs_of(original)), ""]
    source = original
    if into != "store":
        source = tmp_path / "full"
        moved(original, source, from_blobs=blobs_of(original))
    command = [sys.executable, str(script), str(source), str(tmp_path / into), *blobs]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for _ in range(3):
            assert process.stdout.readline().startswith("moved"), process.wait()
        process.send_signal(signal.SIGKILL)
    how = {"from_blobs": blobs_of(original)} if into == "store" else {"to_blobs": tmp_path / "back"}
    moved(source, tmp_path / into, **how)
    if into == "store":
        assert os.listdir(tmp_path / "store" / "blobs" / "tmp") == []
        moved(tmp_path / "store", tmp_path / "back.fs", to_blobs=tmp_path / "back")
    assert everything(tmp_path / "back.fs", tmp_path / "back") == everything(original, blobs_of(original))


def test_between_stores_of_ours(original, tmp_path):
    moved(original, tmp_path / "store", from_blobs=blobs_of(original))
    assert moved(tmp_path / "store", tmp_path / "other").blobs == COUNT - 1
    moved(tmp_path / "other", tmp_path / "back.fs", to_blobs=tmp_path / "back")
    assert everything(tmp_path / "back.fs", tmp_path / "back") == everything(original, blobs_of(original))


def test_differences_are_told(source, tmp_path):
    moved(source, tmp_path / "store", from_blobs=blobs_of(source))
    with objstore.open(tmp_path / "store", read_only=True) as db, db.transaction() as connection:
        blob = connection.root()["blobs"][0]
        path, oid, tid = blob.committed(), blob._p_oid, blob._p_serial
    os.chmod(path, 0o600)
    with open(path, "wb") as file:
        file.write(b"damaged0")
    found = move(source, tmp_path / "store", from_blobs=blobs_of(source)).differences
    assert [str(each) for each in found] == [
        f"transaction {tid.hex()}, object {oid.hex()}: the data of the blob differ"
    ]


class TestRefusals:
    def test_a_source_without_its_blobs(self, original, tmp_path):
        with pytest.raises(MissingAbilityError, match=r"a blob, without the files of its blobs; .*--blobs"):
            move(original, tmp_path / "store")

    @pytest.mark.parametrize("flushed", [False, True])
    def test_a_target_without_blobs(self, tmp_path, flushed):
        """Nothing is written."""
        with objstore.open(tmp_path / "store", flush_on_close=False) as db, db.transaction() as connection:
            connection.root.blob = objstore.Blob(b"data")
        if flushed:
            objstore.open(tmp_path / "store").close()
        for source, how in ((tmp_path / "store", {}), (tmp_path / "with.fs", {"from_blobs": tmp_path / "with"})):
            with pytest.raises(MissingAbilityError, match=r"cannot keep blobs, and .* has some"):
                move(source, tmp_path / "back.fs", **how)
            assert not list(tmp_path.glob("back.fs*"))
            if not how:
                moved(source, tmp_path / "with.fs", to_blobs=tmp_path / "with")

    @pytest.mark.parametrize("prefix", ["", "file://"])
    def test_a_refused_export_leaves_nothing_beside(self, original, tmp_path, prefix):
        move(original, tmp_path / "store", from_blobs=blobs_of(original))
        (tmp_path / "there.fs.lock").touch()
        before = sorted(each.name for each in tmp_path.iterdir())
        for name in ("new.fs", "there.fs"):
            result = run("export", tmp_path / "store", f"{prefix}{tmp_path}/{name}", code=2)
            assert "cannot keep blobs" in result.stderr
            assert sorted(each.name for each in tmp_path.iterdir()) == before
        FileStorage(str(tmp_path / "old.fs")).close()
        run("export", tmp_path / "store", tmp_path / "old.fs", code=2)
        assert (tmp_path / "old.fs").exists()

    def test_nor_does_one_that_fails_at_its_first_transaction(self, original, tmp_path, monkeypatch):
        move(original, tmp_path / "store", from_blobs=blobs_of(original))

        def interrupt(*_):
            raise KeyboardInterrupt

        monkeypatch.setattr(Mover, "_commit", interrupt)
        with pytest.raises(KeyboardInterrupt):
            move(tmp_path / "store", tmp_path / "new.fs", to_blobs=tmp_path / "new.blobs")
        assert [each.name for each in tmp_path.iterdir()] == ["store"]

    def test_directories(self, original, tmp_path):
        with pytest.raises(OpenError, match="no such directory"):
            move(original, tmp_path / "store", from_blobs=tmp_path / "nothing")
        assert not (tmp_path / "nothing").exists()
        with pytest.raises(UsageError, match="has its blobs itself"):
            move(original, tmp_path / "store", to_blobs=tmp_path / "nothing")


def test_commands(original, tmp_path):
    done = run("import", original, tmp_path / "store", "--blobs", blobs_of(original), "--verify")
    assert f"with {COUNT - 1} blobs: " in done.output
    assert "1 blob missing in " in done.output
    done = run("export", tmp_path / "store", tmp_path / "back.fs", "--blobs", tmp_path / "back", "--json")
    found = json.loads(done.output)
    assert (found["blobs"], found["missing blobs"]) == (COUNT - 1, 1)
    assert "--blobs" in run("import", original, tmp_path / "other", code=2).output


def test_to_and_from_a_server(original, tmp_path):
    if why_no_postgresql():
        pytest.skip(why_no_postgresql())
    url = postgresql().fresh()
    moved(original, url, from_blobs=blobs_of(original), to_blobs=tmp_path / "cache")
    assert moved(url, tmp_path / "store", from_blobs=tmp_path / "cache").blobs == COUNT - 1


@pytest.mark.parametrize("history", ["full", "minimal"])
def test_a_source_that_is_packed_while_it_is_compared(tmp_path, monkeypatch, history):
    """What the pack removes, blobs too, was told as differences; without a pack it is still."""
    with objstore.open(tmp_path / "from", history=history) as db:
        with db.transaction() as connection:
            connection.root.blob, connection.root.other = objstore.Blob(b"first"), PersistentMapping()
        for number in range(4):
            with db.transaction() as connection:
                write(connection.root.blob, b"%d" % number)
                connection.root.number = number
        with db.transaction() as connection:
            del connection.root.blob, connection.root.other
        for number in range(2):
            with db.transaction() as connection:
                connection.root.number = number

        def compared_after(work):
            compare = Verification.history
            monkeypatch.setattr(Verification, "history", lambda self: (work(), compare(self))[1])
            with opened_source(str(tmp_path / "from")) as there, opened_target(str(tmp_path / "to")) as here:
                found = Mover(there, here).run(verify=True).differences
            monkeypatch.undo()
            return found

        packs = []
        assert compared_after(lambda: packs.append(db.pack())) == []
        assert packs[0].blobs_removed
        assert {each.what for each in compared_after(lambda: None)} == {"it is in the target only"}
