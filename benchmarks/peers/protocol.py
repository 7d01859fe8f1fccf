"""What a workload asks of every peer: few and coarse steps, so that the same workload measures them all.

A *session* is one thread's way to a store of items, each under its own int. What adds, changes or removes
items commits before it returns, as durably as the peer's `durability` says.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Flag, auto
from typing import Protocol

CACHE_SIZE = 20_000
"""How many objects the databases that have a cache of objects may keep in it, between transactions."""
POOL_SIZE = 16
"""How many connections they expect to be open at once."""


class Ability(Flag):
    """What a peer can do beside adding, changing and reading items."""

    LASTS = auto()
    """A store closed can be opened again, by another process too."""
    THREADS = auto()
    """Several sessions at once, each of another thread."""
    PACKS = auto()
    """Revisions that were superseded and items that were removed can be dropped."""
    SYNCS_BY_PYTHON = auto()
    """It syncs by Python's `os`, so that a slower disk can be put below it."""


class Unavailable(Exception):  # noqa: N818 - a peer that is not there is no error
    """A peer cannot take part; the message says why."""


class Session(Protocol):
    """One thread's way to a store."""

    def add(self, keys: Sequence[int]) -> None:
        """Make new items, and commit."""

    def remove(self, keys: Sequence[int]) -> None:
        """Remove items, and commit."""

    def hold(self, keys: Sequence[int]) -> None:
        """From here on `change` and `read` concern these items. Loads none of them."""

    def change(self, number: int) -> None:
        """Set the number of every held item, and commit. Items that are not in memory are loaded first."""

    def read(self) -> int:
        """Load every held item that is not in memory; the sum of their numbers."""

    def scan(self) -> int:
        """The sum of the numbers of all items, in the order of their keys."""

    def forget(self) -> None:
        """Drop the objects from memory, those that are held too."""

    def close(self) -> None:
        """Let go of the store, in a state in which it can be closed."""


class OpenStore(Protocol):
    """A store that is open in this process."""

    def session(self) -> Session:
        """A session for the thread that calls."""

    def settle(self) -> None:
        """Wait until what the peer does in the background is done."""

    def pack(self) -> None:
        """Drop what was superseded or removed until now."""

    def close(self) -> None:
        """Close it; all there is is on the disk then."""


class Peer(Protocol):
    """A database, in one configuration."""

    title: str
    versions: str
    durability: str
    """The settings that decide what a commit has made durable when it returns."""
    abilities: Ability

    def open(self, directory: str) -> OpenStore:
        """Open the store in a directory that exists; make it if there is none."""

    def opening_script(self, directory: str) -> str:
        """A program that does nothing but import, open the store, read its root, and close it."""
