"""The formats hold still, and the pages in `docs/format` describe them.

The golden files are compared with what the codecs write, byte for byte. A difference there is a change of the
format: it needs a new version number, and the pages say so first.
"""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest
from formatted import (
    BLOB,
    BY_ADA,
    COPIED,
    DELETED,
    FIRST,
    RECORD,
    SECOND,
    SETTINGS,
    adopted,
    details_segment,
    journal_file,
    put,
    revision_segment,
)

from objstore.contracts import Format
from objstore.engine import buckets, merging
from objstore.engine.full import FullHome
from objstore.engine.journal import Journal
from objstore.formats import layouts, records, segments, transactions
from objstore.formats.segments import Kind, Segment
from objstore.formats.settings import decode_settings
from objstore.formats.transactions import decode_details, encode_details
from objstore.ids import number
from objstore.machine.memory import MemoryFilesystem

TOP = Path(__file__).parent.parent
GOLDEN = Path(__file__).parent / "golden"


def golden_journal() -> bytes:
    filesystem, _, path = journal_file([RECORD, COPIED], BY_ADA.details)
    content = filesystem.read(path)
    return content[: transactions.decode_header(content).end]


def golden_current() -> bytes:
    filesystem = MemoryFilesystem()
    FullHome(filesystem, "", Format.FLAT).apply([(BY_ADA, [RECORD])])
    return filesystem.read(f"/{layouts.current_name(RECORD.oid)}")


GOLDEN_FILES = {
    "record.bin": lambda: records.encode(RECORD),
    "record-deleted.bin": lambda: records.encode(DELETED),
    "record-copied.bin": lambda: records.encode(COPIED),
    "record-blob.bin": lambda: records.encode(BLOB),
    "details.bin": lambda: encode_details(BY_ADA),
    "journal.bin": golden_journal,
    "current.bin": golden_current,
    "segment-revisions.bin": revision_segment,
    "segment-details.bin": details_segment,
    "settings.toml": SETTINGS.encode,
}


class TestGolden:
    @pytest.mark.parametrize("name", GOLDEN_FILES)
    def test_what_is_written_holds_still(self, name):
        assert GOLDEN_FILES[name]().hex(" ", 8) == (GOLDEN / name).read_bytes().hex(" ", 8)

    def test_every_golden_file_is_used(self):
        assert {path.name for path in GOLDEN.iterdir()} == set(GOLDEN_FILES)

    @pytest.mark.parametrize(
        ("name", "revision"),
        [
            ("record.bin", RECORD),
            ("record-deleted.bin", DELETED),
            ("record-copied.bin", COPIED),
            ("record-blob.bin", BLOB),
        ],
    )
    def test_records(self, name, revision):
        assert records.decode((GOLDEN / name).read_bytes()) == revision

    def test_details(self):
        assert decode_details((GOLDEN / "details.bin").read_bytes()) == BY_ADA

    def test_a_journal_file(self):
        filesystem = MemoryFilesystem()
        journal = Journal(filesystem, "")
        path = f"/{layouts.done_name(SECOND, FIRST)}"
        filesystem.make_directory(path)
        put(filesystem, f"{path}/t", (GOLDEN / "journal.bin").read_bytes())
        waiting = adopted(journal)
        assert waiting.transaction == BY_ADA
        assert journal.revisions(waiting) == [RECORD, COPIED]

    def test_a_current_serial(self):
        assert (GOLDEN / "current.bin").read_bytes() == SECOND

    def test_a_segment_of_revisions(self):
        segment = Segment("p", memoryview((GOLDEN / "segment-revisions.bin").read_bytes()))
        low = segments.low_of(RECORD.oid)
        assert records.decode(segment.buffer, segment.offset(segment.find(low, 2**63)), "p") == RECORD
        assert segment.tid(segment.find(low, number(SECOND) - 1)) == FIRST
        assert records.decode(segment.buffer, segment.offset(2), "p") == COPIED

    def test_a_segment_of_details(self):
        segment = Segment("p", memoryview((GOLDEN / "segment-details.bin").read_bytes()))
        assert decode_details(bytes(segment.entry(segment.find_tid(number(SECOND))))) == BY_ADA

    def test_settings(self):
        assert decode_settings((GOLDEN / "settings.toml").read_bytes(), "p") == SETTINGS


# --- the pages ---------------------------------------------------------------------------------------

PAGES = TOP / "docs" / "format"
CODES = {"magic": "2s", "u8": "B", "u32": "I", "u64": "Q", "id": "8s", "zero": "x"}


def rows(page: str, heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, without those of its own heading."""
    text = (PAGES / page).read_text().partition(f"\n## {heading}\n")[2]
    assert text, f"{page} has no heading {heading}"
    lines = text[text.index("\n|") :].split("\n\n")[0].strip().splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def fixed_part(page: str, heading: str) -> str:
    """The format of `struct` that a page describes, up to where places or sizes are no longer numbers."""
    code = ">"
    for offset, size, kind, _ in rows(page, heading):
        if not (offset.isdigit() and size.isdigit()):
            break
        assert int(offset) == struct.calcsize(code), f"{page}, {heading}, {offset}"
        code += CODES[kind]
        assert int(offset) + int(size) == struct.calcsize(code), f"{page}, {heading}, {offset}"
    return code


def expanded(code: str) -> list[str]:
    """The parts of a format of `struct`, one by one."""
    return re.findall(r"\d*[a-zA-Z]", code)


class TestPages:
    """The pages in `docs/format` say what the codecs do."""

    @pytest.mark.parametrize(
        ("page", "heading", "code"),
        [
            ("record.md", "The bytes", records._FIELDS.format + "I"),
            ("transaction.md", "Details", transactions._DETAILS.format),
            ("transaction.md", "A journal file", transactions._FILE.format),
            ("segment.md", "The footer", segments._FOOTER.format),
        ],
    )
    def test_tables_are_what_is_packed(self, page, heading, code):
        assert expanded(fixed_part(page, heading)) == expanded(code)

    def test_flags(self):
        table = (PAGES / "record.md").read_text().partition("| flag | meaning |")[2].split("\n\n")[0]
        flags = re.findall(r"^\| (\d) \| (\w+)", table, re.MULTILINE)
        known = {
            records.DELETED: "deleted",
            records.COPIED: "copied",
            records.REFERENCES_KNOWN: "the",
            records.BLOB: "there",
        }
        assert flags == [(str(flag), word) for flag, word in known.items()]

    @pytest.mark.parametrize("kind", list(Kind))
    def test_the_index_of_a_segment_is_as_long_as_its_arrays(self, kind):
        text = (PAGES / "segment.md").read_text().partition("## The index")[2]
        table = text.split("|---|---|---|\n")[kind].split("\n\n")[0]
        types = [line.split("|")[2].strip() for line in table.splitlines()]
        for n in (0, 1, 2, 3, 4, 1000):
            size = 0
            for each in types:
                if each == "zero to 8":
                    size = -(-size // 8) * 8
                    continue
                code, count = each.split(" \N{MULTIPLICATION SIGN} ")
                width = {"u16": 2, "u32": 4, "u64": 8, "zero": 1}[code]
                size += width * (int(count) if count.isdigit() else n + count.count("+ 1"))
            footer = segments.Footer(kind, 0, FIRST, SECOND, n, 0, 0)
            assert size == segments._index_size(footer)

    @pytest.mark.parametrize(
        ("page", "name"),
        [
            ("record.md", "record.bin"),
            ("transaction.md", "details.bin"),
            ("segment.md", "segment-details.bin"),
        ],
    )
    def test_examples_are_the_golden_files(self, page, name):
        text = (PAGES / page).read_text().partition(f"`tests/golden/{name}`")[2]
        block = text.partition("```text\n")[2].partition("```")[0]
        shown = [re.match(r"(?:[0-9a-f]{2} ?)+(?= {3}|$)", line)[0] for line in block.splitlines()]
        assert bytes.fromhex(" ".join(shown)) == (GOLDEN / name).read_bytes()

    def test_tiers(self):
        text = " ".join((PAGES / "segment.md").read_text().split())
        assert "of less than 64 KiB is of tier 0, of less than 256 KiB of tier 1" in text
        assert [merging.tier(size * 1024) for size in (63, 64, 255, 256)] == [0, 1, 1, 2]
        assert f"some {buckets.MAX_OPEN_SEGMENTS} segments open" in text
        assert f"As soon as {['three', 'four', 'five'][merging.FAN - 3]} count" in text
