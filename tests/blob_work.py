"""What the processes of `test_blobs_processes` do: `blob_work.py TASK STORE ...`."""

from __future__ import annotations

import sys
from zlib import crc32

import transaction
from BTrees.IOBTree import IOBTree

import objstore

PIECE, LARGE = 2**20, 2**30


def pattern(number: int) -> bytes:
    """What the blobs of one transaction hold."""
    return (b"%08d" % number) * (number * 37 % 3000 + 1)


def write_until_killed(path: str, history: str) -> None:
    """Commit the same number into several blobs and an object, and tell it."""
    db = objstore.open(path, history=history, flush_transactions=5, flush_age=0.01)
    connection = db.open()
    root = connection.root()
    if "blobs" not in root:
        root["blobs"] = IOBTree({at: objstore.Blob(pattern(0)) for at in range(3)})
        root["number"] = 0
        transaction.commit()
    number = root["number"]
    while True:
        number += 1
        for at, blob in root["blobs"].items():
            with blob.open("w" if at else "r+") as file:
                file.write(pattern(number))
                file.truncate()
        if number % 3 == 0:
            root["blobs"][2] = objstore.Blob(pattern(number))
        root["number"] = number
        transaction.commit()
        print(number, flush=True)
        if number % 20 == 0:
            db.pack()


def stream(path: str, size: int) -> None:
    """Write a large blob, undo its change and read it; tell how much memory that took.

    One that is not too large is appended to, exported, imported and copied as well.
    """
    before = peak()
    piece = bytes(range(256)) * (PIECE // 256)
    db = objstore.open(path)
    connection = db.open()
    blob = connection.root.blob = objstore.Blob()
    connection.add(blob)
    with blob.open("w") as file:
        for _ in range(size // PIECE):
            file.write(piece)
    if size < LARGE:
        transaction.savepoint()
        with blob.open("a") as file:
            file.write(piece)
            size += PIECE
    transaction.commit()
    with blob.open("w") as file:
        file.write(b"small")
    transaction.commit()
    db.undo(db.undoLog()[0]["id"])
    transaction.commit()
    crc = length = 0
    with blob.open() as file:
        while found := file.read(PIECE):
            crc = crc32(found, crc)
            length += len(found)
    assert length == size
    if size < LARGE:
        with open(path + ".export", "w+b") as export:
            connection.exportFile(blob._p_oid, export)
            export.seek(0)
            connection.root.again = connection.importFile(export)
            transaction.commit()
        objstore.copy(db, path + ".copy", verify=True)
    db.close()
    print(peak() - before)


def peak() -> int:
    """Bytes that this process has taken at most."""
    with open("/proc/self/status") as file:
        lines = dict(line.split(":", 1) for line in file)
    return int(lines["VmHWM"].split()[0]) * 1024


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["write", path, history]:
            write_until_killed(path, history)
        case ["stream", path, size]:
            stream(path, int(size))
