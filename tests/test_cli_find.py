"""`objstore classes` and `objstore find`: what they count and find, and the conditions of `--where`."""

from __future__ import annotations

import datetime
import json
import sys
import types
from decimal import Decimal
from pathlib import Path

import persistent
import pytest
from BTrees.OOBTree import OOBTree
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from persistent.mapping import PersistentMapping
from things import Pair, Slotted, Thing, Value
from zodbrecords import Pid, pickled

import objstore
from objstore.cli.expressions import LONGEST, ExpressionError, Subject, parse
from objstore.cli.main import main
from objstore.formats.descriptions import describe
from objstore.ids import NO_TID, ROOT, oid_from
from objstore.objects import DB
from objstore.revisions import Details

WORDS = "a b 1 'x' ( ) [ ] { } , . == != < in not is None and or len( has( matches( :".split()  # noqa: SIM905
MAPPING = "persistent.mapping.PersistentMapping"


def run(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(main, [str(each) for each in arguments], prog_name="objstore")
    assert result.exit_code == code, result.output + repr(result.exception)
    return result


def json_lines(*arguments: object) -> list[dict[str, object]]:
    return [json.loads(line) for line in run(*arguments, "--json").stdout.splitlines()]


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A store of people, of a class that is not there any more, one of whom nothing refers to."""
    path = str(tmp_path / "people")
    module = types.ModuleType("gone_from_here")
    sys.modules["gone_from_here"] = module
    try:
        module.Person = Person = type("Person", (persistent.Persistent,), {"__module__": "gone_from_here"})
        with objstore.open(path) as db:
            with db.transaction() as connection:
                people = connection.root.people = OOBTree()
                for at, name in enumerate(("ada", "ben", "cleo", "dora")):
                    people[name] = person = Person()
                    person.name, person.balance = name, at * 100
                connection.root.totals = PersistentMapping(balance=600)
            with db.transaction() as connection:
                del connection.root.people["dora"]
                connection.root.people["ben"].balance = 50
    finally:
        del sys.modules["gone_from_here"]
    return path


def store_garbage(path: str, data: bytes) -> None:
    """Put a record into a store as it is."""
    with objstore.open(path) as db:
        write(db, data)


def write(db: DB, data: bytes) -> None:
    view = db.store.view()
    pending = db.store.begin(Details(), view, lambda _: (b"", b""))
    pending.store(db.store.new_oid(), NO_TID, data, b"")
    pending.vote()
    pending.finish()
    view.close()


# --- classes -----------------------------------------------------------------------------------------


def test_classes_are_counted(path):
    listed = json_lines("classes", path)
    assert {each["class"]: each["objects"] for each in listed} == {
        "gone_from_here.Person": 4,
        MAPPING: 2,
        "BTrees.OOBTree.OOBTree": 1,
    }
    assert [each["bytes"] for each in listed] == sorted((each["bytes"] for each in listed), reverse=True)
    with objstore.open(path, read_only=True) as db:
        view = db.store.view()
        sizes = [len(view.load(oid)[0]) for oid in db.store.home.oids()]
        view.close()
    assert sum(each["bytes"] for each in listed) == sum(sizes)
    assert max(each["largest"] for each in listed) == max(sizes)
    text = run("classes", path).stdout
    assert "      4 objects, " in text
    assert text.splitlines()[-1].startswith("7 objects, ")
    assert text.splitlines()[-1].endswith(", 3 classes")


def test_classes_are_not_imported(path):
    run("classes", path)
    run("find", path, "*", "--where", "balance > 1")
    assert "gone_from_here" not in sys.modules


def test_what_waits_in_the_journal_is_counted_once(tmp_path):
    path = str(tmp_path / "store")
    with objstore.open(path, background=False, flush_on_close=False) as db:
        for number in range(3):
            with db.transaction() as connection:
                connection.root()["a"] = PersistentMapping(n=number)
        db.store.flush()
        with db.transaction() as connection:
            connection.root()["a"]["n"] = 7
            connection.root()["b"] = PersistentMapping()
    assert json_lines("classes", path)[0]["objects"] == 5
    assert len(run("find", path, MAPPING).stdout.splitlines()) == 5


def test_a_record_without_a_class(path):
    store_garbage(path, b"nonsense")
    result = run("classes", path)
    assert "(no class)" in result.stdout
    assert "see objstore check" in result.stderr
    assert {"class": None, "objects": 1, "bytes": 8, "largest": 8} in json_lines("classes", path)
    result = run("find", path, "*")
    assert len(result.stdout.splitlines()) == 7
    assert "left out: 1 object whose record cannot be decoded" in result.stderr


def test_an_object_that_was_deleted(tmp_path):
    """By undoing its creation."""
    path = str(tmp_path / "store")
    with objstore.open(path) as db, db.transaction() as connection:
        connection.root()["a"] = PersistentMapping()
    run("undo", path, db_last(path))
    assert json_lines("classes", path)[0]["objects"] == 1


def db_last(path: str) -> str:
    return json_lines("log", path)[0]["tid"]


# --- find --------------------------------------------------------------------------------------------


def names(*arguments: object) -> list[str]:
    return sorted(each["state"]["name"] for each in json_lines("find", *arguments))


def test_by_class(path):
    assert names(path, "gone_from_here.Person") == names(path, "gone_*") == ["ada", "ben", "cleo", "dora"]
    assert len(run("find", path, "*").stdout.splitlines()) == 7
    assert run("find", path, "gone_from_here").stdout == ""
    result = run("find", path, "gone_from_here.Persons")
    assert result.stdout == ""
    assert "no current object is of the class gone_from_here.Persons" in result.stderr


def test_by_condition(path):
    person = "gone_from_here.Person"
    assert names(path, person, "--where", "balance > 100 and name == 'cleo'") == ["cleo"]
    assert names(path, person, "--where", "balance > 50 or name in ['ada']") == ["ada", "cleo", "dora"]
    assert names(path, person, "--where", "balance == 50") == ["ben"]
    assert names(path, person, "--where", "balance > 50", "--where", "name != 'cleo'") == ["dora"]
    assert names(path, person, "--where", "name != 'cleo'", "--where", "balance > 50") == ["dora"]
    result = run("find", path, person, "--where", "balance > 1000")
    assert (result.stdout, result.stderr) == ("", "")
    assert len(json_lines("find", path, "*", "--where", "balance == 600")) == 1


def test_lines_and_json(path):
    (line,) = run("find", path, "gone*", "--where", "name == 'ben'").stdout.splitlines()
    (found,) = json_lines("find", path, "gone*", "--where", "name == 'ben'")
    assert line == f"{found['oid']}  gone_from_here.Person  {{'name': 'ben', 'balance': 50}}"
    assert found["state"] == {"name": "ben", "balance": 50}
    assert set(found) == {"oid", "serial", "time", "class", "size", "state"}


def test_long_states_are_cut(tmp_path):
    path = str(tmp_path / "store")
    with objstore.open(path) as db, db.transaction() as connection:
        connection.root()["long"] = ["\x1b[31m" * 20] * 100
    (line,) = run("find", path, "*").stdout.splitlines()
    assert line.endswith("...")
    assert "\x1b" not in line


def test_limit(path):
    assert len(run("find", path, "*", "--limit", "2").stdout.splitlines()) == 2
    assert run("find", path, "*", "--limit", "0", code=2).stderr


@pytest.mark.parametrize(
    ("condition", "column", "reason"),
    [
        ("", 1, "it is empty"),
        ("  ", 1, "it is empty"),
        ("balance = 1", 9, "two values are compared with =="),
        ("balance >", 10, "invalid syntax"),
        ("  balance > 1 and and", 19, "invalid syntax"),
        ("(a == 1", 1, "'(' was never closed"),
        ("name == 'ada", 9, "unterminated string literal"),
        ("a + 1 > 2", 1, "arithmetic has no place in a condition"),
        ("b > ~a", 5, "arithmetic has no place"),
        ("ümläut == 'ü' and [x for x in y]", 19, "a loop has no place"),
        ("open('x')", 1, "the functions are has, len, lower, startswith, endswith, matches"),
        ("a.b()", 1, "the functions are"),
        ("1 == len()", 6, "len takes 1 argument"),
        ("startswith(a)", 1, "startswith takes 2 arguments"),
        ("len(a, b=1)", 1, "len takes 1 argument"),
        ("a is 1", 6, "`is` is for None"),
        ("matches(a, b)", 12, "matches takes a regular expression in quotes"),
        ("matches(a, '(')", 12, "no regular expression"),
        ("lambda: 1", 1, "a function has no place"),
        ("a[1:2]", 3, "a slice has no place"),
        ("{1: 2} == a", 1, "a dictionary has no place"),
        ("f'{a}' == 1", 1, "an f-string has no place"),
        ("(a := 1)", 2, "an assignment has no place"),
        ("a if b else c", 1, "a choice has no place"),
        ("x == ...", 6, "this has no place"),
        ("await a", 1, "has no place"),
        ("*a", 1, ""),
        ("a\0b", 4, "null bytes"),
        ("a == 1; b", 7, "invalid syntax"),
        ("(" * 5000, 1, ""),
        ("not " * 2000 + "a", 1, "nested too deeply"),
        ("a" * (LONGEST + 1), 1, "more than 10,000 characters"),
    ],
)
def test_a_condition_that_makes_no_sense(condition, column, reason, path):
    with pytest.raises(ExpressionError) as caught:
        parse(condition)
    assert reason in str(caught.value)
    if len(condition) < 100:
        assert caught.value.column == column
        result = run("find", path, "*", "--where", condition, code=2) if "\0" not in condition else None
        assert result is None or f"column {column}: " in result.stderr


class TestConditions:
    STATE = {  # noqa: RUF012
        "name": "Ada",
        "balance": 100,
        "rate": 1.5,
        "fee": Decimal("2.50"),
        "odd": Decimal("nan"),
        "odder": Decimal("sNaN"),
        "born": datetime.date(1815, 12, 10),
        "tags": ["new", "vip", 3],
        "pair": (1, "x"),
        "labels": {"a", "b"},
        "frozen": frozenset([1]),
        "empty": [],
        "nothing": None,
        "yes": True,
        "raw": b"\x00\xff",
        "places": {"home": {"town": "London"}, 7: "seven", ("a", 1): "pair"},
        "value": Value(5),
        "cls": Pair,
        "friend": Pid((oid_from(5), Thing)),
        "data": {"balance": -1, "inner": 2},
        "large": 10**400,
    }

    @pytest.fixture
    def subject(self):
        data = pickled(Thing, self.STATE)
        found = describe(data)
        return Subject(found.class_name, found.state, oid_from(0xAB), oid_from(1), len(data))

    @pytest.mark.parametrize(
        "condition",
        [
            "balance == 100 and rate == 1.5 and yes",
            "balance",
            "100 == balance == 100.0",
            "1 < rate < 2 <= balance",
            "balance > -1 and -1.5 < rate",
            "fee == 2.5 and fee > 2 and fee < balance",
            "name == 'Ada' and name != 'ada' and lower(name) == 'ada'",
            "name > 'AAA' and not name > 'B'",
            "born < '1816' and startswith(born, '1815-12')",
            "'new' in tags and 3 in tags and 'old' not in tags",
            "'d' in name and b'\\xff' in raw and raw == b'\\x00\\xff'",
            "tags == ['new', 'vip', 3] and tags != ('new', 'vip', 3) and tags != ['new']",
            "pair == (1, 'x') and pair[1] == 'x' and pair[-2] == 1",
            "labels == {'b', 'a'} and frozen == {1} and labels != {'a', 'c'} and labels != ['a', 'b']",
            "balance in [1, 100] and balance in (100,) and balance in {100} and balance not in [1]",
            "len(tags) == 3 and len(name) == 3 and len(places) == 3 and len(raw) == 2 and len(labels) == 2",
            "not empty and not nothing and tags and places",
            "nothing is None and nothing == None and name is not None",
            "places['home']['town'] == 'London' and places.home.town == 'London'",
            "places[7] == 'seven' and places[('a', 1)] == 'pair' and 'home' in places and 8 not in places",
            "value.number == 5 and value and friend",
            "cls == 'things.Pair'",
            "friend == '0000000000000005'",
            "inner == 2 and balance == 100 and data.balance == -1",
            "has(name) and has(nothing) and not has(missing) and not has(places.away)",
            "startswith(name, 'A') and endswith(name, 'da') and startswith(raw, b'\\x00')",
            "matches(name, '^a') == False and matches(name, '^A.a$') and not matches(balance, '1')",
            "_p_oid == '00000000000000ab' and _p_class == 'things.Thing' and _p_size > 100",
            "_p_serial == '0000000000000001' and _p_state.name == 'Ada'",
            "large > balance and large == large",
            "tags == tags and places == places and places != data",
            "(name == 'Ada'\n and balance == 100)",
        ],
    )
    def test_that_holds(self, condition, subject):
        assert parse(condition)(subject)

    @pytest.mark.parametrize(
        "condition",
        [
            "missing",
            "missing == missing or missing < 1 or missing >= 1 or missing is None or missing in [1]",
            "1 in missing or name in missing or missing in tags or missing in name",
            "name > 5 or name < 5 or 5 in name or raw == 'a' or 'a' in raw or balance in balance",
            "places.home.town.street or name.first or tags['x'] or tags[99] or pair[True] or name[0]",
            "odd < 1 or odd > 1 or odd == odd or odder == 1 or odder < 1",
            "nothing < 1 or tags < ['z'] or friend.name",
            "len(balance) >= 0 or lower(balance) == '100' or startswith(balance, '1') or startswith(name, b'A')",
            "value == 5 or value == value.number or value < 6",
            "tags == ['new', 'vip'] or pair == [1, 'x'] or labels == {'a'}",
        ],
    )
    def test_that_does_not_hold(self, condition, subject):
        assert not parse(condition)(subject)

    def test_what_is_missing_differs_from_everything(self, subject):
        assert parse("missing != 1 and missing != missing and missing not in [1]")(subject)

    def test_a_state_of_slots(self, tmp_path):
        path = str(tmp_path / "store")
        with objstore.open(path) as db, db.transaction() as connection:
            connection.root()["slotted"] = Slotted("much")
        (found,) = json_lines("find", path, "things.Slotted", "--where", "content == 'much'")
        assert found["class"] == "things.Slotted"

    @pytest.mark.parametrize("state", [None, 7, ["a"], ((1, "one"),)])
    def test_a_state_that_has_no_attributes(self, state):
        found = describe(pickled(OOBTree, state))
        subject = Subject(found.class_name, found.state, ROOT, NO_TID, 1)
        assert not parse("name or has(data)")(subject)
        assert parse("_p_state[0][1] == 'one'")(subject) is (state == ((1, "one"),))

    def test_values_that_hold_themselves_or_are_endless(self):
        endless = []
        endless.append(endless)
        deep = []
        for _ in range(100):
            deep = [deep, deep]
        other = []
        for _ in range(100):
            other = [other, other]
        looped = {}
        looped["a"] = looped
        found = describe(pickled(Thing, {"a": endless, "b": [endless], "c": deep, "d": other, "e": looped}))
        subject = Subject(found.class_name, found.state, ROOT, NO_TID, 1)
        assert not parse("a == b or c == d or e == e or a in b")(subject)
        assert parse("a[0][0][0] and e.a.a.a and len(c[0][0]) == 2")(subject)

    @given(st.text("abc()[]{}.,'=<>! |01notandris", max_size=30) | st.lists(st.sampled_from(WORDS)).map(" ".join))
    def test_whatever_is_written(self, condition):
        """It is refused with a column, or says yes or no of anything."""
        found = describe(pickled(Thing, {"a": [1, {"b": None}], "b": "x"}))
        try:
            holds = parse(condition)
        except ExpressionError as error:
            holds, column = None, error.column
        if holds is None:
            assert 1 <= column <= len(condition) + 1
        else:
            assert holds(Subject(found.class_name, found.state, ROOT, NO_TID, 1)) in (True, False)
