"""Stores that workloads start from, built in a process of its own, once for all workloads that only read."""

from __future__ import annotations

import os
import shutil

import aside
from places import Place
from recipes import Recipe


def shared(place: Place, recipe: Recipe) -> str:
    """The directory of a store that was closed, made if it is not there yet. To be left as it is."""
    directory = f"{place.shared}/{recipe.name}"
    if not os.path.exists(directory):
        making = f"{directory}.making"
        os.mkdir(making)
        aside.call("build", place.peer, making, recipe.count, recipe.batch, int(recipe.churned))
        os.rename(making, directory)
    return directory


def copied(place: Place, recipe: Recipe, name: str) -> str:
    """A copy of it, to be changed."""
    directory = f"{place.scratch}/{name}"
    shutil.copytree(shared(place, recipe), directory)
    return directory
