"""The workloads, by name, in the order in which they are run."""

from __future__ import annotations

from workloads import bulk, commits, hot, memory, opening, packing, process, reads, threads
from workloads.protocol import Workload

_MODULES = (commits, threads, bulk, reads, opening, process, packing, hot, memory)
ALL: dict[str, Workload] = {each.name: each for module in _MODULES for each in module.WORKLOADS}
