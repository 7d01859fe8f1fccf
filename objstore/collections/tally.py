"""How many members a collection has, and which of its transactions may be merged.

Like `BTrees.Length`, but it also knows the generation of the collection's indexes. Transactions that add, remove
and move members are merged by adding up; one that adds, drops or rebuilds an index is not merged with any of
these, whichever commits first, and nor is an undo across it: the other would have kept indexes that are not those
of now.
"""

from __future__ import annotations

from persistent import Persistent

from objstore.errors import ConflictError
from objstore.ids import NO_TID, Oid

State = tuple[int, int, int]


class Tally(Persistent):
    """Counters of a collection."""

    def __init__(self) -> None:
        self.members = 0
        self.moves = 0
        self.generation = 0

    def __getstate__(self) -> State:
        return (self.members, self.moves, self.generation)

    def __setstate__(self, state: State) -> None:
        self.members, self.moves, self.generation = state

    def change(self, members: int) -> None:
        """Members came or went, or were moved in the indexes."""
        self.moves += 1
        self.members += members

    def renew(self) -> None:
        """The indexes are others from now on."""
        self.generation += 1

    def _p_resolveConflict(self, old: State, committed: State, new: State) -> State:
        if not old[2] == committed[2] == new[2]:
            reason = "indexes of the collection were added, dropped or rebuilt meanwhile"
            raise ConflictError(Oid(NO_TID), NO_TID, NO_TID, reason=reason)
        return (committed[0] + new[0] - old[0], max(committed[1], new[1]) + 1, old[2])
