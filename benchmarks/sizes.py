"""How large a run is. Every workload names its sizes in full; a run may scale all of them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes at a scale: 1 for those of the requirements."""

    scale: float

    def of(self, full: int, least: int = 1) -> int:
        """A number of objects, commits or loads at this scale, but never fewer than `least`."""
        return max(least, round(full * self.scale))
