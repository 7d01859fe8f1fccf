"""The shape of the code: which module may import which, and how large one may grow.

The rules work on sources, not on what is imported, so a rule can be tried on modules that do not exist; the
tests below try each on a package made to break it before they trust it on ours.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = "objstore"
FLOORS = {
    "ids": 0,
    "revisions": 0,
    "errors": 0,
    "later": 0,
    "contracts": 0,
    "formats": 1,
    "machine": 2,
    "engine": 3,
    "upkeep": 4,
    "objects": 5,
    "collections": 6,
    "compat": 6,
    "zodb": 6,
    "cli": 7,
    "web": 7,
}
TOP = 8
"""The floor of `objstore/__init__.py`, which wires the parts, and of `__main__.py` beside it."""
UNSEEN = {"objects": {"engine", "machine"}}
"""What a package does not import although it stands below: objects know a storage by its contract only."""
MAX_LINES = 500

Sources = Mapping[str, str]
"""Dotted module names and their sources; a package is named without `__init__`."""
Rule = Callable[[Sources], Iterator[str]]


@dataclass(frozen=True, slots=True)
class Import:
    """One import statement's target: a module of ours, and where the statement stands."""

    module: str
    line: int


def our_sources() -> dict[str, str]:
    package = Path(__file__).parent.parent / ROOT
    sources = {}
    for path in sorted(package.rglob("*.py")):
        parts = (ROOT, *path.relative_to(package).with_suffix("").parts)
        sources[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path.read_text()
    return sources


def is_package(module: str, sources: Sources) -> bool:
    return any(name.startswith(f"{module}.") for name in sources)


def imports(module: str, sources: Sources) -> Iterator[Import]:
    """What a module imports of ours, anywhere in its source, TYPE_CHECKING blocks included."""
    for node in ast.walk(ast.parse(sources[module])):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == ROOT:
                    yield Import(alias.name, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".") + ([""] if is_package(module, sources) else [])
                base = ".".join(parts[: -node.level] + ([base] if base else []))
            if base.split(".")[0] == ROOT:
                for alias in node.names:
                    inner = f"{base}.{alias.name}"
                    yield Import(inner if inner in sources else base, node.lineno)


def package_of(module: str) -> str:
    """The part of a module's name that has a floor; "" for what stands on top."""
    parts = module.split(".")
    return "" if len(parts) == 1 or parts[1] == "__main__" else parts[1]


def floor(module: str) -> int | None:
    package = package_of(module)
    return TOP if not package else FLOORS.get(package)


# --- the rules ---------------------------------------------------------------------------------------


def every_module_has_a_floor(sources: Sources) -> Iterator[str]:
    for module in sources:
        if floor(module) is None:
            yield f"{module}: {package_of(module)!r} has no floor; decide on one, add it to FLOORS in {__file__}"


def imports_point_down(sources: Sources) -> Iterator[str]:
    for module in sources:
        own = floor(module)
        for each in imports(module, sources):
            other = floor(each.module)
            if own is not None and other is not None and other > own:
                yield f"{module}:{each.line}: floor {own} imports {each.module} of floor {other}"


def objects_know_only_the_contract(sources: Sources) -> Iterator[str]:
    for module in sources:
        unseen = UNSEEN.get(package_of(module), set())
        for each in imports(module, sources):
            if package_of(each.module) in unseen:
                yield f"{module}:{each.line}: {package_of(module)} must not know {each.module}"


def imports_make_no_circle(sources: Sources) -> Iterator[str]:
    """Tarjan's strongly connected components of the graph of modules."""
    graph = {
        module: sorted({each.module for each in imports(module, sources)} & set(sources)) for module in sources
    }
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    path: list[str] = []
    found: list[str] = []

    def visit(module: str) -> None:
        order[module] = low[module] = len(order)
        path.append(module)
        for other in graph[module]:
            if other not in order:
                visit(other)
                low[module] = min(low[module], low[other])
            elif other in path:
                low[module] = min(low[module], order[other])
        if low[module] == order[module]:
            circle = path[path.index(module) :]
            del path[path.index(module) :]
            if len(circle) > 1 or module in graph[module]:
                found.append(f"{' -> '.join([*circle, module])}: these import each other")

    for module in graph:
        if module not in order:
            visit(module)
    yield from found


def no_stars(sources: Sources) -> Iterator[str]:
    for module, source in sources.items():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names):
                yield f"{module}:{node.lineno}: a star import"


def imports_stand_at_the_top(sources: Sources) -> Iterator[str]:
    for module, source in sources.items():
        for scope in ast.walk(ast.parse(source)):
            if isinstance(scope, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
                for node in ast.walk(scope):
                    if isinstance(node, ast.Import | ast.ImportFrom):
                        yield f"{module}:{node.lineno}: an import hidden in {getattr(scope, 'name', 'a lambda')}"


def late_imports_are_told_to_type_checkers(sources: Sources) -> Iterator[str]:
    """A module that is imported `Later` is imported as well, for type checkers and for the rules above."""
    for module, source in sources.items():
        tree = ast.parse(source)
        told = {each for node in ast.walk(tree) for each in _imported(node)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Later":
                late = ast.literal_eval(node.args[0])
                if late not in told:
                    yield f"{module}:{node.lineno}: {late} is imported later, and not for type checkers"


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.ImportFrom):
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return [alias.name for alias in node.names] if isinstance(node, ast.Import) else []


def modules_stay_small(sources: Sources) -> Iterator[str]:
    for module, source in sources.items():
        lines = len(source.splitlines())
        if lines > MAX_LINES:
            yield f"{module}: {lines} lines, more than {MAX_LINES}; find its second idea"


def modules_say_why(sources: Sources) -> Iterator[str]:
    for module, source in sources.items():
        if not (ast.get_docstring(ast.parse(source)) or "").strip():
            yield f"{module}: no docstring"


def packages_define_nothing(sources: Sources) -> Iterator[str]:
    """A package's `__init__` re-exports; only the root's also defines."""
    allowed = (ast.Expr, ast.Import, ast.ImportFrom)
    for module, source in sources.items():
        if module != ROOT and is_package(module, sources):
            for node in ast.parse(source).body:
                names_all = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
                if not isinstance(node, allowed) and not names_all:
                    yield f"{module}:{node.lineno}: a package's __init__ re-exports and defines nothing"


RULES = [
    every_module_has_a_floor,
    imports_point_down,
    objects_know_only_the_contract,
    imports_make_no_circle,
    no_stars,
    imports_stand_at_the_top,
    late_imports_are_told_to_type_checkers,
    modules_stay_small,
    modules_say_why,
    packages_define_nothing,
]


def name(rule: object) -> str:
    return getattr(rule, "__name__", "")


@pytest.mark.parametrize("rule", RULES, ids=name)
def test_our_modules(rule: Rule) -> None:
    assert list(rule(our_sources())) == []


def test_all_our_modules_are_seen() -> None:
    sources = our_sources()
    assert {"objstore", "objstore.ids", "objstore.engine", "objstore.formats.layouts"} <= set(sources)
    assert all(package in FLOORS for package in map(package_of, sources) if package)


BROKEN: list[tuple[Rule, dict[str, str], str]] = [
    (every_module_has_a_floor, {"objstore": "", "objstore.attic": ""}, "objstore.attic: 'attic' has no floor"),
    (
        imports_point_down,
        {"objstore.engine": "", "objstore.engine.a": "from objstore.cli import main", "objstore.cli.main": ""},
        "objstore.engine.a:1: floor 3 imports objstore.cli.main of floor 7",
    ),
    (
        imports_point_down,
        {"objstore.ids": "from .formats.layouts import x", "objstore.formats.layouts": ""},
        "objstore.ids:1: floor 0 imports objstore.formats.layouts of floor 1",
    ),
    (
        imports_point_down,
        {"objstore": "", "objstore.upkeep": "", "objstore.upkeep.a": "\nfrom objstore import open"},
        "objstore.upkeep.a:2: floor 4 imports objstore of floor 8",
    ),
    (
        imports_point_down,
        {"objstore.engine.a": "if TYPE_CHECKING:\n  import objstore.objects.b", "objstore.objects.b": ""},
        "objstore.engine.a:2: floor 3 imports objstore.objects.b of floor 5",
    ),
    (
        objects_know_only_the_contract,
        {"objstore.objects.a": "import objstore.machine.posix", "objstore.machine.posix": ""},
        "objstore.objects.a:1: objects must not know objstore.machine.posix",
    ),
    (
        imports_make_no_circle,
        {
            "objstore.engine": "",
            "objstore.engine.a": "from objstore.engine import b",
            "objstore.engine.b": "from . import c",
            "objstore.engine.c": "from .a import x",
        },
        "objstore.engine.b -> objstore.engine.c -> objstore.engine.a: these import each other",
    ),
    (no_stars, {"objstore.ids": "from struct import *"}, "objstore.ids:1: a star import"),
    (
        imports_stand_at_the_top,
        {"objstore.ids": "def f():\n    if f:\n        import os"},
        "objstore.ids:3: an import hidden in f",
    ),
    (
        imports_stand_at_the_top,
        {"objstore.ids": "class C:\n    async def f(self):\n        from os import path"},
        "objstore.ids:3: an import hidden in f",
    ),
    (
        late_imports_are_told_to_type_checkers,
        {"objstore.ids": 'import json\ntempfile = Later("tempfile")'},
        "objstore.ids:2: tempfile is imported later, and not for type checkers",
    ),
    (modules_stay_small, {"objstore.ids": "\n" * 501}, "objstore.ids: 501 lines, more than 500"),
    (modules_say_why, {"objstore.ids": "import os"}, "objstore.ids: no docstring"),
    (modules_say_why, {"objstore.ids": ""}, "objstore.ids: no docstring"),
    (
        packages_define_nothing,
        {"objstore.engine": '"""Why."""\nx = 1', "objstore.engine.a": ""},
        "objstore.engine:2: a package's __init__ re-exports",
    ),
]


@pytest.mark.parametrize(("rule", "sources", "problem"), BROKEN, ids=name)
def test_the_rules_find_what_they_forbid(rule: Rule, sources: dict[str, str], problem: str) -> None:
    assert any(problem in found for found in rule(sources))


SOUND = {
    "objstore": '"""Why."""\nfrom objstore.engine import a\n__version__ = "1"\ndef open(): pass',
    "objstore.ids": '"""Why."""\nimport os\nimport struct',
    "objstore.engine": '"""Why."""\nfrom .a import f\n__all__ = ["f"]',
    "objstore.engine.a": '"""Why."""\nfrom objstore import ids\nfrom . import b\ndef f(): pass',
    "objstore.engine.b": '"""Why."""\nfrom objstore.ids import number\n' + "\n" * 497,
    "objstore.objects.c": '"""Why."""\ntry:\n    from objstore.formats import d\nexcept ImportError:\n    pass',
    "objstore.formats.d": '"""Why."""\nimport objstore.ids',
    "objstore.formats.e": (
        '"""Why."""\nif TYPE_CHECKING:\n    import json\n    from objstore.formats import d\n'
        'else:\n    json, d = Later("json"), Later("objstore.formats.d")'
    ),
}


@pytest.mark.parametrize("rule", RULES, ids=name)
def test_the_rules_let_sound_modules_pass(rule: Rule) -> None:
    assert list(rule(SOUND)) == []
