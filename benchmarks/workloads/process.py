"""A whole process: start Python, import the database, open a store, read its root, close it, and end.

Bytecode is cached, for all peers alike, in a place of their own: how the environment is set, or whether a
peer was installed or is a checkout, makes no difference.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time

from building import copied
from metrics import Measures, Metric, ratio_at_most
from peers.protocol import Ability, Peer
from places import Place
from recipes import Recipe
from sizes import Sizes

from workloads.protocol import Workload

_OBJECTS, _BATCH = 100_000, 1_000
_STARTS = 3


class ProcessRun:
    """Each round starts a few processes; the median of them counts."""

    def __init__(self, peer: Peer, place: Place, sizes: Sizes) -> None:
        directory = copied(place, Recipe(sizes.of(_OBJECTS), sizes.of(_BATCH, least=10)), "process")
        self._program = peer.opening_script(directory)
        self._environment = {**os.environ, "PYTHONPYCACHEPREFIX": place.fresh("bytecode")}
        self._environment.pop("PYTHONDONTWRITEBYTECODE", None)
        self._run(self._program)

    def round(self, number: int) -> Measures:  # noqa: ARG002 - always the same
        return {
            "time": statistics.median(self._run(self._program) for _ in range(_STARTS)),
            "of that, Python alone": statistics.median(self._run("pass") for _ in range(_STARTS)),
        }

    def _run(self, program: str) -> float:
        """The milliseconds that a program takes, from before its process is made until after it has ended."""
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", program], env=self._environment, check=True)
        return (time.perf_counter() - began) * 1e3

    def finish(self) -> None:
        """The processes have ended."""


WORKLOADS = (
    Workload(
        name="process",
        title="whole process: import, open a store of 100,000 objects, read the root, close",
        metrics=(Metric("time", "ms", ratio_at_most(0.8)),),
        start=ProcessRun,
        rounds=7,
        needs=Ability.LASTS,
    ),
)
