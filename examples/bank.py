"""A small bank: threads transfer money between accounts, and at no moment is any made or lost.

    python examples/bank.py [--accounts 20] [--threads 4] [--transfers 250] [--path DIRECTORY]

Each transfer is a transaction of its own; those that meet at an account are tried again by `DB.run`. While
they go on, an auditor adds all balances up, over and over, each time within one snapshot. Afterwards the
past is audited too: the total as it was after each of the transactions.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from threading import Event, Thread

from BTrees.IOBTree import IOBTree
from persistent import Persistent

import objstore

OPENING_BALANCE = 1000


class Account(Persistent):
    """An account that is never overdrawn. Balances are whole cents."""

    def __init__(self, number: int, balance: int) -> None:
        self.number = number
        self.balance = balance

    def withdraw(self, amount: int) -> bool:
        """Take `amount` out; False, and nothing happens, where there is not enough."""
        if amount > self.balance:
            return False
        self.balance -= amount
        return True

    def deposit(self, amount: int) -> None:
        self.balance += amount


@dataclass(frozen=True)
class Outcome:
    """What a run came to."""

    expected: int
    """What all balances must add up to, always."""
    transfers: int
    refused: int
    """Transfers that found too little money."""
    tries: int
    """Transactions that were begun for the transfers: more than these, where some were tried again."""
    live_totals: tuple[int, ...]
    """The totals that the auditor saw during the run, one for each snapshot it took."""
    past_totals: tuple[int, ...]
    """The totals after each transaction, read from the past when all was over."""


def open_accounts(db: objstore.DB, count: int) -> int:
    """Make the accounts; the sum of their balances."""
    with db.transaction(note=f"open {count} accounts") as connection:
        accounts = connection.root()["accounts"] = IOBTree()
        for number in range(count):
            accounts[number] = Account(number, OPENING_BALANCE)
    return count * OPENING_BALANCE


def total(connection: objstore.Connection) -> int:
    """The sum of all balances in the connection's snapshot."""
    return sum(account.balance for account in connection.root()["accounts"].values())


@dataclass
class Teller:
    """Makes transfers between accounts chosen by chance."""

    db: objstore.DB
    accounts: int
    chance: random.Random
    tries: int = 0
    refused: int = 0

    def work(self, transfers: int) -> None:
        for _ in range(transfers):
            source, target = self.chance.sample(range(self.accounts), 2)
            if not self.db.run(self._transfer(source, target, self.chance.randint(1, OPENING_BALANCE // 2))):
                self.refused += 1

    def _transfer(self, source: int, target: int, amount: int) -> Callable[[objstore.Connection], bool]:
        def transfer(connection: objstore.Connection) -> bool:
            # Run again from the start after a conflict, with fresh objects: it keeps nothing from the try before.
            self.tries += 1
            accounts = connection.root()["accounts"]
            if not accounts[source].withdraw(amount):
                return False
            accounts[target].deposit(amount)
            return True

        return transfer


@contextmanager
def audited(db: objstore.DB, totals: list[int]) -> Iterator[None]:
    """While inside, a thread adds the balances up, snapshot by snapshot, and appends each total."""
    over = Event()

    def audit() -> None:
        with db.transaction() as connection:
            totals.append(total(connection))
        while not over.wait(0.002):  # two cores are few: leave the tellers some
            with db.transaction() as connection:
                totals.append(total(connection))

    auditor = Thread(target=audit, name="auditor")
    auditor.start()
    try:
        yield
    finally:
        over.set()
        auditor.join()


def past_totals(db: objstore.DB) -> Iterator[int]:
    """The total after each transaction since the accounts were opened, newest first."""
    for entry in db.undoLog(0, 2**31):
        with closing(db.open(at=entry["id"])) as connection:
            if "accounts" not in connection.root():
                return
            yield total(connection)


def run(path: str, accounts: int, threads: int, transfers: int, seed: int = 0) -> Outcome:
    """Run a bank in the store at `path`, which must not exist yet; `transfers` are those of each thread."""
    live: list[int] = []
    with objstore.open(path) as db:
        expected = open_accounts(db, accounts)
        tellers = [Teller(db, accounts, random.Random(seed + number)) for number in range(threads)]
        with audited(db, live), ThreadPoolExecutor(threads) as pool:
            for work in [pool.submit(teller.work, transfers) for teller in tellers]:
                work.result()  # raises what the teller met
        return Outcome(
            expected=expected,
            transfers=threads * transfers,
            refused=sum(teller.refused for teller in tellers),
            tries=sum(teller.tries for teller in tellers),
            live_totals=tuple(live),
            past_totals=tuple(past_totals(db)),
        )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Transfer money in threads; the total never changes.")
    parser.add_argument("--accounts", type=int, default=20, help="how many accounts (20)")
    parser.add_argument("--threads", type=int, default=4, help="how many threads make transfers (4)")
    parser.add_argument("--transfers", type=int, default=250, help="how many transfers each makes (250)")
    parser.add_argument("--path", help="where to keep the bank; a temporary directory if left out")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        path = options.path or f"{temporary}/bank"
        outcome = run(path, options.accounts, options.threads, options.transfers)
    print(
        f"{outcome.transfers} transfers by {options.threads} threads, {outcome.refused} refused for want of money"
    )
    print(f"{outcome.tries - outcome.transfers} conflicts, each tried again until it succeeded")
    verdict = True
    for what, totals in (("snapshots during the run", outcome.live_totals), ("past states", outcome.past_totals)):
        wrong = [each for each in totals if each != outcome.expected]
        verdict = verdict and not wrong
        print(f"{len(totals)} {what} audited: the total was {outcome.expected} in {len(totals) - len(wrong)}")
    return 0 if verdict else 1


if __name__ == "__main__":
    raise SystemExit(main())
