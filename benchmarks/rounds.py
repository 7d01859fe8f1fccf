"""Runs a workload's peers side by side: every peer's first round, then every peer's second, and so on.

So whatever slows the machine down for a while slows all peers down. Each peer has a process of its own, which
does nothing while another's round is measured. Before each round what is dirty in the page cache is written
out, so that no peer's syncs pay for what another has left.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from types import TracebackType
from typing import Any, Self

from metrics import Measures
from places import Place
from workloads.protocol import Workload

_WORKER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "worker.py")


class Failed(Exception):  # noqa: N818 - the message is the peer's, and told as a result
    """A peer did not come through a workload."""


@dataclass(slots=True)
class Measured:
    """What a workload has measured: the rounds of each peer that came through, and why others did not."""

    rounds: dict[str, list[Measures]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


class _Process:
    """A worker process, and the talk with it."""

    def __init__(self, workload: Workload, place: Place, scale: float) -> None:
        self._process = subprocess.Popen(
            [sys.executable, _WORKER, workload.name, place.peer, str(scale), json.dumps(asdict(place))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, command: str) -> dict[str, Any]:
        """Send a command and wait for its answer. Raises Failed."""
        tell, hear = self._process.stdin, self._process.stdout
        if tell is None or hear is None:
            raise Failed("the worker has no pipes")
        try:
            print(command, file=tell, flush=True)
        except BrokenPipeError as error:
            raise Failed(f"the worker ended with status {self._process.wait()}") from error
        line = hear.readline()
        if not line:
            raise Failed(f"the worker ended with status {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        if "failed" in answer:
            raise Failed(answer["failed"])
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._process.kill()
        self._process.communicate()


def measure(workload: Workload, places: Sequence[Place], rounds: int, scale: float) -> Measured:
    """Run a workload with several peers, interleaved. A peer that fails is left out from there on."""
    measured = Measured()
    processes: dict[str, _Process] = {}
    try:
        for place in places:
            processes[place.peer] = _Process(workload, place, scale)
            _ask(measured, processes, place.peer, "start")
            measured.rounds[place.peer] = []
        for number in range(rounds):
            for peer in _in_turn(processes, number):
                os.sync()
                answer = _ask(measured, processes, peer, f"round {number}")
                if answer is not None:
                    measured.rounds[peer].append(answer["measures"])
        for peer in list(processes):
            _ask(measured, processes, peer, "finish")
    finally:
        for process in processes.values():
            process.__exit__(*sys.exc_info())
    for peer in measured.failed:
        measured.rounds.pop(peer, None)
    return measured


def _in_turn(processes: Mapping[str, object], number: int) -> list[str]:
    """The peers that are still there. Every other round goes backwards, so that nobody always follows the same."""
    return list(processes)[:: -1 if number % 2 else 1]


def _ask(measured: Measured, processes: dict[str, _Process], peer: str, command: str) -> dict[str, Any] | None:
    """Ask a peer that is still there; note its failure and let it go."""
    try:
        return processes[peer].ask(command)
    except Failed as failure:
        measured.failed[peer] = str(failure)
        with processes.pop(peer):
            return None
