"""README and docs tell the truth: their code blocks run, their output is what they show, their links lead
somewhere. `pages` says how a block is run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pages
import pytest

TOP = Path(__file__).parent.parent
ALL = sorted([TOP / "README.md", TOP / "CHANGES.md", *TOP.glob("docs/**/*.md")])
_LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")
_HEADING = re.compile(r"#+ +(?P<title>.+)")
_FENCED = re.compile(r"^(```|~~~).*?^\1`*$", re.MULTILINE | re.DOTALL)
Fact = Callable[[str, object], None]


def name(page: Path) -> str:
    return str(page.relative_to(TOP))


@pytest.mark.parametrize("page", ALL, ids=name)
def test_page_runs(page: Path, tmp_path: Path, record_property: Fact) -> None:
    if page.name == "gunicorn.md":
        pytest.importorskip("gunicorn", reason="gunicorn is not installed; it is in the extra `test`")
    scripts = Path(sys.executable).parent
    if "$ objstore" in page.read_text():
        assert shutil.which("objstore", path=str(scripts)), (
            f"no objstore command in {scripts}: install the project"
        )
    environment = os.environ | {
        "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(TOP), os.environ.get("PYTHONPATH")])),
        "COLUMNS": "100",
    }
    done = subprocess.run(
        [sys.executable, pages.__file__, str(page)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for reason in done.stdout.splitlines():
        record_property("not run", reason)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, made as GitHub makes them."""
    titles = (
        match["title"]
        for line in _FENCED.sub("", page.read_text()).splitlines()
        if (match := _HEADING.match(line))
    )
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", ALL, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    lost = []
    for match in _LINK.finditer(_FENCED.sub("", page.read_text())):
        target, _, anchor = match["target"].partition("#")
        if "://" in target:
            continue
        file = (page.parent / target).resolve() if target else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            lost.append(match["target"])
    assert lost == []


def test_every_page_can_be_reached_from_the_readme() -> None:
    found, pending = set(), [TOP / "README.md"]
    while pending:
        page = pending.pop()
        if page not in found:
            found.add(page)
            targets = (match["target"].partition("#")[0] for match in _LINK.finditer(page.read_text()))
            linked = ((page.parent / target).resolve() for target in targets if target.endswith(".md"))
            pending += [each for each in linked if each.exists()]
    assert sorted(set(ALL) - found) == []


# --- the runner itself -------------------------------------------------------------------------------


def run(text: str, directory: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Run a page of this text in a directory of its own."""
    page = directory / "page.md"
    page.write_text(text)
    monkeypatch.chdir(directory)
    return pages.run(page)


def test_blocks_share_a_namespace_and_classes_can_be_pickled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (
        "```python\nimport pickle\nclass C:\n    pass\n```\nwords\n"
        "```python\nassert type(pickle.loads(pickle.dumps(C()))) is C\nopen('done', 'w').close()\n```\n"
        "```console\n$ ls done \\\n> page.md\ndone\npage.md\n$ false\n[exit 1]\n```\n"
    )
    assert run(text, tmp_path, monkeypatch) == []
    assert (tmp_path / "done").exists()


def test_a_block_is_left_out_with_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "<!-- not run: it never ends -->\n\n```python\nwhile True: pass\n```\n```python\n1\n```\n"
    assert run(text, tmp_path, monkeypatch) == ["line 4: it never ends"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("```console\n$ false\n```\n", "page.md:2: exit 1, not 0"),
        ("```console\n$ true\n[exit 3]\n```\n", "page.md:2: exit 0, not 3"),
        ("```console\n$ echo yes\nno\n```\n", "page.md:2: the command said\nyes"),
        ("```console\nls\n```\n", "page.md:2: a console block begins"),
        ("```python\nprint(1)\n```\n```output\n2\n```\n", "page.md:5: the block before printed\n1"),
        ("```output\n2\n```\n", "page.md:2: no block that was run"),
        ("words\n```python\n1\n", "page.md:2: this block has no end"),
        ("```bash\nls\n```\n", "page.md:1: a block of bash is not run"),
    ],
)
def test_what_a_page_gets_wrong_is_named_with_its_line(
    text: str, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(pages.PageError, match=re.escape(problem)):
        run(text, tmp_path, monkeypatch)


def test_an_error_in_python_names_the_line_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        run("words\n\n```python\nx = 0\n1 / x\n```\n", tmp_path, monkeypatch)
    assert (caught.traceback[-1].path, caught.traceback[-1].lineno + 1) == (tmp_path / "page.md", 5)


@pytest.mark.parametrize(
    ("shown", "actual", "same"),
    [
        ("a\nb\n", "a\nb\n", True),
        ("a\n...\nd\n", "a\nb\nc\nd\n", True),
        ("took ... s\n", "took 0.1 s\n", True),
        ("a  \n", "\na\n", True),
        ("a\n", "a\nb\n", False),
        ("a ...\nc\n", "a b\nd\n", False),
        ("1\n", "True\n", False),
    ],
)
def test_shown_output_may_leave_things_out(shown: str, actual: str, same: bool) -> None:
    assert pages.matches(shown, actual) is same
