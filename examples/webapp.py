"""A notebook for the web in one file, with WSGI from the standard library and its data in objstore.

    python examples/webapp.py [--path DIRECTORY] [--port 8000]

Each request is one transaction: it sees one state of the notebook, and what it changes is kept whole or not
at all. The history page lists the transactions; each can be looked at as the notebook was then, and undone.
This server is one process with a thread for each request. Several processes serve under gunicorn, which forks them
once the store is open:

    gunicorn --preload --workers 4 --chdir examples 'webapp:application("/path/of/the/store")'
"""

from __future__ import annotations

import argparse
import atexit
import html
import re
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from socketserver import ThreadingMixIn
from typing import Any
from urllib.parse import parse_qs
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from BTrees.IOBTree import IOBTree
from persistent import Persistent

import objstore
from objstore.errors import UndoError, UsageError

MAX_BODY = 64 * 1024
"""The longest form that is read, in bytes."""
HISTORY_LENGTH = 50
UNDOABLE = "notebook_change"
"""What transactions are marked with that the history offers to undo: not that which made the notebook."""

Environ = dict[str, Any]
StartResponse = Callable[[str, list[tuple[str, str]]], object]


class Note(Persistent):
    """One note; its number is its key in the notebook."""

    def __init__(self, text: str, written: datetime) -> None:
        self.text = text
        self.written = written


@dataclass(frozen=True)
class Response:
    """An answer: a page, or a way to another one."""

    status: str
    body: str = ""
    location: str | None = None


class RefusedError(Exception):
    """The request cannot be served; the response says why."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status


# --- pages -------------------------------------------------------------------------------------------


def page(title: str, *parts: str) -> str:
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(title)}</title>"
        "<meta name=viewport content='width=device-width'>"
        "<style>body{font:16px/1.5 sans-serif;max-width:40em;margin:2em auto;padding:0 1em}"
        "form{display:inline}input,button{font:inherit;padding:.2em .6em}"
        "input{width:24em;max-width:70%;margin-right:.5em}li{margin:.5em 0;overflow-wrap:anywhere}"
        "li button{font-size:.8em}small{color:#666}</style>"
        f"<h1>{html.escape(title)}</h1>{''.join(parts)}"
        "<p><a href='/'>notes</a> &middot; <a href='/history'>history</a></p></html>"
    )


def button(action: str, label: str) -> str:
    return f"<form method=post action='{action}'><button>{label}</button></form>"


def listed(notes: IOBTree, *, changeable: bool) -> str:
    """The notes of a notebook, newest first."""
    items = [
        f"<li>{html.escape(note.text)} <small>{note.written:%Y-%m-%d %H:%M}</small> "
        f"{button(f'/delete/{number}', 'delete') if changeable else ''}</li>"
        for number, note in reversed(notes.items())
    ]
    return f"<ul>{''.join(items)}</ul>" if items else "<p>There are no notes.</p>"


# --- the application ---------------------------------------------------------------------------------


class Notebook:
    """The WSGI application. May be called by any number of threads at once."""

    def __init__(self, db: objstore.DB, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.db = db
        self.now = now
        # Method and path; the handler, called with what the path captures and then with fields of the form.
        self.routes: list[tuple[str, re.Pattern[str], Callable[..., Response], tuple[str, ...]]] = [
            ("GET", re.compile("/"), self.show, ()),
            ("GET", re.compile("/history"), self.history, ()),
            ("GET", re.compile("/at/([0-9a-f]{16})"), self.past, ()),
            ("POST", re.compile("/add"), self.add, ("text",)),
            ("POST", re.compile("/delete/([0-9]{1,9})"), self.delete, ()),
            ("POST", re.compile("/undo/([0-9a-f]{16})"), self.undo, ()),
        ]
        with db.transaction(note="a new notebook") as connection:
            if "notes" not in connection.root():
                connection.root()["notes"] = IOBTree()

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        try:
            response = self.respond(environ)
        except RefusedError as refusal:
            response = Response(refusal.status, page(refusal.status, f"<p>{html.escape(str(refusal))}</p>"))
        body = response.body.encode()
        headers = [("Content-Type", "text/html; charset=utf-8"), ("Content-Length", str(len(body)))]
        if response.location is not None:
            headers.append(("Location", response.location))
        start_response(response.status, headers)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    def respond(self, environ: Environ) -> Response:
        path = environ.get("PATH_INFO") or "/"
        asked = environ["REQUEST_METHOD"]
        if asked == "HEAD":
            asked = "GET"  # answered alike, but that the body is not sent
        methods = []
        for method, pattern, handler, fields in self.routes:
            if match := pattern.fullmatch(path):
                if method == asked:
                    return handler(*match.groups(), *(form_value(environ, name) for name in fields))
                methods.append(method)
        if methods:
            raise RefusedError("405 Method Not Allowed", f"{path} takes {' and '.join(methods)} only.")
        raise RefusedError("404 Not Found", f"There is nothing at {path}.")

    def show(self) -> Response:
        form = (
            "<form method=post action=/add><input name=text aria-label='a new note' required autofocus>"
            "<button>add</button></form>"
        )
        with self.db.transaction() as connection:
            return Response("200 OK", page("Notes", form, listed(connection.root()["notes"], changeable=True)))

    def add(self, text: str) -> Response:
        text = text.strip()
        if not text:
            raise RefusedError("400 Bad Request", "An empty note is none.")

        def append(notes: IOBTree) -> None:
            # Two who append at once take the same number: one of them is tried again, and takes the next.
            notes[notes.maxKey() + 1 if notes else 1] = Note(text, self.now())

        self.change(f"add {text[:40]!r}", append)
        return Response("303 See Other", location="/")

    def delete(self, number: str) -> Response:
        def remove(notes: IOBTree) -> None:
            if notes.pop(int(number), None) is None:
                raise RefusedError("404 Not Found", f"There is no note {number}.")

        self.change(f"delete note {number}", remove)
        return Response("303 See Other", location="/")

    def change(self, what: str, function: Callable[[IOBTree], None]) -> None:
        """Change the notes in a transaction that the history offers to undo."""

        def run(connection: objstore.Connection) -> None:
            connection.transaction_manager.get().setExtendedInfo(UNDOABLE, True)
            function(connection.root()["notes"])

        self.db.run(run, note=what)

    def history(self) -> Response:
        items = [
            f"<li><a href='/at/{entry['id']}'>{datetime.fromtimestamp(entry['time'], UTC):%Y-%m-%d %H:%M:%S}</a> "
            f"{html.escape(entry['description'])} {button('/undo/' + entry['id'], 'undo')}</li>"
            for entry in self.db.undoInfo(0, HISTORY_LENGTH, {UNDOABLE: True})
        ]
        return Response("200 OK", page("History", f"<ul>{''.join(items)}</ul>"))

    def past(self, tid: str) -> Response:
        try:
            with closing(self.db.open(at=tid)) as connection:
                notes = connection.root().get("notes", {})
                return Response("200 OK", page("Notes as they were", listed(notes, changeable=False)))
        except UsageError as error:  # to come, before the notebook, or before the last pack
            raise RefusedError("404 Not Found", str(error)) from error

    def undo(self, tid: str) -> Response:
        found = self.db.undoInfo(0, 1, {"id": tid, UNDOABLE: True})
        if not found:
            raise RefusedError("404 Not Found", "There is no such change, or it cannot be undone any more.")

        def run(connection: objstore.Connection) -> None:
            current = connection.transaction_manager.get()
            current.setExtendedInfo(UNDOABLE, True)
            self.db.undo(tid, current)

        try:
            self.db.run(run, note=f"undo {found[0]['description']}")
        except UndoError as error:
            raise RefusedError("409 Conflict", f"Later changes are in the way: {error}") from error
        return Response("303 See Other", location="/")


def application(path: str) -> Notebook:
    """The notebook in a store, for a server of WSGI applications. Each process closes the store when it ends.

    A process that the server forks opens the store anew by itself, when it answers its first request.
    """
    db = objstore.open(path)
    atexit.register(db.close)
    return Notebook(db)


def form_value(environ: Environ, name: str) -> str:
    """A value of the form that was sent, "" where there is none. Raises RefusedError."""
    length = environ.get("CONTENT_LENGTH") or "0"
    if not length.isdigit() or int(length) > MAX_BODY:
        raise RefusedError("413 Content Too Large", f"A note has at most {MAX_BODY} bytes.")
    body = environ["wsgi.input"].read(int(length))
    try:
        values = parse_qs(body.decode(), errors="strict")
    except ValueError as error:
        raise RefusedError("400 Bad Request", "The form is not UTF-8.") from error
    return values.get(name, [""])[0]


# --- serving -----------------------------------------------------------------------------------------


class ThreadingServer(ThreadingMixIn, WSGIServer):
    """A thread for each request; the end waits for those that are being answered."""

    daemon_threads = False


class QuietHandler(WSGIRequestHandler):
    """Answers without a line in the log for each request."""

    def log_message(self, *args: object) -> None:
        """Say nothing."""


def serve(application: Notebook, port: int, host: str = "127.0.0.1") -> WSGIServer:
    """A server that listens, for its `serve_forever` to be called. Port 0 takes any that is free."""
    return make_server(host, port, application, ThreadingServer, QuietHandler)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="A notebook for the web, kept in objstore.")
    parser.add_argument("--path", default="notebook", help="the directory of the store (notebook)")
    parser.add_argument("--port", type=int, default=8000, help="where to listen on 127.0.0.1 (8000)")
    options = parser.parse_args(arguments)
    with objstore.open(options.path) as db, serve(Notebook(db), options.port) as server:
        print(f"http://127.0.0.1:{server.server_port}/ shows the notes in {db.getName()}; Ctrl-C ends", flush=True)
        with suppress(KeyboardInterrupt):
            server.serve_forever()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
