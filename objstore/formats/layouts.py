"""Every name and path of a store, built and parsed in one place.

    HOME/
      config/settings.toml                          written once
      config/settings.toml.copying                  the same while a copy is made here: no store yet
      journal/working_<tid>_<previous tid>_done/t   a committed transaction that is not yet flushed
      journal/working_<tid>_<previous tid>_done/o<oid>.blob    a blob that it wrote
      journal/working_<token>_temp/t                one being written
      journal/spare_<token>/t                       a recycled directory with a preallocated file
      marks/flushed_<tid> packed_<tid> oids_<oid>   watermarks, each the name of an empty file
      A/                                            the home
      blobs/                                        large binary values, in subdirectories as in the home
      blobs/tmp/<token>.tmp                         one that belongs to no committed transaction yet
      blobs/tmp/zodb/                               the same where ZODB writes them, under names that it chooses
      locks/open.lock writer.lock flush.lock pack.lock claims.lock board    never unlinked
      locks/doomed                                  what packs removed while processes had the store open
      lost+found/                                   what recovery or repair set aside

The home holds `o<oid>.c` (the current serial), `o<oid>.<tid>` (a revision) and `t<tid>` (a transaction's
details) in Full, `o<oid>.d` in Minimal; `blobs` holds `o<oid>.<tid>.blob` in both. A name that ends in `.tmp` is a
file being written: it has no meaning, and whoever finds it may remove it. Names that parse as nothing are
somebody else's files.
"""

from __future__ import annotations

from re import fullmatch
from typing import NamedTuple

from objstore.contracts import Format
from objstore.ids import Oid, Tid, number

TEMPORARY = ".tmp"
TRANSACTION_FILE = "t"

# Patterns are compiled by `re` when they are first asked for, and kept.
_HEX = "([0-9a-f]{16})"
_DONE = f"working_{_HEX}_{_HEX}_done"
_TEMP = f"working_{_HEX}_temp"
_SPARE = f"spare_{_HEX}"
_MARK = f"(flushed|packed|oids)_{_HEX}"
_CURRENT = f"o{_HEX}\\.c"
_REVISION = f"o{_HEX}\\.{_HEX}"
_DATA = f"o{_HEX}\\.d"
_BLOB = f"o{_HEX}\\.{_HEX}\\.blob"
_WAITING_BLOB = f"o{_HEX}\\.blob"
_TEMPORARY_BLOB = f"{_HEX}\\.tmp"
_TRANSACTION = f"t{_HEX}"
_SEGMENT = f"{_HEX}-{_HEX}\\.(0|[1-9][0-9]*)\\.seg"


class HomeDirectory(NamedTuple):
    """The places directly below HOME."""

    path: str

    @property
    def config(self) -> str:
        return f"{self.path}/config"

    @property
    def settings(self) -> str:
        return f"{self.path}/config/settings.toml"

    @property
    def unfinished(self) -> str:
        return f"{self.settings}.copying"

    @property
    def journal(self) -> str:
        return f"{self.path}/journal"

    @property
    def marks(self) -> str:
        return f"{self.path}/marks"

    @property
    def home(self) -> str:
        return f"{self.path}/A"

    @property
    def blobs(self) -> str:
        return f"{self.path}/blobs"

    @property
    def temporary_blobs(self) -> str:
        return f"{self.path}/blobs/tmp"

    @property
    def temporary_zodb_blobs(self) -> str:
        return f"{self.path}/blobs/tmp/zodb"

    @property
    def locks(self) -> str:
        return f"{self.path}/locks"

    @property
    def open_lock(self) -> str:
        return f"{self.path}/locks/open.lock"

    @property
    def writer_lock(self) -> str:
        return f"{self.path}/locks/writer.lock"

    @property
    def flush_lock(self) -> str:
        return f"{self.path}/locks/flush.lock"

    @property
    def pack_lock(self) -> str:
        return f"{self.path}/locks/pack.lock"

    @property
    def claims_lock(self) -> str:
        return f"{self.path}/locks/claims.lock"

    @property
    def board(self) -> str:
        return f"{self.path}/locks/board"

    @property
    def doomed(self) -> str:
        return f"{self.path}/locks/doomed"

    @property
    def lock_files(self) -> set[str]:
        """All files that may stand in `locks`."""
        return {
            self.open_lock,
            self.writer_lock,
            self.flush_lock,
            self.pack_lock,
            self.claims_lock,
            self.board,
            self.doomed,
            self.doomed + TEMPORARY,
        }

    @property
    def lost_and_found(self) -> str:
        return f"{self.path}/lost+found"

    @property
    def places(self) -> set[str]:
        """All directories that may stand there."""
        places = {self.config, self.journal, self.marks, self.home, self.blobs, self.locks}
        return places | {self.lost_and_found}


# --- the journal -------------------------------------------------------------------------------------


class DoneName(NamedTuple):
    """`working_<tid>_<previous>_done`: a committed transaction."""

    tid: Tid
    previous: Tid


class TempName(NamedTuple):
    """`working_<token>_temp`: a transaction being written."""

    token: bytes


class SpareName(NamedTuple):
    """`spare_<token>`: a directory to be used again."""

    token: bytes


def done_name(tid: Tid, previous: Tid) -> str:
    return f"working_{tid.hex()}_{previous.hex()}_done"


def temp_name(token: bytes) -> str:
    return f"working_{token.hex()}_temp"


def spare_name(token: bytes) -> str:
    return f"spare_{token.hex()}"


def parse_journal_name(name: str) -> DoneName | TempName | SpareName | None:
    """What a name in the journal means; None for a foreign one."""
    if match := fullmatch(_DONE, name):
        return DoneName(Tid(bytes.fromhex(match[1])), Tid(bytes.fromhex(match[2])))
    if match := fullmatch(_TEMP, name):
        return TempName(bytes.fromhex(match[1]))
    if match := fullmatch(_SPARE, name):
        return SpareName(bytes.fromhex(match[1]))
    return None


def mark_name(kind: str, value: bytes) -> str:
    return f"{kind}_{value.hex()}"


def parse_mark_name(name: str) -> tuple[str, bytes] | None:
    """The kind and the value of a watermark; None for a foreign name."""
    match = fullmatch(_MARK, name)
    return (match[1], bytes.fromhex(match[2])) if match else None


# --- the home ----------------------------------------------------------------------------------------


class CurrentName(NamedTuple):
    """`o<oid>.c`: the file that holds an object's current serial (Full)."""

    oid: Oid


class RevisionName(NamedTuple):
    """`o<oid>.<tid>`: one revision (Full)."""

    oid: Oid
    tid: Tid


class DataName(NamedTuple):
    """`o<oid>.d`: the current revision (Minimal)."""

    oid: Oid


class TransactionName(NamedTuple):
    """`t<tid>`: a transaction's details and the oids that it wrote (Full)."""

    tid: Tid


HomeName = CurrentName | RevisionName | DataName | TransactionName


def current_name(oid: Oid) -> str:
    return f"o{oid.hex()}.c"


def revision_name(oid: Oid, tid: Tid) -> str:
    return f"o{oid.hex()}.{tid.hex()}"


def data_name(oid: Oid) -> str:
    return f"o{oid.hex()}.d"


def transaction_name(tid: Tid) -> str:
    return f"t{tid.hex()}"


def parse_home_name(name: str) -> HomeName | None:
    """What a file's name in the home means; None for a foreign or a temporary one."""
    if match := fullmatch(_REVISION, name):
        return RevisionName(Oid(bytes.fromhex(match[1])), Tid(bytes.fromhex(match[2])))
    if match := fullmatch(_CURRENT, name):
        return CurrentName(Oid(bytes.fromhex(match[1])))
    if match := fullmatch(_DATA, name):
        return DataName(Oid(bytes.fromhex(match[1])))
    if match := fullmatch(_TRANSACTION, name):
        return TransactionName(Tid(bytes.fromhex(match[1])))
    return None


def object_directory(format: Format, oid: Oid) -> str:
    """The subdirectory of an object's files, relative to the home; "" is the home itself."""
    digits = oid.hex()
    match format:
        case Format.SEGMENTED:
            return bucket_directory(number(oid) >> 16)
        case Format.BUSHY:
            return "o/" + "/".join(digits[at : at + 2] for at in range(0, 14, 2))
        case Format.CHUNKY:
            return f"o/{digits[:12]}"
        case Format.LAWN:
            return f"o{digits}"
        case Format.FLAT:
            return ""


def transaction_directory(format: Format, tid: Tid) -> str:
    """The subdirectory of a transaction's details, relative to the home.

    Bushy and chunky put the transactions of one minute into one directory; names sort as tids do.
    """
    digits = tid.hex()
    match format:
        case Format.SEGMENTED:
            return DETAILS_DIRECTORY
        case Format.BUSHY:
            return "t/" + "/".join(digits[at : at + 2] for at in range(0, 8, 2))
        case Format.CHUNKY:
            return f"t/{digits[:5]}/{digits[5:8]}"
        case Format.LAWN | Format.FLAT:
            return ""


# --- blobs -------------------------------------------------------------------------------------------


class BlobName(NamedTuple):
    """`o<oid>.<tid>.blob`: the blob of one revision."""

    oid: Oid
    tid: Tid


def blob_name(oid: Oid, tid: Tid) -> str:
    return f"o{oid.hex()}.{tid.hex()}.blob"


def waiting_blob_name(oid: Oid) -> str:
    """The name that a blob has in its transaction's directory of the journal, which says the tid."""
    return f"o{oid.hex()}.blob"


def temporary_blob_name(token: bytes) -> str:
    return f"{token.hex()}{TEMPORARY}"


def parse_blob_name(name: str) -> BlobName | None:
    """What a file's name in `blobs` means; None for a foreign one."""
    match = fullmatch(_BLOB, name)
    return BlobName(Oid(bytes.fromhex(match[1])), Tid(bytes.fromhex(match[2]))) if match else None


def parse_waiting_blob_name(name: str) -> Oid | None:
    """The object whose blob this is, in a transaction's directory; None for a foreign name."""
    match = fullmatch(_WAITING_BLOB, name)
    return Oid(bytes.fromhex(match[1])) if match else None


def is_temporary_blob_name(name: str) -> bool:
    return fullmatch(_TEMPORARY_BLOB, name) is not None


# --- segments ----------------------------------------------------------------------------------------


class SegmentName(NamedTuple):
    """`<first tid>-<last tid>.<generation>.seg`: what a range of transactions wrote into one bucket."""

    first: Tid
    last: Tid
    generation: int

    def __str__(self) -> str:
        return f"{self.first.hex()}-{self.last.hex()}.{self.generation}.seg"

    def replaces(self, other: SegmentName) -> bool:
        """Whether this one was made from the other, so that a crash left the other behind."""
        covers = self.first <= other.first and other.last <= self.last
        return covers and self.generation > other.generation


def parse_segment_name(name: str) -> SegmentName | None:
    """What a segment's name means; None for a foreign or a temporary one."""
    match = fullmatch(_SEGMENT, name)
    if match is None or match[1] > match[2]:
        return None
    return SegmentName(Tid(bytes.fromhex(match[1])), Tid(bytes.fromhex(match[2])), int(match[3]))


def bucket_directory(bucket: int) -> str:
    """The subdirectory of a bucket's segments, relative to the home."""
    return f"{bucket >> 8:010x}/{bucket & 255:02x}"


DETAILS_DIRECTORY = "t"
"""The subdirectory of the segments of transactions' details, relative to the home."""
