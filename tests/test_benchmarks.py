"""The benchmarks run: every workload, at a tiny size, for objstore and the floor. No speed is asserted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parent.parent
SCRIPT = TOP / "benchmarks" / "run.py"
TINY = ["--scale", "0.002", "--rounds", "1", "--force"]
LASTING = ["open", "process", "pack", "pack-large", "memory-large"]
"""The workloads that a peer without a store that lasts takes no part in."""
ANY = ["commit-1", "threads-4", "bulk-load", "ghosts", "scan", "hot"]
MEMORY = "/dev/shm"  # noqa: S108 - looked at, not written to


def run(*arguments: str, first: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the script; modules of the directory `first` are found before all others."""
    path = os.pathsep.join(str(each) for each in (first, TOP) if each is not None)
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def test_every_workload_measures_whom_it_can(tmp_path) -> None:
    workloads = [argument for name in ANY + LASTING for argument in ("--workload", name)]
    peers = ["--peer", "objstore", "--peer", "floor"]
    written = tmp_path / "result.json"
    done = run(*TINY, *workloads, *peers, "--dir", str(tmp_path), "--json", str(written))
    assert done.returncode == 0, done.stdout + done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"], "stores were left behind"

    result = json.loads(written.read_text())
    assert sorted(result["workloads"]) == sorted(ANY + LASTING)
    for name, workload in result["workloads"].items():
        expected = {"objstore"} if name in LASTING else {"objstore", "floor"}
        assert workload["failed"] == {}
        assert set(workload["rounds"]) == expected, name
        for metric in workload["metrics"]:
            assert {row["peer"] for row in metric["rows"]} <= expected
            assert metric["rows"], f"{name} has not measured {metric['name']}"
    assert {"filesystem", "processor", "load"} <= set(result["machine"])

    assert result["peers"]["objstore"]["durability"] in done.stdout
    assert "at most 60 ms: pass" in done.stdout
    assert "at most 1.15x zodb: not compared" in done.stdout


def test_finding_is_measured_beside_sqlite(tmp_path) -> None:
    script = TOP / "benchmarks" / "finding.py"
    done = subprocess.run(
        [sys.executable, str(script), "--count", "300", "--added", "20", "--path", str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(TOP)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "exact value of a unique index" in done.stdout
    assert "sqlite3" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_peer_that_is_not_installed_is_left_out_with_a_reason(tmp_path) -> None:
    (tmp_path / "lmdb.py").write_text('raise ImportError("not here")\n')
    peers = ["--peer", "lmdb", "--peer", "floor"]
    done = run(*TINY, *peers, "--workload", "commit-1", "--dir", str(tmp_path), first=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "lmdb: left out, ImportError: not here" in done.stdout
    assert "floor" in done.stdout


def test_unknown_names_are_refused() -> None:
    for arguments, message in (
        (["--peer", "nobody"], "no peer 'nobody'"),
        (["--workload", "x*"], "no workload"),
        (["--dir", "/no/such"], "no directory /no/such: make it"),
    ):
        done = run(*arguments)
        assert done.returncode == 2
        assert message in done.stderr


@pytest.mark.skipif(not os.path.isdir(MEMORY), reason="no filesystem in memory to try")
def test_a_filesystem_where_a_sync_is_free_is_refused() -> None:
    done = run("--dir", MEMORY, "--peer", "floor", "--workload", "commit-1")
    assert done.returncode == 2
    assert "where a sync is free" in done.stderr


def test_references_are_measured() -> None:
    script = str(TOP / "benchmarks" / "references.py")
    command = [sys.executable, script, "--records", "20", "--rounds", "1", "--json"]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(TOP)}, capture_output=True, check=True)
    assert all(each["by_the_expression"] == 1 for each in json.loads(done.stdout))


def test_zodb_is_measured_over_both_storages(tmp_path) -> None:
    script = str(TOP / "benchmarks" / "zodb_storage.py")
    command = [sys.executable, script, "--seconds", "0.02", "--rounds", "1", "--objects", "400", "--json"]
    environment = os.environ | {"PYTHONPATH": str(TOP)}
    done = subprocess.run([*command, "--dir", str(tmp_path)], env=environment, capture_output=True, check=True)
    rates = json.loads(done.stdout)["per_second"]
    assert all(rate > 0 for found in rates.values() for rate in found.values())
    assert len(rates) == 5
    assert list(tmp_path.iterdir()) == []
