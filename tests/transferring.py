"""A process of its own for the tests: transfers among accounts, and tells each transaction that was acknowledged.

Its arguments: path, seconds (0: until it is killed), and options of `objstore.open` as JSON.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time

import transaction
from BTrees.check import check
from transaction.interfaces import TransientError

import objstore

ACCOUNTS, TOTAL = 1000, 100_000


def main(path: str, seconds: float, options: dict[str, object]) -> None:
    """Print `+ key` for each acknowledged transaction, `snapshots n` at the end."""
    rng = random.Random(os.getpid())
    db = objstore.open(path, create=False, **options)
    connection = db.open()
    number = snapshots = 0
    end = time.monotonic() + (seconds or 3600)
    while time.monotonic() < end:
        try:
            root = connection.root()
            giver, taker = rng.sample(range(ACCOUNTS), 2)
            root["accounts"][giver] -= 1
            root["accounts"][taker] += 1
            key = os.getpid() << 32 | number
            root["log"][key] = 1
            transaction.commit()
        except TransientError:
            transaction.abort()
            continue
        print("+", key, flush=True)
        number += 1
        if number % 40 == 0:
            transaction.begin()
            total = sum(connection.root()["accounts"].values())
            assert total == TOTAL, f"a snapshot shows {total}"
            check(connection.root()["accounts"])
            check(connection.root()["log"])
            snapshots += 1
            transaction.abort()
    connection.close()
    db.close()
    print("snapshots", snapshots, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), json.loads(sys.argv[3]))
