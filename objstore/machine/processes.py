"""Which processes live: told by pid and start time, because pids are used again.

A process that has ended and that nobody has waited for yet (a zombie) has its pid still, and does not live.
"""

from __future__ import annotations

import os

_ENDED = (b"Z", b"X", b"x")


def start_time(pid: int) -> int:
    """When a process started, in a unit of the system's; 0 where the system does not tell."""
    fields = _stat(pid)
    return int(fields[19]) if fields else 0


def is_alive(pid: int, start: int) -> bool:
    """Whether the process that has this pid is there, has not ended, and is the one that started then."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it lives, and is another user's
        pass
    except OSError:
        return False
    fields = _stat(pid)
    return not fields or (fields[0] not in _ENDED and (not start or int(fields[19]) == start))


def _stat(pid: int) -> list[bytes]:
    """What /proc/<pid>/stat says from its third field on, the state; nothing where the system does not tell."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The second field is the name, in parentheses, and may hold anything.
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return []
    return fields if len(fields) > 19 and fields[19].isdigit() else []
