"""Modules that are imported when something of them is first used, because starting is to be quick.

For what takes half a millisecond or more to import, and what few programs come to use: packing, temporary files.
It is named where other imports are, at the top, and for type checkers as an import:

    if TYPE_CHECKING:
        import tempfile
    else:
        tempfile = Later("tempfile")

Only attributes can be asked for, as in `tempfile.TemporaryFile()`. What an import may raise is raised there.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any


class Later:
    """Stands for a module, and imports it when it is asked for an attribute."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(import_module(self._name), attribute)

    def __repr__(self) -> str:
        return f"<module {self._name!r}, imported when it is used>"
