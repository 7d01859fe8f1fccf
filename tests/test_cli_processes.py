"""The command as a process: pipes that break, terminals, Ctrl-C in the middle of a pack."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from persistent.mapping import PersistentMapping

import objstore

TOP = str(Path(__file__).parent.parent)
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join([TOP, os.environ.get("PYTHONPATH", "")]), "TERM": "dumb"}
OBJSTORE = [sys.executable, "-m", "objstore"]


def run(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*OBJSTORE, *arguments],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **options,
    )


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store of 300 transactions, and nearly as many objects that are not reachable any more."""
    path = str(tmp_path_factory.mktemp("large") / "store")
    with objstore.open(path, format="chunky") as db:
        for step in range(300):
            with db.transaction(note=f"step {step} " + "x" * 300) as connection:
                connection.root()["thing"] = PersistentMapping(step=step)
    return path


@pytest.fixture
def copied(large: str, tmp_path: Path) -> str:
    path = str(tmp_path / "store")
    subprocess.run(["cp", "-a", large, path], check=True)
    return path


def on_terminal(*arguments: str, stdout: bool = False) -> tuple[int, str, str]:
    """Run with a pseudo terminal as stderr (or stdout): exit code, what it showed, the other stream's text."""
    master, slave = pty.openpty()
    streams = (
        {"stdout": slave, "stderr": subprocess.PIPE} if stdout else {"stdout": subprocess.PIPE, "stderr": slave}
    )
    process = subprocess.Popen([*OBJSTORE, *arguments], env=ENVIRONMENT, **streams)
    os.close(slave)
    shown = b""
    while True:
        try:
            part = os.read(master, 65536)
        except OSError:  # Linux says so when the last writer is gone
            break
        if not part:
            break
        shown += part
    other = process.communicate(timeout=60)[1 if stdout else 0]
    os.close(master)
    return process.returncode, shown.decode(errors="replace"), other.decode()


def test_exit_codes_of_the_process(copied: str, tmp_path: Path) -> None:
    assert run("info", copied).returncode == 0
    assert run("frobnicate").returncode == 2
    assert run("info", str(tmp_path / "none")).returncode == 3
    assert run("show", copied, "ffff").returncode == 5
    assert run("check", copied).returncode == 0
    Path(copied, "A", "letter.txt").write_text("dear")
    assert run("check", copied).returncode == 1
    assert run("check", copied, "--ignore", "foreign").returncode == 0


def test_commands_work_beside_a_process_that_writes(tmp_path: Path) -> None:
    """As the reference says, for reading and for writing; not beside one that has the store for itself."""
    path = str(tmp_path / "store")
    with objstore.open(path) as db:
        with db.transaction() as connection:
            connection.root.number = 1
        for arguments in (
            ["find", path, "persistent.*"],
            ["classes", path],
            ["shell", path, "-c", "print(root.number)"],
            ["copy", path, str(tmp_path / "copy")],
            ["check", path],
            ["shell", path, "--write", "-c", "root.number = 2; transaction.commit()"],
        ):
            done = run(*arguments)
            assert done.returncode == 0, done.stderr
        with db.transaction() as connection:
            assert connection.root.number == 2
    with objstore.open(path, exclusive=True):
        for command in ("find", "classes"):
            assert run(command, path, *(["*"] if command == "find" else [])).returncode == 3


def test_the_script_and_the_module_are_one() -> None:
    script = Path(sys.executable).with_name("objstore")
    if not script.exists():
        pytest.skip("objstore is not installed beside this Python")
    shown = subprocess.run([script, "--help"], env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert shown.stdout == run("--help").stdout


@pytest.mark.parametrize("command", [["log"], ["log", "--json"], ["history", "0"], ["show", "0", "--disassemble"]])
def test_a_reader_that_goes_away_early(command: list[str], large: str) -> None:
    process = subprocess.Popen(
        [*OBJSTORE, command[0], large, *command[1:]],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.close()
    _, errors = process.communicate(timeout=60)
    assert errors == b""
    assert process.returncode == 141


def test_head(large: str) -> None:
    pipeline = f'"{sys.executable}" -m objstore log "$STORE" | head -n 1; echo "${{PIPESTATUS[0]}}"'
    done = subprocess.run(
        ["bash", "-c", pipeline], env=ENVIRONMENT | {"STORE": large}, capture_output=True, text=True, check=True
    )
    first, code = done.stdout.splitlines()
    assert "step 299" in first
    assert code in ("0", "141")
    assert done.stderr == ""


def test_a_terminal_that_cannot_say_everything(tmp_path: Path) -> None:
    path = str(tmp_path / "store")
    with objstore.open(path) as db, db.transaction(note="10 € for Ångström") as connection:
        connection.root()["€"] = "€"
    for command in (["log", path], ["show", path, "0"], ["history", path, "0"]):
        done = subprocess.run(
            [*OBJSTORE, *command],
            env=ENVIRONMENT | {"PYTHONIOENCODING": "latin-1"},
            capture_output=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, b"")
        assert b"\\u20ac" in done.stdout


def test_cat_does_not_write_binary_data_to_a_terminal(large: str) -> None:
    code, shown, errors = on_terminal("cat", large, "0", stdout=True)
    assert (code, shown) == (2, "")
    assert "--hex" in errors
    code, shown, _ = on_terminal("cat", large, "0", "--hex", stdout=True)
    assert code == 0
    assert shown.startswith("00000000: 8003")
    code, shown, _ = on_terminal("cat", large, "0", "--force", stdout=True)
    assert code == 0
    assert "PersistentMapping" in shown


def test_long_work_shows_its_progress_on_a_terminal(copied: str) -> None:
    code, shown, out = on_terminal("pack", copied, "--days", "0", "--json")
    assert code == 0
    assert "%" in shown
    assert shown.endswith("\r\x1b[K")
    assert json.loads(out)["objects_removed"] > 290
    code, shown, out = on_terminal("check", copied)
    assert (code, out) == (0, "nothing found\n")
    assert shown.endswith("\r\x1b[K")


def test_long_work_is_silent_elsewhere(copied: str) -> None:
    assert run("check", copied, "--ignore", "unreachable").stderr == ""
    assert run("pack", copied, "--days", "0").stderr == ""


INTERRUPTING = """
import os, signal, sys
from objstore.cli import stores
from objstore.cli.main import main
from objstore.machine.posix import PosixFilesystem

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it

class Interrupting(PosixFilesystem):
    # Ctrl-C arrives while this operation is asked for, whoever asks.
    left = int(sys.argv[1])
    def count(self):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGINT)
    def create(self, path):
        self.count()
        return super().create(path)
    def rename(self, old, new):
        self.count()
        super().rename(old, new)
    def unlink(self, path):
        self.count()
        super().unlink(path)

stores.PosixFilesystem = Interrupting
main(sys.argv[2:])
"""


@pytest.mark.parametrize("operation", [1, 2, 3, 30, 300])
def test_ctrl_c_in_the_middle_of_a_pack(operation: int, copied: str) -> None:
    """RelStorage#505: interrupted packs."""
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTING, str(operation), "pack", copied, "--days", "0"],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 130, done.stdout + done.stderr
    assert "interrupted" in done.stderr
    assert "Traceback" not in done.stderr
    checked = run("check", copied, "--ignore", "unreachable")
    assert (checked.returncode, checked.stdout) == (0, "nothing found\n")
    assert run("pack", copied, "--days", "0").returncode == 0
    checked = run("check", copied, "--ignore", "unreachable")
    assert (checked.returncode, checked.stdout) == (0, "nothing found\n")
    assert "'step': 299" in run("show", copied, "12c").stdout


def test_the_command_starts_quickly() -> None:
    """What `--help` imports stays small: nothing of a network, a web server or a test tool."""
    code = "import sys; from objstore.cli.main import main; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=True
    )
    heavy = {"asyncio", "http.server", "unittest", "ZODB", "pytest", "sqlite3", "multiprocessing"}
    assert heavy.isdisjoint(done.stdout.split())
