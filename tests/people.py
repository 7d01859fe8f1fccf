"""Persistent classes for tests of collections, and the functions that their indexes call."""

from __future__ import annotations

from persistent import Persistent

from objstore.collections import Collection, Index, computed


class Person(Persistent):
    """Has whatever attributes it is given."""

    def __init__(self, **attributes):
        for name, value in attributes.items():
            setattr(self, name, value)

    def __repr__(self):
        return f"<{getattr(self, 'name', '?')}>"


class Adding(Person):
    """Two that change a number at the same time would be merged."""

    def _p_resolveConflict(self, old, committed, new):
        return {**committed, "visits": committed["visits"] + new["visits"] - old["visits"]}


class Slotted(Persistent):
    """Has no place for who follows it."""

    __slots__ = ("city", "name")

    def __init__(self, name, city):
        self.name = name
        self.city = city


class Forgetful(Person):
    """Stores only what it knows of itself."""

    def __getstate__(self):
        return {"name": self.name, "city": self.city}


def initial(person):
    """The first letter of a name."""
    return person.name[:1]


def is_adult(person):
    """Whether a person is 18 or older."""
    return person.age >= 18


def collection():
    """One with an index of each kind."""
    return Collection(
        key="name",
        indexes={
            "city": "city",
            "age": Index("age"),
            "tags": Index("tags", multiple=True),
            "place": ("city", "age"),
            "email": Index("email", unique=True),
            "initial": computed(initial),
        },
    )


def fill(people, count, **attributes):
    """Add people called `00000`, `00001` and so on."""
    for number in range(count):
        people.add(
            Person(
                **{
                    "name": f"{number:05}",
                    "city": ("Paris", "Rome", "Oslo")[number % 3],
                    "age": number % 50,
                    "tags": ["a", "b", "c"][: number % 4],
                    "email": f"{number}@example.com",
                    **attributes,
                }
            )
        )


def names(found):
    """The names of people, sorted."""
    return sorted(person.name for person in found)


def misfits(people):
    """What `verify` finds, in short."""
    return [(each.kind, each.index_name) for each in people.verify()]
