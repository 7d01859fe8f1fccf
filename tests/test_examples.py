"""The examples do what they say: each is run with small parameters, and the web application over a socket."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from http.client import HTTPConnection
from pathlib import Path
from threading import Thread
from urllib.parse import urlencode
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import bank
import demo
import pytest
import stdlib_index
import webapp

import objstore

EXAMPLES = Path(bank.__file__).parent
NOW = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)


# --- the bank ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("accounts", "threads", "transfers"), [(2, 4, 15), (20, 3, 30)])
def test_money_is_neither_made_nor_lost(tmp_path: Path, accounts: int, threads: int, transfers: int) -> None:
    outcome = bank.run(str(tmp_path / "bank"), accounts, threads, transfers, seed=7)
    assert outcome.transfers == threads * transfers
    assert outcome.tries >= outcome.transfers
    assert outcome.expected == accounts * bank.OPENING_BALANCE
    assert set(outcome.live_totals) == {outcome.expected}
    # Each transfer that was not refused is a transaction; so is the opening of the accounts.
    assert outcome.past_totals == (outcome.expected,) * (outcome.transfers - outcome.refused + 1)


def test_two_transfers_within_one_bank_meet(tmp_path: Path) -> None:
    """With two accounts and four threads, every transfer stands in the way of every other."""
    outcome = bank.run(str(tmp_path / "bank"), accounts=2, threads=4, transfers=40)
    assert outcome.tries > outcome.transfers


def test_an_account_is_never_overdrawn() -> None:
    account = bank.Account(1, 100)
    assert account.withdraw(100)
    assert not account.withdraw(1)
    assert account.balance == 0


# --- the web application -----------------------------------------------------------------------------


class Client:
    """Calls a WSGI application, through the validator of wsgiref, as a server would."""

    def __init__(self, application: webapp.Notebook) -> None:
        self._application = validator(application)
        self.headers: dict[str, str] = {}

    def __call__(self, method: str, path: str, body: bytes = b"", **environ: object) -> tuple[str, str]:
        """The status and the body of an answer."""
        request = {
            "REQUEST_METHOD": method,
            "SCRIPT_NAME": "",
            "PATH_INFO": path,
            "QUERY_STRING": "",
            "CONTENT_LENGTH": str(len(body)),
            "wsgi.input": io.BytesIO(body),
        } | environ
        setup_testing_defaults(request)
        told = []

        def start_response(status: str, headers: list[tuple[str, str]], exc_info: object = None) -> object:
            told.append(status)
            self.headers = dict(headers)
            return exc_info

        answer = self._application(request, start_response)
        try:
            text = b"".join(answer).decode()
        finally:
            answer.close()
        return told[0], text

    def add(self, text: str) -> str:
        return self("POST", "/add", urlencode({"text": text}).encode())[0]

    def notes(self, path: str = "/") -> list[str]:
        status, body = self("GET", path)
        assert status == "200 OK"
        return re.findall("<li>(.*?) <small>", body)

    def history(self) -> list[str]:
        """The tids of the changes that the history offers to undo, newest first."""
        return re.findall("/undo/([0-9a-f]{16})", self("GET", "/history")[1])


@pytest.fixture
def db(tmp_path: Path) -> Iterator[objstore.DB]:
    with objstore.open(tmp_path / "notebook") as db:
        yield db


@pytest.fixture
def client(db: objstore.DB) -> Client:
    return Client(webapp.Notebook(db, lambda: NOW))


def test_notes_are_added_shown_and_deleted(client: Client) -> None:
    assert client.notes() == []
    assert client.add("buy milk") == "303 See Other"
    assert client.headers["Location"] == "/"
    client.add("<b>bold</b> & more")
    assert client.notes() == ["&lt;b&gt;bold&lt;/b&gt; &amp; more", "buy milk"]
    assert client("POST", "/delete/1")[0] == "303 See Other"
    assert client.notes() == ["&lt;b&gt;bold&lt;/b&gt; &amp; more"]


def test_the_past_is_shown_and_changes_are_undone(client: Client) -> None:
    client.add("one")
    client.add("two")
    client("POST", "/delete/1")
    deleted, second, first = client.history()
    assert [client.notes(f"/at/{tid}") for tid in (first, second, deleted)] == [["one"], ["two", "one"], ["two"]]
    assert client("POST", f"/undo/{deleted}")[0] == "303 See Other"
    assert client.notes() == ["two", "one"]
    assert client("POST", f"/undo/{client.history()[0]}")[0] == "303 See Other"
    assert client.notes() == ["two"]


def test_an_undo_that_later_changes_stand_against_is_refused(client: Client) -> None:
    client.add("one")
    client("POST", "/delete/1")
    _, added = client.history()
    assert client("POST", f"/undo/{added}")[0] == "409 Conflict"
    assert client.notes() == []


def test_the_notebook_itself_cannot_be_undone(client: Client, db: objstore.DB) -> None:
    foundation = [entry["id"] for entry in db.undoLog()]
    assert len(foundation) >= 1
    assert {client("POST", f"/undo/{tid}")[0] for tid in foundation} == {"404 Not Found"}
    assert client.notes() == []


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/nowhere", b"", "404 Not Found"),
        ("POST", "/delete/7", b"", "404 Not Found"),
        ("POST", "/undo/0000000000000001", b"", "404 Not Found"),
        ("GET", "/at/7fffffffffffffff", b"", "404 Not Found"),
        ("GET", "/at/0000000000000001", b"", "404 Not Found"),
        ("GET", "/add", b"", "405 Method Not Allowed"),
        ("POST", "/", b"", "405 Method Not Allowed"),
        ("POST", "/add", b"text=+", "400 Bad Request"),
        ("POST", "/add", b"", "400 Bad Request"),
        ("POST", "/add", b"text=%ff", "400 Bad Request"),
        ("POST", "/add", b"text=" + b"x" * webapp.MAX_BODY, "413 Content Too Large"),
    ],
)
def test_what_cannot_be_served_is_refused(
    client: Client, db: objstore.DB, method: str, path: str, body: bytes, status: str
) -> None:
    before = db.lastTransaction()
    assert client(method, path, body)[0] == status
    assert db.lastTransaction() == before


def test_a_length_that_is_no_number_is_refused(client: Client) -> None:
    # Through the application itself, because the validator would not let it pass.
    with pytest.raises(webapp.RefusedError, match="at most"):
        webapp.form_value({"CONTENT_LENGTH": "-1", "wsgi.input": io.BytesIO()}, "text")
    assert client.notes() == []


@pytest.mark.parametrize("path", ["/", "/history", "/nowhere", "/add"])
def test_head_is_answered_as_get_without_the_body(client: Client, path: str) -> None:
    client.add("one")
    status, page = client("GET", path)
    headers = client.headers
    assert page
    assert client("HEAD", path) == (status, "")
    assert client.headers == headers
    assert headers["Content-Length"] == str(len(page.encode()))


def test_notes_are_there_after_reopening(tmp_path: Path) -> None:
    with objstore.open(tmp_path / "kept") as db:
        Client(webapp.Notebook(db, lambda: NOW)).add("still here")
    with objstore.open(tmp_path / "kept") as db:
        assert Client(webapp.Notebook(db, lambda: NOW)).notes() == ["still here"]


@pytest.fixture
def port(db: objstore.DB) -> Iterator[int]:
    """The port of a server that serves a notebook on the loopback interface."""
    with webapp.serve(webapp.Notebook(db, lambda: NOW), port=0) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def ask(port: int, method: str, path: str, form: dict[str, str] | None = None) -> tuple[int, str]:
    with closing(HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        headers = {"Content-Type": "application/x-www-form-urlencoded"} if form else {}
        connection.request(method, path, urlencode(form) if form else None, headers)
        response = connection.getresponse()
        return response.status, response.read().decode()


def test_many_browsers_at_once_over_a_socket(port: int) -> None:
    """All append at the same place, so most meet another; none gets an error, and no note is lost."""
    texts = [f"note-{number}" for number in range(40)]
    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda text: ask(port, "POST", "/add", {"text": text})[0], texts))
    assert statuses == [303] * len(texts)
    status, body = ask(port, "GET", "/")
    assert status == 200
    assert sorted(re.findall(r"note-\d+", body)) == sorted(texts)
    assert len(re.findall("/undo/", ask(port, "GET", "/history")[1])) == len(texts)


def test_head_over_a_socket(port: int) -> None:
    assert ask(port, "HEAD", "/") == (200, "")


# --- the demo ----------------------------------------------------------------------------------------


def test_the_demo_tells_the_truth(tmp_path: Path) -> None:
    path = str(tmp_path / "library")
    said: list[str] = []
    told = demo.show(path, modules=25, threads=2, say=said.append)
    assert told.indexed.modules == 25
    assert 0 < told.forgotten < 25
    assert told.modules_now == 25 - told.forgotten
    assert 0 < told.modules_in_the_past < 25
    assert told.indexed.tries >= 25
    assert told.merged
    assert told.conflicts == 1
    assert told.undone
    assert told.packed, "\n".join(said)
    with objstore.open(path, create=False) as db:
        assert len(db.undoLog()) < 5  # packed: the history is gone, the state is not
        with db.transaction() as connection:
            library = connection.root()["library"]
            modules = list(library.modules.find(indexed=True))
            assert len(modules) == told.modules_now
            assert sum(library.definitions.count(module=each) for each in modules) == len(library.definitions) > 0
            assert list(library.modules.verify()) == list(library.definitions.verify()) == []


def test_a_library_knows_what_a_module_defines_and_imports(tmp_path: Path) -> None:
    source = tmp_path / "m.py"
    source.write_text(
        "import os, os.path\nfrom json import dumps\nfrom . import near, thing\nfrom ..up import x\n"
        "def f(): pass\nasync def g(): pass\nclass C:\n    def method(self): pass\n    x = 1\ndef f(): pass\n"
    )
    library = stdlib_index.Library()
    assert stdlib_index.add(library, stdlib_index.parse("a.b.m", source), known={"a.b.near", "a.b"}) == 3
    module = library.modules["a.b.m"]
    assert [each.name for each in library.definitions.find(module=module, order="name")] == ["C", "f", "g"]
    assert [method.name for method in library.definitions[module, "C"].methods] == ["method"]
    assert [each.name for each in module.imports] == ["a.b.near", "a.up", "json", "os", "os.path"]
    assert (module.lines, library.definitions[module, "g"].line) == (10, 6)
    assert module.imports[3] is library.modules["os"]
    assert not library.modules["os"].indexed


def test_a_library_forgets_a_module_with_its_definitions(tmp_path: Path) -> None:
    library = stdlib_index.Library()
    for name, text in {"one": "import two\ndef f(): pass\ndef g(): pass\n", "two": "def f(): pass\n"}.items():
        source = tmp_path / f"{name}.py"
        source.write_text(text)
        stdlib_index.add(library, stdlib_index.parse(name, source), known={"one", "two"})
        library.modules.reindex(library.modules[name])
    assert library.imported_by_nobody() == ["one"]
    library.forget("one")
    assert list(library.modules) == ["two"]
    assert [(each.name, each.module.name) for each in library.definitions.values()] == [("f", "two")]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("bank.py", "--transfers", "10", "--accounts", "5"), "the total was 5000 in"),
        (("demo.py", "--modules", "8"), "ben each inserted a key"),
    ],
    ids=lambda words: words[0],
)
def test_scripts_run_as_a_person_runs_them(words: tuple[str, ...], expected: str) -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLES / words[0], *words[1:]], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert expected in done.stdout
