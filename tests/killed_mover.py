"""A process of its own for the tests: moves one store into another, and tells each transaction that is committed.

Its arguments: source and target; and the directories of their blobs, "" where they have none.
"""

from __future__ import annotations

import sys

from objstore.compat.moving import Mover, moving, opened_source, opened_target


def tell(phase: str, done: int, total: int | None) -> None:
    """Print each step."""
    print("moved", phase, done, total, flush=True)


if __name__ == "__main__":
    moving.STEP = 1
    there, here = (each or None for each in (*sys.argv[3:], "", "")[:2])
    with opened_source(sys.argv[1], blobs=there) as source, opened_target(sys.argv[2], blobs=here) as target:
        Mover(source, target, progress=tell).run()
