"""The simulated filesystem: it loses what may be lost, and nothing else."""

from __future__ import annotations

import errno
from random import Random

import pytest
from durability import CrashState, Kind
from simulated import Crash, SimulatedFilesystem

from objstore.contracts import LockedError


def listing(fs: SimulatedFilesystem, path: str = "") -> dict[str, bytes | None]:
    """Everything below a path: contents of files, None for directories."""
    found: dict[str, bytes | None] = {}
    for entry in fs.entries(path or "/"):
        below = f"{path}/{entry.name}"
        found[below] = None if entry.is_directory else fs.read(below)
        if entry.is_directory:
            found |= listing(fs, below)
    return found


def outcomes(
    fs: SimulatedFilesystem, after: int | None = None, limit: int = 1000
) -> list[dict[str, bytes | None]]:
    """What every crash state holds."""
    return [listing(SimulatedFilesystem(state)) for state in fs.crash_states(after, rng=Random(1), limit=limit)]


def put(fs: SimulatedFilesystem, path: str, data: bytes, *, sync: bool = True) -> None:
    with fs.create(path) as file:
        file.write(data)
        if sync:
            file.sync()


def started() -> SimulatedFilesystem:
    """A filesystem whose directory `/d` is durable."""
    fs = SimulatedFilesystem()
    fs.make_directory("/d")
    fs.sync_directory("/")
    return fs


# --- what may be lost --------------------------------------------------------------------------------


def test_what_is_synced_stays():
    fs = started()
    put(fs, "/d/a", b"data")
    fs.sync_directory("/d")
    assert outcomes(fs) == [{"/d": None, "/d/a": b"data"}]


def test_nothing_happened():
    assert outcomes(SimulatedFilesystem()) == [{}]


def test_unsynced_content_may_be_there_in_part():
    fs = started()
    with fs.create("/d/a") as file:
        file.write(b"0123")
    fs.sync_directory("/d")
    found = {outcome["/d/a"] for outcome in outcomes(fs)}
    assert found == {b"", b"01", b"\0\0\0\0", b"0123", b"\0\x0023", b"012\0"}


def test_unsynced_writes_are_lost_each_apart():
    fs = started()
    with fs.create("/d/a") as file:
        file.write(b"x")
        file.sync()
        fs.sync_directory("/d")
        file.write(b"1")
        file.write(b"2")
    found = {outcome["/d/a"] for outcome in outcomes(fs)}
    assert {b"x", b"x1", b"x12", b"x\x002"} <= found


def test_what_is_written_over_is_old_or_new_or_torn():
    fs = started()
    put(fs, "/d/a", b"oldold")
    fs.sync_directory("/d")
    with fs.open_existing("/d/a") as file:
        file.write(b"NEWN")
    found = {outcome["/d/a"] for outcome in outcomes(fs)}
    assert found == {b"oldold", b"NEWNld", b"NEdold", b"olWNld", b"NEWold"}


def test_a_synced_file_may_lose_its_name():
    fs = started()
    put(fs, "/d/a", b"data")
    assert outcomes(fs) == [{"/d": None}, {"/d": None, "/d/a": b"data"}]


def test_a_synced_directory_may_lose_its_own_name():
    fs = SimulatedFilesystem()
    fs.make_directory("/d")
    put(fs, "/d/a", b"data")
    fs.sync_directory("/d")
    assert outcomes(fs) == [{}, {"/d": None, "/d/a": b"data"}]


def test_a_rename_happened_or_did_not():
    fs = started()
    put(fs, "/d/new", b"new")
    put(fs, "/d/a", b"old")
    fs.sync_directory("/d")
    fs.rename("/d/new", "/d/a")
    assert outcomes(fs) == [
        {"/d": None, "/d/new": b"new", "/d/a": b"old"},
        {"/d": None, "/d/a": b"new"},
    ]
    fs.sync_directory("/d")
    assert outcomes(fs) == [{"/d": None, "/d/a": b"new"}]


def test_removals_may_be_lost():
    fs = started()
    put(fs, "/d/a", b"data")
    fs.sync_directory("/d")
    fs.unlink("/d/a")
    fs.remove_directory("/d")
    assert outcomes(fs) == [{"/d": None, "/d/a": b"data"}, {}, {"/d": None}]
    fs.sync_directory("/")
    assert outcomes(fs) == [{}]


def test_names_are_lost_independently():
    """leveldb#195: a removal was persisted before the rename that it relied on."""
    fs = started()
    put(fs, "/d/journal", b"data")
    fs.sync_directory("/d")
    put(fs, "/d/home", b"data")
    fs.unlink("/d/journal")
    assert {"/d": None} in outcomes(fs)
    fs.sync_directory("/d")
    assert outcomes(fs) == [{"/d": None, "/d/home": b"data"}]


def test_a_change_needs_the_changes_before_it():
    fs = started()
    fs.make_directory("/d/sub")
    put(fs, "/d/sub/a.tmp", b"data")
    fs.rename("/d/sub/a.tmp", "/d/sub/a")
    fs.rename("/d/sub", "/d/moved")
    found = outcomes(fs)
    for outcome in found:
        assert "/d/sub" not in outcome or "/d/moved" not in outcome
    for path in ("/d/sub", "/d/moved"):
        for names in ({}, {f"{path}/a.tmp": b"data"}, {f"{path}/a": b"data"}):
            assert {"/d": None, path: None, **names} in found
    assert {"/d": None} in found
    assert len(found) == 7


def test_a_removal_of_what_was_renamed_needs_the_rename():
    fs = started()
    put(fs, "/d/a", b"old")
    put(fs, "/d/b", b"new")
    fs.sync_directory("/d")
    fs.rename("/d/b", "/d/a")
    fs.unlink("/d/a")
    assert outcomes(fs) == [
        {"/d": None, "/d/a": b"old", "/d/b": b"new"},
        {"/d": None},
        {"/d": None, "/d/a": b"new"},
    ]


def test_a_move_between_directories_is_sure_once_both_are_synced():
    fs = started()
    fs.make_directory("/e")
    fs.sync_directory("/")
    put(fs, "/d/a", b"data")
    fs.sync_directory("/d")
    fs.rename("/d/a", "/e/a")
    both = [{"/d": None, "/e": None, "/d/a": b"data"}, {"/d": None, "/e": None, "/e/a": b"data"}]
    assert outcomes(fs) == both
    fs.sync_directory("/e")
    assert outcomes(fs) == both
    put(fs, "/e/b", b"more")
    fs.sync_directory("/e")
    assert outcomes(fs) == [{**outcome, "/e/b": b"more"} for outcome in both]
    fs.sync_directory("/d")
    assert outcomes(fs) == [{"/d": None, "/e": None, "/e/a": b"data", "/e/b": b"more"}]


def test_an_open_file_that_was_renamed_is_synced():
    fs = started()
    with fs.create("/d/a") as file:
        file.write(b"data")
        fs.rename("/d/a", "/d/b")
        fs.sync_directory("/d")
        file.sync()
    assert outcomes(fs) == [{"/d": None, "/d/b": b"data"}]


def test_a_sync_that_failed_makes_later_ones_worthless():
    """After a failed fsync the pages count as clean: the next one succeeds, and wrote nothing."""
    fs = started()
    with fs.create("/d/a") as file:
        fs.sync_directory("/d")
        file.write(b"lost")
        fs.fail_at(lambda operation: operation.kind is Kind.SYNC, OSError(errno.EIO, "input/output error"))
        with pytest.raises(OSError, match="input/output"):
            file.sync()
        file.sync()
    found = [outcome["/d/a"] for outcome in outcomes(fs)]
    assert b"" in found
    assert b"lost" in found


def test_a_crash_at_any_point_of_the_past():
    fs = started()
    put(fs, "/d/a", b"1")
    fs.sync_directory("/d")
    assert [operation.kind.value for operation in fs.log] == [
        "make directory",
        "sync directory",
        "create",
        "write",
        "sync",
        "sync directory",
    ]
    assert [len(outcomes(fs, after)) for after in range(fs.operations + 1)] == [1, 2, 1, 2, 4, 2, 1]
    assert outcomes(fs, 1) == [{}, {"/d": None}]  # again, after later ones


# --- states ------------------------------------------------------------------------------------------


def busy() -> SimulatedFilesystem:
    fs = started()
    for number in range(8):
        put(fs, f"/d/{number}", b"some data", sync=number % 2 == 0)
    return fs


def test_states_are_different_and_limited():
    for limit in (1, 5, 60):
        states = list(busy().crash_states(rng=Random(3), limit=limit))
        assert len(states) == limit
        assert len({state.digest for state in states}) == limit


def test_states_are_determined_by_the_seed():
    def digests(seed: int) -> list[bytes]:
        return [state.digest for state in busy().crash_states(rng=Random(seed), limit=100)]

    assert digests(1) == digests(1)
    assert digests(1) != digests(2)


def test_the_extremes_come_first():
    first, second, *_ = outcomes(busy(), limit=30)
    assert first == {"/d": None}
    assert second == {"/d": None, **{f"/d/{number}": b"some data" for number in range(8)}}


def test_a_state_is_durable_and_can_crash_again():
    fs = started()
    put(fs, "/d/a", b"data", sync=False)
    last = list(fs.crash_states(rng=Random(1)))[1]
    again = SimulatedFilesystem(last)
    assert outcomes(again) == [{"/d": None, "/d/a": b"data"}]
    again.rename("/d/a", "/d/b")
    assert outcomes(again) == [{"/d": None, "/d/a": b"data"}, {"/d": None, "/d/b": b"data"}]
    assert listing(SimulatedFilesystem(last)) == {"/d": None, "/d/a": b"data"}  # states are not worn out


def test_a_state_tells_of_itself():
    fs = started()
    put(fs, "/d/a", b"data", sync=False)
    told = [state.describe() for state in fs.crash_states(rng=Random(1), limit=1000)]
    assert told[0].splitlines() == [
        "a crash after 4 operations; not synced were 2:",
        "    lost: 2 create /d/a",
        "    lost: 3 write /d/a 4 bytes at 0",
    ]
    assert "kept bytes 0 to 2 of 4, and not the length: 3 write" in "\n".join(told)


# --- failures ----------------------------------------------------------------------------------------


def test_stopping_ends_the_process():
    fs = started()
    fs.stop_before(4)
    file = fs.create("/d/a")
    file.write(b"1")
    with pytest.raises(Crash):
        file.write(b"2")
    for call in (lambda: fs.read("/d/a"), lambda: fs.exists("/d"), lambda: fs.unlink("/d/a"), file.sync):
        with pytest.raises(Crash):
            call()
    file.close()
    assert fs.operations == 4
    assert listing(SimulatedFilesystem(list(fs.crash_states(rng=Random(1)))[1])) == {"/d": None, "/d/a": b"1"}


def test_an_operation_fails_once():
    fs = started()
    fs.fail_at(2, PermissionError(errno.EACCES, "not allowed"))
    with pytest.raises(PermissionError, match="not allowed"):
        fs.create("/d/a")
    put(fs, "/d/a", b"data")
    assert fs.read("/d/a") == b"data"


def test_a_full_disk_stays_full_until_there_is_room():
    fs = started()
    put(fs, "/d/old", b"old")
    fs.fill_at(fs.operations + 1)
    with fs.create("/d/a") as file:
        with pytest.raises(OSError, match="No space") as raised:
            file.write(b"1234")
        assert raised.value.errno == errno.ENOSPC
    assert fs.read("/d/a") == b"12"
    assert fs.free_bytes("/d") == 0
    for call in (lambda: fs.create("/d/b"), lambda: fs.make_directory("/d/c")):
        with pytest.raises(OSError, match="No space"):
            call()
    fs.rename("/d/old", "/d/new")
    fs.unlink("/d/a")
    fs.make_room()
    put(fs, "/d/b", b"data")
    assert listing(fs) == {"/d": None, "/d/new": b"old", "/d/b": b"data"}


def test_a_hook_sees_operations_before_they_happen():
    fs = started()
    seen: list[tuple[str, bool]] = []
    fs.before_operation = lambda operation: seen.append((str(operation), fs.exists("/d/a")))
    with fs.create("/d/a") as file:
        file.write(b"data")
    fs.rename("/d/a", "/d/b")
    assert seen == [
        ("2 create /d/a", False),
        ("3 write /d/a 4 bytes at 0", True),
        ("4 rename /d/a to /d/b", True),
    ]


def test_a_hook_may_do_operations_of_its_own():
    fs = started()

    def hook(_operation) -> None:
        fs.before_operation = None
        fs.make_directory("/d/first")

    fs.before_operation = hook
    fs.make_directory("/d/second")
    assert [(operation.index, operation.path) for operation in fs.log[2:]] == [(2, "/d/first"), (3, "/d/second")]


def test_locks_end_with_the_crash():
    fs = started()
    fs.lock("/d/lock")
    with pytest.raises(LockedError):
        fs.lock("/d/lock")
    for state in fs.crash_states(rng=Random(1)):
        SimulatedFilesystem(state).lock("/d/lock").close()


# --- it finds what went wrong elsewhere --------------------------------------------------------------


class Toy:
    """The smallest engine that is right: values are moved from a journal to a home. And wrong, if told so."""

    def __init__(self, fs: SimulatedFilesystem, mistake: str = "") -> None:
        self.fs = fs
        self.mistake = mistake

    def _sync(self, path: str, mistake: str) -> None:
        if self.mistake != mistake:
            self.fs.sync_directory(path)

    def commit(self, name: str, value: bytes) -> None:
        with self.fs.create(f"/journal/{name}.tmp") as file:
            file.write(value)
            if self.mistake == "renamed before the content is synced":
                self.fs.rename(f"/journal/{name}.tmp", f"/journal/{name}")
            file.sync()
        if self.mistake != "renamed before the content is synced":
            self.fs.rename(f"/journal/{name}.tmp", f"/journal/{name}")
        self._sync("/journal", "acknowledged before the name is synced")

    def flush(self, name: str) -> None:
        value = self.fs.read(f"/journal/{name}")
        with self.fs.create(f"/home/{name}.tmp") as file:
            file.write(value)
            if self.mistake != "home not synced":
                file.sync()
        self.fs.rename(f"/home/{name}.tmp", f"/home/{name}")
        self._sync("/home", "journal removed before the home is synced")
        self.fs.unlink(f"/journal/{name}")

    def value(self, name: str) -> bytes | None:
        for place in ("journal", "home"):
            if self.fs.exists(f"/{place}/{name}"):
                return self.fs.read(f"/{place}/{name}")
        return None


def _loss(mistake: str) -> CrashState | None:
    """A crash state in which a commit that returned is gone, or one that did not is there in part."""
    fs = SimulatedFilesystem()
    for path in ("/journal", "/home"):
        fs.make_directory(path)
    fs.sync_directory("/")
    begun = fs.operations
    toy = Toy(fs, mistake)
    toy.commit("a", b"the value of a")
    acknowledged = fs.operations
    toy.flush("a")
    for after in range(begun, fs.operations + 1):
        for state in fs.crash_states(after, rng=Random(after), limit=100):
            value = Toy(SimulatedFilesystem(state)).value("a")
            if value != b"the value of a" and (after >= acknowledged or value is not None):
                return state
    return None


@pytest.mark.parametrize(
    "mistake",
    [
        "renamed before the content is synced",
        "acknowledged before the name is synced",
        "home not synced",
        "journal removed before the home is synced",
    ],
)
def test_it_catches_known_mistakes(mistake: str):
    """DirectoryStorage removed journals before the home was synced; leveldb#195 names out of order."""
    assert _loss(mistake) is not None


def test_it_does_not_accuse_the_innocent():
    assert _loss("") is None
