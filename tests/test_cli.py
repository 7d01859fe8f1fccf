"""The commands, one by one: what they print, what they end with, and that those that look change nothing."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import persistent
import pytest
from click.testing import CliRunner, Result
from persistent.mapping import PersistentMapping

import objstore
from objstore.cli.main import Commands, main
from objstore.cli.output import ProgressLine, count_text, size_text, time_text
from objstore.cli.parameters import upto
from objstore.errors import ConflictError
from objstore.ids import NO_TID, ROOT, Oid, Tid, number, oid_from, parse_tid, tid_at, tid_from
from objstore.revisions import Details
from objstore.upkeep.check import KINDS

COMMANDS = ["init", "info", "readers", "log", "show", "cat", "history", "classes", "find", "shell"]
COMMANDS += ["undo", "pack", "copy", "import", "export", "check", "serve"]
LOOKING = [["info", "--count"], ["log"], ["show", "0"], ["cat", "0", "--hex"], ["history", "0"], ["classes"]]
LOOKING += [["find", "*"], ["shell", "-c", "print(len(root()))"], ["check"]]
GONE = "gone_from_here"


class Counter(persistent.Persistent):
    """Merges changes, and refuses to sink below zero."""

    def __init__(self) -> None:
        self.value = 0

    def _p_resolveConflict(self, old, committed, new):
        value = committed["value"] + new["value"] - old["value"]
        if value < 0:
            raise ConflictError(ROOT, NO_TID, NO_TID)
        return {"value": value}


@dataclass(frozen=True)
class Sample:
    """A store, and the tids of its transactions, oldest first."""

    path: str
    tids: list[Tid]
    gone: Oid
    counter: Oid


def run(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(main, [str(each) for each in arguments], prog_name="objstore")
    assert result.exit_code == code, result.output + repr(result.exception)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


def json_lines(*arguments: object) -> list[dict[str, object]]:
    return [json.loads(line) for line in run(*arguments, "--json").stdout.splitlines()]


@contextlib.contextmanager
def missing_class() -> Iterator[type]:
    """A persistent class whose module is there only meanwhile."""
    module = types.ModuleType(GONE)
    sys.modules[GONE] = module
    module.Thing = type("Thing", (persistent.Persistent,), {"__module__": GONE})
    try:
        yield module.Thing
    finally:
        del sys.modules[GONE]


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    path = str(tmp_path / "store")
    tids = []
    with objstore.open(path) as db, missing_class() as Thing:
        for step, user in enumerate(("ada", "ben", "ada", "ben")):
            with db.transaction(note=f"step {step}") as connection:
                connection.transaction_manager.get().user = user
                root = connection.root()
                if step == 0:
                    root["thing"] = Thing()
                    root["counter"] = Counter()
                    root["lost"] = PersistentMapping(big="x" * 5000)
                root["thing"].size = step
                root["counter"].value += 10
                if step == 3:
                    del root["lost"]
            tids.append(db.lastTransaction())
        with db.transaction() as connection:
            gone, counter = connection.root()["thing"]._p_oid, connection.root()["counter"]._p_oid
    return Sample(path, tids, gone, counter)


@pytest.fixture
def minimal(tmp_path: Path) -> str:
    path = str(tmp_path / "minimal")
    with objstore.open(path, history="minimal") as db, db.transaction(note="only") as connection:
        connection.root()["a"] = PersistentMapping()
    return path


def tree(top: str) -> dict[str, tuple[int, int, bytes]]:
    """All that can be seen of a directory: names, times, sizes, contents; but for the memory that processes
    share.
    """
    found = {}
    for path, _, names in os.walk(top):
        found[path] = (os.stat(path).st_mtime_ns, 0, b"")
        for name in set(names) - {"board"}:
            file = Path(path, name)
            found[str(file)] = (file.stat().st_mtime_ns, file.stat().st_ino, file.read_bytes())
    return found


# --- all commands ------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example_and_the_exit_codes(command):
    text = run(command, "--help").stdout
    assert f"Example: objstore {command} " in text
    assert "Exit codes: 0" in " ".join(text.split())


def test_the_reference_page_is_complete():
    page = Path(__file__).parent.parent.joinpath("docs/reference/cli.md").read_text()
    for command in COMMANDS:
        assert f"\n## {command}\n" in page
        for parameter in main.commands[command].params:
            for name in (parameter.opts[0], *parameter.opts[-1:]) if isinstance(parameter, click.Option) else ():
                assert name in page, f"{command} {name}"
    for kind, meaning in KINDS.items():
        assert f"| `{kind}` |" in page, meaning


def test_the_commands_are_listed_in_the_order_of_their_use():
    text = run("--help").stdout
    listed = [line.split()[0] for line in text[text.index("Commands:") :].splitlines()[1:]]
    assert listed == COMMANDS
    assert "..." not in text[text.index("Commands:") :]


def test_the_version():
    assert run("--version").stdout.startswith("objstore ")


@pytest.mark.parametrize(
    "arguments",
    [
        ["frobnicate"],
        ["info"],
        ["show", "STORE", "xyz"],
        ["show", "STORE", "00000000000000000"],
        ["show", "STORE", "0", "--at", "yesterday"],
        ["show", "STORE", "0", "--at", "0001-01-01"],
        ["log", "STORE", "-n", "-1"],
        ["undo", "STORE"],
        ["undo", "STORE", "-"],
        ["pack", "STORE", "--days", "-1"],
        ["init", "STORE", "--format", "round"],
        ["info", ""],
        ["init", ""],
        ["info", "objstore://host/path"],
        ["info", "objstore:///path?colour=red"],
    ],
)
def test_a_command_line_that_does_not_fit(arguments):
    result = run(*arguments, code=2)
    assert result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("command", [*LOOKING, ["undo", "12"], ["pack", "--days", "0"]], ids=lambda each: each[0])
def test_a_missing_store_is_never_created(command, tmp_path):
    """ZODB's storages created a file when asked to look at one that was not there."""
    missing = tmp_path / "missing"
    result = run(command[0], missing, *command[1:], code=3)
    assert str(missing) in result.stderr
    assert "objstore init" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", [*LOOKING, ["undo", "12"], ["pack", "--days", "0"]], ids=lambda each: each[0])
def test_a_directory_that_is_no_store_is_left_alone(command, tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    before = tree(str(tmp_path))
    assert str(tmp_path) in run(command[0], tmp_path, *command[1:], code=3).stderr
    assert tree(str(tmp_path)) == before


@pytest.mark.parametrize("command", LOOKING, ids=lambda each: each[0])
def test_looking_changes_nothing(command, sample):
    """ZODB 5.2.1: a read-only open created a file."""
    before = tree(sample.path)
    assert run(command[0], sample.path, *command[1:]).stdout
    assert tree(sample.path) == before


@pytest.mark.parametrize("command", LOOKING, ids=lambda each: each[0])
def test_looking_at_what_still_waits_in_the_journal(command, tmp_path):
    path = str(tmp_path / "store")
    with objstore.open(path, background=False, flush_on_close=False) as db, db.transaction() as connection:
        connection.root()["a"] = 1
    before = tree(path)
    assert run(command[0], path, *command[1:]).stdout
    assert tree(path) == before


@pytest.mark.parametrize("command", [*LOOKING, ["pack", "--days", "0"]], ids=lambda each: each[0])
def test_a_store_that_is_open_elsewhere(command, sample):
    with objstore.open(sample.path, exclusive=True):
        result = run(command[0], sample.path, *command[1:], code=3)
    assert str(os.getpid()) in result.stderr


def test_a_store_may_be_named_by_a_url(sample):
    assert run("log", f"objstore://{sample.path}").stdout == run("log", sample.path).stdout
    assert run("info", f"objstore://{sample.path}?history=minimal", code=3).stderr


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (OSError(28, "No space left on device", "/store/journal"), 6, "/store/journal: No space left on device"),
        (OSError("odd"), 6, "odd"),
        (ConflictError(ROOT, NO_TID, NO_TID), 4, "0000000000000000"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_errors_become_messages_and_exit_codes(error, code, text):
    @click.group(cls=Commands)
    def group():
        pass

    @group.command()
    def fail():
        raise error

    result = CliRunner().invoke(group, ["fail"])
    assert result.exit_code == code
    assert text in result.stderr
    assert "Traceback" not in result.output


# --- init and info -----------------------------------------------------------------------------------


@pytest.mark.parametrize("history", ["full", "minimal"])
def test_init_creates_a_store(history, tmp_path):
    path = str(tmp_path / "store")
    (made,) = json_lines("init", path, "--history", history, "--format", "lawn")
    (facts,) = json_lines("info", path, "--count")
    assert made == {"path": path, "history": history, "format": "lawn", "identity": facts["identity"]}
    assert facts["history"] == history
    assert facts["format"] == "lawn"
    assert facts["last_transaction"] is facts["packed_upto"] is None
    assert facts["objects"] == facts["revisions"] == 0
    with objstore.open(path, history=history, format="lawn") as db, db.transaction() as connection:
        connection.root()["a"] = 1
    assert run("check", path)


def test_init_leaves_an_existing_store_as_it_is(sample):
    before = tree(sample.path)
    assert "already" in run("init", sample.path, code=3).stderr
    assert "already" in run("init", sample.path, "--history", "minimal", code=3).stderr
    assert tree(sample.path) == before


def test_init_takes_history_and_format_from_a_url(tmp_path):
    (made,) = json_lines("init", f"objstore://{tmp_path}/s?history=minimal", "--format", "flat")
    assert (made["path"], made["history"], made["format"]) == (f"{tmp_path}/s", "minimal", "flat")
    twice = run("init", f"objstore://{tmp_path}/t?history=minimal", "--history", "full", code=2)
    assert "given twice" in twice.stderr
    told = " ".join(run("init", "--help").stdout.split())
    assert "[default: full]" in told
    assert "[default: segmented]" in told


def test_init_creates_nothing_among_other_files(tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    assert "the directory is not empty" in run("init", tmp_path, code=3).stderr
    assert [each.name for each in tmp_path.iterdir()] == ["letter.txt"]
    assert "make it first" in run("init", tmp_path / "no" / "where", code=3).stderr


def test_info_tells_how_a_store_stands(sample):
    (facts,) = json_lines("info", sample.path, "--count")
    last = {"tid": sample.tids[-1].hex(), "time": time_text(sample.tids[-1])}
    assert facts["path"] == sample.path
    assert facts["last_transaction"] == facts["flushed_upto"] == last
    assert facts["journal"] == {"transactions": 0, "bytes": 0}
    assert facts["objects"] == 4
    assert facts["revisions"] == 3 + 4 + 4 + 1
    assert facts["disk"]["bytes"] > 10_000
    assert facts["disk"]["files"] == sum(len(names) for _, _, names in os.walk(sample.path))
    text = run("info", sample.path).stdout
    assert f"last transaction  {sample.tids[-1].hex()}" in text
    assert "objects" not in text
    assert "disk" not in run("info", sample.path, "--quick").stdout


def test_info_counts_what_waits_in_the_journal(tmp_path):
    path = str(tmp_path / "store")
    with objstore.open(path) as db, db.transaction() as connection:
        connection.root()["old"] = PersistentMapping()
    with objstore.open(path, background=False, flush_on_close=False) as db:
        for value in range(3):
            with db.transaction() as connection:
                connection.root()["old"]["value"] = value
                connection.root()[str(value)] = PersistentMapping()
    (facts,) = json_lines("info", path, "--count")
    assert facts["journal"]["transactions"] == 3
    assert facts["journal"]["bytes"] > 0
    assert facts["objects"] == 2 + 3
    assert facts["revisions"] == 2 + 1 + 3 * 3


# --- log and history ---------------------------------------------------------------------------------


def test_log_lists_transactions_newest_first(sample):
    listed = json_lines("log", sample.path)
    assert [each["tid"] for each in listed[:4]] == [tid.hex() for tid in reversed(sample.tids)]
    assert listed[-1]["description"] == "initial database creation"
    assert listed[0] == {
        "tid": sample.tids[3].hex(),
        "time": time_text(sample.tids[3]),
        "user": "ben",
        "description": "step 3",
        "extension": {},
        "objects": 3,
    }
    lines = run("log", sample.path).stdout.splitlines()
    assert lines[0] == f"{sample.tids[3].hex()}  {time_text(sample.tids[3])}  3 objects  ben  step 3"


def test_log_can_be_narrowed(sample):
    def steps(*options: object) -> list[object]:
        return [each["description"] for each in json_lines("log", sample.path, *options)]

    assert steps("-n", 2) == ["step 3", "step 2"]
    assert steps("-n", 0) == []
    assert steps("--user", "ada") == ["step 2", "step 0"]
    assert steps("--user", "ada", "-n", 1) == ["step 2"]
    assert steps("--user", "nobody") == []
    # The times that are shown name the transactions that they are shown for.
    first, second = time_text(sample.tids[1]), time_text(sample.tids[2])
    assert steps("--since", first, "--until", second) in (["step 2", "step 1"], ["step 2"])
    assert steps("--until", second)[0] == "step 2"
    assert steps("--since", "2999-01-01") == []
    assert steps("--until", "1999-01-01") == []
    assert len(steps("--since", "1999-01-01", "--until", "2999-01-01T00:00:00+01:00")) == 5


def test_log_lists_oids_on_request(sample):
    (listed,) = json_lines("log", sample.path, "--oids", "-n", 1)
    assert sorted(listed["oids"]) == sorted([ROOT.hex(), sample.gone.hex(), sample.counter.hex()])
    assert run("log", sample.path, "--oids", "-n", 1).stdout.splitlines()[1:] == [
        f"    {oid}" for oid in listed["oids"]
    ]


def test_log_of_a_minimal_store_says_what_it_lacks(minimal):
    result = run("log", minimal)
    assert "Minimal" in result.stderr


def test_text_from_a_store_does_not_reach_a_terminal_raw(tmp_path):
    path = str(tmp_path / "store")
    with objstore.open(path) as db, db.transaction(note="\x1b[2Jbell\x07\nline") as connection:
        connection.root()["a"] = "\x1b[2J"
    for command in ("log", "history", "show"):
        result = run(command, path, *(["0"] if command != "log" else []))
        assert "\x1b" not in result.stdout
        assert "\x07" not in result.stdout
    assert json_lines("log", path)[0]["description"] == "\x1b[2Jbell\x07\nline"


def test_an_extension_that_is_a_pickle_is_not_executed(tmp_path):
    path = str(tmp_path / "store")
    with objstore.open(path) as db:
        view = db.store.view()
        pending = db.store.begin(Details(extension=b"cos\nsystem\n(U\x04truet."), view, None)
        pending.store(oid_from(77), NO_TID, b"cx\nC\n.N.", b"")
        pending.vote()
        pending.finish()
        view.close()
    assert json_lines("log", path)[0]["extension"] == {"undecoded": b"cos\nsystem\n(U\x04truet.".hex()}


def test_history_lists_revisions_newest_first(sample):
    listed = json_lines("history", sample.path, sample.counter.hex())
    assert [each["tid"] for each in listed] == [tid.hex() for tid in reversed(sample.tids)]
    assert [each["previous"] for each in listed] == [*(each["tid"] for each in listed[1:]), None]
    assert listed[0]["user"] == "ben"
    assert listed[0]["description"] == "step 3"
    assert not any(each["deleted"] or each["copied_from"] for each in listed)
    assert len(run("history", sample.path, sample.counter.hex(), "-n", 2).stdout.splitlines()) == 2


@pytest.mark.parametrize("command", ["show", "cat", "history"])
def test_an_object_that_is_not_there(command, sample):
    assert "00000000000000ff" in run(command, sample.path, "ff", code=5).stderr


# --- show and cat ------------------------------------------------------------------------------------


def test_show_tells_of_an_object_whose_class_is_missing(sample):
    (shown,) = json_lines("show", sample.path, sample.gone.hex())
    assert shown["class"] == f"{GONE}.Thing"
    assert shown["state"] == {"size": 3}
    assert shown["serial"] == sample.tids[3].hex()
    assert shown["previous"] == sample.tids[2].hex()
    text = run("show", sample.path, sample.gone.hex()).stdout
    assert f"class     {GONE}.Thing" in text
    assert "{'size': 3}" in text
    assert GONE not in sys.modules


def test_show_tells_references(sample):
    (shown,) = json_lines("show", sample.path, 0)
    assert {"$reference": sample.gone.hex(), "class": f"{GONE}.Thing"} in shown["references"]
    assert shown["class"] == "persistent.mapping.PersistentMapping"
    assert f"<reference {sample.gone.hex()} {GONE}.Thing>" in run("show", sample.path, 0).stdout


def test_show_looks_into_the_past(sample):
    def size(*options: object) -> object:
        return json_lines("show", sample.path, sample.gone.hex(), *options)[0]["state"]["size"]

    for step, tid in enumerate(sample.tids):
        assert size("--tid", tid.hex()) == step
        assert size("--at", time_text(tid)) >= step
        assert size("--tid", tid_from(number(tid) + 1).hex()) == step
    assert run("show", sample.path, 0, "--tid", "1", "--at", "2024-01-01", code=2).stderr
    assert run("show", sample.path, sample.gone.hex(), "--at", "1999-01-01", code=5).stderr


def test_show_prints_the_opcodes(sample):
    lines = run("show", sample.path, sample.gone.hex(), "--disassemble").stdout.splitlines()
    assert lines[0] == "class:"
    assert any(f"GLOBAL '{GONE}.Thing'" in line for line in lines)
    assert json_lines("show", sample.path, sample.gone.hex(), "--disassemble")[0]["disassembly"] == lines


def store_record(path: str, data: bytes) -> str:
    """Store these bytes as the record of object 77."""
    with objstore.open(path) as db:
        view = db.store.view()
        pending = db.store.begin(Details(), view, None)
        pending.store(oid_from(77), NO_TID, data, b"")
        pending.vote()
        pending.finish()
        view.close()
    return oid_from(77).hex()


def test_show_never_executes_a_record(tmp_path):
    path, proof = str(tmp_path / "store"), tmp_path / "proof"
    command = f"touch {proof}".encode()
    oid = store_record(path, b"cx\nC\n.cos\nsystem\nU" + bytes([len(command)]) + command + b"\x85R.")
    (shown,) = json_lines("show", path, oid)
    assert shown["state"] == {"$object": "os.system", "arguments": [command.decode()]}
    for options in ([], ["--disassemble"]):
        assert "os.system" in run("show", path, oid, *options).stdout
    assert run("cat", path, oid).stdout_bytes
    assert run("history", path, oid).stdout
    assert not proof.exists()


def test_show_of_a_record_that_makes_no_sense(tmp_path):
    path = str(tmp_path / "store")
    oid = store_record(path, b"cx\nC\n.K\x05K")
    result = run("show", path, oid, code=2)
    assert f"object  {oid}" in result.stdout
    assert "--disassemble" in result.stderr
    assert "byte 8" in result.stderr
    assert "BININT1 5" in run("show", path, oid, "--disassemble", code=2).stdout
    assert run("cat", path, oid).stdout_bytes == b"cx\nC\n.K\x05K"


def test_show_stops_at_its_limit(tmp_path):
    path = str(tmp_path / "store")
    with objstore.open(path) as db, db.transaction() as connection:
        connection.root()["many"] = list(range(5000))
    assert "more)" in run("show", path, 0, "--limit", 100).stdout
    assert "4999" in run("show", path, 0).stdout


def test_cat_writes_the_record(sample):
    with objstore.open(sample.path, read_only=True) as db:
        data = db.store.revision(sample.gone, sample.tids[3]).data
        older = db.store.revision(sample.gone, sample.tids[1]).data
    assert run("cat", sample.path, sample.gone.hex()).stdout_bytes == data
    assert run("cat", sample.path, sample.gone.hex(), "--tid", sample.tids[1].hex()).stdout_bytes == older
    state = run("cat", sample.path, sample.gone.hex(), "--state").stdout_bytes
    assert data.endswith(state)
    assert 0 < len(state) < len(data)
    assert state.startswith(b"\x80\x03")
    lines = run("cat", sample.path, sample.gone.hex(), "--hex").stdout.splitlines()
    assert bytes.fromhex("".join(line[10:49] for line in lines)) == data
    assert GONE[:6] in lines[0]


def test_a_revision_from_before_the_last_pack(sample):
    """What a pack keeps can be shown by its tid, though the past around it is gone."""
    run("pack", sample.path, "--days", 0)
    with objstore.open(sample.path) as db, db.transaction() as connection:
        connection.root()["more"] = 1
    run("pack", sample.path, "--days", 0)
    assert json_lines("show", sample.path, sample.gone.hex(), "--tid", sample.tids[3].hex())[0]["state"] == {
        "size": 3
    }
    assert run("show", sample.path, sample.gone.hex(), "--tid", sample.tids[0].hex(), code=2).stderr


# --- undo --------------------------------------------------------------------------------------------


def test_undo_takes_a_transaction_back(sample):
    (done,) = json_lines("undo", sample.path, sample.tids[3].hex(), "-m", "not so", "--user", "cleo")
    assert done["undone"] == [sample.tids[3].hex()]
    assert set(done["oids"]) == {ROOT.hex(), sample.gone.hex(), sample.counter.hex()}
    assert json_lines("show", sample.path, sample.gone.hex())[0]["state"] == {"size": 2}
    newest = json_lines("history", sample.path, sample.gone.hex())[0]
    assert newest["tid"] == done["tid"]
    assert newest["copied_from"] == sample.tids[2].hex()
    assert (newest["user"], newest["description"]) == ("cleo", "not so")
    assert f"undone to {sample.tids[2].hex()}" in run("history", sample.path, sample.gone.hex()).stdout
    assert run("check", sample.path, "--ignore", "unreachable").stdout


def test_undo_of_several_at_once(sample):
    (done,) = json_lines("undo", sample.path, *(tid.hex() for tid in sample.tids[1:]))
    assert json_lines("show", sample.path, sample.gone.hex())[0]["state"] == {"size": 0}
    assert json_lines("log", sample.path)[0]["tid"] == done["tid"]
    assert sample.tids[3].hex() in json_lines("log", sample.path)[0]["description"]


def test_undo_that_later_changes_stand_against(sample):
    before = run("log", sample.path).stdout
    result = run("undo", sample.path, sample.tids[1].hex(), code=4)
    assert sample.gone.hex() in result.stderr or "Thing" in result.stderr
    assert run("log", sample.path).stdout == before


def test_undo_merges_by_the_rule_of_the_class(tmp_path):
    path = str(tmp_path / "store")
    with objstore.open(path) as db:
        with db.transaction() as connection:
            connection.root()["counter"] = Counter()
        for amount in (5, 7):
            with db.transaction() as connection:
                connection.root()["counter"].value += amount
                oid = connection.root()["counter"]._p_oid
    second = json_lines("history", path, oid.hex())[1]["tid"]
    run("undo", path, second)
    assert json_lines("show", path, oid.hex())[0]["state"] == {"value": 7}


def test_undo_of_what_is_not_there(sample, minimal):
    assert "no such transaction" in run("undo", sample.path, "12", code=4).stderr
    assert "no history" in run("undo", minimal, "12", code=2).stderr


# --- pack --------------------------------------------------------------------------------------------


def test_a_pack_can_leave_the_machine_to_others(sample):
    (done,) = json_lines("pack", sample.path, "--days", 0, "--throttle", 0.5)
    assert done["objects_removed"] == 1
    for share in (0, 1.5, "much"):
        assert "--throttle" in run("pack", sample.path, "--days", 0, "--throttle", share, code=2).stderr


def test_pack_says_what_would_go_and_then_drops_it(sample):
    (dry,) = json_lines("pack", sample.path, "--days", 0, "--dry-run")
    before = tree(f"{sample.path}/A")
    assert tree(f"{sample.path}/A") == before
    assert "would remove" in run("pack", sample.path, "--days", 0, "--dry-run").stdout
    (done,) = json_lines("pack", sample.path, "--days", 0)
    assert dry["dry_run"] is True
    assert done["dry_run"] is False
    names = ["objects_removed", "revisions_removed", "transactions_removed", "objects_kept"]
    assert [dry[name] for name in names] == [done[name] for name in names]
    assert done["objects_removed"] == 1
    assert done["objects_kept"] == 3
    assert run("check", sample.path).stdout == "nothing found\n"
    (facts,) = json_lines("info", sample.path, "--count")
    assert facts["packed_upto"] is not None
    assert facts["objects"] == 3
    assert 3 <= facts["revisions"] < 12
    assert "removed 0 objects" in run("pack", sample.path, "--days", 0).stdout


def test_pack_keeps_what_is_younger(sample):
    (done,) = json_lines("pack", sample.path, "--days", 1)
    assert done["objects_removed"] == done["revisions_removed"] == 0
    (done,) = json_lines("pack", sample.path, "--time", "1999-12-31")
    assert done["objects_removed"] == done["revisions_removed"] == 0
    (done,) = json_lines("pack", sample.path, "--days", 1e9)
    assert done["objects_removed"] == done["revisions_removed"] == 0
    assert len(json_lines("log", sample.path)) == 5


def test_pack_of_a_full_store_wants_to_know_how_much_history_to_keep(sample, minimal):
    assert "--days" in run("pack", sample.path, code=2).stderr
    assert run("pack", sample.path, "--days", 1, "--time", "2024-01-01", code=2).stderr
    assert len(json_lines("log", sample.path)) == 5
    assert json_lines("pack", minimal)[0]["objects_kept"] == 2


# --- check -------------------------------------------------------------------------------------------


def damage(path: str) -> Path:
    """Change a byte in the newest file of the home that is large enough."""
    files = [Path(top, name) for top, _, names in os.walk(f"{path}/A") for name in names]
    file = max(files, key=lambda each: each.stat().st_size)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0xFF
    file.write_bytes(data)
    return file


def test_check_of_a_sound_store(sample):
    assert run("check", sample.path, "--ignore", "unreachable").stdout == "nothing found\n"
    assert run("check", sample.path, "--ignore", "unreachable", "--json").stdout == ""


def test_check_tells_every_finding_and_exits_with_1(sample):
    file = damage(sample.path)
    result = run("check", sample.path, code=1)
    assert str(file) in result.stdout
    assert "finding" in result.stdout.splitlines()[-1]
    listed = [json.loads(line) for line in run("check", sample.path, "--json", code=1).stdout.splitlines()]
    assert any(each["path"] == str(file) for each in listed)
    assert {"kind", "path", "message", "oid", "tid"} == set(listed[0])
    kinds = {each["kind"] for each in listed}
    ignore = [word for kind in kinds for word in ("--ignore", kind)]
    assert run("check", sample.path, *ignore).stdout == "nothing found\n"
    assert run("check", sample.path, "--ignore", "luck", code=2).stderr


def test_settings_that_are_none(sample):
    Path(sample.path, "config", "settings.toml").write_bytes(b"\xff[")
    for command in LOOKING:
        assert "settings.toml" in run(command[0], sample.path, *command[1:], code=7).stderr


def test_a_damaged_journal_is_refused_by_all_but_check(tmp_path):
    path = str(tmp_path / "store")
    with objstore.open(path, background=False, flush_on_close=False) as db:
        for value in range(3):
            with db.transaction() as connection:
                connection.root()["a"] = value
    file = sorted(Path(path, "journal").glob("*_done/t"))[1]
    data = bytearray(file.read_bytes())
    data[10] ^= 0xFF  # within the header
    file.write_bytes(data)
    for command in LOOKING[:-1]:
        assert str(file) in run(command[0], path, *command[1:], code=7).stderr
    assert str(file) in run("check", path, code=1).stdout


def test_damage_ends_a_command_with_its_own_exit_code(sample):
    with objstore.open(sample.path, read_only=True) as db:
        data = db.store.revision(sample.gone, sample.tids[3]).data
    for top, _, names in os.walk(f"{sample.path}/A"):
        for name in names:
            file = Path(top, name)
            if data in (content := file.read_bytes()):
                file.write_bytes(content.replace(data, data[:-1] + b"!"))
    result = run("cat", sample.path, sample.gone.hex(), code=7)
    assert "checksum" in result.stderr


# --- parts -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (1023, "1,023 bytes"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (1023 * 1024, "1023 KiB"),
        (5 * 2**30, "5 GiB"),
        (7000 * 2**40, "7000 TiB"),
    ],
)
def test_sizes(size, text):
    assert size_text(size) == text


def test_counts():
    assert count_text(1, "object") == "1 object"
    assert count_text(0, "object") == "0 objects"
    assert count_text(12345, "entry", "entries") == "12,345 entries"


def test_a_shown_time_includes_the_transaction_that_it_was_shown_for():
    start = tid_at(datetime(2024, 2, 29, 23, 59, 59, 999_990, tzinfo=UTC))
    for step in range(500):
        tid = tid_from(number(start) + step * 977)
        bound = upto(datetime.fromisoformat(time_text(tid)))
        assert tid <= bound
        assert bound <= upto(datetime.fromisoformat(time_text(tid)) + timedelta(microseconds=1))
    assert parse_tid(start.hex()) == start


class Terminal:
    """A stream that says it is a terminal, or that it is none."""

    def __init__(self, terminal: bool) -> None:
        self.terminal = terminal
        self.text = ""

    def isatty(self) -> bool:
        return self.terminal

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None:
        pass


def test_progress_is_drawn_on_terminals_only():
    stream = Terminal(False)
    with ProgressLine(stream) as progress:
        progress("marking", 1, 2)
    assert stream.text == ""


def test_progress_is_drawn_now_and_then_and_taken_away():
    stream, now = Terminal(True), [0.0]
    with ProgressLine(stream, clock=lambda: now[0]) as progress:
        for done in range(1000):
            progress("marking", done, 1000)
            now[0] += 0.001
        progress("removing", 5, None)
        progress("removing", 6, None)
    assert 10 <= stream.text.count("marking") <= 12
    assert stream.text.count("removing: 5") == 1
    assert "removing: 6" not in stream.text
    assert "50% 500 of 1,000" in stream.text
    assert stream.text.endswith("\r\x1b[K")
    assert all(len(drawn) < 90 for drawn in stream.text.split("\r"))
