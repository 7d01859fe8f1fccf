"""What is stored: the same object in every peer, as each peer wants its objects to be.

An item has an int, a short string, a string of 100 characters, a float and a list of three ints. The long
string is hexadecimal digits of a hash, so that no compression makes one peer look smaller than its format is.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

from persistent import Persistent


def fill(item: Any, key: int) -> None:
    """Give an item the attributes that belong to its key. `number` is what workloads change and add up."""
    item.number = key
    item.name = f"item {key}"
    item.text = blake2b(key.to_bytes(8, "big"), digest_size=50).hexdigest()
    item.weight = key / 8
    item.triple = [key, key + 1, key + 2]


class Item(Persistent):
    """For the databases that store `persistent` objects."""

    def __init__(self, key: int) -> None:
        fill(self, key)


class PlainItem:
    """For the stores that are handed pickles."""

    def __init__(self, key: int) -> None:
        fill(self, key)
