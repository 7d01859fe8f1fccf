"""Objects that follow others: told of every change before it is written.

An index must fit the objects it was made of, by whatever path these were reached and changed. So an object can
carry what follows it, in an ordinary attribute that is stored with it: `_objstore_followers`, a tuple of pairs of
a persistent object with a method `follow`, and a token that this has chosen. Before a savepoint or a commit writes
the changes, each follower is called once with all the objects of its that were changed, and what it changes is
written in the same transaction. What it raises fails the savepoint or the commit.

Nothing is asked of objects that nobody follows but whether they have the attribute in their `__dict__`. Objects
without a `__dict__` cannot be followed.

What two transactions made of a followed object is never merged: its followers have seen one version or the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any, Protocol

from persistent import Persistent

from objstore.ids import Oid
from objstore.objects.broken import BrokenPersistent

FOLLOWERS = "_objstore_followers"
"""The attribute."""

Pair = tuple["Follower", Any]
"""A follower and its token, as they stand in the attribute."""


Told = list[tuple[Persistent, Any]]
"""Objects, each with the token of the follower that is told of them."""


class Follower(Protocol):
    """Persistent objects with this method may follow others."""

    def follow(self, changed: Told) -> None:
        """These objects were changed, or are new, and are about to be written; each comes with its token.

        It may change other objects. Those that are followed themselves, and were about to be written already,
        are not told of a second time.
        """


def followers(obj: Persistent) -> tuple[Pair, ...]:
    """Who follows an object. It is loaded if need be. One of a missing class has them in the state it keeps."""
    obj._p_activate()
    broken = isinstance(obj, BrokenPersistent)
    attributes = _in_state(obj.__Broken_state__) if broken else getattr(obj, "__dict__", {})
    found: tuple[Pair, ...] = attributes.get(FOLLOWERS, ())
    return found


def set_followers(obj: Persistent, pairs: tuple[Pair, ...]) -> bool:
    """Say who follows an object from now on, which changes it; False where it has no place for that.

    An object of a missing class cannot be changed, and keeps the followers that it has.
    """
    obj._p_activate()
    if isinstance(obj, BrokenPersistent):
        return False
    attributes = getattr(obj, "__dict__", None)
    if attributes is None:
        return False
    obj._p_changed = True  # first: some objects refuse
    if pairs:
        attributes[FOLLOWERS] = pairs
    else:
        attributes.pop(FOLLOWERS, None)
    return True


def tell_followers(jar: object, registered: list[Persistent], named: Mapping[Oid, Persistent]) -> None:
    """Tell them of all that was changed or is new. Both may grow meanwhile: they are told of that too."""
    done = done_new = 0
    while len(registered) > done or len(named) > done_new:
        fresh = [*registered[done:], *islice(named.values(), done_new, None)]
        done, done_new = len(registered), len(named)
        followed = [obj for obj in fresh if type(obj).__dictoffset__ and FOLLOWERS in obj.__dict__]
        if followed:
            for follower, changed in _by_follower(jar, followed):
                follower.follow(changed)


def _by_follower(jar: object, objects: Iterable[Persistent]) -> list[tuple[Follower, Told]]:
    found: dict[int, tuple[Follower, Told]] = {}
    for obj in objects:
        if obj._p_changed and obj._p_jar is jar:
            for follower, token in obj.__dict__[FOLLOWERS]:
                found.setdefault(id(follower), (follower, []))[1].append((obj, token))
    return list(found.values())


def is_followed(state: Any) -> bool:
    """Whether a state, as `__getstate__` gave it, is that of an object with followers."""
    return bool(_in_state(state).get(FOLLOWERS))


def _in_state(state: Any) -> dict[str, Any]:
    """The attributes in a state, but those in slots."""
    if isinstance(state, tuple) and len(state) == 2:  # of an object that has slots too
        state = state[0]
    return state if isinstance(state, dict) else {}
