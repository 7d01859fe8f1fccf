"""Sets of oids and of tids in little memory, and the marking of what can be reached."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from objstore.ids import oid_from, pack_oids
from objstore.upkeep.reachable import BucketMarker, Marker, OidSet
from objstore.upkeep.tidset import CHUNK, TidSet

MILLION = 1_000_000
# Neighbours, so that chunks are shared, the ends of chunks, and the ends of what an oid can be.
NUMBERS = st.one_of(
    st.integers(0, 200),
    st.integers(65_530, 65_545),
    st.integers(0, 2**64 - 1),
    st.sampled_from([0, 2**64 - 1, 2**63, 2**32 - 1]),
)
SETS = st.sets(NUMBERS, max_size=40)


class TestOidSet:
    @given(st.lists(NUMBERS, max_size=60), st.lists(NUMBERS, max_size=20))
    def test_it_is_a_set(self, numbers, others):
        found, model = OidSet(), set()
        for number in numbers:
            assert found.add(number) == (number not in model)
            model.add(number)
            assert number in found
        assert len(found) == len(model)
        assert list(found) == sorted(model)
        assert [number in found for number in others] == [number in model for number in others]

    @given(SETS, SETS)
    def test_oids_of_a_chunk_come_and_go_together(self, one, other):
        found = OidSet(one)
        keys = {number >> 16 for number in one | other}
        for key in keys:
            found.add_lows(key, {number & 0xFFFF for number in other if number >> 16 == key})
        assert list(found) == sorted(one | other)
        for key in [*keys, 12345]:
            assert found.lows(key) == {number & 0xFFFF for number in one | other if number >> 16 == key}

    @given(SETS, SETS)
    def test_it_combines_as_sets_do(self, one, other):
        assert list(OidSet(one) | OidSet(other)) == sorted(one | other)
        assert list(OidSet(one) & OidSet(other)) == sorted(one & other)
        assert list(OidSet(one) - OidSet(other)) == sorted(one - other)

    @given(SETS, SETS, NUMBERS)
    def test_what_combining_made_shares_nothing(self, one, other, more):
        first, second = OidSet(one), OidSet(other)
        joined = first | second
        joined.add(more)
        assert list(first) == sorted(one)
        assert list(second) == sorted(other)

    def test_a_million_neighbours_take_a_bit_each(self):
        tracemalloc.start()
        try:
            found = OidSet(range(MILLION))
            size, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert len(found) == MILLION
        assert size < 2 * MILLION / 8


class TestTidSet:
    @given(st.lists(NUMBERS, max_size=60))
    def test_it_is_read_from_the_newest_to_the_oldest(self, numbers):
        found = TidSet()
        for number in numbers:
            found.add(number)
        assert list(found.descending()) == sorted(set(numbers), reverse=True)

    def test_many_are_added_at_once(self):
        found = TidSet()
        for start in (0, CHUNK // 2, 5):
            found.update(set(range(start, start + CHUNK)))
        found.add(3 * CHUNK)
        assert list(found.descending()) == [3 * CHUNK, *range(CHUNK + CHUNK // 2 - 1, -1, -1)]

    def test_more_than_are_sorted_at_a_time_each_come_once(self):
        found = TidSet()
        count = 2 * CHUNK + 10
        for number in [*range(0, count, 2), *range(count), *range(5)]:
            found.add(number)
        assert list(found.descending()) == list(range(count - 1, -1, -1))


class Graph:
    """References by number, and who was asked for his."""

    def __init__(self, edges):
        self.edges = edges
        self.asked = []

    def __call__(self, number):
        self.asked.append(number)
        return pack_oids(oid_from(to) for to in self.edges.get(number, ()))

    def reached(self, roots):
        """The same by the simplest means."""
        found = set(roots)
        while True:
            more = {to for number in found for to in self.edges.get(number, ())} - found
            if not more:
                return found
            found |= more


GRAPHS = st.dictionaries(st.integers(0, 12), st.lists(st.integers(0, 15), max_size=4), max_size=13).map(Graph)


class TestMarker:
    @given(GRAPHS, st.sets(st.integers(0, 15), max_size=3))
    def test_it_finds_what_can_be_reached_and_asks_each_once(self, graph, roots):
        marker = Marker(graph)
        for root in roots:
            marker.add(root)
        assert marker.run()
        assert set(marker.live) == graph.reached(roots)
        assert sorted(graph.asked) == sorted(marker.live)
        assert marker.visits == len(graph.asked)

    @given(GRAPHS, st.integers(1, 5))
    def test_a_limit_only_interrupts_it(self, graph, limit):
        marker = Marker(graph)
        marker.add(0)
        steps = [0]
        while not marker.run(limit):
            assert marker.visits == steps[-1] + limit
            steps.append(marker.visits)
        assert set(marker.live) == graph.reached([0])

    @given(GRAPHS, st.integers(0, 15), st.lists(st.integers(0, 15), max_size=3))
    def test_a_change_is_followed_when_the_object_is_visited_again(self, graph, number, references):
        marker = Marker(graph)
        marker.add(0)
        marker.run()
        before = graph.reached([0])
        graph.edges[number] = references
        marker.revisit(number)
        assert marker.run()
        assert set(marker.live) == before | graph.reached([number])

    def test_a_limit_of_nothing_visits_nothing(self):
        marker = Marker(Graph({0: [1]}))
        assert marker.run(0)
        marker.add(0)
        assert not marker.run(0)
        assert marker.visits == 0

    def test_an_error_ends_it(self):
        def fail(number):
            raise OSError(5, "no such luck", str(number))

        marker = Marker(fail)
        marker.add(7)
        with pytest.raises(OSError, match="luck"):
            marker.run()

    def test_a_chain_of_a_million_objects(self):
        """DirectoryStorage 1.1a1: marking recursed, and met the limit of recursion; memory stays bounded."""
        oids = [number.to_bytes(8, "big") for number in range(1, MILLION)]
        oids.append(b"")
        marker = Marker(oids.__getitem__)
        marker.add(0)
        tracemalloc.start()
        try:
            assert marker.run()
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert len(marker.live) == MILLION
        assert peak < 2**20

    def test_an_object_that_refers_to_a_million(self):
        """What is pending takes eight bytes an object, whatever the shape of the graph."""
        wide = pack_oids(oid_from(number) for number in range(1, MILLION))
        marker = Marker(lambda number: b"" if number else wide)
        marker.add(0)
        assert marker.run()
        assert len(marker.live) == MILLION


FAR = 2**16 - 3
"""Added to the numbers of a graph, so that its objects are in two buckets."""


class TestBucketMarker:
    def marker(self, graph):
        self.asked = []

        def targets(bucket, numbers):
            self.asked += numbers
            assert {number >> 16 for number in numbers} == {bucket}
            return [to + FAR for number in numbers for to in graph.edges.get(number - FAR, ())]

        def references(number):
            self.asked.append(number)
            return pack_oids(oid_from(to + FAR) for to in graph.edges.get(number - FAR, ()))

        return BucketMarker(targets, references)

    @given(GRAPHS, st.sets(st.integers(0, 15), max_size=3), st.sets(st.integers(0, 15), max_size=2))
    def test_it_finds_what_can_be_reached(self, graph, roots, changed):
        marker = self.marker(graph)
        for root in roots:
            marker.add(root + FAR)
        for number in changed:
            marker.revisit(number + FAR)
        assert marker.run()
        assert set(marker.live) == {number + FAR for number in graph.reached(roots | changed)}
        assert marker.visits == len(self.asked)
        assert set(self.asked) == set(marker.live)

    @given(GRAPHS, st.integers(1, 5))
    def test_a_limit_only_interrupts_it(self, graph, limit):
        marker = self.marker(graph)
        marker.add(FAR)
        steps = [0]
        while not marker.run(limit):
            assert marker.visits == steps[-1] + limit
            steps.append(marker.visits)
        assert set(marker.live) == {number + FAR for number in graph.reached([0])}
        assert sorted(self.asked) == sorted(marker.live)

    def test_a_limit_of_nothing_visits_nothing(self):
        marker = self.marker(Graph({0: [1]}))
        assert marker.run(0)
        marker.add(FAR)
        assert not marker.run(0)
        assert marker.visits == 0

    def test_a_change_is_followed(self):
        graph = Graph({0: [1]})
        marker = self.marker(graph)
        marker.add(FAR)
        assert marker.run()
        graph.edges[1] = [2]
        graph.edges[2] = [9]
        marker.revisit(1 + FAR)
        assert marker.run()
        assert list(marker.live) == [FAR, FAR + 1, FAR + 2, FAR + 9]
