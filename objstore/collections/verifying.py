"""Whether the indexes of a collection fit its objects. Nothing is written; what is found is told one by one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from objstore.collections.keys import Key, decode
from objstore.collections.members import Built, Members
from objstore.collections.walking import ascending
from objstore.errors import IndexingError, KeyTypeError, POSKeyError
from objstore.objects.following import followers


class Misfit(NamedTuple):
    """Something in a collection does not fit. `oid` names the object, where there is one."""

    kind: str
    """`missing` (the object is gone), `unreadable` (its keys cannot be read), `unindexed` (an index lacks a key),
    `outdated` (an index has a key that is not the member's), `unfollowed` (the object does not tell of changes),
    `count` (there are not as many as the collection says)."""
    index_name: str
    member: int | None
    oid: bytes | None
    text: str


def verify(follower: Any, members: Members) -> Iterator[Misfit]:
    """Compare the indexes to the objects, in memory that does not grow with them."""
    count = 0
    for member in ascending(members.by_id):
        count += 1
        yield from _of_member(follower, members, member)
    for position, built in enumerate(members.built):
        if built is not None:
            yield from _of_index(members, position, built)
    for member in ascending(members.entries):
        if member not in members.by_id:
            yield Misfit("outdated", "", member, None, f"there are keys of {member}, which is no member")
    if count != members.tally.members:
        yield Misfit("count", "", None, None, f"it says {members.tally.members} members, and has {count}")


def _of_member(follower: Any, members: Members, member: int) -> Iterator[Misfit]:
    obj = members.by_id[member]
    oid = obj._p_oid
    try:
        obj._p_activate()
        new = members.entry_of(obj)
    except POSKeyError as error:
        yield Misfit("missing", "", member, oid, str(error))
        return
    except (KeyTypeError, IndexingError) as error:
        yield Misfit("unreadable", "", member, oid, str(error))
        return
    if hasattr(obj, "__dict__") and (follower, member) not in followers(obj):
        yield Misfit("unfollowed", "", member, oid, "it has lost _objstore_followers, so that no index follows it")
    entry = members.entries.get(member, ())
    for position, built in enumerate(members.built):
        if built is None:
            continue
        held = entry[position] if position < len(entry) else ()
        for key in new[position]:
            if not built.has(key, member) or key not in held:
                yield Misfit("unindexed", built.title, member, oid, f"it is not found by {decode(key)!r}")
        for key in held:
            if key not in new[position]:
                yield Misfit("outdated", built.title, member, oid, f"it is found by {decode(key)!r}, which it was")


def _of_index(members: Members, position: int, built: Built) -> Iterator[Misfit]:
    """Keys that no entry knows."""
    for each in ascending(built.tree):
        key, member = _split(built, each)
        entry = members.entries.get(member, ())
        if member not in members.by_id or position >= len(entry) or key not in entry[position]:
            text = f"{decode(key)!r} leads to {member}, which does not have it"
            yield Misfit("outdated", built.title, member, None, text)


def _split(built: Built, each: Any) -> tuple[Key, int]:
    return (each, built.tree[each]) if built.definition.unique else (each[:-1], each[-1])
