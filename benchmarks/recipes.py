"""What the stores that workloads start from hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from peers.protocol import OpenStore, Session

REVISIONS = 5
"""How many revisions of the revised objects there are."""
REVISED = 5
GARBAGE = 5
"""One in so many objects is revised, and one in so many is removed."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """A store of `count` items, of which, if `churned`, some have several revisions and some were removed."""

    count: int
    batch: int
    churned: bool = False

    @property
    def name(self) -> str:
        return f"{'churned' if self.churned else 'plain'}-{self.count}-{self.batch}"

    @property
    def kept(self) -> Sequence[int]:
        """The keys of the items that are there in the end."""
        return range(self.count - self.count // GARBAGE if self.churned else self.count)

    def follow(self, store: OpenStore) -> None:
        """Make it."""
        session = store.session()
        add(session, range(self.count), self.batch)
        if self.churned:
            for revision in range(1, REVISIONS):
                for keys in batches(range(self.count // REVISED), self.batch):
                    session.hold(keys)
                    session.change(revision)
            for keys in batches(range(len(self.kept), self.count), self.batch):
                session.remove(keys)
        session.close()
        store.settle()


def batches(keys: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    return (keys[at : at + size] for at in range(0, len(keys), size))


def add(session: Session, keys: Sequence[int], batch: int) -> None:
    """Add items, so many a commit."""
    for some in batches(keys, batch):
        session.add(some)
