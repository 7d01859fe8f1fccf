"""Processes beside the test's own, each forked at once from one that has imported everything and opened nothing.

    with Nursery() as nursery:
        sibling = nursery.start(commit_numbers, path, 10)
        assert sibling.receive() == "ready"

What a sibling runs is a function of a module that the nursery can import, called with a `Pipe` to the test and the
arguments. It ends with the function; an exception is raised by the test's next `receive`.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, Self

PATIENCE = 60.0
"""Seconds after which a process that says nothing is given up."""


class Pipe:
    """Messages in both directions: anything that can be pickled, one a line of hexadecimal digits."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._file = end.makefile("rb")

    def send(self, message: object) -> None:
        """Tell the other side something."""
        self._end.sendall(pickle.dumps(message).hex().encode() + b"\n")

    def receive(self) -> Any:
        """The next message. Raises EOFError when there comes none."""
        line = self._file.readline()
        if not line:
            raise EOFError
        return pickle.loads(bytes.fromhex(line.decode()))

    def close(self) -> None:
        """Close this end."""
        self._file.close()
        self._end.close()


class Sibling:
    """A process, as the test sees it."""

    def __init__(self, nursery: Nursery, pipe: Pipe, pid: int) -> None:
        self._nursery = nursery
        self._pipe = pipe
        self.pid = pid
        self.status: int | None = None

    def send(self, message: object = None) -> None:
        """Tell the process something."""
        self._pipe.send(message)

    def receive(self) -> Any:
        """What the process says next. Raises EOFError when it has ended, AssertionError where it failed."""
        message = self._pipe.receive()
        if isinstance(message, _Failure):
            raise AssertionError(f"process {self.pid} failed:\n{message.text}")
        return message

    def kill(self) -> None:
        """Kill it, and return when it is gone."""
        os.kill(self.pid, signal.SIGKILL)
        self.wait()

    def wait(self) -> int:
        """Return when it is gone: its exit code, or the signal's number as a negative one."""
        if self.status is None:
            self.status = self._nursery.ended(self.pid)
            self._pipe.close()
        return self.status


class _Failure:
    """What a sibling says last when its function raises."""

    def __init__(self, text: str) -> None:
        self.text = text


class Nursery:
    """A process that forks siblings."""

    def __init__(self) -> None:
        self._ours, theirs = socket.socketpair()
        self._ours.settimeout(PATIENCE)
        top = Path(__file__).parent.parent
        path = os.pathsep.join([str(top), str(top / "tests"), os.environ.get("PYTHONPATH", "")])
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env=os.environ | {"PYTHONPATH": path},
            )
        self._siblings: list[Sibling] = []

    def start(self, function: Callable[..., None], *arguments: object) -> Sibling:
        """A new process that calls a function with its end of a pipe, and these arguments."""
        ours, theirs = socket.socketpair()
        ours.settimeout(PATIENCE)
        call = {"function": [function.__module__, function.__name__], "arguments": arguments}
        with theirs:
            socket.send_fds(self._ours, [json.dumps(call).encode()], [theirs.fileno()])
        sibling = Sibling(self, Pipe(ours), int(self._ours.recv(100)))
        self._siblings.append(sibling)
        return sibling

    def ended(self, pid: int) -> int:
        """Wait until a process is gone."""
        self._ours.sendall(json.dumps({"wait": pid}).encode())
        return int(self._ours.recv(100))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        for sibling in self._siblings:
            if sibling.status is None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(sibling.pid, signal.SIGKILL)
                sibling.wait()
        self._ours.close()
        self._process.wait(PATIENCE)


def _serve(requests: socket.socket) -> None:
    for message, descriptors in _messages(requests):
        request = json.loads(message)
        if "wait" in request:
            _, status = os.waitpid(request["wait"], 0)
            requests.sendall(str(os.waitstatus_to_exitcode(status)).encode())
            continue
        pid = os.fork()
        if not pid:
            requests.close()
            _be(socket.socket(fileno=descriptors[0]), request)
        os.close(descriptors[0])
        requests.sendall(str(pid).encode())


def _messages(requests: socket.socket) -> Iterator[tuple[bytes, list[int]]]:
    while True:
        message, descriptors, _, _ = socket.recv_fds(requests, 65536, 1)
        if not message:
            return
        yield message, descriptors


def _be(end: socket.socket, request: dict[str, Any]) -> None:
    pipe = Pipe(end)
    code = 1
    try:
        module, name = request["function"]
        getattr(import_module(module), name)(pipe, *request["arguments"])
        code = 0
    except BaseException:  # noqa: BLE001 - all of it is told
        with contextlib.suppress(OSError):
            pipe.send(_failure(traceback.format_exc()))
    finally:
        os._exit(code)


def _failure(text: str) -> object:
    return import_module("siblings")._Failure(text)  # of the module, as the test knows it, not of `__main__`


if __name__ == "__main__":
    import_module("sibling_work")
    _serve(socket.socket(fileno=int(sys.argv[1])))
