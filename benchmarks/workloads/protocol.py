"""What a workload is: something that a peer is made ready for, and that is then measured in rounds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from metrics import Measures, Metric
from peers.protocol import Ability, OpenStore, Peer
from places import Place
from sizes import Sizes


class Run(Protocol):
    """A workload that one peer has been made ready for."""

    def round(self, number: int) -> Measures:
        """Measure once. `number` counts from 0; it is the seed of what is left to chance."""

    def finish(self) -> None:
        """Check that the peer did what it was told, and close what is open."""


NOTHING = Ability(0)
Start = Callable[[Peer, Place, Sizes], Run]


@dataclass(frozen=True, slots=True)
class Workload:
    """A workload by its name. `rounds` is how many there are in a full run, `quick_rounds` in a quick one.

    One that is `large` is left out unless it is asked for. Peers take part that are able to do what it `needs`.
    """

    name: str
    title: str
    metrics: tuple[Metric, ...]
    start: Start
    rounds: int
    quick_rounds: int = 3
    needs: Ability = NOTHING
    large: bool = False


AMPLIFICATION = Metric("write amplification", "times")
"""Of the peers that tell it: bytes written into their final place, by what was to be written."""


def amplification(store: OpenStore) -> Measures:
    """The measure of that metric, of a store that was closed."""
    told = getattr(store, "amplification", None)
    return {} if told is None else {AMPLIFICATION.name: told}


def expect(what: str, found: int, expected: int) -> None:
    """Stop a workload whose peer gave a wrong answer: a fast wrong answer is no measurement."""
    if found != expected:
        raise RuntimeError(f"{what}: found {found}, expected {expected}")
