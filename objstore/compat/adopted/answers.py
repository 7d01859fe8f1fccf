"""What a ZEO server answered to a client that it did not serve.

ZEO's client tells that to its log only, with a traceback, tries again, and says in the end that it has waited for
too long. What it logs while it is made is kept here instead.
"""

from __future__ import annotations

import logging
from types import TracebackType
from typing import Self
from urllib.parse import parse_qsl

LOGGER = "ZEO.asyncio.client"
DEFAULT_STORAGE = "1"
"""The storage that is asked for where a URL names none."""


class Answers(logging.Handler):
    """Keeps what servers answered while it is entered. Another client that connects meanwhile may be heard too."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self._found: list[BaseException] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1] is not None:
            self._found.append(record.exc_info[1])

    def __enter__(self) -> Self:
        logging.getLogger(LOGGER).addHandler(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        logging.getLogger(LOGGER).removeHandler(self)

    def reason(self, uri: str) -> str | None:
        """Why the server that a URL names does not serve it; None where it did not say."""
        if not self._found:
            return None
        name = dict(parse_qsl(uri.partition("?")[2])).get("storage", DEFAULT_STORAGE)
        said = str(self._found[-1])
        if f"unknown storage: {name}" in said:
            return f"its server has no storage of the name {name!r}; name one that it has, as ?storage=NAME"
        return f"its server did not take the client: {said}"
