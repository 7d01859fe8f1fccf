"""What a workload measures, and what is required of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from peers.registry import OURS, REFERENCE

Measures = Mapping[str, float]
"""What one round measured, by the names of metrics. What no metric names is kept in the JSON only."""


@dataclass(frozen=True, slots=True)
class Required:
    """A bound that one peer has to keep: of the value, or of its ratio to the reference's value."""

    bound: float
    of_ratio: bool
    at_most: bool
    peer: str = OURS

    def met(self, value: float, ratio: float | None) -> bool | None:
        """Whether it is; None where there is no reference to compare with."""
        judged = ratio if self.of_ratio else value
        if judged is None:
            return None
        return judged <= self.bound if self.at_most else judged >= self.bound

    def told(self, unit: str) -> str:
        """What is required, of a value in this unit."""
        what = f"x {REFERENCE}" if self.of_ratio else f" {unit}"
        return f"{'at most' if self.at_most else 'at least'} {self.bound:g}{what}"


def ratio_at_most(bound: float) -> Required:
    return Required(bound, of_ratio=True, at_most=True)


def ratio_at_least(bound: float) -> Required:
    return Required(bound, of_ratio=True, at_most=False)


def at_most(bound: float, peer: str = OURS) -> Required:
    return Required(bound, of_ratio=False, at_most=True, peer=peer)


@dataclass(frozen=True, slots=True)
class Metric:
    """One number of a workload. Of the rounds' values the median counts, or, if `worst`, the largest."""

    name: str
    unit: str
    required: Required | None = None
    lower_is_better: bool = True
    worst: bool = False
