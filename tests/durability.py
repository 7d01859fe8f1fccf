"""What a crash may leave of a sequence of file operations: the knowledge of the simulated filesystem.

The rules, which are those of POSIX read as a sceptic reads them:

- What was written to a file and not synced may be there or not, each write apart, and a write in part: its
  first bytes, its last bytes, or nothing but the length that it gave to the file, which then reads as zeros.
- What was done to the names in a directory (a file or directory made, renamed, removed) and not synced in
  that directory may be there or not, each change apart, and apart from the content of files. A rename is
  there or not, never in half. One that moves a name between directories is sure once both are synced.
- A change that needs another which is not there (a rename of a file whose creation was lost) is not there
  either.
- Syncing a file makes neither its name durable, nor syncing a directory its own name. After a sync that
  failed, a later one tells nothing of what was written before.

A node (`objstore.machine.tree`) is what POSIX calls an inode: changes name nodes, not paths, so that they
stay true when something above is renamed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from hashlib import blake2b
from itertools import product
from random import Random
from typing import NamedTuple

from objstore.machine.tree import Directory, File, Node, Tree


class Kind(StrEnum):
    """What an operation does."""

    CREATE = "create"
    WRITE = "write"
    OVERWRITE = "write over"
    ALLOCATE = "allocate"
    SYNC = "sync"
    RENAME = "rename"
    UNLINK = "unlink"
    MAKE_DIRECTORY = "make directory"
    REMOVE_DIRECTORY = "remove directory"
    SYNC_DIRECTORY = "sync directory"


GROWING = frozenset({Kind.CREATE, Kind.WRITE, Kind.ALLOCATE, Kind.MAKE_DIRECTORY})
"""What needs room on the disk."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One change that was asked of the filesystem; `index` counts from 0."""

    index: int
    kind: Kind
    path: str
    target: str = ""
    offset: int = 0
    size: int = 0

    def __str__(self) -> str:
        text = f"{self.index} {self.kind} {self.path}"
        if self.kind is Kind.RENAME:
            text += f" to {self.target}"
        if self.kind in (Kind.WRITE, Kind.OVERWRITE, Kind.ALLOCATE):
            text += f" {self.size} bytes at {self.offset}"
        return text


# --- changes -----------------------------------------------------------------------------------------


class Place(NamedTuple):
    """A name in a directory."""

    directory: Directory
    name: str


@dataclass(frozen=True, slots=True, eq=False)
class NameChange:
    """`node` is no longer at `removed`, and is at `added`; None where there is no such place."""

    operation: Operation
    node: Node
    removed: Place | None
    added: Place | None

    @property
    def grounds(self) -> frozenset[Node]:
        """The directories that it changes."""
        return frozenset(place.directory for place in (self.removed, self.added) if place is not None)


@dataclass(frozen=True, slots=True, eq=False)
class Write:
    """`data` was written into `node` at `offset`."""

    operation: Operation
    node: File
    offset: int
    data: bytes

    @property
    def grounds(self) -> frozenset[Node]:
        return frozenset((self.node,))


@dataclass(frozen=True, slots=True, eq=False)
class Sync:
    """A file or directory was synced, or, if it `failed`, was not."""

    operation: Operation
    node: Node
    failed: bool = False


Change = NameChange | Write
Entry = Change | Sync


class Outcome(NamedTuple):
    """What is left of a change: of a write the bytes from `start` to `stop`, and the length if `sized`."""

    start: int
    stop: int
    sized: bool

    def of(self, change: Change) -> str:
        """In words."""
        size = len(change.data) if isinstance(change, Write) else 1
        if self == kept(change):
            return "kept"
        if self == LOST:
            return "lost"
        length = "and the length" if self.sized else "and not the length"
        return f"kept bytes {self.start} to {self.stop} of {size}, {length}" if self.stop else "kept the length"


LOST = Outcome(0, 0, False)


def kept(change: Change) -> Outcome:
    return Outcome(0, len(change.data) if isinstance(change, Write) else 1, True)


def partial(change: Change) -> list[Outcome]:
    """The ways for a change to be there in part, those that matter most."""
    if isinstance(change, NameChange) or not change.data:
        return []
    size = len(change.data)
    half = size // 2
    return [
        Outcome(0, half, False),
        Outcome(0, 0, True),
        Outcome(half, size, True),
        Outcome(0, size - 1, True),
    ]


def any_outcome(change: Change, rng: Random, bias: float) -> Outcome:
    """A random one, kept with the probability `bias` or a little more."""
    if rng.random() < bias:
        return kept(change)
    if isinstance(change, NameChange) or rng.random() < 0.5:
        return LOST
    cut, size = rng.randint(0, len(change.data)), len(change.data)
    return rng.choice(
        (Outcome(0, cut, False), Outcome(0, cut, True), Outcome(cut, size, True), Outcome(0, 0, True))
    )


# --- what is durable ---------------------------------------------------------------------------------


class Unsure:
    """A change that is not known to be durable: what must still be synced for it to be."""

    __slots__ = ("change", "forsaken", "missing")

    def __init__(self, change: Change) -> None:
        self.change = change
        self.missing: set[Node] = set(change.grounds)
        self.forsaken = False

    @property
    def forced(self) -> bool:
        """Durable after all; only the order of changes keeps it from being forgotten."""
        return not self.missing


class Durability:
    """Follows a log of changes, and knows at each point what is durable and what is not."""

    def __init__(
        self, root: Directory, names: dict[Directory, dict[str, Node]], contents: dict[File, bytes]
    ) -> None:
        self.position = 0
        self.root = root
        self._names = names
        self._contents = contents
        self._unsure: list[Unsure] = []

    @classmethod
    def of_tree(cls, tree: Tree) -> Durability:
        """Begin with all that a tree holds."""
        names: dict[Directory, dict[str, Node]] = {}
        contents: dict[File, bytes] = {}
        waiting: list[Node] = [tree.root]
        while waiting:
            node = waiting.pop()
            if isinstance(node, File):
                contents[node] = bytes(node.data)
            else:
                names[node] = dict(node.names)
                waiting.extend(node.names.values())
        return cls(tree.root, names, contents)

    def again(self) -> Durability:
        """One that stands where this one stands and goes its own way. Only for one that has not advanced."""
        return Durability(self.root, dict(self._names), dict(self._contents))

    def advance(self, entry: Entry) -> None:
        """Take the next entry of the log."""
        self.position += 1
        if isinstance(entry, Sync):
            self._sync(entry)
            return
        if isinstance(entry, NameChange) and entry.removed is None:
            if isinstance(entry.node, Directory):
                self._names[entry.node] = {}
            else:
                self._contents[entry.node] = b""
        self._unsure.append(Unsure(entry))

    def _sync(self, sync: Sync) -> None:
        if sync.failed:
            for unsure in self._unsure:
                if isinstance(unsure.change, Write) and unsure.change.node is sync.node:
                    unsure.forsaken = True
            return
        for unsure in self._unsure:
            if not unsure.forsaken:
                unsure.missing.discard(sync.node)
        self._settle()

    def _settle(self) -> None:
        """Make those changes part of what is durable that are, and that no unsure one comes before."""
        blocked: set[Node] = set()
        unsure: list[Unsure] = []
        for one in self._unsure:
            grounds = one.change.grounds
            if one.forced and not grounds & blocked:
                _apply(one.change, kept(one.change), self._names, self._contents, forced=True)
            else:
                blocked |= grounds
                unsure.append(one)
        self._unsure = unsure

    def at_risk(self) -> AtRisk:
        """What may be lost at this point."""
        settled = {node for names in self._names.values() for node in names.values()}
        named = settled | {one.change.node for one in self._unsure if isinstance(one.change, NameChange)}
        unsure = [(one.change, one.forced) for one in self._unsure if one.change.node in named]
        return AtRisk(self.position, self.root, dict(self._names), dict(self._contents), unsure)


def _apply(
    change: Change,
    outcome: Outcome,
    names: dict[Directory, dict[str, Node]],
    contents: dict[File, bytes],
    *,
    forced: bool,
) -> None:
    """Let a change happen as far as `outcome` says. Dictionaries of names are replaced, not changed.

    One that is not forced happens only where everything that it needs is there.
    """
    if outcome == LOST:
        return
    if isinstance(change, Write):
        contents[change.node] = _written(contents[change.node], change, outcome)
        return
    removed, added, node = change.removed, change.added, change.node
    if not forced and not _possible(change, names):
        return
    if removed is not None and names[removed.directory].get(removed.name) is node:
        rest = dict(names[removed.directory])
        del rest[removed.name]
        names[removed.directory] = rest
    if added is not None:
        names[added.directory] = {**names[added.directory], added.name: node}


def _possible(change: NameChange, names: dict[Directory, dict[str, Node]]) -> bool:
    removed, added, node = change.removed, change.added, change.node
    if removed is not None and names[removed.directory].get(removed.name) is not node:
        return False
    if removed is None and added is not None and added.name in names[added.directory]:
        return False
    if added is None and isinstance(node, Directory):
        return not names[node]
    there = names[added.directory].get(added.name) if added is not None else None
    return not (isinstance(there, Directory) and names[there])


def _written(content: bytes, write: Write, outcome: Outcome) -> bytes:
    length = write.offset + (len(write.data) if outcome.sized else outcome.stop)
    content = content.ljust(length, b"\0")
    at = write.offset + outcome.start
    arrived = write.data[outcome.start : outcome.stop]
    return content[:at] + arrived + content[at + len(arrived) :]


# --- crashes -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class AtRisk:
    """What a crash at one point of a log may keep or lose. Follows nothing, so it may be kept."""

    after: int
    """How many operations came before the crash."""
    root: Directory
    names: dict[Directory, dict[str, Node]]
    contents: dict[File, bytes]
    unsure: list[tuple[Change, bool]]
    """Changes in order, and whether they are certain to be there."""

    def states(self, rng: Random, limit: int) -> Iterator[CrashState]:
        """Up to `limit` different outcomes: the extremes first, then random ones; all, where they are few."""
        seen: set[bytes] = set()
        for outcomes in self._outcomes(rng, limit):
            state = self._state(outcomes)
            if state.digest not in seen:
                seen.add(state.digest)
                yield state
                if len(seen) >= limit:
                    return

    def _outcomes(self, rng: Random, limit: int) -> Iterator[list[Outcome]]:
        open_ones = [change for change, forced in self.unsure if not forced]
        yield from self._extremes(open_ones)
        choices = [[LOST, kept(change), *partial(change)] for change in open_ones]
        count = 1
        for choice in choices:
            count *= len(choice)
        if count <= limit:
            yield from (list(outcomes) for outcomes in product(*choices))
            return
        for attempt in range(3 * limit):
            bias = (0.2, 0.5, 0.8)[attempt % 3]
            yield [any_outcome(change, rng, bias) for change in open_ones]

    def _extremes(self, changes: list[Change]) -> Iterator[list[Outcome]]:
        none = [LOST for _ in changes]
        every = [kept(change) for change in changes]
        yield none
        yield every
        for written in (LOST, Outcome(0, 0, True)):  # the names without the content, or with its length only
            yield [written if isinstance(change, Write) else kept(change) for change in changes]
        yield [kept(change) if isinstance(change, Write) else LOST for change in changes]
        for at, change in enumerate(changes):
            for outcome in (LOST, *partial(change)):
                yield [*every[:at], outcome, *every[at + 1 :]]
            yield [*none[:at], kept(change), *none[at + 1 :]]

    def _state(self, outcomes: list[Outcome]) -> CrashState:
        names, contents = dict(self.names), dict(self.contents)
        rest = iter(outcomes)
        fates: list[tuple[Change, Outcome]] = []
        for change, forced in self.unsure:
            outcome = kept(change) if forced else next(rest)
            _apply(change, outcome, names, contents, forced=forced)
            if not forced:
                fates.append((change, outcome))
        return CrashState(self.after, self.root, names, contents, fates)


class CrashState:
    """What the disk holds after a crash: one outcome of the many that there may be."""

    def __init__(
        self,
        after: int,
        root: Directory,
        names: dict[Directory, dict[str, Node]],
        contents: dict[File, bytes],
        fates: list[tuple[Change, Outcome]],
    ) -> None:
        self.after = after
        self._root = root
        self._names = names
        self._contents = contents
        self._fates = fates
        digest = blake2b(digest_size=16)
        for line in sorted(self._lines(root, "")):
            digest.update(line)
        self.digest = digest.digest()
        """The same for states that hold the same."""

    def _lines(self, directory: Directory, path: str) -> Iterator[bytes]:
        for name, node in self._names[directory].items():
            below = f"{path}/{name}"
            if isinstance(node, Directory):
                yield f"{below}/\n".encode()
                yield from self._lines(node, below)
            else:
                yield below.encode() + b"\0" + _content_digest(self._contents[node])

    def tree(self) -> Tree:
        """All that is there, as a tree of its own."""
        return Tree(self._copy(self._root))

    def _copy(self, directory: Directory) -> Directory:
        made = Directory()
        for name, node in self._names[directory].items():
            made.names[name] = self._copy(node) if isinstance(node, Directory) else File(self._contents[node])
        return made

    def describe(self) -> str:
        """The crash in words, for the message of a test that failed."""
        lines = [f"a crash after {self.after} operations; not synced were {len(self._fates)}:"]
        lines += [f"    {outcome.of(change)}: {change.operation}" for change, outcome in self._fates]
        return "\n".join(lines)


@lru_cache(maxsize=4096)
def _content_digest(content: bytes) -> bytes:
    return blake2b(content, digest_size=16).digest()
