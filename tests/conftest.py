"""What all tests share: the facts that a run prints at its end.

A test tells a number worth knowing (how many crash states it tried, what was not run and why) with pytest's
`record_property(name, value)`; these reach the end of the run also from the processes that xdist starts,
where printing would be lost. Whole numbers of one name are added up over the tests that tell them.
"""

from __future__ import annotations

from collections import defaultdict

import pytest
import servers
from hypothesis import HealthCheck, settings

# How long an example takes says more of what else the machine does than of the code.
settings.register_profile("objstore", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("objstore")


LONG_TIMEOUT = 1800
"""Seconds that a test may take which runs in `make test-long` only."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("long") is not None:
            item.add_marker(pytest.mark.timeout(LONG_TIMEOUT))


def pytest_sessionfinish() -> None:
    servers.stop_all()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    lines = []
    counts: defaultdict[str, list[int]] = defaultdict(list)
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            for name, value in report.user_properties:
                if isinstance(value, int):
                    counts[name].append(value)
                else:
                    lines.append(f"{report.nodeid}: {name}: {value}")
    lines += [f"{name}: {sum(values):,} (in {len(values)} tests)" for name, values in counts.items()]
    if lines:
        terminalreporter.section("facts")
        for line in sorted(lines):
            terminalreporter.write_line(line)
