"""What all tests share: the facts that a run prints at its end.

A test tells a number worth knowing (how many crash states it tried, what was not run and why) with pytest's
`record_property(name, value)`; these reach the end of the run also from the processes that xdist starts,
where printing would be lost.
"""

from __future__ import annotations

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    lines = [
        f"{report.nodeid}: {name}: {value}"
        for outcome in ("passed", "failed")
        for report in terminalreporter.getreports(outcome)
        for name, value in report.user_properties
    ]
    if lines:
        terminalreporter.section("facts")
        for line in sorted(lines):
            terminalreporter.write_line(line)
