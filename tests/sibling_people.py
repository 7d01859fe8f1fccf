"""What processes beside the test's own do with collections."""

from __future__ import annotations

from people import Person
from siblings import Pipe

import objstore


def add_until_killed(pipe: Pipe, path: str) -> None:
    """Add, change and remove people, and tell each time when it is committed."""
    db = objstore.open(path, create=False)
    for step in range(100_000):

        def change(connection: objstore.Connection, step: int = step) -> None:
            people = connection.root.people
            people.add(
                Person(name=f"z{step}", city=f"city {step % 7}", age=step % 5, tags=["z"], email=f"z{step}")
            )
            people[f"z{step}" if step < 3 else f"z{step // 3 * 3 - 3}"].city = "moved"
            if step % 3 == 2:
                del people[f"z{step - 1}"]

        db.run(change)
        pipe.send(step)


def add_people(pipe: Pipe, path: str, number: int, count: int) -> None:
    """Add people that are neighbours of those that others add, and change one that others do not."""
    db = objstore.open(path, create=False, background=False)
    pipe.send("ready")
    pipe.receive()
    for step in range(count):
        name = f"z{step:02}{number}"

        def add(connection: objstore.Connection, name: str = name, step: int = step) -> None:
            people = connection.root.people
            people.add(Person(name=name, city="Zug", age=99, tags=["z"], email=name))
            people[f"{number:05}"].age = step

        db.run(add, retries=1000)
    db.close()
    pipe.send("done")
