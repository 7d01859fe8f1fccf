"""How much a snapshot holds back in a home that keeps what is superseded until nobody reads it any more.

There a slow reader keeps nobody waiting, but the disk fills: merges keep what its snapshot may need. So it is
bounded by the volume that was flushed since the snapshot, by whatever process: the board has the sum of all, and
each process notes where the sum stood after each flush that it made or met.
"""

from __future__ import annotations

from collections import deque

from objstore.ids import Tid
from objstore.machine.board import VOLUME


class Pinned:
    """Used with the flush lock held."""

    def __init__(self, words: memoryview, limit: int) -> None:
        """`limit` is in bytes, for each snapshot."""
        self._words = words
        self._limit = limit
        self._stood: deque[tuple[Tid, int]] = deque()  # the sum when everything up to a tid was flushed

    def met(self, flushed: Tid) -> None:
        """Everything up to a tid is flushed, by whomever."""
        if not self._stood or flushed > self._stood[-1][0]:
            self._stood.append((flushed, self._words[VOLUME]))

    def add(self, flushed: Tid, volume: int) -> None:
        """This process has flushed so many bytes, up to a tid."""
        self._words[VOLUME] += volume
        self.met(flushed)

    def too_old(self, horizon: Tid) -> Tid | None:
        """The tid that snapshots must reach for half of the limit to stay held back, None while the oldest of
        them, `horizon`, holds back no more than the limit. What was flushed before this process began to note is
        not counted.
        """
        stood, total = self._stood, self._words[VOLUME]
        while len(stood) > 1 and stood[1][0] <= horizon:
            stood.popleft()
        if not stood or total - stood[0][1] <= self._limit:
            return None
        return next(tid for tid, before in stood if total - before <= self._limit // 2)
