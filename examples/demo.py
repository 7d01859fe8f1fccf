"""What objstore does, shown on the source tree of Python's standard library.

    python examples/demo.py [--path DIRECTORY] [--modules N] [--threads N]

Two threads index the modules, a transaction each, into a graph of persistent objects (`stdlib_index.py`). Then:
a conflict that the BTrees resolve and one that is tried again, an undo, a look into the past, a look into the
directory, and packing from the command line. Numbers are counted while it runs.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import stdlib_index
import transaction
from BTrees.OOBTree import OOBTree

import objstore
from objstore.collections import begins_with
from objstore.errors import ConflictError

Say = Callable[[str], None]
PLACES = {
    "A": "the home: revisions, sorted, many to a file",
    "config": "what the store is",
    "journal": "commits that wait to be moved home, and spare files for the next ones",
    "locks": "who has it open",
    "marks": "how far it was flushed and packed, as names of empty files",
}


@dataclass(frozen=True)
class Indexed:
    """What indexing came to."""

    modules: int
    definitions: int
    tries: int
    """Transactions begun: more than modules, where some were tried again."""
    seconds: float


@dataclass(frozen=True)
class Told:
    """What the demo found, for whoever checks it."""

    indexed: Indexed
    merged: bool
    """Whether two transactions that inserted different keys into one BTree both succeeded."""
    conflicts: int
    """Attempts that failed and were made again by `DB.run`."""
    undone: bool
    """Whether an undo brought a removed module back."""
    modules_in_the_past: int
    modules_now: int
    forgotten: int
    """Modules taken out of the index in the end."""
    packed: bool
    """Whether the command line packed the store and found it sound."""


# --- indexing ----------------------------------------------------------------------------------------


def index_library(db: objstore.DB, limit: int | None, threads: int) -> Indexed:
    """Index up to `limit` modules of the standard library, a transaction each."""
    with db.transaction(note="an empty library") as connection:
        connection.root()["library"] = stdlib_index.Library()
    tries: Counter[str] = Counter()
    known = {name for name, _ in stdlib_index.source_files()}

    def index_one(job: tuple[str, Path]) -> int:
        source = stdlib_index.parse(*job)

        def add(connection: objstore.Connection) -> int:
            tries[source.name] += 1
            return stdlib_index.add(connection.root()["library"], source, known)

        return db.run(add, retries=50, note=f"index {source.name}")

    began = time.perf_counter()
    jobs = stdlib_index.source_files(limit)
    with ThreadPoolExecutor(threads) as pool:
        definitions = sum(pool.map(index_one, jobs))
    return Indexed(len(jobs), definitions, tries.total(), time.perf_counter() - began)


def tell_what_is_there(db: objstore.DB, say: Say) -> None:
    with db.transaction() as connection:
        library = connection.root()["library"]
        popular: Counter[str] = Counter()
        for module in library.modules.find(indexed=True):
            popular.update(each.name for each in module.imports)
        say("most imported: " + ", ".join(f"{name} ({count})" for name, count in popular.most_common(5)))
        found = library.definitions.find(name=begins_with("parse"), order="name")
        names = [definition.name for definition in found]
        say(f"{len(names)} definitions begin with 'parse', found by an index: {', '.join(names[:4])} ...")
        [(shared, count)] = Counter(each.name for each in library.definitions.values()).most_common(1)
        say(f"the name that most modules define is {shared!r}, in {count} of them")


# --- conflicts ---------------------------------------------------------------------------------------


@contextmanager
def two_at_once(db: objstore.DB) -> Iterator[tuple[objstore.Connection, objstore.Connection]]:
    """Two connections in transactions of their own, which see the same state."""
    first, second = (db.open(transaction.TransactionManager()) for _ in range(2))
    with closing(first), closing(second):
        for connection in (first, second):
            connection.transaction_manager.begin()
        try:
            yield first, second
        finally:
            for connection in (first, second):
                connection.transaction_manager.abort()


def merge(db: objstore.DB, say: Say) -> bool:
    """Two transactions insert different keys into one BTree; whether both are there afterwards."""
    with db.transaction(note="a shelf of readers") as connection:
        connection.root()["readers"] = OOBTree()
    with two_at_once(db) as (ada, ben):
        ada.root()["readers"]["ada"] = "asyncio"
        ben.root()["readers"]["ben"] = "dis"
        ada.transaction_manager.commit()
        ben.transaction_manager.commit()
    with db.transaction() as connection:
        readers = sorted(connection.root()["readers"])
    say(f"ada and ben each inserted a key into the same bucket at the same time; it has {' and '.join(readers)}")
    return readers == ["ada", "ben"]


def collide(db: objstore.DB, say: Say) -> int:
    """Two transactions change one attribute; how often `DB.run` had to try again."""
    with db.transaction() as connection:
        name = next(iter(connection.root()["library"].modules))
    with two_at_once(db) as (ada, ben):
        ada.root()["library"].modules[name].lines += 1
        ben.root()["library"].modules[name].lines += 1
        ada.transaction_manager.commit()
        try:
            ben.transaction_manager.commit()
        except ConflictError as error:
            say(f"both changed the module {name}; ben's commit said:")
            say(textwrap.fill(str(error), 96, initial_indent="  ", subsequent_indent="  "))
    tries = 0

    def count_line(connection: objstore.Connection) -> None:
        nonlocal tries
        tries += 1
        connection.root()["library"].modules[name].lines += 1
        if tries == 1:  # somebody is faster
            with db.transaction(note="somebody is faster") as other:
                other.root()["library"].modules[name].lines += 1

    db.run(count_line, note="count a line")
    say(f"the same with db.run succeeded at attempt {tries}, without a line of code for it")
    return tries - 1


# --- the past ----------------------------------------------------------------------------------------


def forget(db: objstore.DB, say: Say) -> int:
    """Take the modules out that no other imports, but one that defines something; how many these were."""
    with db.transaction(note="forget the modules that nobody imports") as connection:
        library = connection.root()["library"]
        names = library.imported_by_nobody()
        defining = {each.module.name for each in library.definitions.values()}
        if defining and defining <= set(names):
            names.remove(min(defining))
        for name in names:
            library.forget(name)
        say(f"{len(names)} modules, such as {', '.join(names[:3])}, are imported by no other: they were taken out")
        return len(names)


def remove_and_undo(db: objstore.DB, say: Say) -> bool:
    """Remove a module in one transaction, and undo that; whether it is back."""
    with db.transaction(note="remove the module with the most definitions") as connection:
        library = connection.root()["library"]
        defined = Counter(each.module.name for each in library.definitions.values())
        if not defined:
            say("no module defines anything, so none is removed")
            return False
        [(name, _)] = defined.most_common(1)
        library.forget(name)
    with db.transaction() as connection:
        assert name not in connection.root()["library"].modules
    removal = db.undoLog(0, 1)[0]
    with db.transaction(note="undo that"):
        db.undo(removal["id"])
    with db.transaction() as connection:
        library = connection.root()["library"]
        definitions = library.definitions.count(module=library.modules[name])
        say(f"{name} was removed, and that undone: it is back with {definitions} definitions")
        return definitions > 0


def look_back(db: objstore.DB, say: Say) -> tuple[int, int]:
    """How many modules were indexed halfway, and are now."""
    log = db.undoLog(0, 2**31)
    halfway = log[len(log) // 2]
    counts = []
    for moment in (halfway["id"], log[0]["id"]):
        with closing(db.open(at=moment)) as connection:
            counts.append(connection.root()["library"].modules.count(indexed=True))
    say(f"of {len(log)} transactions, the one in the middle is {halfway['description']!r}:")
    say(f"as of then the store has {counts[0]} modules indexed, today {counts[1]}")
    return counts[0], counts[1]


# --- the directory and the command line --------------------------------------------------------------


def tell_the_directory(path: str, say: Say) -> None:
    """Print what the store's directory holds, in numbers."""
    for entry in sorted(os.scandir(path), key=lambda each: each.name):
        files = [Path(place) / name for place, _, names in os.walk(entry.path) for name in names]
        size = sum(file.stat().st_size for file in files)
        say(f"{entry.name + '/':<12} {len(files):>5} files {size / 1024:>7.0f} KiB  {PLACES.get(entry.name, '')}")
        if entry.name == "A":
            say(f"{'':<32}  the newest is {max(files).relative_to(path)}")


def command(say: Say, *words: str, show: int = 3) -> int:
    """Run `objstore` as from a shell, print the first lines of what it says; its exit code."""
    say(f"$ objstore {' '.join(words)}")
    program = shutil.which("objstore", path=os.path.dirname(sys.executable)) or "objstore"
    done = subprocess.run([program, *words], capture_output=True, text=True, check=False)
    lines = (done.stdout + done.stderr).splitlines()
    for line in lines[:show]:
        say(f"  {line[:110]}")
    if len(lines) > show:
        say(f"  ... {len(lines) - show} more lines")
    return done.returncode


def pack_from_the_shell(path: str, say: Say) -> bool:
    """Look at the store, pack it and check it with commands; whether all of them succeeded."""
    codes = [
        command(say, "info", path, "--count", show=12),
        command(say, "log", path, "-n", "5", show=5),
        command(say, "show", path, "0", show=8),
        command(say, "pack", path, "--days", "0", show=8),
        command(say, "info", path, "--count", show=12),
        command(say, "check", path, show=8),
    ]
    return not any(codes)


# --- the show ----------------------------------------------------------------------------------------


def show(path: str, modules: int | None, threads: int, say: Say = print) -> Told:
    """The whole of it, in a store at `path` that must not exist yet."""

    def title(text: str) -> None:
        say(f"\n{text}\n{'-' * len(text)}")

    title(f"1. Indexing the standard library with {threads} threads")
    with objstore.open(path) as db:
        indexed = index_library(db, modules, threads)
        say(
            f"{indexed.modules} modules, {indexed.definitions} classes and functions in {indexed.seconds:.1f} s: "
            f"{indexed.modules / indexed.seconds:.0f} durable transactions a second, parsing included"
        )
        say(
            f"{indexed.tries - indexed.modules} of {indexed.tries} attempts met another thread and were made again"
        )
        tell_what_is_there(db, say)
        title("2. A conflict that the BTrees resolve, and one that is tried again")
        merged = merge(db, say)
        conflicts = collide(db, say)
        title("3. Forgetting, undo, and the past")
        forgotten = forget(db, say)
        undone = remove_and_undo(db, say)
        then, now = look_back(db, say)
    began = time.perf_counter()
    with objstore.open(path):
        opened = time.perf_counter() - began
    title("4. The directory")
    say(f"{path}, which was closed and opened again in {opened * 1000:.0f} ms:")
    tell_the_directory(path, say)
    title("5. From the command line")
    packed = pack_from_the_shell(path, say)
    return Told(indexed, merged, conflicts, undone, then, now, forgotten, packed)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Index the standard library into an objstore, and play with it.")
    parser.add_argument("--path", help="where to keep the store; a temporary directory if left out")
    parser.add_argument("--modules", type=int, help="how many modules to index (all, some 600)")
    parser.add_argument("--threads", type=int, default=2, help="how many threads index (2)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="objstore-demo-") as temporary:
        told = show(options.path or f"{temporary}/library", options.modules, options.threads)
    good = told.merged and told.undone and told.packed and told.conflicts == 1
    if options.path:
        print(f"\nThe store is in {options.path}: look around with ls, and with objstore --help.")
    else:
        print("\nThe store was in a temporary directory; keep one with: python examples/demo.py --path DIRECTORY")
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
