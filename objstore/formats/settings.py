"""`config/settings.toml`: what a store is. Written once, when it is created, and never changed.

`docs/format/store.md` is the specification.
"""

from __future__ import annotations

import tomllib
from typing import NamedTuple

from objstore.contracts import Format, History
from objstore.errors import CorruptionError, FormatVersionError

FORMAT_VERSION = 1


class Settings(NamedTuple):
    """What a store is: its history mode, its format, and an identity (a UUID) that no other store has."""

    history: History
    format: Format
    identity: str

    def encode(self) -> bytes:
        return (
            "# The settings of an objstore store. Written once, when it was created: do not edit.\n"
            f"format_version = {FORMAT_VERSION}\n"
            f'history = "{self.history}"\n'
            f'format = "{self.format}"\n'
            f'identity = "{self.identity}"\n'
        ).encode()


def decode_settings(content: bytes, path: str) -> Settings:
    """Read settings. Raises `FormatVersionError` for a version that is not ours, else `CorruptionError`."""
    try:
        table = tomllib.loads(content.decode())
        version = table["format_version"]
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, KeyError) as error:
        raise CorruptionError(path, f"these are no settings of a store: {error}") from error
    if version != FORMAT_VERSION:
        raise FormatVersionError(
            path, f"format version {version}; this objstore reads {FORMAT_VERSION}, use the one that wrote it"
        )
    try:
        return Settings(History(table["history"]), Format(table["format"]), str(table["identity"]))
    except (KeyError, ValueError) as error:
        raise CorruptionError(path, f"the settings are not whole: {error}") from error
