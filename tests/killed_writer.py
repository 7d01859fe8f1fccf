"""Commits until it is killed: `killed_writer.py STORE HISTORY FORMAT OBJECTS`. See test_kill.py."""

from __future__ import annotations

import sys
from threading import Thread

import transaction
from BTrees.OOBTree import OOBTree
from persistent.mapping import PersistentMapping

import objstore
from objstore.contracts import Format, History


def main(path: str, history: str, format: str, count: int) -> None:
    db = objstore.open(path, history=History(history), format=Format(format), flush_transactions=7, flush_age=0.01)
    names = [f"o{at}" for at in range(count)]
    connection = db.open()
    root = connection.root()
    if "chain" not in root:
        root["chain"] = OOBTree({at: str(at) for at in range(50)})
        for name in names:
            root[name] = PersistentMapping(value=0)
        transaction.commit()

    def pack() -> None:
        while True:
            db.pack()

    Thread(target=pack, daemon=True).start()
    number = root[names[0]]["value"]
    while True:
        number += 1
        for name in names:
            root[name]["value"] = number
            root[name]["filling"] = "x" * (number * 37 % 5000)
        root["garbage"] = PersistentMapping({"n": number})
        transaction.get().note(str(number))
        transaction.commit()
        print(number, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
