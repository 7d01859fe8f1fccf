"""Blobs are packed, checked, copied and counted, with the revisions that they belong to."""

from __future__ import annotations

import json
import os

import pytest
from click.testing import CliRunner
from crashing import Judge, Large, Script
from databases import ALL, commit, opened
from simulated import Crash
from stores import COMBINATIONS
from test_blobs import content, files_of, with_blob, write

import objstore
from objstore.cli.main import main
from objstore.contracts import Format, History
from objstore.errors import BlobMissingError, CorruptionError, NotAStoreError, ObjstoreError
from objstore.ids import ROOT, Oid, oid_from, split_oids
from objstore.upkeep.check import check

pytest_plugins = ["database_fixtures"]

KINDS = [kind for kind in ALL if not kind.startswith("model")]
"""A store for each format and history mode, and those in memory."""


@pytest.fixture(params=KINDS)
def db(request, databases) -> objstore.DB:
    return databases(request.param)


def findings(db: objstore.DB, **how: bool) -> list[tuple[str, str]]:
    return [(finding.kind, finding.message) for finding in check(db.store, **how)]


def is_full(db: objstore.DB) -> bool:
    return db.store.history_mode is History.FULL


class TestPacking:
    def test_the_blobs_of_removed_revisions_go(self, db):
        connection, blob = with_blob(db)
        connection.root.other = objstore.Blob(b"other")
        for at in range(3):
            write(blob, b"%d" % at)
            commit(connection)
        del connection.root.other
        commit(connection)
        connection.root.x = 1
        commit(connection)
        connection.root.x = 2
        commit(connection)
        db.store.flush()
        before = files_of(db)
        told = db.pack(dry_run=True)
        assert files_of(db) == before
        report = db.pack()
        assert report.blobs_removed == told.blobs_removed == len(before) - 1
        assert report.objects_removed == 1
        assert len(files_of(db)) == 1
        assert content(opened(db).root.blob) == b"2"
        assert findings(db, blobs=True) == []
        assert db.pack().blobs_removed == 0

    def test_what_snapshots_and_history_need_stays(self, db):
        connection, blob = with_blob(db)
        reader = opened(db)
        read = reader.root.blob
        for at in range(3):
            write(blob, b"%d" % at)
            commit(connection)
        db.pack()
        assert content(read) == b"first"
        reader.close()
        connection.root.x = 1
        commit(connection)
        connection.root.x = 2
        commit(connection)
        db.pack()
        assert len(files_of(db)) == 1
        assert content(blob) == b"2"

    def test_an_undone_revision_has_a_blob_of_its_own(self, databases):
        """What an undo brought back does not depend on the revision that it came from."""
        db = databases("segmented-full")
        connection, blob = with_blob(db)
        write(blob, b"second")
        commit(connection)
        db.undo(db.undoLog()[0]["id"], connection.transaction_manager.get())
        commit(connection)
        for at in range(2):
            connection.root.x = at
            commit(connection)
        assert db.pack().blobs_removed == 2
        assert content(opened(db).root.blob) == b"first"

    def test_minimal_keeps_one_of_each_without_a_pack(self, databases):
        for kind in KINDS:
            if kind.endswith("minimal"):
                db = databases(kind)
                connection, blob = with_blob(db)
                for at in range(5):
                    write(blob, b"%d" % at)
                    commit(connection)
                    if at % 2:
                        db.store.flush()
                db.store.flush()
                assert len(files_of(db)) == 1
                assert content(blob) == b"4"

    def test_minimal_removes_nothing_that_a_snapshot_needs(self, databases):
        db = databases("segmented-minimal")
        connection, blob = with_blob(db)
        db.store.flush()
        reader = opened(db)
        read = reader.root.blob
        for at in range(3):
            write(blob, b"%d" % at)
            commit(connection)
            db.store.flush()
            assert content(read) == b"first"
        reader.transaction_manager.begin()
        write(blob, b"last")
        commit(connection)
        db.store.flush()
        assert content(read) == b"2"
        assert len(files_of(db)) == 2


def packs(script: Script) -> None:
    """Blobs are superseded, given up, and packed away, twice."""
    script.commit({0: "root", 1: Large(b"one"), 2: Large(b"two"), 3: Large(b"three")}, {0: (1, 2, 3)})
    script.commit({1: Large(b"one, again")})
    last = script.commit({0: "root without 2", 1: Large(b"one, later")}, {0: (1, 3)})
    script.commit({0: "root"}, {0: (1, 3)})
    script.commit({3: Large(b"three, later")})
    script.pack(last)
    script.commit({0: "root"}, {0: (3,)})
    last = script.commit({0: "root still"}, {0: (3,)})
    script.commit({0: "the end"}, {0: (3,)})
    script.pack(last)


SOME = {(History.FULL, Format.SEGMENTED), (History.MINIMAL, Format.SEGMENTED), (History.FULL, Format.FLAT)}
every_store = pytest.mark.parametrize(
    ("history", "format"),
    [pytest.param(*each, marks=[] if each in SOME else pytest.mark.long) for each in COMBINATIONS],
)


@every_store
def test_the_power_is_cut_at_every_operation_of_a_pack(history, format, record_property):
    """RelStorage#505, zodb-pgjsonb#108: after interrupted packs blobs were broken, or orphans."""
    script = Script(history, format)
    packs(script)
    judge = Judge(script)
    judge.sweep(script.packs[0].begun, limit=3)
    record_property("crash states tried", judge.tried)


def referred_to(script: Script) -> set[Oid]:
    """What the current root refers to."""
    view = script.store.view()
    try:
        _, serial = view.load(ROOT)
    finally:
        view.close()
    return set(split_oids(script.store.revision(ROOT, serial).references or b""))


@every_store
def test_a_pack_that_is_killed_at_every_operation_and_run_again(history, format):
    """RelStorage#505: repeatedly interrupted packs, then every blob was broken."""
    whole = Script(history, format)
    packs(whole)
    begun, end = whole.packs[0].begun, whole.fs.operations
    script = Script(history, format)
    kills = 0
    for index in range(begun, end, 3):
        script = Script(history, format)
        script.fs.stop_before(index)
        with pytest.raises(Crash):
            packs(script)
        kills += 1
        script.restart()
        for pack in list(script.packs):
            script.store.pack(pack.upto)
        left = [finding for finding in check(script.store, blobs=True) if finding.kind != "unreachable"]
        assert [finding for finding in left if finding.kind != "leftover" or "blob" in finding.path] == []
        current = {oid for oid, _, _ in script.store.blobs_there()}
        assert referred_to(script) | {oid_from(3)} <= current
        if history is History.FULL and not script.packs[1:]:  # as of the first pack the root refers to both
            assert oid_from(1) in current
        script.store.close()
    assert kills > 5


class TestChecking:
    def damaged(self, databases, damage):
        db = databases("segmented-full")
        _, blob = with_blob(db, b"first")
        damage(blob.committed())
        db.store.flush()
        return db

    def test_a_missing_one(self, databases):
        db = self.damaged(databases, os.unlink)
        assert findings(db) == [("blob", "the data of a blob are missing")]

    def test_one_of_the_wrong_length(self, databases):
        db = self.damaged(databases, lambda path: os.truncate(path, 3))
        assert findings(db) == [("blob", "a blob has 3 bytes, not 5 as its record says")]

    def test_one_with_other_bytes_of_the_same_length(self, databases):
        def change(path):
            with open(path, "r+b") as file:
                file.write(b"F")

        db = self.damaged(databases, change)
        assert findings(db) == []
        assert findings(db, blobs=True) == [("blob", "the checksum of a blob is wrong")]

    def test_in_the_journal(self, databases):
        db = databases("segmented-full")
        with_blob(db)
        assert findings(db, blobs=True) == []
        journal = db.store.directory.journal
        for name in os.listdir(journal):
            for each in os.listdir(f"{journal}/{name}"):
                if each.endswith(".blob"):
                    os.unlink(f"{journal}/{name}/{each}")
        assert findings(db) == [("blob", "the data of a blob are missing")]

    def test_foreign_misplaced_and_left_over_files(self, databases):
        db = databases("segmented-full")
        connection, blob = with_blob(db)
        path = blob.committed()
        db.store.flush()
        directory, _, name = path.rpartition("/")
        orphan = name.replace(name[2:17], "0" * 14 + "9")
        home = db.store.directory
        blobs = home.blobs
        for junk in (
            f"{directory}/editor~",
            f"{home.temporary_blobs}/.nfs1",
            f"{blobs}/{name}",
            f"{directory}/{orphan}",
        ):
            with open(junk, "wb"):
                pass
        temporary = db.store.blobs.temporary()
        connection.close()
        found = sorted(finding.kind for finding in check(db.store))
        assert found == ["foreign", "foreign", "leftover", "misplaced"]
        db.close()
        reader = databases("segmented-full", read_only=True)
        found = sorted((finding.kind, finding.path) for finding in check(reader.store))
        assert ("leftover", temporary) in found
        reader.close()
        again = databases("segmented-full")
        assert again.pack().blobs_removed == 1
        assert sorted(finding.kind for finding in check(again.store)) == ["foreign", "foreign", "misplaced"]
        assert content(opened(again).root.blob) == b"first"


class TestCopying:
    @pytest.mark.parametrize(
        ("kind", "history", "format"),
        [
            *(("memory-full", *each) for each in COMBINATIONS),
            ("segmented-full", History.FULL, Format.SEGMENTED),
            ("segmented-minimal", History.FULL, Format.LAWN),
            ("flat-minimal", History.MINIMAL, Format.SEGMENTED),
        ],
    )
    def test_into_any_other(self, databases, tmp_path, kind, history, format):
        db = databases(kind)
        connection, blob = with_blob(db)
        for at in range(3):
            write(blob, b"%d" % at * 1000)
            commit(connection)
        write(blob, b"not committed")
        report = objstore.copy(db, tmp_path / "copy", history=history, format=format, verify=True)
        kept = 4 if kind.endswith("full") and history is History.FULL else 1
        assert report.blobs == kept
        with objstore.open(tmp_path / "copy", create=False) as copied:
            assert findings(copied, blobs=True) == []
            assert len(files_of(copied)) == kept
            other = opened(copied)
            assert content(other.root.blob) == b"2" * 1000
            other.close()

    def test_damage_is_refused(self, databases, tmp_path):
        db = databases("segmented-full")
        _, blob = with_blob(db)
        path = blob.committed()
        with open(path, "r+b") as file:
            file.write(b"F")
        with pytest.raises(CorruptionError, match="the source of this blob is not what was written"):
            objstore.copy(db, tmp_path / "copy")
        os.unlink(path)
        with pytest.raises(CorruptionError, match="the data of a blob are missing"):
            objstore.copy(db, tmp_path / "copy")
        with pytest.raises(ObjstoreError):
            objstore.open(tmp_path / "copy")
        assert not os.path.exists(tmp_path / "copy" / "blobs")

    def test_an_unfinished_copy_is_begun_anew(self, databases, tmp_path):
        db = databases("segmented-full")
        _, blob = with_blob(db)
        path = blob.committed()
        os.rename(path, tmp_path / "aside")
        with pytest.raises(CorruptionError):
            objstore.copy(db, tmp_path / "copy")
        os.rename(tmp_path / "aside", path)
        assert objstore.copy(db, tmp_path / "copy", verify=True).blobs == 1

    def test_data_without_settings_are_no_place_for_a_store(self, databases):
        db = databases("segmented-full")
        with_blob(db)[0].close()
        db.store.flush()
        home = db.store.directory
        db.close()
        os.unlink(home.settings)
        for place in (home.home, home.journal):
            for top, directories, names in os.walk(place, topdown=False):
                for name in names:
                    os.unlink(f"{top}/{name}")
                for name in directories:
                    os.rmdir(f"{top}/{name}")
        with pytest.raises(NotAStoreError, match="there is data"):
            objstore.open(home.path)


class TestTheCommandLine:
    def test_info_copy_pack_and_check(self, databases, tmp_path):
        db = databases("segmented-full")
        connection, blob = with_blob(db, b"x" * 3000)
        write(blob, b"y" * 500)
        commit(connection)
        for at in range(2):
            connection.root.x = at
            commit(connection)
        connection.close()
        path = db.store.name

        def run(*words: str) -> str:
            outcome = CliRunner().invoke(main, list(words))
            assert outcome.exit_code == 0, outcome.output
            return outcome.output

        assert json.loads(run("info", path, "--json"))["blobs"] == {"count": 2, "bytes": 3500}
        copied = json.loads(run("copy", path, str(tmp_path / "copy"), "--verify", "--json"))
        assert (copied["blobs"], copied["blob_bytes"]) == (2, 3500)
        assert "with 2 blobs" in run("copy", path, str(tmp_path / "copy2"))
        assert json.loads(run("pack", path, "--days", "0", "--json"))["blobs_removed"] == 1
        assert "nothing found" in run("check", path, "--blobs")
        assert "blobs" in run("info", path)


def test_what_a_pack_removed_says_so(databases):
    db = databases("segmented-full")
    connection, blob = with_blob(db)
    first = blob._p_serial
    for at in range(3):
        write(blob, b"%d" % at)
        commit(connection)
    db.pack()
    with pytest.raises(BlobMissingError):
        db.store.blobs.open_committed(blob._p_oid, first)
