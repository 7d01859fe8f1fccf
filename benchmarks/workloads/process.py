"""A whole process: start Python, import the database, open a store, read its root, close it, and end.

Bytecode is cached, for all peers alike, in a place of their own: how the environment is set, or whether a
peer was installed or is a checkout, makes no difference.
"""

from __future__ import annotations

import os
import resource
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
        whole = [self._run(self._program) for _ in range(_STARTS)]
        alone = [self._run("pass") for _ in range(_STARTS)]
        return {
            "time": statistics.median(took for took, _ in whole),
            "processor time": statistics.median(used for _, used in whole),
            "of that, Python alone": statistics.median(took for took, _ in alone),
            "processor time, Python alone": statistics.median(used for _, used in alone),
        }

    def _run(self, program: str) -> tuple[float, float]:
        """The milliseconds that a program takes, from before its process is made until after it has ended, and
        those of them that a processor worked for it.
        """
        began, used = time.perf_counter(), _processor_seconds()
        subprocess.run([sys.executable, "-c", program], env=self._environment, check=True)
        return (time.perf_counter() - began) * 1e3, (_processor_seconds() - used) * 1e3

    def finish(self) -> None:
        """The processes have ended."""


def _processor_seconds() -> float:
    """What all processes that this one has started, and that have ended, took of the processors."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


WORKLOADS = (
    Workload(
        name="process",
        title="whole process: import, open a store of 100,000 objects, read the root, close",
        metrics=(Metric("time", "ms", ratio_at_most(0.8)), Metric("processor time", "ms")),
        start=ProcessRun,
        rounds=7,
        needs=Ability.LASTS,
    ),
)
