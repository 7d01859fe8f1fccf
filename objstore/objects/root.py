"""The root of a database, with its items as attributes."""

from __future__ import annotations

from typing import Any


class RootConvenience:
    """`root()` is the root mapping; `root.name`, `root.name = value` and `del root.name` are its items."""

    __slots__ = ("_mapping",)

    def __init__(self, mapping: Any) -> None:
        object.__setattr__(self, "_mapping", mapping)

    def __call__(self) -> Any:
        return self._mapping

    def __getattr__(self, name: str) -> Any:
        try:
            return self._mapping[name]
        except KeyError as error:
            raise AttributeError(name) from error

    def __setattr__(self, name: str, value: Any) -> None:
        self._mapping[name] = value

    def __delattr__(self, name: str) -> None:
        try:
            del self._mapping[name]
        except KeyError as error:
            raise AttributeError(name) from error

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *(name for name in self._mapping if isinstance(name, str))]

    def __repr__(self) -> str:
        names = " ".join(sorted(str(name) for name in self._mapping))
        return f"<root: {names if len(names) <= 60 else names[:57].rpartition(' ')[0] + ' ...'}>"
