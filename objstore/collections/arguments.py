"""What callers pass for numbers, checked where they pass it: else it would fail later, somewhere else."""

from __future__ import annotations

from operator import index
from typing import Any

from objstore.errors import UsageError


def whole(name: str, value: Any) -> int:
    """A whole number as an int. Raises UsageError, which names the argument."""
    try:
        return index(value)
    except TypeError:
        raise UsageError(f"{name} is a whole number, not {value!r}") from None
