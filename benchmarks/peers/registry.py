"""Which peers there are, by name. A peer's module is imported when it is asked for: it may be missing."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

from peers.protocol import Peer, Unavailable

REFERENCE = "zodb"
"""The peer that the others are compared with: ZODB with FileStorage."""
OURS = "objstore"

_MODULES: Mapping[str, tuple[str, dict[str, str]]] = {
    OURS: ("objects", {}),
    "objstore-minimal": ("objects", {"history": "minimal"}),
    REFERENCE: ("zodb", {"storage": "file"}),
    "zodb-mapping": ("zodb", {"storage": "mapping"}),
    "relstorage": ("relstorage_sqlite", {}),
    "durus": ("durus_file", {}),
    "sqlite3": ("sqlite", {}),
    "lmdb": ("lmdb_map", {}),
    "floor": ("floor", {}),
} | {
    f"objstore-{layout}{suffix}": ("objects", {"format": layout, "history": history})
    for layout in ("segmented", "bushy", "chunky", "lawn", "flat")
    for suffix, history in (("", "full"), ("-minimal", "minimal"))
}
USUAL = tuple(_MODULES)[:9]
"""The peers of a run that names none."""
NAMES = tuple(_MODULES)


def peer(name: str) -> Peer:
    """Make a peer. Raises Unavailable, with the reason, where something that it needs is missing."""
    module, settings = _MODULES[name]
    try:
        made: Peer = import_module(f"peers.{module}").peer(**settings)
    except (ImportError, AttributeError, SyntaxError) as error:
        raise Unavailable(f"{type(error).__name__}: {error}") from error
    return made
