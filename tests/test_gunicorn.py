"""The notebook of the examples under gunicorn: a store that is opened before the workers are forked."""

from __future__ import annotations

import importlib.util
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from http.client import HTTPConnection
from pathlib import Path
from threading import Thread
from urllib.parse import urlencode

import pytest
import webapp

import objstore

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("gunicorn") is None, reason="gunicorn is not installed; it is in the extra `test`"
)
TOP = Path(objstore.__file__).parent.parent
WORKERS, CLIENTS, REQUESTS = 4, 4, 200
PATIENCE = 30
SERVED = """
import os
import sys
sys.path[:0] = {paths!r}
import webapp

notebook = webapp.application({store!r})

def application(environ, start_response):
    def with_pid(status, headers):
        return start_response(status, [*headers, ("X-Pid", str(os.getpid()))])
    return notebook(environ, with_pid)
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """The port of a gunicorn that serves a notebook, and the process."""
    paths = [str(TOP), str(Path(webapp.__file__).parent)]
    (tmp_path / "served.py").write_text(SERVED.format(paths=paths, store=str(tmp_path / "store")))
    command = ["-m", "gunicorn", "--preload", "--workers", str(WORKERS), "--bind", "127.0.0.1:0"]
    process = subprocess.Popen(
        [sys.executable, *command, "--worker-tmp-dir", str(tmp_path), "--no-control-socket", "served:application"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        log = ""
        while not (found := re.search(r"Listening at: http://127\.0\.0\.1:(\d+)", log)):
            line = process.stderr.readline()
            assert line, log
            log += line
        rest = Thread(target=process.stderr.read)  # so that nobody waits for room in the pipe
        rest.start()
        yield int(found[1]), process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE)
    rest.join()
    process.stderr.close()


def add(port: int, text: str) -> tuple[int, int]:
    """Add a note: the status, and the pid of who answered."""
    with closing(HTTPConnection("127.0.0.1", port, timeout=PATIENCE)) as client:
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        client.request("POST", "/add", urlencode({"text": text}), headers)
        response = client.getresponse()
        response.read()
        return response.status, int(response.headers["X-Pid"])


def pids_of_all(port: int) -> set[int]:
    """The pids of all workers: each is kept busy by a request that is begun, until all have one."""
    request = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    with ExitStack() as stack:
        begun = []
        for _ in range(WORKERS):
            begun.append(stack.enter_context(socket.create_connection(("127.0.0.1", port), PATIENCE)))
            begun[-1].sendall(request)
        pids = set()
        for each in reversed(begun):
            each.sendall(b"\r\n")
            answer = b"".join(iter(lambda each=each: each.recv(65536), b""))
            pids.add(int(re.search(rb"X-Pid: (\d+)", answer)[1]))
        return pids


def test_several_workers_share_a_preloaded_store(server, tmp_path: Path) -> None:
    port, process = server
    pids = pids_of_all(port)
    assert len(pids) == WORKERS
    assert process.pid not in pids
    texts = [f"note {number}" for number in range(REQUESTS)]
    with ThreadPoolExecutor(CLIENTS) as clients:
        answers = list(clients.map(lambda text: add(port, text), texts))
    acknowledged = {text for text, (status, _) in zip(texts, answers, strict=True) if status == 303}
    assert {pid for _, pid in answers} <= pids
    assert len(acknowledged) > REQUESTS // 2
    with objstore.open(tmp_path / "store", create=False) as db, db.transaction() as connection:  # beside them
        kept = [note.text for note in connection.root.notes.values()]
    assert len(kept) == len(set(kept))
    assert acknowledged <= set(kept) <= set(texts)
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == 0
    with objstore.open(tmp_path / "store", create=False, exclusive=True) as db, db.transaction() as connection:
        assert [note.text for note in connection.root.notes.values()] == kept
