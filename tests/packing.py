"""What the tests of packing share: stores whose packs go in small steps, and what can be read from a store."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from stores import PATH, commit, value_of

from objstore.contracts import Filesystem, Format, History, StoreOptions
from objstore.engine.opening import open_store
from objstore.engine.store import DirectoryStore
from objstore.errors import POSKeyError
from objstore.ids import ROOT, Oid, Tid, number, oid_from, split_oids, tid_from
from objstore.upkeep.pack import PackLimits, pack

SMALL_STEPS = PackLimits(step=1, batch=3, details=2, moment=2, patience=2)
"""Small enough that a few objects take several batches and rounds."""


def packing_store(
    filesystem: Filesystem,
    history: History = History.FULL,
    format: Format = Format.CHUNKY,
    limits: PackLimits = SMALL_STEPS,
    clock: Callable[[], float] = time.time,
    **options: object,
) -> DirectoryStore:
    """A store, flushed by hand unless `background=True`, whose packs have these limits."""
    options.setdefault("background", False)
    chosen = StoreOptions(history=history, format=format, **options)
    return open_store(PATH, chosen, filesystem=filesystem, packer=partial(pack, limits=limits), clock=clock)


def files_of(filesystem: Filesystem, path: str) -> dict[str, bytes]:
    """Every file below a directory, and what it holds."""
    found = {}
    for entry in filesystem.entries(path):
        below = f"{path}/{entry.name}"
        if entry.is_directory:
            found |= files_of(filesystem, below)
        else:
            found[below] = filesystem.read(below)
    return found


def home_oids(store: DirectoryStore) -> list[int]:
    """What the home has anything of."""
    return sorted(map(number, store.home.oids()))


def tids_of(store: DirectoryStore, at: int) -> list[Tid]:
    """The serials of an object's revisions, oldest first; none where there is no such object."""
    try:
        return [summary.tid for summary in store.summaries(oid_from(at))][::-1]
    except POSKeyError:
        return []


def reachable(store: DirectoryStore, view, root: Oid = ROOT) -> dict[int, object]:
    """All that can be read from the root in a view. Raises POSKeyError where a reference leads nowhere."""
    found: dict[int, object] = {}
    pending = [root]
    while pending:
        oid = pending.pop()
        if number(oid) not in found:
            data, tid = view.load(oid)
            found[number(oid)] = value_of(data)
            packed = store.revision(oid, tid).references
            pending += split_oids(packed or b"")
    return found


def age(store: DirectoryStore) -> None:
    """Write the root again, twice, so that no transaction before is among the newest two."""
    view = store.view()
    value = value_of(view.load(ROOT)[0])
    view.close()
    packed = next(store.summaries(ROOT)).references or b""
    for _ in range(2):
        commit(store, {0: value}, {0: tuple(map(number, split_oids(packed)))})


def before(tid: Tid) -> Tid:
    """The last moment before a transaction."""
    return tid_from(number(tid) - 1)


class Progress:
    """A progress function that remembers its calls, and does something at each."""

    def __init__(self, action: Callable[[str], None] | None = None) -> None:
        self.calls: list[tuple[str, int, int | None]] = []
        self._action = action

    def __call__(self, phase: str, done: int, total: int | None) -> None:
        self.calls.append((phase, done, total))
        if self._action is not None:
            self._action(phase)

    @property
    def phases(self) -> list[str]:
        """The phases, in order, each once."""
        return list(dict.fromkeys(phase for phase, _, _ in self.calls))
