"""How the members are found for which a condition holds.

Of the conditions that must hold together, those that an index serves are looked up in it, the most selective
first; a compound index serves several at once. Another index that has not many more ids is intersected. What is
left is checked, member by member: by what the indexes have of it, if one is on that attribute, else by the object.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from objstore.collections.catalog import Catalog
from objstore.collections.conditions import (
    And,
    Condition,
    Equal,
    Matches,
    Not,
    Or,
    Span,
    Term,
    conjuncts,
    passes,
    read_keys,
)
from objstore.collections.indexes import Computed, Part
from objstore.collections.keys import BEYOND, Key
from objstore.collections.members import Built, Members
from objstore.collections.sources import Both, Either, Everything, Filtered, Source, Spans, Without
from objstore.errors import UsageError

_MOST_PREFIXES = 1000
"""How many combinations of values are looked up in a compound index."""
CHEAPER = 10
"""Looking a member up to check it costs about as much as taking so many ids from an index."""


class Check(NamedTuple):
    """Decides for one member. `loads` says whether it looks at the object."""

    passes: Callable[[int], bool]
    loads: bool
    text: str

    def line(self) -> str:
        """What it does, for people."""
        how = "by every object: no index has it" if self.loads else "by what the indexes have"
        return f"check {self.text}, {how}"


class Plan(NamedTuple):
    """The ids to look at, and what is to be checked of each by looking at the object."""

    source: Source
    checks: list[Check]

    @property
    def is_everything(self) -> bool:
        """Whether there is no condition."""
        return not self.checks and isinstance(self.source, Everything)

    @property
    def unserved(self) -> list[str]:
        """The conditions that no index serves."""
        return [check.text for check in self.checks]

    def lines(self) -> list[str]:
        """What it does, for people."""
        return [
            *self.source.lines(),
            *(f"check {text}, by every object: no index has it" for text in self.unserved),
        ]


_NOTHING: frozenset[int] = frozenset()


class _Option(NamedTuple):
    source: Source
    covers: frozenset[int]
    """Which of the conditions hold for all that it has, by their numbers."""


class Scope(NamedTuple):
    """What an index has of one value of its first parts, in the order of the next."""

    built: Built
    prefix: Key
    left: Condition | None
    """The other conditions, if there are any."""


def scope(members: Members, condition: Condition, part: Part) -> Scope | None:
    """Where an index has what a condition wants in the order of a part, if there is such a one."""
    return _Planner(members).scope(condition, part)


def plan(members: Members, condition: Condition) -> Plan:
    """The way to find all for which a condition holds. Raises UsageError, KeyTypeError."""
    return _Planner(members).plan(condition)


def check(members: Members, condition: Condition) -> Check:
    """The way to find out whether a condition holds for one member. Raises UsageError, KeyTypeError."""
    return _Planner(members).check(condition)


def index_on(members: Members, name: str) -> tuple[int | None, tuple[Part, ...]]:
    """What a name stands for: what the index of that name is on, or an attribute.

    And, if there is one, the position of an index that has one key of each member which has that.
    """
    catalog = catalog_of(members)
    built = catalog.named(name)
    parts: tuple[Part, ...] = (name,) if built is None else built.definition.on
    return catalog.whole(parts, multiple=False), parts


def catalog_of(members: Members) -> Catalog:
    """The catalog of a collection's indexes, kept with its members."""
    catalog = members.catalog
    if not isinstance(catalog, Catalog):
        members.catalog = catalog = Catalog(members.built)
    return catalog


class _Planner:
    def __init__(self, members: Members) -> None:
        self._members = members
        self._catalog = catalog_of(members)

    def plan(self, condition: Condition) -> Plan:
        served = self._served(condition) if isinstance(condition, Term) else None
        if served is not None:  # the most usual question needs no choice
            return Plan(served, [])
        conditions = conjuncts(condition)
        source, left = self._conjunction(conditions)
        checks = [self.check(each) for each in left]
        reading = [check for check in checks if not check.loads]
        if reading:
            source = _filtered(source or Everything(self._members), reading)
        return Plan(source or Everything(self._members), [check for check in checks if check.loads])

    def _served(self, term: Term) -> Source | None:
        """What an index on just this has, if there is one of all members that have it."""
        parts = self._parts(term)
        position = self._catalog.whole(parts, multiple=term.test.of_several)
        built = self._members.built[position] if position is not None else None
        return Spans(built, term.test.spans(len(parts)), term) if built is not None else None

    def _source(self, condition: Condition) -> Source | None:
        """A source of exactly what fulfils a condition, without looking at objects; None where there is none."""
        if isinstance(condition, Or):
            sources = [self._source(each) for each in condition.conditions]
            found = [each for each in sources if each is not None]
            return Either(found) if len(found) == len(sources) else None
        plan = self.plan(condition)
        return plan.source if not plan.checks else None

    def _conjunction(self, conditions: list[Condition]) -> tuple[Source | None, list[Condition]]:
        """A source for what fulfils all conditions but those that are left, None where it would be everything."""
        options = self._options(conditions)
        left = set(range(len(conditions)))
        chosen: list[Source] = []
        if len(options) > 1:
            options.sort(key=lambda option: (option.source.estimate, -len(option.covers)))
        for option in options:
            if option.covers & left and (not chosen or self._pays(option.source, chosen[0])):
                chosen.append(option.source)
                left -= option.covers
        source = (Both(chosen) if len(chosen) > 1 else chosen[0]) if chosen else None
        without = self._negations(conditions, left, source)
        if without:
            source = Without(source or Everything(self._members), without)
        return source, [conditions[number] for number in sorted(left)]

    def _pays(self, source: Source, first: Source) -> bool:
        """Whether a source is better intersected with than checked."""
        return source.estimate <= CHEAPER * max(first.estimate, 1)

    def _negations(self, conditions: list[Condition], left: set[int], source: Source | None) -> list[Source]:
        """What is to be taken away; the conditions that are met by this are left no more."""
        found = []
        for number in sorted(left):
            condition = conditions[number]
            if isinstance(condition, Not):
                inner = self._source(condition.condition)
                if inner is not None and (source is None or self._pays(inner, source)):
                    found.append(inner)
                    left.discard(number)
        return found

    # --- what indexes serve ---

    def _options(self, conditions: list[Condition]) -> list[_Option]:
        options = []
        by_part: dict[Part, list[tuple[int, Term]]] = {}
        for number, condition in enumerate(conditions):
            if isinstance(condition, Term):
                parts = self._parts(condition)
                multiple = condition.test.of_several
                if len(parts) == 1 and not multiple:
                    by_part.setdefault(parts[0], []).append((number, condition))
                for built in self._catalog.exact(parts, multiple=multiple):
                    implied = self._implied(built, conditions)
                    if implied is not None:
                        spans = condition.test.spans(len(parts))
                        options.append(_Option(Spans(built, spans, condition), implied | {number}))
            elif isinstance(condition, Or):
                source = self._source(condition)
                if source is not None:
                    options.append(_Option(source, frozenset((number,))))
        for built in self._catalog.beginning(by_part):
            implied = self._implied(built, conditions)
            if implied is not None:
                options.append(_compound(built, by_part, implied))
        for built in self._catalog.of_keys:
            implied = self._implied(built, conditions)
            if implied:
                options.append(
                    _Option(Spans(built, [((), (BEYOND,))], f"all with {built.definition.where}"), implied)
                )
        return options

    def _implied(self, built: Built, conditions: list[Condition]) -> frozenset[int] | None:
        """Which conditions say that a member is in a partial index; None where nothing says so."""
        if built.definition.where is None:
            return _NOTHING
        wanted = conjuncts(built.definition.where)
        if not all(each in conditions and self._is_of_attributes(each) for each in wanted):
            return None
        return frozenset(number for number, each in enumerate(conditions) if each in wanted)

    def _is_of_attributes(self, condition: Condition) -> bool:
        """Whether its names mean attributes here too: to a search, an index's name means what that is on."""
        if isinstance(condition, Term):
            return self._parts(condition) == (condition.name,)
        if isinstance(condition, Not):
            return self._is_of_attributes(condition.condition)
        return not isinstance(condition, And | Or) or all(map(self._is_of_attributes, condition.conditions))

    def scope(self, condition: Condition, part: Part) -> Scope | None:
        """A compound index that ends with a part, and whose first parts have each one value only."""
        conditions = conjuncts(condition)
        pinned = {
            self._parts(each): (number, each.test.points()[0])
            for number, each in enumerate(conditions)
            if isinstance(each, Term) and isinstance(each.test, Equal) and len(self._parts(each)) == 1
        }
        for built in self._catalog.beginning(first for (first,) in pinned):
            *before, last = built.definition.on
            if last == part and all((each,) in pinned for each in before):
                implied = self._implied(built, conditions)
                if implied is not None:
                    prefix = tuple(value for each in before for value in pinned[each,][1])
                    covers = implied | {pinned[each,][0] for each in before}
                    left = tuple(each for number, each in enumerate(conditions) if number not in covers)
                    return Scope(built, prefix, And(left) if left else None)
        return None

    def _parts(self, term: Term) -> tuple[Part, ...]:
        """What a term is about. Raises UsageError for a plain test of a multi-valued index."""
        built = self._catalog.named(term.name)
        if built is None:
            return (term.name,)
        if built.definition.multiple and not term.test.of_several:
            raise UsageError(f"the index {term.name!r} is multi-valued: find it with {term.name}=has(...)")
        return built.definition.on

    # --- checks ---

    def check(self, condition: Condition) -> Check:
        """What decides for one member."""
        if isinstance(condition, Term):
            return self._check_term(condition)
        if isinstance(condition, Matches):
            return self._check_function(condition.function, str(condition))
        if isinstance(condition, Not):
            inner = self.check(condition.condition)
            return Check(lambda member: not inner.passes(member), inner.loads, str(condition))
        if not isinstance(condition, And | Or):
            raise UsageError(f"{type(condition).__name__} is not a kind of condition that can be looked for")
        # What is decided without the object comes first.
        checks = sorted((self.check(each) for each in condition.conditions), key=lambda check: check.loads)
        decide = all if isinstance(condition, And) else any
        return Check(
            lambda member: decide(check.passes(member) for check in checks),
            any(check.loads for check in checks),
            str(condition),
        )

    def _check_term(self, term: Term) -> Check:
        parts = self._parts(term)
        spans = term.test.spans(len(parts))
        position = self._catalog.whole(parts, multiple=term.test.of_several)
        if position is not None:
            entries = self._members.entries
            return Check(lambda member: passes(entries[member][position], spans), False, str(term))
        read, by_id = read_keys(parts, term.test), self._members.by_id
        return Check(lambda member: passes(read(by_id[member]), spans), True, str(term))

    def _check_function(self, function: Computed, text: str) -> Check:
        by_id, call = self._members.by_id, function
        return Check(lambda member: bool(call(by_id[member])), True, text)


def _compound(built: Built, by_part: dict[Part, list[tuple[int, Term]]], implied: frozenset[int]) -> _Option:
    """What a compound index serves: values of its first parts, and perhaps a span of the next."""
    prefixes: list[Key] = [()]
    covers = set(implied)
    texts = []
    spans: list[Span] | None = None
    for part in built.definition.on:
        candidates = by_part.get(part, [])
        if not candidates:
            break
        number, term = min(candidates, key=lambda each: each[1].test.points() is None)
        points = term.test.points()
        if points is not None and len(prefixes) > 1 and len(prefixes) * len(points) > _MOST_PREFIXES:
            break
        covers.add(number)
        texts.append(str(term))
        if points is None or len(points) > _MOST_PREFIXES:
            spans = [
                ((*prefix, *low), (*prefix, *high)) for prefix in prefixes for low, high in term.test.spans(1)
            ]
            break
        prefixes = [(*prefix, *point) for prefix in prefixes for point in points]
    if spans is None:
        spans = [(prefix, (*prefix, BEYOND)) for prefix in prefixes]
    return _Option(Spans(built, spans, " and ".join(texts)), frozenset(covers))


def _filtered(source: Source, checks: list[Check]) -> Source:
    tests = [check.passes for check in checks]
    test = tests[0] if len(tests) == 1 else lambda member: all(each(member) for each in tests)
    return Filtered(source, test, [check.text for check in checks])
