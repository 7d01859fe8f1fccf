"""`objstore serve`: a server in a process of its own, and clients of ZEO over loopback."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import transaction
import ZEO.tests
import ZODB
import ZODB.blob
from BTrees.Length import Length
from click.testing import CliRunner
from persistent.mapping import PersistentMapping
from ZEO.ClientStorage import ClientStorage
from ZEO.Exceptions import ClientDisconnected
from ZEO.zconfig import client_ssl
from ZODB import POSException

import objstore
from objstore.cli import serve
from objstore.cli.main import main

TOP = Path(__file__).parent.parent
CERTIFICATES = Path(ZEO.tests.__file__).parent


@pytest.fixture
def path(tmp_path):
    """A store with a counter."""
    path = tmp_path / "store"
    with objstore.open(path) as db, db.transaction() as connection:
        connection.root.counter = Length(0)
    return path


def started(path, *options):
    command = [sys.executable, "-m", "objstore", "serve", str(path), "--listen", "127.0.0.1:0", "--json", *options]
    return subprocess.Popen(
        list(map(str, command)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(TOP)},
    )


@contextmanager
def server(path, *options, ending=signal.SIGTERM, code=0, says=""):
    """A server that runs: its address. It is ended by its pid, its exit code and complaints compared."""
    process = started(path, *options)
    try:
        told = json.loads(process.stdout.readline())
        assert told["path"] == str(path)
        yield told["host"], told["port"]
        process.send_signal(ending)
        _, errors = process.communicate(timeout=30)
        assert process.returncode == code
        if says:
            assert says in errors
        else:
            # A client that closes with something unread is told of so.
            assert [line for line in errors.splitlines() if "ConnectionResetError" not in line] == []
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


@contextmanager
def client(address, **options):
    """A database over a client of the server."""
    db = ZODB.DB(ClientStorage(address, wait_timeout=20, **options))
    yield db
    db.close()


def knows(db, tid):
    """Return when the client was told of a transaction, by a server that looks for itself."""
    while db.storage.lastTransaction() < tid:
        db.storage.ping()


def opened(db):
    return db.open(transaction.TransactionManager())


def test_clients_share_a_store(path):
    with server(path) as address, client(address) as db, client(address) as other:
        one, two = opened(db), opened(other)
        one.root()["a"] = PersistentMapping(value=1)
        one.transaction_manager.commit()
        knows(other, db.storage.lastTransaction())
        two.transaction_manager.begin()
        assert two.root()["a"]["value"] == 1
        one.root()["counter"].change(1)
        two.root()["counter"].change(2)
        one.transaction_manager.commit()
        two.transaction_manager.commit()
        assert two.root()["counter"]() == 3
        one.root()["a"]["value"] = 2
        two.root()["a"]["value"] = 3
        one.transaction_manager.commit()
        with pytest.raises(POSException.ConflictError):
            two.transaction_manager.commit()
        two.transaction_manager.abort()
        db.undo(db.undoInfo()[0]["id"], one.transaction_manager.get())
        one.transaction_manager.commit()
        assert one.root()["a"]["value"] == 1
        db.pack()
        assert len(db.storage) == 3
    with objstore.open(path) as db, db.transaction() as connection:
        assert (connection.root.counter(), connection.root.a["value"]) == (3, 1)


def test_our_own_database_is_a_client(path):
    """The log names transactions as those of FileStorage and RelStorage do, so that each undoes what it lists."""
    with server(path) as (host, port), objstore.open(f"zeo://{host}:{port}?wait_timeout=20") as db:
        with db.transaction(note="kept") as connection:
            connection.root.a = 1
        with db.transaction(note="undone") as connection:
            connection.root.a = 2
        assert [entry["description"] for entry in db.undoLog(0, 2)] == ["undone", "kept"]
        with db.transaction() as connection:
            db.undo(db.undoLog(0, 1)[0]["id"], connection.transaction_manager.get())
        with db.transaction() as connection:
            assert connection.root.a == 1


def test_clients_see_what_other_processes_commit(path):
    """And each has the tids of its own commits, however many others come in between."""
    with server(path) as address, client(address) as db, objstore.open(path) as beside:
        connection = opened(db)
        assert connection.root()["counter"]() == 0
        seen = []
        for turn in range(1, 6):
            with beside.transaction() as direct:
                direct.root.counter.change(1)
            knows(db, beside.lastTransaction())
            connection.transaction_manager.begin()
            assert connection.root()["counter"]() == 2 * turn - 1
            connection.root()["counter"].change(1)
            connection.transaction_manager.commit()
            seen.append(connection.root()["counter"]._p_serial)
        assert [found["tid"] for found in db.history(connection.root()["counter"]._p_oid, 20)][:-1:2] == seen[::-1]


def test_a_server_that_only_reads(path):
    with server(path, "--read-only", "--name", "accounts", says="ReadOnlyError") as address:
        with pytest.raises((POSException.ReadOnlyError, ClientDisconnected)):
            ClientStorage(address, storage="accounts", wait_timeout=1)
        with client(address, storage="accounts", read_only=True) as db:
            assert opened(db).root()["counter"]() == 0


def test_it_ends_by_sigint_too(path):
    with server(path, ending=signal.SIGINT, code=130, says="interrupted"):
        pass


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_by_a_signal_that_comes_before_it_serves(path, number):
    """The address is told first. A signal that came then killed the process, or, as a background job, was lost."""
    script = (
        "import os, signal, sys\n"
        "from objstore.zodb import DirectoryStorage\n"
        "from objstore.zodb.serving import Server, ServerOptions\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "server = Server(DirectoryStorage(sys.argv[1]), '127.0.0.1', 0, ServerOptions())\n"
        "os.kill(os.getpid(), int(sys.argv[2]))\n"
        "print(int(server.run()))"
    )
    command = [sys.executable, "-c", script, str(path), str(int(number))]
    told = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert told.stdout.split() == [str(int(number))]


def test_it_ends_while_clients_are_there(path):
    process = started(path)
    told = json.loads(process.stdout.readline())
    db = ZODB.DB(ClientStorage((told["host"], told["port"]), wait_timeout=20))
    connection = opened(db)
    connection.root()["a"] = 1
    connection.transaction_manager.commit()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 0
    db.close()
    with objstore.open(path, create=False) as own, own.transaction() as connection:
        assert connection.root.a == 1


def test_clients_are_let_go_of_before_the_store_is_closed(path):
    """Who committed at that moment was told that the store is closed, which nobody tries again."""
    script = (
        "import sys\n"
        "from objstore.zodb import DirectoryStorage\n"
        "from objstore.zodb.serving import Server, ServerOptions\n"
        "storage = DirectoryStorage(sys.argv[1])\n"
        "server = Server(storage, '127.0.0.1', 0, ServerOptions())\n"
        "close = storage.close\n"
        "def told():\n"
        "    [clients] = server._server.zeo_storages_by_storage_id.values()\n"
        "    print([client.connection.closed for client in clients])\n"
        "    close()\n"
        "storage.close = told\n"
        "print(server.address[1], flush=True)\n"
        "server.run()"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True)
    port = int(process.stdout.readline())
    db = ZODB.DB(ClientStorage(("127.0.0.1", port), wait_timeout=20))
    process.send_signal(signal.SIGTERM)
    told, _ = process.communicate(timeout=30)
    assert told == "[True]\n"
    db.close()


@pytest.mark.parametrize("password", [False, True])
def test_encrypted(path, password):
    name = "serverpw" if password else "server"
    options = ["--certificate", CERTIFICATES / f"{name}.pem", "--key", CERTIFICATES / f"{name}_key.pem"]
    options += ["--authenticate", CERTIFICATES / "client.pem"]
    if password:
        options += ["--password-function", "ZEO.tests.testssl.pwfunc"]
    own = SimpleNamespace(
        certificate=CERTIFICATES / "client.pem",
        key=CERTIFICATES / "client_key.pem",
        authenticate=str(CERTIFICATES / f"{name}.pem"),
        password_function=None,
        check_hostname=True,
        server_hostname="zodb.org",
    )
    with server(path, *options) as address:
        context, hostname = client_ssl(own)
        with client(address, ssl=context, ssl_server_hostname=hostname) as db:
            assert opened(db).root()["counter"]() == 0
        if not password:
            with pytest.raises(ClientDisconnected):
                ClientStorage(address, wait_timeout=1)


def refused(*arguments, code=2):
    result = CliRunner().invoke(main, ["serve", *map(str, arguments)])
    assert result.exit_code == code
    return result.output


def test_what_is_refused(path, tmp_path, monkeypatch):
    assert "an address looks like" in refused(path, "--listen", "9100")
    assert "an address looks like" in refused(path, "--listen", "::1:9100")
    assert "an address looks like" in refused(path, "--listen", "localhost:99999")
    here = ["--listen", "127.0.0.1:0"]
    assert "there is no store" in refused(tmp_path / "none", *here, code=3)
    assert not (tmp_path / "none").exists()
    pem = CERTIFICATES / "server.pem"
    for options in (["--certificate", pem], ["--authenticate", pem], ["--key", pem]):
        assert "encryption takes" in refused(path, *here, *options)
    assert "cannot be used" in refused(path, *here, "--certificate", path / "config", "--authenticate", pem)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert "cannot listen on 127.0.0.1" in refused(path, "--listen", f"127.0.0.1:{port}")

    def missing(name):
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(serve, "import_module", missing)
    assert "pip install 'objstore[zeo]'" in refused(path, *here)
    with objstore.open(path, create=False, exclusive=True):
        """Nothing was left open."""


@pytest.mark.parametrize(("text", "address"), [("localhost:0", ("localhost", 0)), ("[::1]:9100", ("::1", 9100))])
def test_addresses(text, address):
    assert serve.parsed_address(text) == address


def test_blobs(path, tmp_path):
    with server(path) as address:
        caches = [str(tmp_path / name) for name in ("cache", "other cache")]
        with client(address, blob_dir=caches[0]) as db, client(address, blob_dir=caches[1]) as other:
            one = opened(db)
            one.root()["blob"] = ZODB.blob.Blob(b"x" * 200_000)
            one.transaction_manager.commit()
            with one.root()["blob"].open("w") as file:
                file.write(b"second")
            one.transaction_manager.commit()
            knows(other, db.storage.lastTransaction())
            two = opened(other)
            with two.root()["blob"].open() as file:
                assert file.read() == b"second"
            db.undo(db.undoInfo()[0]["id"], one.transaction_manager.get())
            one.transaction_manager.commit()
            with one.root()["blob"].open() as file:
                assert file.read() == b"x" * 200_000
    with objstore.open(path) as db, db.transaction() as connection, connection.root.blob.open() as file:
        assert file.read() == b"x" * 200_000
