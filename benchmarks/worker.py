"""One peer in one workload, in a process of its own: so no peer's memory, threads or imports weigh on another's.

Reads commands, one a line, and answers each with a line of JSON: `start`, `round NUMBER`, `finish`. By hand:

    printf 'start\\nround 0\\nfinish\\n' | python -m cProfile -s tottime benchmarks/worker.py \\
        commit-1 objstore 1.0 '{"peer": "objstore", "scratch": "/an/empty/directory", "shared": "/another"}'
"""

from __future__ import annotations

import gc
import json
import os
import sys
import traceback
from typing import Any, TextIO

from peers import registry as peers
from peers.protocol import Unavailable
from places import Place
from sizes import Sizes
from slowdisk import put_below
from workloads import registry as workloads
from workloads.protocol import Run


class Worker:
    """Does what the lines say."""

    def __init__(self, workload: str, peer: str, scale: float, place: Place) -> None:
        self._workload = workloads.ALL[workload]
        self._peer = peer
        self._sizes = Sizes(scale)
        self._place = place
        self._run: Run | None = None

    def answer(self, line: str) -> dict[str, Any]:
        """What a command gives. A failure is an answer too."""
        try:
            return self._answer(line)
        except Unavailable as reason:
            return {"failed": str(reason)}
        except Exception as error:  # noqa: BLE001 - the peers are other people's programs
            traceback.print_exc()
            return {"failed": f"{type(error).__name__}: {error}"}

    def _answer(self, line: str) -> dict[str, Any]:
        command, *rest = line.split()
        if command == "start":
            self._run = self._workload.start(peers.peer(self._peer), self._place, self._sizes)
            gc.collect()
            gc.freeze()
            return {}
        if self._run is None:
            raise RuntimeError(f"{command} before start")
        if command == "round":
            gc.collect()
            return {"measures": dict(self._run.round(int(rest[0])))}
        self._run.finish()
        return {}


def _own_output() -> TextIO:
    """The standard output, for answers only: what a peer prints goes to the standard error."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return answers


def main() -> None:
    workload, peer, scale, place = sys.argv[1:]
    disk = Place(**json.loads(place))
    if disk.sync_delay:
        put_below(disk.sync_delay / 1e3)
    worker = Worker(workload, peer, float(scale), disk)
    answers = _own_output()
    for line in sys.stdin:
        print(json.dumps(worker.answer(line)), file=answers, flush=True)


if __name__ == "__main__":
    main()
