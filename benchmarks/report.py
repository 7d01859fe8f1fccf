"""Turns rounds into a table and into JSON: medians, ratios to the reference, and what is required.

A ratio is the median of the rounds' ratios, each to the reference in the same round, so a machine that is slow
for some rounds does not shift it.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from metrics import Measures, Metric
from peers.registry import REFERENCE
from rounds import Measured
from workloads.protocol import Workload


@dataclass(frozen=True, slots=True)
class Row:
    """One peer in one metric. `met` is None where nothing is required, or nothing could be compared."""

    peer: str
    value: float
    least: float
    most: float
    ratio: float | None
    required: str
    met: bool | None


def rows(metric: Metric, rounds: Mapping[str, Sequence[Measures]]) -> list[Row]:
    """The rows of a metric, of the peers that have it, best first."""
    values = {
        peer: [each[metric.name] for each in some]
        for peer, some in rounds.items()
        if some and all(metric.name in each for each in some)
    }
    reference = values.get(REFERENCE)
    found = [_row(metric, peer, some, reference) for peer, some in values.items()]
    return sorted(found, key=lambda row: row.value if metric.lower_is_better else -row.value)


def _row(metric: Metric, peer: str, values: Sequence[float], reference: Sequence[float] | None) -> Row:
    value = max(values) if metric.worst else statistics.median(values)
    ratio = None
    if reference is not None and all(reference):
        ratio = statistics.median(mine / theirs for mine, theirs in zip(values, reference, strict=True))
    required = metric.required if metric.required and metric.required.peer == peer else None
    return Row(
        peer,
        value,
        min(values),
        max(values),
        ratio,
        required.told(metric.unit) if required else "",
        required.met(value, ratio) if required else None,
    )


def table(workload: Workload, measured: Measured) -> Iterator[str]:
    """The lines of a workload's tables, one table a metric."""
    yield f"{workload.name}: {workload.title}"
    for metric in workload.metrics:
        better = "less is better" if metric.lower_is_better else "more is better"
        how = "largest" if metric.worst else "median"
        rounds = max((len(each) for each in measured.rounds.values()), default=0)
        yield f"  {metric.name} [{metric.unit}], {better}, {how} of {rounds} rounds"
        yield f"    {'peer':<22}{'value':>12}{'least':>12}{'most':>12}{'x ' + REFERENCE:>9}  required"
        for row in rows(metric, measured.rounds):
            numbers = "".join(f"{_number(each):>12}" for each in (row.value, row.least, row.most))
            ratio = "-" if row.ratio is None else f"{row.ratio:.2f}"
            yield f"    {row.peer:<22}{numbers}{ratio:>9}  {verdict(row)}".rstrip()
    for peer, reason in measured.failed.items():
        yield f"    {peer} did not come through: {reason}"


def verdict(row: Row) -> str:
    """What is required, and whether it is met."""
    if not row.required:
        return ""
    return f"{row.required}: {'not compared' if row.met is None else 'pass' if row.met else 'FAIL'}"


def _number(value: float) -> str:
    if abs(value) >= 1_000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 100 else f"{value:.3f}"


def summary(results: Mapping[str, tuple[Workload, Measured]]) -> Iterator[str]:
    """One line for each requirement."""
    for workload, measured in results.values():
        for metric in workload.metrics:
            for row in rows(metric, measured.rounds):
                if row.required:
                    found = f"{_number(row.value)} {metric.unit}"
                    ratio = "" if row.ratio is None else f", {row.ratio:.2f}x {REFERENCE}"
                    yield f"  {workload.name:<14}{metric.name:<20}{found + ratio:<36}{verdict(row)}"


def as_json(workload: Workload, measured: Measured) -> dict[str, Any]:
    """All there is to know of a workload: every round's measures, and what the table says."""
    return {
        "title": workload.title,
        "metrics": [
            {
                "name": metric.name,
                "unit": metric.unit,
                "lower_is_better": metric.lower_is_better,
                "rows": [
                    {
                        "peer": row.peer,
                        "value": row.value,
                        "least": row.least,
                        "most": row.most,
                        "ratio": row.ratio,
                        "required": row.required or None,
                        "met": row.met,
                    }
                    for row in rows(metric, measured.rounds)
                ],
            }
            for metric in workload.metrics
        ],
        "rounds": {peer: [dict(each) for each in some] for peer, some in measured.rounds.items()},
        "failed": measured.failed,
    }
