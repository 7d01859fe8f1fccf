"""Long work that leaves the machine to others for a share of the time.

It rests where it tells of its progress, so the work itself knows nothing of it, and nobody is kept waiting
meanwhile: progress is not told while locks are held that others want.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from objstore.contracts import Progress
from objstore.errors import UsageError


class Pace:
    """A progress function that rests, such that work is done for no more than `share` of the time.

    Raises UsageError unless `share` is more than 0 and at most 1.
    """

    def __init__(
        self,
        share: float,
        progress: Progress | None = None,
        *,
        rest: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        if not 0 < share <= 1:
            raise UsageError(f"throttle is a share of the time, more than 0 and at most 1, not {share}")
        self._share = share
        self._progress = progress
        self._rest = rest
        self._clock = clock
        self._since = clock()

    def __call__(self, phase: str, done: int, total: int | None) -> None:
        if self._progress is not None:
            self._progress(phase, done, total)
        if self._share < 1:
            self._rest((self._clock() - self._since) * (1 / self._share - 1))
            self._since = self._clock()
