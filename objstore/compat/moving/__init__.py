"""Moving data between ZODB's storages and ours, in both directions, with its oids, tids and history."""

from __future__ import annotations

from objstore.compat.moving.moving import Mover, MoveReport
from objstore.compat.moving.places import opened_source, opened_target

__all__ = ["MoveReport", "Mover", "opened_source", "opened_target"]
