"""`objstore import` and `objstore export`: from ZODB's storages into ours and back, transaction by transaction."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import datafs
import pytest
import transaction
import ZODB
from click.testing import CliRunner
from persistent.mapping import PersistentMapping
from servers import postgresql, why_no_postgresql, zeos
from ZODB.FileStorage import FileStorage
from ZODB.utils import p64

import objstore
from objstore.cli.main import main
from objstore.compat.moving import Mover, moving, opened_source, opened_target
from objstore.compat.moving.sources import source_of
from objstore.contracts import Format
from objstore.errors import MissingAbilityError, OpenError, UsageError
from objstore.ids import NO_TID, ROOT, Oid, Tid, number, parse_tid
from objstore.revisions import Details


def run(*arguments, code=0):
    result = CliRunner().invoke(main, [str(each) for each in arguments], prog_name="objstore")
    assert result.exit_code == code, result.output + repr(result.exception)
    return result


def move(source, target, *, verify=True, history=None, format=None, **how):
    with (
        opened_source(str(source)) as there,
        opened_target(str(target), history=history, format=format) as here,
    ):
        return Mover(there, here, **how).run(verify=verify)


def ends(path):
    """The tids of a file."""
    return [Tid(tid) for tid, *_ in datafs.content(path)]


def moved(source, target, **how):
    """Move, and have it compared."""
    report = move(source, target, **how)
    assert report.differences == []
    return report


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return datafs.make(tmp_path_factory.mktemp("original") / "Data.fs")


@pytest.fixture
def source(original, tmp_path):
    """A file of its own, which may be changed."""
    return Path(shutil.copy(original, tmp_path / "Data.fs"))


class TestRoundTrips:
    @pytest.mark.parametrize("format", list(Format))
    def test_a_file_comes_back_as_it_was(self, original, tmp_path, format):
        """Undo's back pointers, deletions, metadata, what Python 2 wrote: byte for byte the same file."""
        report = moved(original, tmp_path / "store", format=format)
        expected = datafs.content(original)
        assert report.transactions == len(expected)
        assert report.revisions == report.verified == sum(len(records) for *_, records in expected)
        assert moved(tmp_path / "store", tmp_path / "back.fs").transactions == report.transactions
        assert datafs.content(tmp_path / "back.fs") == expected

    def test_a_file_without_repetitions_is_the_same_in_every_byte(self, original, tmp_path):
        moved(original, tmp_path / "first")
        source = tmp_path / "source.fs"
        moved(tmp_path / "first", source)
        moved(source, tmp_path / "store")
        moved(tmp_path / "store", tmp_path / "back.fs")
        assert (tmp_path / "back.fs").read_bytes() == source.read_bytes()

    def test_the_file_has_all_that_is_to_be_tried(self, original):
        content = datafs.content(original)
        records = [record for *_, records in content for record in records]
        assert any(data is None for _, data, _ in records), "no deletion"
        assert any(copied for _, _, copied in records), "no back pointer"
        with closing(FileStorage(str(original), read_only=True)) as storage:
            assert sum(1 for each in storage.iterator() for _ in each) > len(records), "nothing written twice"
        assert {data for _, data, _ in records} >= set(datafs.PYTHON2)
        assert any(user == b"J\xfcrgen" for _, user, *_ in content)
        assert any(b"datetime" in extension for _, _, _, extension, _ in content)

    @pytest.mark.parametrize("history", ["full", "minimal"])
    def test_what_is_current(self, original, tmp_path, history):
        report = moved(original, tmp_path / "store", history=history, current=True)
        newest = {}
        for tid, *_, records in datafs.content(original):
            newest.update({oid: (tid, data) for oid, data, _ in records})
        assert report.revisions == len(newest)
        assert report.verified == sum(data is not None for _, data in newest.values()) < len(newest)
        with objstore.open(tmp_path / "store", read_only=True) as db:
            view = db.store.view()
            for oid, (tid, data) in newest.items():
                if data is not None:
                    assert view.load(oid) == (data, tid)
            view.close()
        moved(tmp_path / "store", tmp_path / "back.fs", current=True)
        there = {}
        for tid, *_, records in datafs.content(tmp_path / "back.fs"):
            there.update({oid: (tid, data) for oid, data, _ in records})
        assert there == newest

    def test_the_application_goes_on(self, original, tmp_path):
        """It opens the store as it opened the file, looks back, undoes, and its new objects get new oids."""
        moved(original, tmp_path / "store")
        used = max(oid for *_, records in datafs.content(original) for oid, *_ in records)
        with objstore.open(tmp_path / "store") as db:
            with db.transaction() as connection:
                tree = connection.root()["tree"]
                assert tree["000007"]["number"] is not None
                new = connection.root()["new"] = PersistentMapping()
            assert number(new._p_oid) > number(Oid(used))
            undone = next(each for each in db.undoLog(0, 500) if each["description"] == "its creation is undone")
            before = parse_tid(undone["id"])
            with closing(db.open(transaction.TransactionManager(), before=before)) as past:
                assert past.root()["created"]["here"] == 1
            assert len(db.history(ROOT, 100)) > 5
            db.undo(db.undoLog(0, 1)[0]["id"])
            transaction.commit()
            with db.transaction() as connection:
                assert "new" not in connection.root()
        back = tmp_path / "back.fs"
        moved(tmp_path / "store", back)
        with closing(ZODB.DB(FileStorage(str(back)))) as db, db.transaction() as connection:
            assert "new" not in connection.root()
            newest = connection.root()["newest"] = PersistentMapping()
            connection.add(newest)
            assert number(newest._p_oid) > number(new._p_oid)

    def test_into_itself(self, source):
        with pytest.raises((UsageError, OpenError)):
            move(source, source)

    def test_between_stores_of_ours(self, original, tmp_path):
        moved(original, tmp_path / "one")
        moved(tmp_path / "one", tmp_path / "two", format="bushy")
        moved(tmp_path / "two", tmp_path / "three", history="minimal")
        moved(tmp_path / "three", tmp_path / "four", history="full")
        moved(tmp_path / "two", tmp_path / "back.fs")
        assert datafs.content(tmp_path / "back.fs") == datafs.content(original)


class TestContinuing:
    def test_only_what_is_missing_is_moved(self, source, tmp_path):
        first = moved(source, tmp_path / "store")
        assert moved(source, tmp_path / "store").transactions == 0
        datafs.go_on(source, 5)
        second = moved(source, tmp_path / "store")
        assert (second.transactions, second.after) == (5, first.upto)
        moved(tmp_path / "store", tmp_path / "back.fs")
        datafs.go_on(source, 3, seed=4)
        moved(source, tmp_path / "store")
        assert moved(tmp_path / "store", tmp_path / "back.fs").transactions == 3
        assert datafs.content(tmp_path / "back.fs") == datafs.content(source)

    @pytest.mark.parametrize("history", ["full", "minimal"])
    def test_of_what_is_current(self, source, tmp_path, history):
        moved(source, tmp_path / "store", history=history, current=True)
        datafs.go_on(source, 5)
        report = moved(source, tmp_path / "store", current=True)
        assert 1 <= report.transactions <= 5

    def test_while_the_source_is_open_elsewhere(self, source, tmp_path):
        """A process that has the file open goes on meanwhile: what it commits comes with the next run."""
        with closing(ZODB.DB(FileStorage(str(source)))) as db:
            moved(source, tmp_path / "store")
            for value in range(3):
                with db.transaction() as connection:
                    connection.root()["value"] = value
                assert moved(source, tmp_path / "store").transactions == 1

    def test_what_comes_during_the_move_is_fetched(self, tmp_path, monkeypatch):
        monkeypatch.setattr(moving, "STEP", 1)
        with objstore.open(tmp_path / "store") as db:
            with db.transaction() as connection:
                connection.root()["value"] = 0

            def progress(*_):
                if db.store.last_tid() == last:
                    with db.transaction() as connection:
                        connection.root()["value"] = 1

            last = db.store.last_tid()
            with opened_target(str(tmp_path / "copy.fs")) as target:
                report = Mover(db.store, target, progress=progress).run()
                assert report.upto == db.store.last_tid() == target.last_tid()
                assert report.upto > last

    def test_a_store_with_something_else_is_refused(self, original, tmp_path):
        with objstore.open(tmp_path / "store") as db, db.transaction() as connection:
            connection.root()["mine"] = 1
        with pytest.raises(UsageError, match=r"is not empty, and ends with transaction .* has not"):
            move(original, tmp_path / "store")
        moved(original, tmp_path / "other")
        with objstore.open(tmp_path / "other") as db, db.transaction() as connection:
            connection.root()["mine"] = 1
        with pytest.raises(UsageError, match="it is no earlier state of it"):
            move(original, tmp_path / "other")

    def test_a_source_that_was_packed_since(self, source, tmp_path):
        first = moved(source, tmp_path / "store")
        datafs.go_on(source, 40)
        with closing(ZODB.DB(FileStorage(str(source)))) as db:
            for value in range(40):
                with db.transaction() as connection:
                    connection.root()["value"] = value
                    connection.root()["tree"]["000001"]["number"] = value
            with db.transaction() as connection:  # all that the last transaction wrote is superseded
                for each in connection.root()["tree"].values():
                    each["all"] = True
                connection.root()["tree"].clear()
                connection.root().clear()
            db.pack()
        with pytest.raises(UsageError, match=f"say --since {first.upto.hex()}"):
            move(source, tmp_path / "store")
        with pytest.raises(UsageError, match="would be missing, or be there twice"):
            move(source, tmp_path / "store", since=parse_tid("1234"))
        report = moved(source, tmp_path / "store", since=first.upto)
        assert report.transactions >= 1
        told = move(source, tmp_path / "store").differences  # what the pack has removed
        assert {each.what for each in told} == {"it is in the target only"}
        with objstore.open(tmp_path / "store") as db, db.transaction() as connection:
            assert dict(connection.root()) == {}

    @pytest.mark.parametrize("current", [False, True])
    def test_what_a_pack_has_left_is_compared(self, source, tmp_path, current):
        """With `since` it is no difference what the target alone has before; all else is."""
        first = moved(source, tmp_path / "store", current=current)
        with closing(ZODB.DB(FileStorage(str(source)))) as db:
            for value in range(2):
                with db.transaction() as connection:
                    connection.root()["tree"]["000001"]["number"] = value
            with db.transaction() as connection:
                connection.root()["tree"]["000001"]["number"] = 3
                del connection.root()["tree"]["000002"]
            db.pack()
        assert moved(source, tmp_path / "store", current=current, since=first.upto).verified
        assert move(source, tmp_path / "store", current=current).differences
        tids = ends(source)
        kept = [tid for tid in tids if tid <= first.upto]
        with opened_source(str(source)) as there, opened_target(str(tmp_path / "short"), history="full") as here:
            for each in source_of(there).transactions(kept[0], tids[-1]):
                pending = here.restore(each.tid, each.details)
                for record in each.records:
                    pending.store(record.oid, NO_TID, record.data, record.references)
                pending.vote()
                pending.finish()
        told = move(source, tmp_path / "short", current=current, since=tids[-1]).differences
        assert any(each.tid == kept[0] and "it is missing in the target" in each.what for each in told)

    @pytest.mark.parametrize("into", ["store", "copy.fs"])
    @pytest.mark.parametrize("after", [1, 30])
    def test_killed_in_the_middle(self, original, tmp_path, into, after):
        script = Path(__file__).parent / "killed_mover.py"
        process = subprocess.Popen(
            [sys.executable, str(script), str(original), str(tmp_path / into)], stdout=subprocess.PIPE, text=True
        )
        with process:
            for _ in range(after):
                assert process.stdout.readline().startswith("moved"), process.wait()
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
        report = moved(original, tmp_path / into)
        assert 0 < report.transactions < len(datafs.content(original))
        if into == "store":
            moved(tmp_path / "store", tmp_path / "copy.fs")
        assert datafs.content(tmp_path / "copy.fs") == datafs.content(original)


class TestVerifying:
    def test_differences_are_told(self, source, tmp_path):
        """A file that has the same transactions, of which three are not the same."""
        moved(source, tmp_path / "store")
        changed, renamed, dropped = (tid for tid, *_ in datafs.content(source)[10:40:10])
        other = tmp_path / "other.fs"
        with closing(FileStorage(str(source), read_only=True)) as old, closing(FileStorage(str(other))) as new:
            for each in old.iterator():
                if each.tid == dropped:
                    continue
                if each.tid == renamed:
                    each.user = b"somebody else"
                new.tpc_begin(each, each.tid, each.status)
                for record in each:
                    data = datafs.PYTHON2[0] if each.tid == changed else record.data
                    new.restore(record.oid, record.tid, data, "", record.data_txn, each)
                new.tpc_vote(each)
                new.tpc_finish(each)
        told = [str(each) for each in move(tmp_path / "store", other).differences]
        assert any(changed.hex() in each and "the record differs" in each for each in told)
        assert f"transaction {renamed.hex()}: what it says of itself differs" in told
        assert f"transaction {dropped.hex()}: it is missing in the target" in told
        result = run("export", tmp_path / "store", other, "--verify", code=7)
        assert f"differs: transaction {renamed.hex()}: what it says of itself differs" in result.output
        told = json.loads(run("export", tmp_path / "store", other, "--verify", "--json", code=7).stdout)
        assert len(told["differences"]) >= 3

    def test_no_more_than_some_are_told(self, source, tmp_path):
        moved(source, tmp_path / "store")
        last = datafs.content(source)[-1][0]
        other = tmp_path / "other.fs"
        with closing(FileStorage(str(source), read_only=True)) as old, closing(FileStorage(str(other))) as new:
            for each in old.iterator(last):
                new.tpc_begin(each, each.tid, each.status)
                for record in each:
                    new.restore(record.oid, record.tid, record.data, "", record.data_txn, each)
                new.tpc_vote(each)
                new.tpc_finish(each)
        assert len(move(tmp_path / "store", other).differences) == 10

    def test_current_ones(self, source, tmp_path):
        moved(source, tmp_path / "store", current=True)
        with opened_source(str(source)) as there, opened_target(str(tmp_path / "store")) as here:
            pending = here.restore(parse_tid("7fff000000000000"), Details())
            pending.store(Oid(p64(5)), ROOT, datafs.PYTHON2[0], None)
            pending.vote()
            pending.finish()
            mover = Mover(there, here, current=True, since=here.last_tid())
            assert mover.run(verify=True).differences


class TestServers:
    """The same to and from servers."""

    @pytest.fixture
    def source(self, tmp_path):
        return datafs.make(tmp_path / "Data.fs", objects=10, transactions=20)

    def url(self, kind):
        if kind == "zeo":
            return zeos().fresh()
        if why_no_postgresql():
            pytest.skip(why_no_postgresql())
        return postgresql().fresh(keep_history=kind == "postgresql")

    @pytest.mark.parametrize("kind", ["zeo", "postgresql"])
    def test_there_and_back(self, source, tmp_path, kind):
        if kind == "zeo":
            with pytest.raises(MissingAbilityError, match="not made of plain values"):
                move(source, self.url(kind))
            self.strip(source)
        url = self.url(kind)
        moved(source, url)
        datafs.go_on(source, 4)
        assert moved(source, url).transactions == 4
        moved(url, tmp_path / "store")
        with objstore.open(url) as db, db.transaction("at the server") as connection:
            connection.root()["new"] = PersistentMapping(here=1)
        assert moved(url, tmp_path / "store").transactions == 1
        with objstore.open(tmp_path / "store") as db, db.transaction() as connection:
            assert connection.root()["new"]["here"] == 1

    def strip(self, path):
        """Take the extensions away."""
        old = path.rename(path.with_suffix(".old"))
        with closing(FileStorage(str(old))) as storage, closing(FileStorage(str(path))) as new:
            for each in storage.iterator():
                each.extension_bytes = b""
                new.tpc_begin(each, each.tid, each.status)
                for record in each:
                    new.restore(record.oid, record.tid, record.data, "", record.data_txn, each)
                new.tpc_vote(each)
                new.tpc_finish(each)

    def test_without_history(self, source, tmp_path):
        url = self.url("nohistory")
        moved(source, url)
        moved(url, tmp_path / "store", history="minimal")
        datafs.go_on(source, 4)
        assert moved(source, url).transactions >= 1
        moved(url, tmp_path / "store")
        moved(source, tmp_path / "other", history="minimal")
        with objstore.open(tmp_path / "store") as one, objstore.open(tmp_path / "other") as two:
            for tid, *_, records in datafs.content(source):
                for oid, *_ in records:
                    views = one.store.view(), two.store.view()
                    found = [self.loaded(view, oid) for view in views]
                    assert found[0] == found[1], (tid, oid)
                    for view in views:
                        view.close()

    def loaded(self, view, oid):
        try:
            return view.load(oid)
        except objstore.POSKeyError:
            return None


class TestCommands:
    def test_import_and_export(self, original, tmp_path):
        result = run("import", original, tmp_path / "store", "--verify", "--format", "chunky")
        assert "moved " in result.output
        assert "all are the same" in result.output
        told = json.loads(run("import", original, tmp_path / "store", "--json").stdout)
        assert (told["transactions"], told["verified"], told["differences"]) == (0, None, [])
        run("export", tmp_path / "store", tmp_path / "new")
        assert datafs.content(tmp_path / "new") == datafs.content(original)
        run("export", tmp_path / "store", f"file://{tmp_path}/again.fs", "--current", "--verify")
        run("check", tmp_path / "store", "--ignore", "unreachable", "--ignore", "dangling")

    def test_what_is_not_there(self, tmp_path):
        run("import", tmp_path / "nothing.fs", tmp_path / "store", code=3)
        run("import", tmp_path / "nothing", tmp_path / "store", code=3)
        run("import", "nonsense://here", tmp_path / "store", code=2)
        run("export", tmp_path / "nothing", tmp_path / "new.fs", code=3)
        run("import", "", tmp_path / "store", code=2)
        assert not os.path.exists(tmp_path / "nothing.fs")

    @pytest.mark.parametrize("url", ["nonsense://x", "nonsense://me@x?a=b", "zeo://127.0.0.1:1?wait_timeout=x"])
    def test_errors_show_a_url_as_it_was_written(self, tmp_path, url):
        for blobs in ((), ("--blobs", tmp_path)):
            result = run("import", url.replace("me@", "me:secret@"), tmp_path / "store", *blobs, code=2)
            assert url in result.stderr
            assert not {"read_only", "blob", "secret"} & set(re.findall(r"[a-z_]+", result.stderr))

    def test_history_and_format_are_for_stores_of_ours(self, original, tmp_path):
        result = run("import", original, tmp_path / "other.fs", "--history", "full", code=2)
        assert "is no store of objstore's own" in result.output

    def test_without_zodb(self, original, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "objstore.compat.moving", None)
        result = run("import", original, tmp_path / "store", code=3)
        assert "install objstore[zodb]" in result.output


@pytest.mark.long
def test_a_large_history(tmp_path):
    """100,000 objects, and more revisions. Undos are few: FileStorage takes long to restore one."""
    source = datafs.make(tmp_path / "Data.fs", objects=100_000, transactions=20_000, undo_every=500)
    moved(source, tmp_path / "store")
    moved(tmp_path / "store", tmp_path / "back.fs")
    assert datafs.content(tmp_path / "back.fs") == datafs.content(source)
