"""`objstore serve`: a ZEO server over a store."""

from __future__ import annotations

import signal
import sys
from importlib import import_module
from typing import Any

import click

from objstore.cli.output import json_line, line
from objstore.cli.parameters import json_option, store_argument
from objstore.errors import UsageError


def parsed_address(text: str) -> tuple[str, int]:
    """HOST:PORT, or [HOST]:PORT with colons in HOST, as the type of an argument."""
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        colon = ""
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise click.BadParameter(f"an address looks like 127.0.0.1:9100 or [::1]:9100, not {text!r}")
    return host, int(port)


@click.command(epilog="Example: objstore serve accounts --listen 127.0.0.1:9100")
@store_argument
@click.option(
    "--listen",
    type=parsed_address,
    required=True,
    metavar="HOST:PORT",
    help="Where to listen. Port 0 takes one that is free.",
)
@click.option("--read-only", is_flag=True, help="Let clients read only, and open the store for that.")
@click.option("--name", default="1", show_default=True, help="The name of the storage, which clients ask for.")
@click.option("--certificate", metavar="FILE", help="Encrypt, with this certificate (PEM).")
@click.option("--key", metavar="FILE", help="Its key, where that is in a file of its own.")
@click.option(
    "--authenticate",
    metavar="PATH",
    help="The certificates that clients must have, or those of their issuers: a file or a directory.",
)
@click.option("--password-function", metavar="NAME", help="The dotted name of what gives the key's password.")
@click.option(
    "--transaction-timeout",
    type=click.IntRange(min=0),
    default=0,
    metavar="SECONDS",
    help="Drop a client that takes longer from its vote to its end.",
)
@click.option(
    "--invalidation-queue-size",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    metavar="N",
    help="How many transactions a client may miss before it has to verify its cache.",
)
@json_option
def serve(
    store: str,
    listen: tuple[str, int],
    read_only: bool,
    name: str,
    certificate: str | None,
    key: str | None,
    authenticate: str | None,
    password_function: str | None,
    transaction_timeout: int,
    invalidation_queue_size: int,
    as_json: bool,
) -> None:
    """Serve a store to clients of ZEO, until SIGTERM.

    Prints where it listens as soon as it does. Other processes of this host may use the store meanwhile, and
    clients see what they commit. Needs the extra `zeo`. Exit codes: 0 (SIGTERM), 2 (also where it cannot listen,
    or the certificates do not fit), 3, 6, 7, 130 (SIGINT).
    """
    if (certificate is None) != (authenticate is None) or (certificate is None and (key or password_function)):
        raise UsageError(
            "encryption takes --certificate and --authenticate, and --key where it is in another file"
        )
    try:
        serving: Any = import_module("objstore.zodb.serving")
        storages: Any = import_module("objstore.zodb.storage")
    except ImportError as error:
        raise UsageError(f"serving needs ZEO ({error}): pip install 'objstore[zeo]'") from error
    encryption = None
    if certificate is not None and authenticate is not None:
        encryption = serving.Encryption(certificate, key, authenticate, password_function)
    options = serving.ServerOptions(name, read_only, transaction_timeout, invalidation_queue_size)
    storage = storages.DirectoryStorage(store, create=False, read_only=read_only)
    try:
        server = serving.Server(storage, *listen, options, encryption)
        host, port = server.address
        if as_json:
            json_line({"host": host, "port": port, "storage": name, "path": storage.getName()})
        else:
            shown = f"[{host}]" if ":" in host else host
            line(f"listening on {shown}:{port}, storage {name}: {storage.getName()}")
        sys.stdout.flush()
        stopped_by = server.run()
    finally:
        storage.close()
    if stopped_by == signal.SIGINT:
        raise KeyboardInterrupt
