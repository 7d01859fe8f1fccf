"""Real processes killed with SIGKILL while they commit, flush and pack: nothing acknowledged is lost.

The child writes the same number into several objects with each transaction and tells it on its standard
output once the commit has returned. After the kill every object must hold the same number, and at least the
last one that was told.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest

import objstore

WRITER = Path(__file__).with_name("killed_writer.py")
OBJECTS = 5


def run_and_kill(path: Path, rng: random.Random, history: str, format: str) -> int:
    """Start a writer, kill it after some commits, and give the last number that it acknowledged."""
    child = subprocess.Popen(
        [sys.executable, str(WRITER), str(path), history, format, str(OBJECTS)],
        stdout=subprocess.PIPE,
        text=True,
    )
    told = 0
    with child:
        for _ in range(rng.randint(1, 60)):
            line = child.stdout.readline()
            assert line, "the writer failed"
            told = int(line)
        for _ in range(rng.randint(0, 20_000)):  # so that the kill meets any step of what comes next
            pass
        child.send_signal(signal.SIGKILL)
        rest = child.stdout.read().split()
    return int(rest[-1]) if rest else told


def verify(path: Path, acknowledged: int) -> int:
    """The number that all objects hold, which nobody may have lost."""
    with objstore.open(str(path), create=False) as db:
        with db.transaction() as connection:
            values = [connection.root()[f"o{at}"]["value"] for at in range(OBJECTS)]
            assert len(set(values)) == 1, "a transaction is there in parts"
            assert values[0] >= acknowledged, "an acknowledged transaction is lost"
            chain = connection.root()["chain"]
            assert len(chain) == 50
        if db.store.history_mode == "full":
            log = [entry.details.description for entry in db.store.transactions(db.lastTransaction())]
            numbers = [int(text) for text in log if text.isdigit()]
            assert numbers == sorted(numbers, reverse=True)
        return values[0]


def kill_again_and_again(path: Path, seed: int, history: str, format: str, rounds: int) -> int:
    rng = random.Random(seed)
    value = 0
    for _ in range(rounds):
        acknowledged = run_and_kill(path, rng, history, format)
        value = verify(path, max(acknowledged, value))
    return value


@pytest.mark.parametrize(
    ("history", "format"),
    [("full", "segmented"), ("minimal", "segmented"), ("full", "chunky"), ("minimal", "chunky")],
)
def test_nothing_acknowledged_is_lost(tmp_path, history, format, record_property):
    value = kill_again_and_again(tmp_path / "store", 1, history, format, rounds=6)
    record_property("commits that survived kills", value)
    assert value > 0


@pytest.mark.long
@pytest.mark.parametrize(
    ("history", "format"), list(product(("full", "minimal"), ("segmented", "chunky", "bushy", "lawn", "flat")))
)
def test_nothing_acknowledged_is_lost_long(tmp_path, history, format, record_property):
    value = kill_again_and_again(tmp_path / "store", 2, history, format, rounds=40)
    record_property("commits that survived kills", value)
    assert value > 0
