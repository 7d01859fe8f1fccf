"""What has to happen in a process of its own: to be killed, to have its memory measured, or to leave no traces.

`call` runs one of the actions below in a fresh interpreter and gives what it printed, which is JSON.
"""

from __future__ import annotations

import gc
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable

from metrics import Measures
from peers import registry
from recipes import Recipe

_KILLED_COMMITS, _KILLED_OBJECTS = 100, 10
_STATUS = "/proc/self/status"


def call(action: str, peer: str, directory: str, *numbers: int) -> dict[str, float]:
    """Run an action, and wait for it. Raises CalledProcessError; what went wrong is on the standard error."""
    done = subprocess.run(_command(action, peer, directory, *numbers), stdout=subprocess.PIPE, check=True)
    answer: dict[str, float] = json.loads(done.stdout)
    return answer


def kill_while_committing(peer: str, directory: str, count: int) -> None:
    """Let a process commit changes to a store of `count` items, and kill it when all are acknowledged."""
    with subprocess.Popen(_command("commit", peer, directory, count), stdout=subprocess.PIPE) as process:
        ready = process.stdout.readline() if process.stdout else b""
        process.send_signal(signal.SIGKILL)
    if not ready:
        raise RuntimeError(f"{peer}: the process that was to be killed ended by itself")


def _command(action: str, peer: str, directory: str, *numbers: int) -> list[str]:
    return [sys.executable, __file__, action, peer, directory, *map(str, numbers)]


# --- the actions --------------------------------------------------------------------------------------


def build(peer: str, directory: str, count: int, batch: int, churned: int) -> Measures:
    """Make a store by a recipe."""
    store = registry.peer(peer).open(directory)
    Recipe(count, batch, bool(churned)).follow(store)
    store.close()
    return {}


def commit(peer: str, directory: str, count: int) -> Measures:
    """Commit, say so, and wait to be killed."""
    store = registry.peer(peer).open(directory)
    session = store.session()
    for number in range(_KILLED_COMMITS):
        session.hold([key % count for key in range(number, number + _KILLED_OBJECTS)])
        session.change(number)
    print("ready", flush=True)
    signal.pause()
    return {}


def memory(peer: str, directory: str) -> Measures:
    """How much larger the process is with an open store, nothing but the root loaded, than with its imports."""
    made = registry.peer(peer)
    gc.collect()
    before = _status_bytes("VmRSS")
    store = made.open(directory)
    session = store.session()
    gc.collect()
    after = _status_bytes("VmRSS")
    session.close()
    store.close()
    return {"memory": (after - before) / 1e6, "with imports": before / 1e6}


def pack(peer: str, directory: str) -> Measures:
    """Pack a store; the seconds it took, and the most memory that the process ever had."""
    store = registry.peer(peer).open(directory)
    began = time.perf_counter()
    store.pack()
    seconds = time.perf_counter() - began
    store.close()
    return {"seconds": seconds, "peak memory": _status_bytes("VmHWM") / 1e6}


def _status_bytes(field: str) -> int:
    with open(_STATUS) as lines:
        for line in lines:
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
    raise OSError(f"{_STATUS} has no {field}")


_ACTIONS: dict[str, Callable[..., Measures]] = {"build": build, "commit": commit, "memory": memory, "pack": pack}


def main() -> None:
    action, peer, directory, *numbers = sys.argv[1:]
    answer = _ACTIONS[action](peer, directory, *map(int, numbers))
    json.dump(answer, sys.stdout)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
