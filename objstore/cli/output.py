"""How the commands print: facts and times in one way, JSON in one way, and long work as a line that moves.

Facts go to stdout, all else to stderr. Text out of a store is escaped where it would move the cursor of a
terminal or do worse.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Self, TextIO

import click

from objstore.formats.rendering import Json, printable
from objstore.ids import NO_TID, Tid, tid_moment


def time_text(tid: Tid) -> str:
    """The moment of a tid, ISO 8601 in UTC to the microsecond."""
    return tid_moment(tid).isoformat(timespec="microseconds").replace("+00:00", "Z")


def tid_text(tid: Tid, absent: str) -> str:
    """A tid and its moment; `absent` where there is none."""
    return f"{tid.hex()}  {time_text(tid)}" if tid != NO_TID else absent


def tid_json(tid: Tid) -> Json:
    """A tid and its moment, None where there is none."""
    return {"tid": tid.hex(), "time": time_text(tid)} if tid != NO_TID else None


def size_text(size: int) -> str:
    """A number of bytes, to three digits."""
    if size < 1024:
        return count_text(size, "byte")
    steps = min((size.bit_length() - 1) // 10, 4)
    amount, unit = size / 1024**steps, ("KiB", "MiB", "GiB", "TiB")[steps - 1]
    return f"{amount:.3g} {unit}" if amount < 1000 else f"{amount:.0f} {unit}"


def count_text(count: int, one: str, many: str | None = None) -> str:
    """`3 objects`, `1 object`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def line(text: str) -> None:
    """Print a line, made fit for a terminal."""
    click.echo(printable(text))


def facts(pairs: Iterable[tuple[str, str]]) -> None:
    """Print names and values, in two columns."""
    listed = list(pairs)
    width = max((len(name) for name, _ in listed), default=0)
    for name, value in listed:
        line(f"{name:<{width}}  {value}")


def json_line(value: Mapping[str, object]) -> None:
    """Print a value as one line of JSON."""
    click.echo(json.dumps(value, allow_nan=False))


def note(text: str) -> None:
    """Tell the one who watches something that is no result."""
    click.echo(printable(text), err=True)


class ProgressLine:
    """A `contracts.Progress` that keeps one line of a terminal up to date; silent where there is none.

    Used as a context manager: the line is gone at the end, and what is printed meanwhile does not mix with it.
    """

    interval = 0.1  # seconds between two drawings

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._visible = stream.isatty()
        self._clock = clock
        self._next = 0.0
        self._phase = ""
        self._drawn = False

    def __call__(self, phase: str, done: int, total: int | None) -> None:
        if not self._visible:
            return
        now = self._clock()
        if now < self._next and phase == self._phase:
            return
        self._next, self._phase = now + self.interval, phase
        width = shutil.get_terminal_size().columns - 1
        self._stream.write(f"\r\x1b[K{_progress_text(phase, done, total, width)[:width]}")
        self._stream.flush()
        self._drawn = True

    def clear(self) -> None:
        """Take the line away, to print something else there."""
        if self._drawn:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._drawn, self._next = False, 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.clear()


def _progress_text(phase: str, done: int, total: int | None, width: int) -> str:
    if not total:
        return f"{phase}: {done:,}"
    share = min(done / total, 1.0)
    text = f"{phase}: {share:4.0%} {done:,} of {total:,} "
    room = min(width - len(text) - 2, 40)
    return f"{text}[{'#' * round(share * room):<{room}}]" if room > 5 else text
