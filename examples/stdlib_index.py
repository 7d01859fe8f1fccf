"""The standard library's own source tree as a graph of persistent objects: the subject of `demo.py`.

Imports are references between modules; modules and definitions are in collections, so that threads which add
different ones merge. This is a module of its own, because stored objects name the module of their class.
"""

from __future__ import annotations

import ast
import sysconfig
from collections.abc import Container
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from persistent import Persistent
from persistent.list import PersistentList

from objstore.collections import Collection, Index, has

SKIPPED = {"test", "tests", "idlelib", "lib2to3", "site-packages", "__pycache__"}


# --- the persistent graph ----------------------------------------------------------------------------


class Function(Persistent):
    """A function, or a method."""

    def __init__(self, name: str, module: Module, line: int) -> None:
        self.name = name
        self.module = module
        self.line = line


class Class(Persistent):
    """A class and its methods."""

    def __init__(self, name: str, module: Module, line: int) -> None:
        self.name = name
        self.module = module
        self.line = line
        self.methods = PersistentList()


class Module(Persistent):
    """A module. It is in the library from the moment that another one imports it, and `indexed` later."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.indexed = False
        self.lines = 0
        self.imports: tuple[Module, ...] = ()


class Library(Persistent):
    """All modules, and what they define, found by name, by module, and by what is imported."""

    def __init__(self) -> None:
        self.modules = Collection("name", {"indexed": "indexed", "imports": Index("imports", multiple=True)})
        self.definitions = Collection(("module", "name"), {"name": "name"})

    def module(self, name: str) -> Module:
        """The module of this name, made where there is none yet."""
        module = self.modules.get(name)
        if module is None:
            module = Module(name)
            self.modules.add(module)
        return module

    def define(self, definition: Class | Function) -> None:
        """Add a class or function; of several with the same name in a module the last counts."""
        former = self.definitions.get((definition.module, definition.name))
        if former is not None:
            self.definitions.remove(former)
        self.definitions.add(definition)

    def forget(self, name: str) -> None:
        """Take a module and its definitions out. If nothing else refers to it, a pack removes its objects."""
        for definition in self.definitions.find(module=self.modules[name]):
            self.definitions.remove(definition)
        del self.modules[name]

    def imported_by_nobody(self) -> list[str]:
        """The modules that no other one imports."""
        return [
            name
            for name, module in self.modules.items()
            if all(each is module for each in self.modules.find(imports=has(module)))
        ]


# --- reading source ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Source:
    """A module's source, parsed."""

    name: str
    tree: ast.Module
    lines: int
    is_package: bool


def source_files(limit: int | None = None) -> list[tuple[str, Path]]:
    """Names and files of the standard library's modules, tests left out, in the order of their names."""
    top = Path(sysconfig.get_paths()["stdlib"])
    found = []
    for path in top.rglob("*.py"):
        parts = path.relative_to(top).with_suffix("").parts
        if not SKIPPED & set(parts):
            found.append((".".join(parts[:-1] if parts[-1] == "__init__" else parts), path))
    return list(islice(sorted(found), limit))


def parse(name: str, path: Path) -> Source:
    text = path.read_text(encoding="utf-8", errors="replace")
    return Source(name, _syntax_tree(text), text.count("\n"), path.name == "__init__.py")


def _syntax_tree(text: str) -> ast.Module:
    for _ in range(10):
        # CPython 3.11 counts the depth of syntax trees wrongly at times, when threads make them (gh-106905).
        with suppress(SystemError):
            return ast.parse(text)
    return ast.parse(text)


def imported(source: Source, known: Container[str]) -> list[str]:
    """The names of the modules that a module imports, each once; `known` tells modules from what they define."""
    names = set()
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _base(source, node)
            inner = {f"{base}.{alias.name}" for alias in node.names}
            names.update({name for name in inner if name in known} or {base})
    return sorted(names)


def _base(source: Source, node: ast.ImportFrom) -> str:
    """What `from ... import` names, absolutely."""
    if not node.level:
        return node.module or ""
    parts = source.name.split(".")
    above = parts[: len(parts) - node.level + source.is_package]
    return ".".join([*above, node.module] if node.module else above)


def add(library: Library, source: Source, known: Container[str]) -> int:
    """Put a module into the library; how many definitions it has."""
    module = library.module(source.name)
    module.indexed = True
    module.lines = source.lines
    module.imports = tuple(library.module(name) for name in imported(source, known))
    for node in source.tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            library.define(Function(node.name, module, node.lineno))
        elif isinstance(node, ast.ClassDef):
            found = Class(node.name, module, node.lineno)
            methods = (each for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef))
            found.methods.extend(Function(method.name, module, method.lineno) for method in methods)
            library.define(found)
    return library.definitions.count(module=module)
