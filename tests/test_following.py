"""Followers: told of what was changed, before it is written, and in the same transaction."""

from __future__ import annotations

import pytest
from databases import abort, commit, opened
from persistent import Persistent
from things import Counter, Slotted, Thing

from objstore.errors import ConflictError, UsageError
from objstore.objects.following import followers, set_followers

pytest_plugins = ["database_fixtures"]


class Watcher(Persistent):
    """Notes what it is told."""

    def __init__(self):
        self.told = []
        self.refuses = False

    def follow(self, changed):
        if self.refuses:
            raise UsageError("not this one")
        self.told = [*self.told, sorted((obj.n, token) for obj, token in changed)]


class Quiet(Persistent):
    """Does nothing with what it is told."""

    def follow(self, changed):
        pass


class Meddler(Persistent):
    """Changes what it is told of, another thing, and makes a new one."""

    def __init__(self, other):
        self.other = other
        self.made = []

    def follow(self, changed):
        for obj, _ in changed:
            obj.seen = obj.n
            self.other.n = obj.n
            self.made = [*self.made, Thing(n=obj.n)]


@pytest.fixture
def root(some):
    """The root of a connection, with a watcher and two things that it follows."""
    connection = opened(some)
    root = connection.root
    root.watcher = Watcher()
    root.things = [Thing(n=number) for number in range(2)]
    for number, thing in enumerate(root.things):
        set_followers(thing, ((root.watcher, number),))
    root.watcher.told = []
    commit(connection)
    root.watcher.told = []
    commit(connection)
    yield root
    abort(connection)
    connection.close()


def jar(root):
    return root.watcher._p_jar


def test_a_commit_tells_once_of_all(root):
    for thing in root.things:
        thing.n += 10
        thing.n += 10
    commit(jar(root))
    assert root.watcher.told == [[(20, 0), (21, 1)]]
    commit(jar(root))
    assert len(root.watcher.told) == 1


def test_what_is_not_changed_is_not_told_of(root):
    root.things[0].n = 5
    root.free = Thing(n=1)
    commit(jar(root))
    root.free.n = 2
    commit(jar(root))
    assert root.watcher.told == [[(5, 0)]]


def test_savepoints_tell_and_commits_of_what_came_later(root):
    manager = jar(root).transaction_manager
    root.things[0].n = 5
    savepoint = manager.savepoint()
    assert root.watcher.told == [[(5, 0)]]
    root.things[0].n = 6
    manager.savepoint()
    savepoint.rollback()
    assert root.watcher.told == [[(5, 0)]]
    root.things[0].n = 7
    commit(jar(root))
    assert root.watcher.told == [[(5, 0)], [(7, 0)]]


def test_an_abort_tells_nobody(root):
    root.things[0].n = 5
    abort(jar(root))
    assert root.watcher.told == []


def test_new_objects_are_told_of(root):
    thing = Thing(n=7)
    set_followers(thing, ((root.watcher, "new"),))
    jar(root).add(thing)
    root.new = thing
    commit(jar(root))
    assert root.watcher.told == [[(7, "new")]]


def test_a_follower_that_is_not_loaded_is_told(root, some):
    other = opened(some)
    other.root.things[0].n = 5
    commit(other)
    other.close()
    commit(jar(root))
    assert root.watcher.told == [[(5, 0)]]


def test_a_follower_that_refuses_fails_the_commit(root):
    root.watcher.refuses = True
    commit(jar(root))
    root.things[0].n = 5
    with pytest.raises(UsageError, match="not this one"):
        commit(jar(root))
    abort(jar(root))
    assert root.things[0].n == 0
    root.things[0].n = 5
    with pytest.raises(UsageError, match="not this one"):
        jar(root).transaction_manager.savepoint()
    abort(jar(root))
    assert root.things[0].n == 0


def test_what_a_follower_changes_is_in_the_same_transaction(root, some):
    meddler = root.meddler = Meddler(root.things[1])
    set_followers(root.things[0], ((meddler, None),))
    commit(jar(root))
    before = some.lastTransaction()
    root.watcher.told = []
    root.things[0].n = 9
    commit(jar(root))
    assert (root.things[0].seen, root.things[1].n, [thing.n for thing in meddler.made][-1]) == (9, 9, 9)
    assert root.watcher.told[-1] == [(9, 1)], "it follows what the other follower has changed"
    connection = opened(some)
    assert connection.root.things[1].n == 9
    assert connection.root.meddler.made[-1].n == 9
    connection.close()
    assert some.lastTransaction() > before


def test_several_may_follow_one(root):
    second = root.second = Watcher()
    set_followers(root.things[0], (*followers(root.things[0]), (second, "s")))
    root.things[0].n = 5
    commit(jar(root))
    assert (root.watcher.told, second.told) == ([[(5, 0)]], [[(5, "s")]])
    set_followers(root.things[0], ())
    assert "_objstore_followers" not in vars(root.things[0])
    commit(jar(root))
    root.things[0].n = 6
    commit(jar(root))
    assert len(root.watcher.told) == 1


def test_objects_without_a_dictionary_cannot_be_followed(root):
    slotted = Slotted("content")
    assert not set_followers(slotted, ((root.watcher, 1),))
    assert followers(slotted) == ()
    root.slotted = slotted
    commit(jar(root))
    slotted.content = "other"
    commit(jar(root))
    assert root.watcher.told == []


def test_what_is_followed_is_not_merged(root, some):
    followed, free = Counter(), Counter()
    followed.n = free.n = 0
    root.followed, root.free = followed, free
    set_followers(followed, ((Quiet(), 1),))
    commit(jar(root))
    other = opened(some)
    for each in (jar(root), other):
        each.root.free.add()
    commit(jar(root))
    commit(other)
    assert other.root.free.count == 2
    commit(jar(root))
    root.followed.add()
    other.root.followed.add()
    commit(jar(root))
    with pytest.raises(ConflictError, match="followed"):
        commit(other)
    abort(other)
    other.close()
