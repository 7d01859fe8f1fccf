"""`objstore shell`: what is at hand, what it may change, and what it ends with."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from persistent.mapping import PersistentMapping

import objstore
from objstore.cli.main import main

TOP = str(Path(__file__).parent.parent)
PROBE = """
import sys
def start_ipython(argv, user_ns):
    print("ipython", argv, sorted(user_ns))
"""


@pytest.fixture
def path(tmp_path: Path) -> str:
    path = str(tmp_path / "store")
    with objstore.open(path) as db, db.transaction() as connection:
        connection.root()["people"] = PersistentMapping(ada=1)
    return path


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs the command in this process, with input that is no terminal, and sees what it ends with."""
    monkeypatch.setattr(sys, "path", list(sys.path))

    def run(*arguments: str, code: int = 0) -> Result:
        result = CliRunner().invoke(main, ["shell", *arguments], prog_name="objstore")
        assert result.exit_code == code, result.output
        return result

    return run


def run_process(*arguments: str, python_path: str = "", **options: object) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(filter(None, [python_path, TOP, os.environ.get("PYTHONPATH", "")]))
    return subprocess.run(
        [sys.executable, "-m", "objstore", "shell", *arguments],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **options,
    )


def test_what_is_at_hand(path, run):
    done = run(path, "-c", "print(root.people, root()['people'] is connection.root.people, db.isReadOnly())")
    assert (done.stdout, done.stderr) == ("{'ada': 1} True True\n", "")
    assert run(path, "-c", "print(transaction.get() is connection.transaction_manager.get())").stdout == "True\n"


def test_nothing_is_changed_unless_told(path, run):
    piece = "root.people['ben'] = 2; transaction.commit()"
    done = run(path, "-c", piece, code=2)
    assert "was opened read-only" in done.stderr
    assert "Traceback" not in done.stderr
    assert run(path, "--write", "-c", piece).stderr == ""
    assert run(path, "-c", "print(dict(root.people))").stdout == "{'ada': 1, 'ben': 2}\n"


def test_what_is_not_committed_is_given_up(path, run):
    done = run(path, "--write", "-c", "root.people['ben'] = 2")
    assert done.stderr == "what was not committed is given up\n"
    assert run(path, "-c", "print(dict(root.people))").stdout == "{'ada': 1}\n"


@pytest.mark.parametrize(
    ("piece", "code", "said"),
    [
        ("1/0", 1, "ZeroDivisionError"),
        ("def f(:", 1, 'File "<-c>", line 1'),
        ("raise SystemExit(9)", 9, ""),
        ("connection.get(b'12345678')", 5, "objstore: no object 3132333435363738"),
    ],
)
def test_how_a_piece_ends(piece, code, said, path, run):
    done = run(path, "-c", piece, code=code)
    assert said in done.stderr
    assert ("Traceback" in done.stderr) is ("Error" in said)
    assert "objstore/cli" not in done.stderr


def test_classes_are_found_in_the_current_directory(path, tmp_path):
    (tmp_path / "my_models.py").write_text(
        "import persistent\nclass Model(persistent.Persistent):\n    def greet(self):\n        return 'hello'\n"
    )
    piece = "import my_models; root.model = my_models.Model(); transaction.commit()"
    assert run_process(path, "--write", "-c", piece, cwd=tmp_path).returncode == 0
    assert run_process(path, "-c", "print(root.model.greet())", cwd=tmp_path).stdout == "hello\n"


def test_talking(path):
    done = run_process(path, input="x = root.people\nprint(x)\n1/0\nprint(len(x))\n", python_path=os.devnull)
    assert done.returncode == 0
    assert "{'ada': 1}" in done.stdout
    assert ">>> 1" in done.stdout
    assert "ZeroDivisionError" in done.stderr
    assert "nothing can be changed; --write lets you. What you look at imports its class." in done.stderr
    done = run_process(path, "--write", input="root.n = 1\ntransaction.commit()\nprint(root.n + 1)\n")
    assert "transaction.commit() keeps changes" in done.stderr
    assert "2" in done.stdout


def test_talking_on_a_terminal(path):
    """Names are completed by Tab."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "objstore", "shell", path],
        env=os.environ | {"PYTHONPATH": TOP, "TERM": "dumb"},
        stdin=slave,
        stdout=slave,
        stderr=slave,
    )
    os.close(slave)
    read_until(master, b">>> ")
    os.write(master, b"print(conn\t.root.people)\n")
    read_until(master, b"{'ada': 1}")
    os.write(master, b"exit()\n")
    assert process.wait(timeout=60) == 0
    os.close(master)


def read_until(terminal: int, sign: bytes) -> None:
    """Read what a terminal shows, until it shows this."""
    shown = b""
    while sign not in shown:
        shown += os.read(terminal, 65536)  # fails when the process has ended


def test_ipython_is_used_where_it_is_installed(path, tmp_path):
    (tmp_path / "IPython.py").write_text(PROBE)
    done = run_process(path, python_path=str(tmp_path))
    assert done.stdout == "ipython [] ['connection', 'db', 'root', 'transaction']\n"
    assert done.returncode == 0


def test_a_store_that_is_missing(tmp_path, run):
    assert run(str(tmp_path / "none"), "-c", "print(1)", code=3).stdout == ""
