"""`objstore import` from files of FileStorage's that are cut off, not committed to the end, or damaged."""

from __future__ import annotations

import gc
import json
import shutil
from contextlib import closing
from pathlib import Path

import datafs
import pytest
import ZODB
from click.testing import CliRunner
from ZODB.FileStorage import FileStorage

import objstore
from objstore.cli.main import main
from objstore.compat.moving import Mover, opened_source, opened_target
from objstore.errors import CorruptionError
from objstore.ids import Tid

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
STATUS = 16
"""Where the status stands in the header of a transaction."""


@pytest.fixture(autouse=True)
def _collected():
    """A FileStorage that could not be opened does not close its files."""
    yield
    gc.collect()


def run(*arguments, code=0):
    result = CliRunner().invoke(main, [str(each) for each in arguments], prog_name="objstore")
    assert result.exit_code == code, result.output + repr(result.exception)
    return result


def starts(path):
    """Where each transaction of a file begins."""
    data, at, found = path.read_bytes(), 4, []
    while at < len(data):
        found.append(at)
        at += int.from_bytes(data[at + 8 : at + 16], "big") + 8
    return found


def tid_at(path, at):
    return Tid(path.read_bytes()[at : at + 8])


def overwrite(path, at, data):
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def cut(path, size):
    with path.open("r+b") as file:
        file.truncate(size)


def append(path, data):
    with path.open("ab") as file:
        file.write(data)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return datafs.make(tmp_path_factory.mktemp("original") / "Data.fs", objects=5, transactions=8)


@pytest.fixture(params=[True, False], ids=["index", "no index"])
def source(original, tmp_path, request):
    """A file of its own; with an index, ZODB does not read all of it when it opens it."""
    if request.param:
        shutil.copy(f"{original}.index", tmp_path / "Data.fs.index")
    return Path(shutil.copy(original, tmp_path / "Data.fs"))


def tids(path):
    with objstore.open(path, read_only=True) as db:
        return [each.tid for each in db.store.transactions()][::-1]


class TestTails:
    """What follows the last whole transaction."""

    def check(self, source, store, *, moved, offset, reason):
        """All that is whole is moved; the rest is told, by the first run and by those that continue."""
        rest = source.stat().st_size - offset
        for count in (moved, 0):
            result = run("import", source, store, "--verify", code=7)
            assert f"moved {count} transaction" in result.stdout
            assert "all are the same" in result.stdout
            assert f"{source} at byte {offset}" in result.stderr
            assert f"and {rest:,} bytes follow: {reason}" in result.stderr
            assert ("ZODB.fsrecover" in result.stderr) == reason.startswith("they do not")
        told = json.loads(run("import", source, store, "--json", code=7).stdout)["unread"]
        assert (told["offset"], told["bytes"], told["interrupted"]) == (offset, rest, False)
        assert len(tids(store)) == moved

    def test_cut_within_the_last_transaction(self, source, tmp_path):
        *before, last = starts(source)
        tid = tid_at(source, last)
        cut(source, source.stat().st_size - 10)
        self.check(source, tmp_path / "store", moved=len(before), offset=last, reason="a transaction of ")
        told = json.loads(run("import", source, tmp_path / "store", "--json", code=7).stdout)
        assert told["unread"]["tid"]["tid"] == tid.hex() != told["upto"]["tid"]

    def test_cut_within_an_earlier_transaction(self, source, tmp_path):
        begins = starts(source)
        cut(source, begins[6] - 3)
        self.check(source, tmp_path / "store", moved=5, offset=begins[5], reason="a transaction of ")

    @pytest.mark.parametrize("after", [1, 22])
    def test_cut_within_a_header(self, source, tmp_path, after):
        begins = starts(source)
        cut(source, begins[6] + after)
        self.check(source, tmp_path / "store", moved=6, offset=begins[6], reason="too few for a transaction")

    @pytest.mark.parametrize("rest", [b"\0" * 4096, b"some text that is no data" * 10])
    def test_something_else_at_the_end(self, source, tmp_path, rest):
        """ZODB takes what it says for the newest tid: after zeros a file seemed to be empty."""
        count, size = len(starts(source)), source.stat().st_size
        append(source, rest)
        self.check(source, tmp_path / "store", moved=count, offset=size, reason="they do not begin with a transa")

    def test_what_zodb_does_not_open(self, source, tmp_path):
        size = source.stat().st_size
        append(source, b"\xff" * 100)
        result = run("import", source, tmp_path / "store", code=7)
        assert f"{source} at byte {size}: what can be read ends here, and 100 bytes follow" in result.stderr

    def test_by_url_and_with_blobs(self, source, tmp_path):
        """The URL of a FileStorage with blobs names another storage, around it."""
        begins = starts(source)
        cut(source, begins[6] - 3)
        for number, url in enumerate((f"file://{source}", f"zodb+file://{source}?quota=1000000")):
            assert f"at byte {begins[5]}" in run("import", url, tmp_path / f"{number}", code=7).stderr
        blobs = ("--blobs", tmp_path)
        assert f"at byte {begins[5]}" in run("import", source, tmp_path / "store", *blobs, code=7).stderr

    def test_with_another_storage_around_it(self, tmp_path):
        """zc.zlibstorage, by a configuration file."""
        path, configuration = tmp_path / "Data.fs", tmp_path / "zodb.conf"
        configuration.write_text(
            "%import zc.zlibstorage\n"
            f"<zodb>\n<zlibstorage>\n<filestorage>\npath {path}\n</filestorage>\n</zlibstorage>\n</zodb>\n"
        )
        with objstore.open(f"zconfig://{configuration}") as db:
            for number in range(3):
                with db.transaction() as connection:
                    connection.root()[f"{number}"] = "text" * 1000
        *before, last = starts(path)
        cut(path, path.stat().st_size - 3)
        configuration.write_text(configuration.read_text().replace("path", "read-only true\npath"))
        for count in (len(before), 0):
            result = run("import", f"zconfig://{configuration}", tmp_path / "store", "--verify", code=7)
            assert f"moved {count} transaction" in result.stdout
            assert f"{path} at byte {last}" in result.stderr

    def test_a_commit_begins_while_the_file_is_read(self, source, tmp_path, monkeypatch):
        """ZODB looks for where to begin from the end of the file, and fails then. That is no damage."""
        run("import", source, tmp_path / "store")
        last = starts(source)[-1]
        header, whole = source.read_bytes()[last : last + 30], FileStorage.iterator

        def iterator(storage, start=None, stop=None):
            if start is not None and len(source.read_bytes()) == size:
                append(source, b"\x7f" + header[1:STATUS] + b"c" + header[STATUS + 1 :])
            return whole(storage, start, stop)

        size = source.stat().st_size
        monkeypatch.setattr(FileStorage, "iterator", iterator)
        assert "or is going on" in run("import", source, tmp_path / "store", "--verify").stderr

    def test_cut_off_before_what_was_moved(self, source, tmp_path):
        run("import", source, tmp_path / "store")
        begins = starts(source)
        cut(source, begins[6] - 3)
        assert f"at byte {begins[5]}" in run("import", source, tmp_path / "store", code=7).stderr

    @pytest.mark.parametrize("cut_by", [0, 1, 40])
    def test_a_commit_that_was_interrupted(self, source, tmp_path, cut_by):
        """It was never acknowledged: that is said, and is no failure."""
        *before, last = starts(source)
        overwrite(source, last + STATUS, b"c")
        cut(source, source.stat().st_size - cut_by)
        for _ in range(2):
            result = run("import", source, tmp_path / "store", "--verify")
            assert f"{source} at byte {last}: what can be read ends here" in result.stderr
            assert f"transaction {tid_at(source, last).hex()}: its commit was interrupted" in result.stderr
        assert tids(tmp_path / "store") == [tid_at(source, at) for at in before]
        told = json.loads(run("import", source, tmp_path / "store", "--json").stdout)["unread"]
        assert told["interrupted"]

    def test_a_commit_that_goes_on(self, source, tmp_path):
        """By the time the next run looks, it is done: nothing is said, and nothing was missed."""
        *before, last = starts(source)
        overwrite(source, last + STATUS, b"c")
        assert "or is going on" in run("import", source, tmp_path / "store").stderr
        overwrite(source, last + STATUS, b" ")
        assert run("import", source, tmp_path / "store", "--verify").stderr == ""
        assert len(tids(tmp_path / "store")) == len(before) + 1

    def test_a_mark_of_a_commit_amid_the_file_is_damage(self, source, tmp_path):
        begins = starts(source)
        overwrite(source, begins[7] + STATUS, b"c")
        result = run("import", source, tmp_path / "store", code=7)
        assert f"at byte {begins[7]}" in result.stderr
        assert "is marked as not committed, and is not the last" in result.stderr
        assert tids(tmp_path / "store") == [tid_at(source, at) for at in begins[:7]]

    def test_a_whole_file_says_nothing(self, source, tmp_path):
        assert run("import", source, tmp_path / "store", "--verify").stderr == ""
        assert json.loads(run("import", source, tmp_path / "store", "--json").stdout)["unread"] is None

    def test_opened_for_reading_it_shows_the_last_whole_transaction(self, source):
        size = source.stat().st_size
        *_, last = starts(source)
        append(source, b"\0" * 100)
        with objstore.open(f"file://{source}", read_only=True) as db, db.transaction() as connection:
            assert connection.root()["tree"]
            assert db.store.last_tid() == tid_at(source, last)
        assert source.stat().st_size == size + 100


class TestAmidTheFile:
    """With an index ZODB opens a file that is damaged amid it, and passes over what follows; else it refuses."""

    def damaged(self, source, store):
        result = run("import", source, store, code=7)
        assert f"objstore: {source} at byte " in result.stderr
        return result.stderr

    def test_the_header_of_a_transaction(self, source, tmp_path):
        begins = starts(source)
        overwrite(source, begins[7] + 14, b"\1\1")
        told = self.damaged(source, tmp_path / "store")
        assert f"at byte {begins[7]}, tid {tid_at(source, begins[7]).hex()}: what can be read ends here" in told

    def test_a_length_that_leads_beyond_the_end(self, source, tmp_path):
        """What follows is there yet, and the file is not cut off."""
        begins = starts(source)
        overwrite(source, begins[7] + 12, b"\1")
        told = self.damaged(source, tmp_path / "store")
        assert f"at byte {begins[7]}, " in told
        assert "the length of their first transaction is damaged" in told
        assert "ZODB.fsrecover" in told

    def test_the_length_at_the_end_of_a_transaction(self, source, tmp_path):
        begins = starts(source)
        overwrite(source, begins[8] - 1, b"\0")
        assert f"at byte {begins[7]}, " in self.damaged(source, tmp_path / "store")

    def test_the_tid_of_a_transaction(self, source, tmp_path):
        begins = starts(source)
        overwrite(source, begins[7], b"\x05")
        assert f"at byte {begins[8]}, " in self.damaged(source, tmp_path / "store")

    def test_the_header_of_a_record(self, source, tmp_path):
        """ZODB's iterator passes over the record and those behind it, in the middle of a transaction."""
        data, begins = source.read_bytes(), starts(source)
        tid = data[begins[7] : begins[7] + 8]
        record = data.index(tid, begins[7] + 8) - 8
        overwrite(source, record + 24, b"\1")
        told = self.damaged(source, tmp_path / "store")
        assert tid.hex() in told
        assert f"at byte {record}" in told or f"record at byte {record} is damaged" in told

    def test_tids_that_are_not_in_order(self, source, tmp_path):
        begins = starts(source)
        overwrite(source, begins[7], b"\x02")
        assert tid_at(source, begins[6]).hex() in run("import", source, tmp_path / "store", code=7).stderr


class TestRecords:
    def test_a_pickle_that_cannot_be_followed(self, source, tmp_path):
        """The error names source, object and transaction; what is before it is moved, and continued from."""
        data = source.read_bytes()
        *_, broken, _, _ = (at for at in starts(source) if b"persistent.mapping" in data[at : at + 200])
        record = data.index(data[broken : broken + 8], broken + 8) - 8
        good = data[record + 42 : record + 52]
        overwrite(source, record + 42, b"\xff" * 10)
        result = run("import", source, tmp_path / "store", code=7)
        moved = tids(tmp_path / "store")
        oid, tid = (data[at : at + 8].hex() for at in (record, broken))
        assert f"{source}, object {oid}, tid {tid}: the record cannot be followed" in result.stderr
        assert f"{len(moved)} transactions were moved, up to {moved[-1].hex()}; the same comm" in result.stderr
        assert moved[-1].hex() < tid
        overwrite(source, record + 42, good)
        run("import", source, tmp_path / "store", "--verify")
        assert len(tids(tmp_path / "store")) == len(starts(source))

    @pytest.mark.parametrize("place", ["0001000000000000", "ff00000000000000", "0000000000000005"])
    def test_what_points_nowhere(self, source, tmp_path, place):
        """The back pointer of an undo: ZODB meets that in different ways."""
        data = source.read_bytes()
        with closing(FileStorage(str(source), read_only=True)) as storage:
            copies = [(each.tid, record.pos) for each in storage.iterator() for record in each if record.data_txn]
        tid, at = copies[0]
        assert data[at + 34 : at + 42] == bytes(8)
        overwrite(source, at + 42, bytes.fromhex(place))
        assert f"tid {tid.hex()}: " in run("import", source, tmp_path / "store", code=7).stderr


class TestTargets:
    @pytest.mark.parametrize("cut_by", [0, 30])
    def test_an_export_that_was_killed_in_a_commit(self, original, tmp_path, cut_by):
        """ZODB takes the transaction that it removes for the newest, so the next export began behind it."""
        run("import", original, tmp_path / "store")
        back = tmp_path / "back.fs"
        run("export", tmp_path / "store", back)
        overwrite(back, starts(back)[-1] + STATUS, b"c")
        cut(back, back.stat().st_size - cut_by)
        assert "moved 1 transaction," in run("export", tmp_path / "store", back, "--verify").output
        assert datafs.content(back) == datafs.content(original)

    def test_what_is_committed_next_follows_what_is_whole(self, original, tmp_path):
        path = Path(shutil.copy(original, tmp_path / "Data.fs"))
        append(path, b"zzzzzzzz" + b"\0" * 100)
        with objstore.open(f"file://{path}") as db:
            with db.transaction() as connection:
                connection.root()["new"] = 1
            assert db.store.last_tid().hex()[:2] == datafs.content(original)[-1][0].hex()[:2]
        with closing(ZODB.DB(FileStorage(str(path)))) as db, db.transaction() as connection:
            assert connection.root()["new"] == 1


def test_what_the_mover_reports(original, tmp_path):
    path = Path(shutil.copy(original, tmp_path / "Data.fs"))
    append(path, b"\0" * 100)
    with opened_source(str(path)) as source, opened_target(str(tmp_path / "store")) as target:
        unread = Mover(source, target).run().unread
    error = unread.error()
    assert isinstance(error, CorruptionError)
    assert (error.path, error.offset) == (str(path), unread.offset) == (str(path), original.stat().st_size)
