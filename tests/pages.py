"""Documentation pages as programs: reading their blocks, and running them.

    python tests/pages.py PAGE.md

runs a page's blocks from top to bottom in the current directory, as a reader would who types them:

- ```python blocks share one namespace, which is the module `__main__`, so that persistent classes defined
  there can be stored and found again. An ```output block right after one must be what it printed.
- ```console blocks hold lines that begin with "$ ", each run by bash on its own; it must exit with 0, or with N
  where a line "[exit N]" follows its output. Where output is shown, it must be what the command wrote to
  stdout and stderr.
- In shown output `...` stands for anything, also for several lines.
- `<!-- not run: reason -->` before a block leaves it out.

Blocks of other languages are for the eye only. The first failure ends the run and names page and line.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import re
import subprocess
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

RUN = {"python", "console", "output"}
MISTAKEN = {"py": "python", "pycon": "python", "sh": "console", "bash": "console", "shell": "console"}
"""Languages that would look as if they were run, and are not."""

_FENCE = re.compile(r"(?P<indent> *)(?P<fence>`{3,}|~{3,})(?P<language>[^\s`]*)")
_NOT_RUN = re.compile(r"<!--\s*not run:\s*(?P<reason>.+?)\s*-->")
_EXIT = re.compile(r"\[exit (?P<code>\d+)\]")


class PageError(Exception):
    """A page is not written as it should be, or does not do what it says. Names page and line."""

    def __init__(self, page: str, line: int, reason: str) -> None:
        super().__init__(f"{page}:{line}: {reason}")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block. `line` is that of its first line of text, counted from 1."""

    language: str
    text: str
    line: int
    not_run: str | None


@dataclass(frozen=True, slots=True)
class Command:
    """A command of a console block, the output shown for it ("" where none is), and its exit code."""

    text: str
    output: str
    code: int
    line: int


def blocks(source: str, page: str) -> Iterator[Block]:
    """The fenced blocks of a page, in order. Raises PageError."""
    not_run: str | None = None
    lines = enumerate(source.splitlines(), 1)
    for number, line in lines:
        if comment := _NOT_RUN.fullmatch(line.strip()):
            not_run = comment["reason"]
            continue
        opening = _FENCE.match(line)
        if opening is None:
            if line.strip():
                not_run = None
            continue
        language, indent = opening["language"], len(opening["indent"])
        if language in MISTAKEN:
            raise PageError(page, number, f"a block of {language} is not run: call it {MISTAKEN[language]}")
        text = []
        for _, inner in lines:
            if inner.strip() == opening["fence"]:
                break
            text.append(inner[indent:] if not inner[:indent].strip() else inner)
        else:
            raise PageError(page, number, "this block has no end")
        yield Block(language, "".join(f"{each}\n" for each in text), number + 1, not_run)
        not_run = None


def commands(block: Block, page: str) -> Iterator[Command]:
    """The commands of a console block, in order. Raises PageError."""
    lines = list(enumerate(block.text.splitlines(), block.line))
    if lines and not lines[0][1].startswith("$ "):
        raise PageError(page, block.line, 'a console block begins with a command after "$ "')
    starts = [at for at, (_, line) in enumerate(lines) if line.startswith("$ ")]
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        number, first = lines[start]
        parts, at = [first[2:]], start + 1
        while parts[-1].endswith("\\") and at < end:
            parts.append(lines[at][1].removeprefix("> "))
            at += 1
        shown = [line for _, line in lines[at:end]]
        code = 0
        if shown and (stated := _EXIT.fullmatch(shown[-1])):
            code = int(stated["code"])
            shown.pop()
        yield Command("\n".join(parts), "".join(f"{line}\n" for line in shown), code, number)


def matches(shown: str, actual: str) -> bool:
    """Whether output is as shown, `...` standing for anything. Spaces at the ends of lines do not count."""
    want, got = ("".join(f"{line.rstrip()}\n" for line in text.strip().splitlines()) for text in (shown, actual))
    return doctest.OutputChecker().check_output(want, got, doctest.ELLIPSIS | doctest.DONT_ACCEPT_TRUE_FOR_1)


def run(page: Path) -> list[str]:
    """Run a page in the current directory; the reasons for which blocks were left out. Raises PageError."""
    left_out = []
    main = types.ModuleType("__main__")
    runner = sys.modules["__main__"]
    sys.modules["__main__"] = main
    printed: str | None = None
    try:
        for block in blocks(page.read_text(), str(page)):
            if block.not_run is not None:
                left_out.append(f"line {block.line}: {block.not_run}")
                printed = None
            elif block.language == "python":
                printed = _run_python(block, str(page), main)
            elif block.language == "output":
                _compare(block, printed, str(page))
            elif block.language == "console":
                for command in commands(block, str(page)):
                    _run_command(command, str(page))
    finally:
        sys.modules["__main__"] = runner
    return left_out


def _run_python(block: Block, page: str, main: types.ModuleType) -> str:
    code = compile("\n" * (block.line - 1) + block.text, page, "exec")  # so that tracebacks name the page's line
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, vars(main))  # noqa: S102 - running what the page says is the purpose
    return printed.getvalue()


def _compare(block: Block, printed: str | None, page: str) -> None:
    if printed is None:
        raise PageError(page, block.line, "no block that was run stands before this output")
    if not matches(block.text, printed):
        raise PageError(page, block.line, f"the block before printed\n{printed}")


def _run_command(command: Command, page: str) -> None:
    done = subprocess.run(
        ["bash", "-c", command.text],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != command.code:
        raise PageError(page, command.line, f"exit {done.returncode}, not {command.code}, and said\n{done.stdout}")
    if command.output and not matches(command.output, done.stdout):
        raise PageError(page, command.line, f"the command said\n{done.stdout}")


def main() -> None:
    for reason in run(Path(sys.argv[1])):
        print(reason)


if __name__ == "__main__":
    main()
