"""A ZEO server over a store, for clients on other hosts.

It runs in one thread, which is ZEO's loop. There it also looks, many times a second, whether other processes have
committed to the store, and tells its clients. That is done between two requests, never in the midst of one: so a
client that has just committed is told its own tid.
"""

from __future__ import annotations

import logging
import signal
import socket
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import ZODB.POSException
from ZEO.StorageServer import StorageServer
from ZEO.zconfig import server_ssl

from objstore.errors import UsageError
from objstore.zodb.storage import DirectoryStorage

_clients_log = logging.getLogger("ZEO.asyncio.server")
logger = logging.getLogger(__name__)

INTERVAL = 0.05
"""Seconds between two looks at what other processes have committed."""


@dataclass(frozen=True, slots=True)
class Encryption:
    """How connections are encrypted, as ZEO has it: files in PEM.

    `authenticate` is a file or a directory, with the certificates that clients must have, or those of who issued
    them; `password_function` is the dotted name of what gives the password of the key.
    """

    certificate: str
    key: str | None
    authenticate: str
    password_function: str | None = None


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """What a server may be told.

    `transaction_timeout` are the seconds that a client may take from its vote to its end, 0 for any. Of
    `invalidation_queue_size` transactions it is known what they changed, for clients that come back.
    """

    name: str = "1"
    read_only: bool = False
    transaction_timeout: int = 0
    invalidation_queue_size: int = 100


class Server:
    """A server that listens from its making on, and serves while it runs. Made in the main thread."""

    def __init__(
        self,
        storage: DirectoryStorage,
        host: str,
        port: int,
        options: ServerOptions,
        encryption: Encryption | None = None,
    ) -> None:
        """`port` 0 takes one that is free. The storage is closed with the server.

        Raises UsageError where it cannot listen there, or has no use for the certificates.
        """
        self._storage = storage
        self._stopped_by: int | None = None
        context = _context(encryption) if encryption is not None else None
        _require_free(host, port)
        self._server: Any = StorageServer(
            (host, port),
            {options.name: storage},
            read_only=options.read_only,
            invalidation_queue_size=options.invalidation_queue_size,
            transaction_timeout=options.transaction_timeout or None,
            ssl=context,
        )
        self._loop = self._server.acceptor.event_loop
        for number in (signal.SIGTERM, signal.SIGINT):  # from now on: whoever is told the address may send them
            self._loop.add_signal_handler(number, self._stop, number)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port that it listens on."""
        found: tuple[str, int] = self._server.acceptor.addr[:2]
        return found

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT, then close all; which of them it was. One that came before counts too."""
        self._loop.call_soon(self._look)
        self._server.loop()
        return self._stopped_by or signal.SIGTERM

    def _look(self) -> None:
        """Tell clients what others have committed, and look again in a while."""
        if self._stopped_by is not None:
            return
        try:
            self._storage.sync()
        except ZODB.POSException.StorageError:
            logger.exception("what other processes have committed cannot be seen")
        finally:
            self._loop.call_later(INTERVAL, self._look)

    def _stop(self, number: int) -> None:
        """Let go of the clients, who are told nothing but that; then of the storage, which none asks any more."""
        if self._stopped_by is None:
            self._stopped_by = number
            _clients_log.setLevel(logging.CRITICAL)  # that one has gone already is no error now
            for clients in self._server.zeo_storages_by_storage_id.values():
                for client in list(clients):
                    client.connection.close()
            self._loop.call_soon(self._server.close)


def _require_free(host: str, port: int) -> None:
    """Raises UsageError where nobody can listen: ZEO would have made half a server before it found out."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        raise UsageError(f"cannot listen on {host}:{port}: {error.strerror or error}") from error


def _context(encryption: Encryption) -> Any:
    section = SimpleNamespace(
        certificate=encryption.certificate,
        key=encryption.key,
        authenticate=encryption.authenticate,
        password_function=encryption.password_function,
    )
    try:
        return server_ssl(section)
    except (OSError, ImportError, AttributeError, ValueError) as error:  # ssl's own errors are OSErrors
        files = ", ".join(filter(None, (encryption.certificate, encryption.key, encryption.authenticate)))
        raise UsageError(f"the certificates ({files}) cannot be used: {error}") from error
