"""The standard library's own source tree as a graph of persistent objects: the subject of `demo.py`.

Imports are references between modules; names are keys of BTrees, so that threads which define different ones
merge. This is a module of its own, because stored objects name the module of their class.
"""

from __future__ import annotations

import ast
import sysconfig
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from BTrees.Length import Length
from BTrees.OOBTree import OOBTree, OOTreeSet
from persistent import Persistent
from persistent.list import PersistentList

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
    """A module. It is in the index from the moment that another one imports it, and `indexed` later."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.indexed = False
        self.lines = 0
        self.definitions = OOBTree()  # name: Class or Function
        self.imports = PersistentList()  # Modules


class Index(Persistent):
    """All modules by name, and for every name the modules that define it."""

    def __init__(self) -> None:
        self.modules = OOBTree()  # name: Module
        self.names = OOBTree()  # name: OOTreeSet of names of modules
        self.definitions = Length()

    def module(self, name: str) -> Module:
        """The module of this name, made where there is none yet."""
        module = self.modules.get(name)
        if module is None:
            module = self.modules[name] = Module(name)
        return module

    def define(self, definition: Class | Function) -> None:
        definition.module.definitions[definition.name] = definition
        where = self.names.get(definition.name)
        if where is None:
            where = self.names[definition.name] = OOTreeSet()
        where.insert(definition.module.name)
        self.definitions.change(1)


# --- reading source ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Source:
    """A module's source, parsed."""

    name: str
    tree: ast.Module
    lines: int


def source_files(limit: int | None) -> list[tuple[str, Path]]:
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
    return Source(name, ast.parse(text), text.count("\n"))


def imported(tree: ast.Module) -> list[str]:
    """The names of the modules that a module imports, each once."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
    return sorted(names)


def add(index: Index, source: Source) -> int:
    """Put a module into the index; how many definitions it has."""
    module = index.module(source.name)
    module.indexed = True
    module.lines = source.lines
    module.imports.extend(index.module(name) for name in imported(source.tree))
    count = 0
    for node in source.tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            index.define(Function(node.name, module, node.lineno))
        elif isinstance(node, ast.ClassDef):
            found = Class(node.name, module, node.lineno)
            methods = (each for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef))
            found.methods.extend(Function(method.name, module, method.lineno) for method in methods)
            index.define(found)
        else:
            continue
        count += 1
    return count
