"""Cursors: every move against a sorted list, over trees of every kind, and changes below them."""

from __future__ import annotations

import random
from bisect import bisect_left, bisect_right
from importlib import import_module

import pytest
import transaction
from BTrees.fsBTree import fsBTree
from BTrees.LOBTree import LOBTree
from BTrees.OOBTree import OOBTree, OOBucket, OOSet, OOTreeSet
from databases import abort, commit, opened
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from persistent.mapping import PersistentMapping
from small_trees import KINDS, KINDS_IN_C, SmallNumbers, SmallSet, SmallTree, fill, take_away

import objstore
from objstore.collections import Cursor, Estimate, cursor
from objstore.collections.shapes import estimate, highest, last_before, lowest, number
from objstore.collections.spans import UNBOUNDED, Span
from objstore.errors import ClosedError, CorruptionError, UsageError

pytest_plugins = ["database_fixtures"]


def keys(cursor):
    return list(cursor.iternext(values=False))


def kind_name(kind):
    return kind.__name__


@pytest.fixture(params=KINDS, ids=kind_name)
def tree(request):
    """The even numbers from 0 to 98, in a tree of each kind."""
    return fill(request.param(), range(0, 100, 2))


class TestMoves:
    def test_to_the_ends(self, tree):
        at = Cursor(tree)
        assert at.first()
        assert at.key() == 0
        assert not at.prev()
        assert at.next()
        assert at.key() == 0
        assert at.last()
        assert at.key() == 98
        assert not at.next()
        assert not at.next()
        assert at.prev()
        assert at.key() == 98

    def test_from_nowhere(self, tree):
        assert not Cursor(tree).positioned
        forwards, backwards = Cursor(tree), Cursor(tree)
        assert forwards.next()
        assert backwards.previous()
        assert (forwards.key(), backwards.key()) == (0, 98)

    def test_one_by_one(self, tree):
        at = Cursor(tree)
        seen = []
        while at.next():
            seen.append(at.key())
        assert seen == list(tree.keys())
        seen = []
        while at.prev():
            seen.append(at.key())
        assert seen == list(tree.keys())[::-1]

    @pytest.mark.parametrize(
        ("relation", "key", "found"),
        [
            ("==", 4, 4),
            ("==", 5, None),
            (">=", 4, 4),
            (">=", 5, 6),
            (">=", 99, None),
            (">", 4, 6),
            (">", 98, None),
            ("<=", 4, 4),
            ("<=", 5, 4),
            ("<=", -1, None),
            ("<", 4, 2),
            ("<", 0, None),
        ],
    )
    def test_seek(self, tree, relation, key, found):
        at = Cursor(tree)
        assert at.seek(key, relation) is (found is not None)
        assert at.positioned is (found is not None)
        if found is not None:
            assert at.key() == found

    def test_after_a_miss_the_neighbours_are_next(self, tree):
        for relation in ("==", ">=", ">", "<=", "<"):
            for key in (-1, 99):
                at = Cursor(tree)
                if not at.seek(key, relation):
                    assert at.next() is (key < 0)
                    assert at.prev() is (key > 0) or at.key() == 0
        at = Cursor(tree)
        assert not at.set_key(5)
        assert at.next()
        assert at.key() == 6
        assert not at.set_key(5)
        assert at.prev()
        assert at.key() == 4
        assert at.set_key(4)
        assert at.set_range(5)
        assert at.key() == 6

    def test_a_relation_that_is_none(self, tree):
        with pytest.raises(UsageError, match="one of == >= > <= <, not '!='"):
            Cursor(tree).seek(1, "!=")

    def test_values(self, tree):
        at = Cursor(tree)
        assert at.set_key(4)
        if hasattr(tree, "values"):
            assert at.value() == "4"
            assert at.item() == (4, "4")
        else:
            for ask in (at.value, at.item):
                with pytest.raises(UsageError, match="a set has no values"):
                    ask()

    def test_on_no_key_there_is_nothing_to_see(self, tree):
        at = Cursor(tree)
        with pytest.raises(UsageError, match="stands on no key"):
            at.key()
        assert not at.delete()
        assert not at.set_key(1)
        with pytest.raises(UsageError, match="stands on no key"):
            at.key()

    @pytest.mark.parametrize("kind", KINDS, ids=kind_name)
    def test_an_empty_tree(self, kind):
        at = Cursor(kind())
        assert not any(
            [at.first(), at.last(), at.next(), at.prev(), at.set_key(1), at.set_range(1), at.seek(1, "<=")]
        )
        assert list(at) == list(reversed(at)) == []
        assert at.count() == 0
        assert at.estimate() == Estimate(0, 0, exact=True)
        assert at.put(1, "one")
        assert at.first()
        assert at.delete()
        assert not at.first()

    def test_a_key_that_the_tree_cannot_have(self):
        numbers = Cursor(SmallNumbers({1: 1}))
        for key in ("a", 2**70, 1.5):
            assert not numbers.set_key(key)
            with pytest.raises(TypeError):
                numbers.seek(key, ">=")

    def test_keys_of_no_length(self):
        for empty in ("", b"", ()):
            tree = fill(SmallTree(), [empty])
            at = Cursor(tree, prefix=empty)
            assert at.set_key(empty)
            assert at.key() == empty
            assert not at.next()
            assert at.prev()
            assert at.key() == empty
            assert at.count() == at.estimate().count == 1

    def test_buckets_and_sets(self):
        for leaf in (OOBucket([(1, 1), (2, 2), (3, 3)]), OOSet([1, 2, 3])):
            at = Cursor(leaf, 1, 3, excludemax=True)
            assert keys(at) == [1, 2]
            assert at.count() == at.estimate().count == 2
            assert at.last()
            assert at.key() == 2

    def test_what_keeps_no_order(self):
        for other in ({}, [], PersistentMapping(), None):
            with pytest.raises(UsageError, match="a cursor moves in a BTree or TreeSet"):
                Cursor(other)


class TestNone:
    """None is a key, lower than all others; BTrees take it for no end."""

    @pytest.fixture(params=[SmallTree, SmallSet], ids=kind_name)
    def nones(self, request):
        return fill(request.param(), [None, *"bdfhjl"])

    def test_moves(self, nones):
        at = Cursor(nones)
        assert at.first()
        assert at.key() is None
        assert not at.prev()
        assert at.next()
        assert at.key() is None
        assert at.next()
        assert at.key() == "b"
        assert at.prev()
        assert at.key() is None
        assert at.positioned
        assert keys(at) == [None, *"bdfhjl"]

    @pytest.mark.parametrize("relation", ["==", ">=", "<="])
    def test_seek(self, nones, relation):
        at = Cursor(nones)
        assert at.seek(None, relation)
        assert at.key() is None
        assert not at.seek(None, "<")
        assert at.seek(None, ">")
        assert at.key() == "b"
        assert at.seek("a", "<=")
        assert at.key() is None

    def test_deleted_and_put(self, nones):
        at = Cursor(nones)
        assert at.seek(None)
        assert at.delete()
        assert not at.positioned
        assert not at.prev()
        assert at.next()
        assert at.key() == "b"
        assert not at.seek(None, "<=")
        assert not at.seek(None)
        assert at.next()
        assert at.key() == "b"
        assert at.put(None, 1)
        assert at.first()
        assert at.key() is None

    def test_where_it_is_no_key(self):
        at = Cursor(SmallTree({"a": 1}))
        assert not at.seek(None)
        assert not at.seek(None, "<=")
        assert at.seek(None, ">=")
        assert at.key() == "a"
        assert Cursor(SmallNumbers({1: 1})).seek(None, ">")

    def test_spans_that_end_there(self, nones):
        only = Span(high=None)
        assert number(nones, only) == 1
        assert estimate(nones, only).count == 1
        assert lowest(nones, only) is highest(nones, only) is None
        for span in (Span(None, None, low_open=True), Span(high=None, high_open=True), Span("b", None)):
            assert number(nones, span) == 0
            assert estimate(nones, span) == Estimate(0, 0, exact=True)
        assert number(nones, Span(low=None, low_open=True)) == 6
        assert estimate(nones, Span(low=None, low_open=True)).count == 6


class TestSpans:
    @pytest.mark.parametrize(
        ("ends", "expected"),
        [
            ({}, [0, 2, 4, 6, 8]),
            ({"min": 2}, [2, 4, 6, 8]),
            ({"min": 2, "excludemin": True}, [4, 6, 8]),
            ({"max": 6}, [0, 2, 4, 6]),
            ({"max": 6, "excludemax": True}, [0, 2, 4]),
            ({"min": 3, "max": 5, "excludemin": True, "excludemax": True}, [4]),
            ({"min": 4, "max": 4}, [4]),
            ({"min": 4, "max": 4, "excludemax": True}, []),
            ({"min": 6, "max": 2}, []),
            ({"min": 20}, []),
            ({"max": -1}, []),
        ],
    )
    def test_ends(self, ends, expected):
        for kind in KINDS:
            tree = fill(kind(), range(0, 10, 2))
            assert keys(Cursor(tree, **ends)) == expected
            assert list(Cursor(tree, **ends).iterprev(values=False)) == expected[::-1]
            assert Cursor(tree, **ends).count() == len(expected)
            assert Cursor(tree, **ends).estimate() == Estimate(len(expected), 0, exact=True)

    def test_moves_stay_within(self, tree):
        at = Cursor(tree, 10, 20)
        assert at.first()
        assert at.key() == 10
        assert not at.prev()
        assert at.last()
        assert at.key() == 20
        assert not at.next()
        assert at.seek(2, ">=")
        assert at.key() == 10
        assert at.seek(90, "<=")
        assert at.key() == 20
        assert not at.seek(2)
        assert at.next()
        assert at.key() == 10
        assert not at.seek(90)
        assert not at.seek(2, "<=")
        assert not at.seek(90, ">=")

    def test_a_key_outside_is_not_stood_on(self, tree):
        """It was, after a seek for it that had said False."""
        at = Cursor(tree, 10, 20)
        for key in (4, 30):
            assert not at.seek(key)
            assert not at.positioned
            assert not at.delete()
        assert 30 in tree

    def test_an_end_that_is_not_there_cannot_be_left_out(self, tree):
        for ends in ({"excludemin": True}, {"excludemax": True}):
            with pytest.raises(UsageError, match="leaves out the key m"):
                Cursor(tree, **ends)

    def test_narrowing(self, tree):
        outer = Cursor(tree, 10, 20, excludemin=True)
        assert keys(outer.range()) == [12, 14, 16, 18, 20]
        assert keys(outer.range(10, 14)) == [12, 14]
        assert keys(outer.range(0, 99)) == [12, 14, 16, 18, 20]
        assert keys(outer.range(14, 20, excludemin=True, excludemax=True)) == [16, 18]
        assert list(outer.range(16, reverse=True).iterprev(values=False)) == [20, 18, 16]

    def test_copies(self, tree):
        at = Cursor(tree, 10, 20)
        at.set_key(14)
        other = at.copy()
        assert other.next()
        assert (at.key(), other.key()) == (14, 16)
        assert at.remembered == 14
        assert keys(at.within(Span(high=16))) == [10, 12, 14, 16]

    @pytest.mark.parametrize(
        ("prefix", "expected"),
        [
            ("", ["", "a", "ab", "abc", "b", "\U0010ffff", "\U0010ffff\U0010ffff"]),
            ("a", ["a", "ab", "abc"]),
            ("ab", ["ab", "abc"]),
            ("\U0010ffff", ["\U0010ffff", "\U0010ffff\U0010ffff"]),
            ("c", []),
        ],
    )
    def test_prefixes_of_text(self, prefix, expected):
        tree = fill(SmallTree(), ["", "a", "ab", "abc", "b", "\U0010ffff", "\U0010ffff\U0010ffff"])
        assert keys(Cursor(tree, prefix=prefix)) == expected
        assert keys(Cursor(tree).prefix(prefix)) == expected

    @given(st.lists(st.text("ab\ud7ff\ue000\U0010fffe\U0010ffff")), st.text("ab\ud7ff\U0010fffe\U0010ffff"))
    @settings(max_examples=50)
    def test_any_prefix_of_text(self, texts, prefix):
        tree = fill(SmallSet(), texts)
        assert keys(Cursor(tree, prefix=prefix)) == sorted(each for each in set(texts) if each.startswith(prefix))

    @given(st.lists(st.binary(max_size=4)), st.binary(max_size=3))
    @settings(max_examples=50)
    def test_any_prefix_of_bytes(self, parts, prefix):
        for each in (prefix, b"\xff", b"a\xff"):
            tree = fill(SmallSet(), [*parts, each, each + b"\xff", each + b"\x00"])
            assert keys(Cursor(tree, prefix=each)) == [key for key in tree if key.startswith(each)]

    def test_prefixes_of_tuples(self):
        tree = fill(SmallTree(), [(), ("a",), ("a", 1), ("a", 2), ("a", 2, "x"), ("a", 2, "y"), ("b", 1)])
        assert keys(Cursor(tree, prefix=())) == list(tree)
        assert keys(Cursor(tree, prefix=("a",))) == list(tree)[1:6]
        assert keys(Cursor(tree, prefix=("a", 2))) == list(tree)[3:6]
        assert keys(Cursor(tree, prefix=("c",))) == []
        at = Cursor(tree, prefix=("a", 2))
        assert at.last()
        assert at.key() == ("a", 2, "y")
        assert at.count() == at.estimate().count == 3

    def test_prefixes_of_other_things(self, tree):
        with pytest.raises(UsageError, match="a prefix is a str, bytes or a tuple, not 7"):
            Cursor(tree, prefix=7)

    @given(st.lists(st.integers(0, 4), min_size=4, max_size=4), st.lists(st.booleans(), min_size=4, max_size=4))
    def test_what_is_in_two_spans(self, ends, opened):
        one, other = Span(*ends[:2], *opened[:2]), Span(*ends[2:], *opened[2:])
        both = one & other
        assert [key for key in range(5) if key in both] == [key for key in range(5) if key in one and key in other]
        assert Span(UNBOUNDED, ends[3]) & one & Span() == one & Span(UNBOUNDED, ends[3])


class TestIterating:
    def test_items_of_maps_and_keys_of_sets(self, tree):
        expected = list(tree.items()) if hasattr(tree, "values") else list(tree)
        assert list(Cursor(tree)) == expected
        assert list(reversed(Cursor(tree))) == list(Cursor(tree, reverse=True)) == expected[::-1]
        assert list(reversed(Cursor(tree, reverse=True))) == expected

    def test_verbs_do_not_turn_round(self, tree):
        at = Cursor(tree, reverse=True)
        assert at.next()
        assert at.key() == 0
        for verb, key in ((at.first, 0), (at.next, 2), (at.last, 98), (at.prev, 96)):
            assert verb()
            assert at.key() == key

    def test_a_set_gives_its_keys(self):
        at = Cursor(SmallSet([1, 2]))
        assert list(at.iternext()) == list(at.iterprev(keys=False))[::-1] == [1, 2]

    def test_keys_and_values_alone(self):
        at = Cursor(SmallTree({1: "one", 2: "two"}))
        assert list(at.iternext(keys=False)) == ["one", "two"]
        assert list(Cursor(SmallTree({1: "one", 2: "two"})).iterprev(keys=False)) == ["two", "one"]

    def test_from_where_it_stands(self, tree):
        at = Cursor(tree)
        at.set_key(90)
        assert list(at.iternext(values=False)) == [90, 92, 94, 96, 98]
        at.set_key(4)
        assert list(at.iterprev(values=False)) == [4, 2, 0]

    def test_deleting_on_the_way(self, tree):
        at = Cursor(tree)
        for key in at.iternext(values=False):
            if key % 4 == 0:
                assert at.delete()
        assert list(tree) == list(range(2, 100, 4))
        at = Cursor(tree, reverse=True)
        for _ in at:
            at.delete()
        assert not tree

    def test_adding_on_the_way(self):
        tree = SmallTree({1: 1})
        for key, _ in Cursor(tree):
            if key < 50:
                tree[key + 1] = 1
        assert len(tree) == 50

    def test_clearing_on_the_way(self, tree):
        at = Cursor(tree)
        for key in at.iternext(values=False):
            if key == 40:
                tree.clear()
        assert key == 40
        assert not at.prev()


class TestChanges:
    def test_put(self, tree):
        at = Cursor(tree)
        assert at.put(5, "five")
        assert at.key() == 5
        assert at.put(5, "again") is hasattr(tree, "values")
        assert not at.put(5, "never", overwrite=False)
        assert at.put(7, "seven", overwrite=False)
        if hasattr(tree, "values"):
            assert (tree[5], tree[7]) == ("again", "seven")
        assert at.prev()
        assert at.key() == 6

    def test_put_outside(self, tree):
        at = Cursor(tree, 10, 20)
        with pytest.raises(UsageError, match="the key 21 is outside the span"):
            at.put(21)
        assert 21 not in tree

    def test_replace(self):
        tree = SmallTree({1: "one"})
        at = Cursor(tree)
        with pytest.raises(UsageError, match="stands on no key"):
            at.replace("none")
        at.first()
        assert at.replace("uno") == "one"
        assert at.item() == (1, "uno")

    def test_deleted_by_others(self, tree):
        at = Cursor(tree)
        at.set_key(10)
        take_away(tree, 10)
        assert not at.positioned
        with pytest.raises(UsageError, match="stands on no key"):
            at.key()
        assert at.next()
        assert at.key() == 12

    def test_more_keys_past_the_end(self, tree):
        """A cursor past the end finds what is added there, as one who follows a log does."""
        at = Cursor(tree)
        assert at.last()
        assert not at.next()
        fill(tree, [100])
        assert at.next()
        assert at.key() == 100


def leaves(tree):
    found = [tree._firstbucket]
    while len(state := found[-1].__getstate__()) > 1:
        found.append(state[1])
    return found


def lead_back(tree):
    """After the fifth leaf comes the second."""
    fifth, second = (leaves(tree)[at] for at in (4, 1))
    fifth.__setstate__((fifth.__getstate__()[0], second))


def lead_to_a_copy(tree):
    """After the third leaf comes a copy of the second, as it is stored where a leaf is in a tree twice."""
    _, second, third, *_ = leaves(tree)
    copy = type(second)()
    copy.__setstate__((second.__getstate__()[0], third))
    third.__setstate__((third.__getstate__()[0], copy))


@pytest.mark.parametrize("damage", [lead_back, lead_to_a_copy])
class TestDamage:
    @pytest.mark.parametrize("kind", KINDS_IN_C, ids=kind_name)
    def test_going_on_ends(self, kind, damage):
        """It went round for ever. BTrees in Python take a leaf without a key of the range for the end."""
        tree = fill(kind(), range(40))
        damage(tree)
        given = []
        with pytest.raises(CorruptionError, match=rf"{kind.__name__}: .*comes 2,.* tree._check\(\)") as caught:
            given.extend(Cursor(tree).iternext(values=False))
        assert given == list(range(len(given)))
        assert f"behind the key {given[-1]} comes" in str(caught.value)
        assert caught.value.oid is None
        with pytest.raises(CorruptionError):
            Cursor(tree).seek(given[-1], ">")

    @pytest.mark.parametrize("kind", KINDS, ids=kind_name)
    def test_backwards_it_can_be_read(self, kind, damage):
        tree = fill(kind(), range(40))
        whole = list(Cursor(tree))
        damage(tree)
        again = kind(list(Cursor(tree, reverse=True)))
        again._check()
        assert list(Cursor(again)) == whole


def test_a_damaged_tree_is_named_by_its_oid(databases):
    connection = opened(databases("memory-full"))
    tree = connection.root.tree = fill(SmallTree(), range(40))
    commit(connection)
    lead_back(tree)
    with pytest.raises(CorruptionError, match=f"the tree SmallTree, object {tree._p_oid.hex()}: ") as caught:
        list(Cursor(tree))
    assert caught.value.oid == tree._p_oid
    abort(connection)


class TestItsEnd:
    def test_closed(self, tree):
        with Cursor(tree) as at:
            at.first()
            assert repr(at) == "<objstore cursor at 0>"
        at.close()
        assert repr(at) == "<objstore cursor closed>"
        for use in (at.first, at.last, at.next, at.prev, at.key, at.count, at.estimate, at.range, at.delete):
            with pytest.raises(ClosedError, match="the cursor is closed"):
                use()
        with pytest.raises(ClosedError):
            list(at)

    def test_what_offers_one(self, tree):
        class Shelf:
            def cursor(self, *arguments, **options):
                return Cursor(tree, *arguments, **options)

        assert keys(cursor(Shelf(), 90)) == keys(cursor(tree, 90)) == [90, 92, 94, 96, 98]
        assert repr(cursor(tree)) == "<objstore cursor on no key>"


class TestEstimates:
    def test_few_keys_are_counted(self, tree):
        for low, high in ((0, 20), (3, 19), (50, 50), (51, 51), (90, 200)):
            found = Cursor(tree, low, high).estimate()
            assert found == Estimate(Cursor(tree, low, high).count(), 0, exact=True)

    @pytest.mark.parametrize("order", ["ascending", "shuffled"])
    def test_many_are_told_within_a_quarter(self, order):
        numbers = list(range(30_000))
        if order == "shuffled":
            random.Random(7).shuffle(numbers)
        tree = LOBTree()
        for each in numbers:
            tree[each] = None
        for low, high in ((0, 29_999), (100, 29_000), (1000, 5000), (20_000, 20_700), (29_990, 40_000)):
            at = Cursor(tree, low, high)
            found, true = at.estimate(), at.count()
            assert abs(found.count - true) <= true / 4
            assert found.exact is (found.count == true and not found.margin) or order == "ascending"
            assert at.estimate() == found

    def test_margins_hold(self):
        """Of many spans of a tree of random texts, the true number is within the margin about as often as told."""
        chance = random.Random(11)
        tree = OOTreeSet(f"{chance.getrandbits(64):016x}" for _ in range(20_000))
        hits = 0
        for _ in range(100):
            low, high = sorted(f"{chance.getrandbits(64):016x}" for _ in range(2))
            found, true = Cursor(tree, low, high).estimate(), Cursor(tree, low, high).count()
            hits += abs(found.count - true) <= found.margin
            if found.exact:
                assert found.count == true
        assert hits >= 80

    @pytest.mark.parametrize("kind", [OOBTree, LOBTree, OOTreeSet], ids=kind_name)
    def test_margins_hold_where_deletes_have_thinned_a_tree_out(self, kind):
        """The samples happened to agree, so that nothing was left to doubt, and a tenth and more was wrong."""
        told = hits = 0
        for seed in range(24):
            chance = random.Random(seed)
            tree = fill(kind(), range(20_000))
            for _ in range(seed % 3 + 1):
                start, kept = chance.randrange(16_000), chance.choice([3, 10, 20, 50])
                for key in range(start, min(start + chance.randrange(1000, 8000), 20_000)):
                    if key % kept and key in tree:
                        take_away(tree, key)
            for _ in range(25):
                low, high = sorted(chance.sample(range(20_000), 2))
                at = Cursor(tree, low, high)
                found, true = at.estimate(), at.count()
                assert found.margin > 0 or found.exact
                assert found.count == true or not found.exact
                if not found.exact:
                    told += 1
                    hits += abs(found.count - true) <= found.margin
        assert told > 300
        assert hits >= 0.9 * told, f"{hits} of {told}"

    def test_nodes_with_one_leaf(self):
        """Where deletes had left a node one leaf, in a tree that is not stored, all behind it was added to it."""
        for kind in KINDS:
            tree = fill(kind(), range(300))
            for key in range(100, 200):
                if key % 14:
                    take_away(tree, key)
            for low, high in ((0, 299), (50, 250), (90, 150)):
                at = Cursor(tree, low, high)
                assert at.estimate(samples=10_000) == Estimate(at.count(), 0, exact=True)
                assert at.estimate(samples=4).count < 400

    def test_few_nodes_are_loaded(self, databases):
        db = databases("memory-full")
        with db.transaction() as connection:
            connection.root.tree = LOBTree({number: number for number in range(60_000)})
        connection = opened(db)
        tree = connection.root.tree
        tree.keys()
        connection.cacheMinimize()
        loaded = len(connection._cache.lru_items())
        assert Cursor(tree, 5000, 55_000).estimate().count > 40_000
        assert len(connection._cache.lru_items()) - loaded < 60
        connection.cacheMinimize()
        assert Cursor(tree).last()
        assert Cursor(tree, max=30_000, excludemax=True).last()
        assert len(connection._cache.lru_items()) - loaded < 10

    def test_samples(self, tree):
        assert Cursor(tree).estimate(samples=1000) == Estimate(50, 0, exact=True)
        with pytest.raises(UsageError, match="samples is 2 or more, not 1"):
            Cursor(tree).estimate(samples=1)
        with pytest.raises(UsageError, match=r"samples is a whole number, not 2\.5"):
            Cursor(tree).estimate(samples=2.5)


class TestStored:
    def test_a_snapshot_that_moves_on(self, some):
        """What another transaction has changed is found by the next move."""
        connection, other = opened(some), opened(some)
        connection.root.tree = fill(SmallTree(), range(0, 40, 2))
        commit(connection)
        at = Cursor(connection.root.tree)
        assert at.set_key(10)
        other.sync()
        del other.root.tree[10]
        del other.root.tree[12]
        other.root.tree[13] = "new"
        commit(other)
        assert at.next()
        assert at.key() == 12
        connection.sync()
        assert at.next()
        assert at.key() == 13

    def test_a_rollback(self, some):
        connection = opened(some)
        connection.root.tree = fill(SmallTree(), range(0, 40, 2))
        commit(connection)
        at = Cursor(connection.root.tree)
        moment = connection.transaction_manager.savepoint()
        connection.root.tree.clear()
        assert at.put(7, "seven")
        moment.rollback()
        assert not at.positioned
        assert at.next()
        assert at.key() == 8
        assert at.delete()
        abort(connection)
        assert at.positioned


FAMILIES = "OO OI OL OU OQ IO II IF IU LO LL LF LQ UO UU UF UI QO QQ QF QL".split()  # noqa: SIM905


@pytest.mark.parametrize("family", FAMILIES)
def test_trees_of_every_family(family):
    """Keys and values of every kind there is, in nodes so small that there are many."""
    module = import_module(f"BTrees.{family}BTree")
    small = {"max_leaf_size": 4, "max_internal_size": 4}
    chance = random.Random(family)
    for name in (f"{family}BTree", f"{family}TreeSet"):
        if not hasattr(module, name):
            continue
        tree = type(name, (getattr(module, name),), small)()
        present = sorted(chance.sample(range(1000), 100))
        for key in present:
            tree.add(key) if name.endswith("Set") else tree.update({key: 7})
        at = Cursor(tree)
        assert keys(at) == list(at.iterprev(values=False))[::-1] == present
        for key in range(0, 1000, 37):
            for relation, expected in (
                (">=", [each for each in present if each >= key][:1]),
                ("<", [each for each in present if each < key][-1:]),
            ):
                assert at.seek(key, relation) is bool(expected)
                assert not expected or at.key() == expected[0]
        assert at.range(100, 900).estimate(1000) == Estimate(at.range(100, 900).count(), 0, exact=True)
        for _ in (at := Cursor(tree)):
            at.delete()
        assert not tree


def test_keys_of_two_bytes():
    tree = fsBTree({bytes([one, two]): b"123456" for one in range(5) for two in range(5)})
    assert len(keys(Cursor(tree, b"\x01\x00", b"\x03\x00", excludemax=True))) == 10
    assert Cursor(tree).seek(b"\x02\xff", ">=")


@pytest.mark.parametrize("kind", KINDS, ids=kind_name)
def test_the_key_before_another(kind):
    """In a tree whose nodes have lost keys, so that separators and empty spots are in the way."""
    chance = random.Random(3)
    for _ in range(30):
        present = sorted(chance.sample(range(60), 40))
        tree = fill(kind(), present)
        for key in chance.sample(present, 30):
            present.remove(key)
            take_away(tree, key)
        for key in range(-1, 61):
            at = bisect_left(present, key)
            found = last_before(tree, key)
            assert found == present[at - 1] if at else found not in present


class Model:
    """What a cursor should do, on a sorted list."""

    def __init__(self, span):
        self.all, self.span = [], span
        self.key, self.side = None, -1  # in the gap before, on, or in the gap after a key; of none

    @property
    def keys(self):
        return [key for key in self.all if key in self.span]

    def move(self, found, side, key):
        self.key, self.side = (found, 0) if found is not None else (key, side)
        return found is not None

    def first(self):
        return self.move(self.keys[0] if self.keys else None, -1, None)

    def last(self):
        return self.move(self.keys[-1] if self.keys else None, 1, None)

    def next(self):
        if self.key is None:
            return self.first()
        at = bisect_left(self.keys, self.key) if self.side < 0 else bisect_right(self.keys, self.key)
        return self.move(self.keys[at] if at < len(self.keys) else None, -1 if self.side < 0 else 1, self.key)

    def prev(self):
        if self.key is None:
            return self.last()
        at = bisect_right(self.keys, self.key) if self.side > 0 else bisect_left(self.keys, self.key)
        return self.move(self.keys[at - 1] if at else None, 1 if self.side > 0 else -1, self.key)

    def seek(self, key, relation):
        left, right = bisect_left(self.keys, key), bisect_right(self.keys, key)
        at = {"==": left if left < right else -1, ">=": left, ">": right, "<=": right - 1, "<": left - 1}[relation]
        side = {"==": 0, ">=": -1, ">": 1, "<=": 1, "<": -1}[relation]
        return self.move(self.keys[at] if 0 <= at < len(self.keys) else None, side, key)

    @property
    def positioned(self):
        return self.side == 0 and self.key in self.keys


class CursorMachine(RuleBasedStateMachine):
    """A cursor in a stored tree, of every kind, while keys come and go, by commits, aborts and rollbacks too."""

    numbers = st.integers(0, 60)

    ends = st.none() | numbers

    @initialize(kind=st.sampled_from(KINDS), low=ends, high=ends, opened=st.tuples(st.booleans(), st.booleans()))
    def begin(self, kind, low, high, opened):
        self.db = objstore.memory()
        self.connection = self.db.open(transaction.TransactionManager())
        self.connection.root.tree = self.tree = kind()
        self.mapping = hasattr(self.tree, "values")
        self.connection.transaction_manager.commit()
        self.committed, self.saved = [], None
        opened = opened[0] and low is not None, opened[1] and high is not None
        self.cursor = Cursor(self.tree, low, high, *opened)
        self.model = Model(Span(UNBOUNDED if low is None else low, UNBOUNDED if high is None else high, *opened))

    @rule(keys=st.lists(numbers, max_size=15))
    def add(self, keys):
        fill(self.tree, keys)
        self.model.all = sorted({*self.model.all, *keys})

    @rule(keys=st.lists(numbers, max_size=15))
    def remove(self, keys):
        for key in {*keys} & {*self.model.all}:
            self.model.all.remove(key)
            take_away(self.tree, key)

    @rule(added=st.lists(numbers, max_size=15), removed=st.lists(numbers, max_size=15))
    def others_change(self, added, removed):
        """Another connection does, and this one goes on to the new snapshot."""
        self.connection.transaction_manager.abort()
        with self.db.transaction() as other:
            fill(other.root.tree, added)
            for key in {*removed} & {*other.root.tree.keys()}:
                take_away(other.root.tree, key)
            self.committed = list(other.root.tree.keys())
        self.connection.sync()
        self.model.all, self.saved = list(self.committed), None

    @rule()
    def clear(self):
        self.tree.clear()
        self.model.all = []

    @rule(verb=st.sampled_from(["first", "last", "next", "next", "next", "prev", "prev", "prev"]))
    def move(self, verb):
        assert getattr(self.cursor, verb)() == getattr(self.model, verb)()

    @rule(key=numbers, relation=st.sampled_from(["==", ">=", ">", "<=", "<"]))
    def seek(self, key, relation):
        assert self.cursor.seek(key, relation) == self.model.seek(key, relation)

    @rule()
    def delete(self):
        present = self.model.positioned
        assert self.cursor.delete() == present
        if present:
            self.model.all.remove(self.model.key)

    @rule(key=numbers)
    def put(self, key):
        if key not in self.model.span:
            with pytest.raises(UsageError, match="outside the span"):
                self.cursor.put(key, repr(key))
            return
        self.cursor.put(key, repr(key))
        self.model.all = sorted({*self.model.all, key})
        self.model.move(key, 0, key)

    @rule(low=numbers, high=numbers, opened=st.tuples(st.booleans(), st.booleans()))
    def look(self, low, high, opened):
        at = self.cursor.range(low, high, *opened)
        expected = [key for key in self.model.keys if key in Span(low, high, *opened)]
        assert keys(at) == expected
        assert list(at.range().iterprev(values=False)) == expected[::-1]
        assert at.count() == len(expected)
        found = at.estimate(samples=100)
        assert found == Estimate(len(expected), 0, exact=True)

    @rule()
    def commit(self):
        self.connection.transaction_manager.commit()
        self.committed, self.saved = list(self.model.all), None

    @rule()
    def abort(self):
        self.connection.transaction_manager.abort()
        self.model.all, self.saved = list(self.committed), None

    @rule()
    def savepoint(self):
        self.saved = self.connection.transaction_manager.savepoint(), list(self.model.all)

    @precondition(lambda self: self.saved is not None)
    @rule()
    def roll_back(self):
        moment, present = self.saved
        moment.rollback()
        self.model.all = list(present)

    @rule()
    def forget(self):
        self.connection.cacheMinimize()

    @invariant()
    def it_stands_where_it_should(self):
        if hasattr(self, "cursor"):
            assert self.cursor.positioned == self.model.positioned
            if self.model.positioned:
                assert self.cursor.key() == self.model.key

    def teardown(self):
        if hasattr(self, "db"):
            self.connection.transaction_manager.abort()
            self.db.close()


CursorMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestMachine = CursorMachine.TestCase
