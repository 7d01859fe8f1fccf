"""How fast the references of records are found that come from elsewhere: by the expression, by following opcodes,
and by ZODB's `referencesf`, which makes what the records hold, without classes.

    python benchmarks/references.py [--records 20000] [--rounds 5] [--size 300] [--json]

Records are of about the size that is asked for, with text, numbers and no, one, three or six references. Each way
has its turn in each round; what is printed is the best of all rounds, in records a second of CPU.
"""

from __future__ import annotations

import argparse
import io
import json
import pickle
import time
from collections.abc import Callable
from typing import Any

from persistent.mapping import PersistentMapping
from ZODB.serialize import referencesf

from objstore.formats.pickles import followed_references, references
from objstore.formats.scanning import scanned
from objstore.ids import oid_from

COUNTS = (0, 1, 3, 6)
WORDS = ("name", "street", "city", "country", "remarks", "colour", "status", "owner", "title", "phone")


class Reference:
    """Pickled as a reference."""

    def __init__(self, number: int) -> None:
        self.pid = (bytes(oid_from(number)), PersistentMapping)


class Pickler(pickle.Pickler):
    """Writes records as ZODB does."""

    def persistent_id(self, obj: object) -> Any:
        return obj.pid if isinstance(obj, Reference) else None


def record(number: int, size: int, count: int) -> bytes:
    """A record of at least so many bytes, with so many references."""
    state: dict[str, object] = {"number": number, "ratio": number / 7, "flag": True, "nothing": None}
    state |= {f"to {at}": Reference(7 * number + at) for at in range(count)}
    for at in range(1_000):
        out = io.BytesIO()
        pickler = Pickler(out, 3)
        pickler.dump(PersistentMapping)
        pickler.dump({"data": state})
        data = out.getvalue()
        if len(data) >= size:
            break
        state[f"{WORDS[at % len(WORDS)]}{at // len(WORDS) or ''}"] = f"value {number + at} of {WORDS[-at % 10]}"
    return data


def rate(way: Callable[[bytes], object], records: list[bytes]) -> float:
    """Records a second of CPU."""
    begun = time.process_time()
    for data in records:
        way(data)
    return len(records) / (time.process_time() - begun)


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description="How fast references of records are found.")
    parser.add_argument("--records", type=int, default=20_000, help="how many records of each kind")
    parser.add_argument("--rounds", type=int, default=5, help="how often each way has its turn")
    parser.add_argument("--size", type=int, default=300, help="bytes of a record, at least")
    parser.add_argument("--json", action="store_true", help="print JSON")
    chosen = parser.parse_args()
    ways: dict[str, Callable[[bytes], object]] = {
        "references": references,
        "opcode by opcode": followed_references,
        "ZODB referencesf": referencesf,
    }
    facts = []
    for count in COUNTS:
        records = [record(number, chosen.size, count) for number in range(chosen.records)]
        found = sum(scanned(data) is not None for data in records) / len(records)
        best = dict.fromkeys(ways, 0.0)
        for _ in range(chosen.rounds):
            for name, way in ways.items():
                best[name] = max(best[name], rate(way, records))
        size = sum(map(len, records)) / len(records)
        facts.append({"references": count, "bytes": size, "by_the_expression": found, "per_second": best})
    if chosen.json:
        print(json.dumps(facts))
        return
    print("references   bytes  found by the expression   " + "   ".join(f"{name:>16}" for name in ways))
    for each in facts:
        rates = "   ".join(f"{each['per_second'][name]:16,.0f}" for name in ways)
        print(f"{each['references']:10}  {each['bytes']:6.0f}  {each['by_the_expression']:23.1%}   {rates}")


if __name__ == "__main__":
    main()
