"""What the processes of `test_sequences` do. Each function gets a `siblings.Pipe` to the test first."""

from __future__ import annotations

import os

from siblings import Pipe

import objstore


def draw(pipe: Pipe, path: str, count: int) -> None:
    """Draw numbers, each for a transaction that keeps it, and tell them; then wait, perhaps to be killed."""
    with objstore.open(path, create=False) as db:
        pipe.send("ready")
        pipe.receive()
        numbers = []
        for _ in range(count):
            with db.transaction() as connection:
                numbers.append(connection.root.sequence.draw())
        pipe.send(numbers)
        pipe.receive()


def draw_until_killed(pipe: Pipe, path: str) -> None:
    """Draw numbers for ever, and tell each."""
    with objstore.open(path, create=False) as db:
        while True:
            with db.transaction() as connection:
                pipe.send(connection.root.sequence.draw())


def draw_gap_free(pipe: Pipe, path: str, count: int) -> None:
    """Draw numbers without gaps, each in a transaction that is tried until it commits, and tell them."""
    with objstore.open(path, create=False) as db:
        pipe.send("ready")
        pipe.receive()

        def take(connection: objstore.Connection) -> int:
            number = connection.root.gap_free.draw()
            connection.root.taken[number] = os.getpid()
            return number

        pipe.send([db.run(take, retries=1000) for _ in range(count)])


def draw_in_child(pipe: Pipe, path: str) -> None:
    """Draw, fork a child that draws by the same database, draw again; tell what each had."""
    db = objstore.open(path, create=False)

    def numbers(count: int) -> list[int]:
        with db.transaction() as connection:
            return connection.root.sequence.take(count)

    before = numbers(3)
    ready, end = os.pipe()
    child = os.fork()
    if not child:
        os.write(end, ",".join(map(str, numbers(5))).encode())
        os._exit(0)
    os.waitpid(child, 0)
    theirs = [int(each) for each in os.read(ready, 1000).split(b",")]
    pipe.send([before, theirs, numbers(5)])
    db.close()
