"""Measures objstore and its peers side by side: `python benchmarks/run.py --help`.

`docs/performance.md` says what is measured and how to read it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

import machine
import report
from peers import registry as peers
from peers.protocol import Ability, Peer, Unavailable
from places import Place, filesystem_type, is_in_memory
from rounds import Measured, measure
from workloads import registry as workloads
from workloads.protocol import Workload

_QUICK_SCALE = 0.1
_IN_MEMORY_STATUS = 2


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Measure objstore and its peers side by side, interleaved, on a real disk.",
        epilog=f"Workloads: {', '.join(workloads.ALL)}. Peers: {', '.join(peers.NAMES)}.",
    )
    parser.add_argument("--quick", action="store_true", help="a tenth of the sizes, fewer rounds: two minutes")
    parser.add_argument("--large", action="store_true", help="also the workloads of 1,000,000 objects")
    parser.add_argument(
        "--workload", action="append", metavar="NAME", help="only these; patterns such as 'commit-*' may be given"
    )
    parser.add_argument("--peer", action="append", metavar="NAME", help="only these, patterns too")
    parser.add_argument("--rounds", type=int, metavar="N", help="how many rounds, for all workloads")
    parser.add_argument("--scale", type=float, metavar="F", help="multiply all sizes by this")
    parser.add_argument(
        "--dir", default=".", metavar="DIR", help="where the stores are made: on the disk that is to be measured"
    )
    parser.add_argument(
        "--sync-delay",
        type=float,
        default=0.0,
        metavar="MS",
        help="as on a disk whose syncs take so much longer; of peers that sync by Python's os only",
    )
    parser.add_argument("--force", action="store_true", help="measure in a filesystem in memory all the same")
    parser.add_argument("--json", metavar="FILE", help="write everything that was measured to this file")
    given = parser.parse_args(argv)
    if not os.path.isdir(given.dir):
        parser.error(f"there is no directory {given.dir}: make it, or name another")
    given.workloads = _chosen(parser, "workload", given.workload, workloads.ALL, _usual_workloads(given.large))
    given.peers = _chosen(parser, "peer", given.peer, peers.NAMES, peers.USUAL)
    if given.scale is None:
        given.scale = _QUICK_SCALE if given.quick else 1.0
    return given


def _usual_workloads(large: bool) -> list[str]:
    return [name for name, each in workloads.ALL.items() if large or not each.large]


def _chosen(
    parser: argparse.ArgumentParser,
    what: str,
    patterns: Sequence[str] | None,
    known: Sequence[str] | dict[str, Any],
    usual: Sequence[str],
) -> list[str]:
    """The names that patterns mean, in the order in which they are known."""
    if not patterns:
        return list(usual)
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in known):
            parser.error(f"no {what} {pattern!r}; there are {', '.join(known)}")
    return [name for name in known if any(fnmatchcase(name, pattern) for pattern in patterns)]


class Benchmark:
    """One run: its peers, its directory, and what it has measured."""

    def __init__(self, given: argparse.Namespace, directory: str) -> None:
        self._given = given
        self._directory = directory
        self._peers: dict[str, Peer] = {}
        self._left_out: dict[str, str] = {}
        self._results: dict[str, tuple[Workload, Measured]] = {}
        self._facts = machine.facts(directory)
        self._began = time.perf_counter()

    def run(self) -> None:
        for name, value in self._facts.items():
            print(f"{name}: {value}")
        print(f"sizes: {self._given.scale:g} of those that are required")
        if self._given.sync_delay:
            print(f"syncs: take {self._given.sync_delay:g} ms longer than those of this disk")
        for name in self._given.peers:
            self._find(name)
        for name in self._given.workloads:
            self._measure(workloads.ALL[name])
        print("what is required:")
        print("\n".join(report.summary(self._results)) or "  nothing of what was measured")
        print(f"{self._seconds():.0f} s, load {os.getloadavg()[0]:.2f}")

    def _find(self, name: str) -> None:
        try:
            peer = peers.peer(name)
            if self._given.sync_delay and Ability.SYNCS_BY_PYTHON not in peer.abilities:
                raise Unavailable("no slower disk can be put below it")
            self._peers[name] = peer
        except Unavailable as reason:
            self._left_out[name] = str(reason)
            print(f"{name}: left out, {reason}")
        else:
            print(f"{name}: {peer.title}; {peer.versions}; durability: {peer.durability}")

    def _measure(self, workload: Workload) -> None:
        given = self._given
        able = [name for name, peer in self._peers.items() if workload.needs in peer.abilities]
        places = [self._place(workload, name) for name in able]
        rounds = given.rounds or (workload.quick_rounds if given.quick else workload.rounds)
        measured = measure(workload, places, rounds, given.scale)
        for place in places:
            shutil.rmtree(place.scratch)
        self._results[workload.name] = workload, measured
        print("\n".join(report.table(workload, measured)), flush=True)
        print(f"    after {self._seconds():.0f} s\n", flush=True)

    def _place(self, workload: Workload, peer: str) -> Place:
        scratch, shared = f"{self._directory}/{workload.name}-{peer}", f"{self._directory}/shared-{peer}"
        os.mkdir(scratch)
        os.makedirs(shared, exist_ok=True)
        return Place(peer, scratch, shared, self._given.sync_delay)

    def _seconds(self) -> float:
        return time.perf_counter() - self._began

    def as_json(self) -> dict[str, Any]:
        return {
            "machine": self._facts,
            "scale": self._given.scale,
            "sync delay in ms": self._given.sync_delay,
            "seconds": self._seconds(),
            "load at the end": os.getloadavg()[0],
            "peers": {
                name: {"title": peer.title, "versions": peer.versions, "durability": peer.durability}
                for name, peer in self._peers.items()
            },
            "left out": self._left_out,
            "workloads": {name: report.as_json(*result) for name, result in self._results.items()},
        }

    def failed(self) -> bool:
        """Whether any peer that is there did not come through."""
        return any(measured.failed for _, measured in self._results.values())


def main(argv: Sequence[str] | None = None) -> int:
    given = arguments(argv)
    if is_in_memory(given.dir) and not given.force:
        kind = filesystem_type(given.dir)
        print(
            f"{given.dir} is on a {kind}, where a sync is free: give --dir on a disk, or --force", file=sys.stderr
        )
        return _IN_MEMORY_STATUS
    directory = tempfile.mkdtemp(prefix="objstore-benchmark-", dir=os.path.abspath(given.dir))
    try:
        benchmark = Benchmark(given, directory)
        benchmark.run()
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    if given.json:
        with open(given.json, "w") as file:
            json.dump(benchmark.as_json(), file, indent=1)
    return int(benchmark.failed())


if __name__ == "__main__":
    sys.exit(main())
