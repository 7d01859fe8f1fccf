"""Servers for the tests: ZEO, and PostgreSQL, each a process of its own that is stopped by its pid.

One of each kind serves a whole run. Every database in it is a fresh one: of a PostgreSQL, a copy of one that
RelStorage has prepared; of a ZEO, the next of a batch of files, and where these are used up, the next server.
"""

from __future__ import annotations

import atexit
import itertools
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from functools import cache
from glob import glob
from pathlib import Path

BATCH = 40
"""How many files one ZEO serves: opening one takes a millisecond, starting a server half a second."""


def free_port():
    """A port that nobody listens at, and that no outgoing connection is given before a server takes it (again)."""
    while True:
        port = random.randrange(20_000, 32_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


class Zeo:
    """A ZEO server process; `url` names one of its storages."""

    def __init__(self, count=BATCH, *, blobs=False):
        """`blobs`: its storages keep some."""
        self._numbers = itertools.count()
        self.directory = tempfile.mkdtemp(prefix="objstore-zeo-")
        self.address = f"127.0.0.1:{free_port()}"
        where = f"  blob-dir {self.directory}/s%d.blobs\n" if blobs else ""
        storages = "".join(
            f"<filestorage s{n}>\n  path {self.directory}/s{n}.fs\n{where.replace('%d', str(n))}</filestorage>\n"
            for n in range(count)
        )
        self._configuration = Path(self.directory, "zeo.conf")
        self._configuration.write_text(f"<zeo>\n  address {self.address}\n</zeo>\n{storages}")
        self.start()

    def start(self):
        """Start the server, also after it was killed."""
        # Warnings of ours are not the server's: it is another program.
        environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
        with Path(self.directory, "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "ZEO.runzeo", "-C", str(self._configuration)],
                stdout=log,
                stderr=log,
                env=environment,
                cwd=self.directory,
            )

    def url(self, number=0):
        return f"zeo://{self.address}?storage=s{number}&wait_timeout=20"

    def fresh(self):
        """The URL of a storage that nobody has used."""
        return self.url(next(self._numbers))

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)
        shutil.rmtree(self.directory, ignore_errors=True)


class Zeos:
    """Fresh storages of ZEO servers."""

    def __init__(self):
        self._server = None
        self._used = 0

    def fresh(self):
        if self._server is None or self._used == BATCH:
            self.stop()
            self._server, self._used = Zeo(), 0
        self._used += 1
        return self._server.url(self._used - 1)

    def stop(self):
        server, self._server = self._server, None
        if server is not None:
            server.stop()


def postgresql_program(name):
    """The path of one of PostgreSQL's programs; None where it is not installed."""
    newest_first = sorted(glob(f"/usr/lib/postgresql/*/bin/{name}"), reverse=True)
    return shutil.which(name) or next(iter(newest_first), None)


def unprivileged():
    """What runs a program as somebody else where we are root, as PostgreSQL wants it; and who that is."""
    if os.geteuid() != 0:
        return [], None
    for name in ("postgres", "nobody"):
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"], user
    return None, None


def why_no_postgresql():
    """Why there is no server for the tests; "" where there is one."""
    for module in ("psycopg2", "relstorage"):
        try:
            __import__(module)
        except ImportError:
            return f"{module} is not installed"
    if not all(map(postgresql_program, ("initdb", "pg_ctl", "postgres"))):
        return "PostgreSQL is not installed (Debian: apt-get install postgresql)"
    prefix, _ = unprivileged()
    if prefix is None or (prefix and shutil.which(prefix[0]) is None):
        return "PostgreSQL does not run as root, and there is no setpriv or no other user"
    return ""


class PostgreSQL:
    """A PostgreSQL server over loopback, with a data directory of its own. Nothing is synced, unless `durable`."""

    def __init__(self, *, durable=False):
        self._prefix, user = unprivileged()
        self.directory = tempfile.mkdtemp(prefix="objstore-postgresql-")
        if user is not None:
            os.chown(self.directory, user.pw_uid, user.pw_gid)
        self.port = free_port()
        self._numbers = itertools.count()
        data = f"{self.directory}/data"
        self._run("initdb", "-D", data, "-U", "objstore", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        settings = (
            f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self.directory} "
            "-c max_connections=200"
        )
        if not durable:
            settings += " -c fsync=off -c synchronous_commit=off -c full_page_writes=off"
        self._run("pg_ctl", "-D", data, "-w", "-t", "60", "-l", f"{self.directory}/log", "-o", settings, "start")

    def _run(self, program, *arguments):
        done = subprocess.run(
            [*self._prefix, postgresql_program(program), *arguments],
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if program != "pg_ctl" else subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            env={**os.environ, "LC_ALL": "C"},
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{program} failed: {(done.stdout or b'').decode()}")

    def url(self, database="postgres", *, keep_history=True):
        history = "" if keep_history else "?keep_history=false"
        return f"postgresql://objstore@127.0.0.1:{self.port}/{database}{history}"

    @cache  # noqa: B019  # there is one for a run
    def _prepared(self, keep_history):
        """The name of a database with RelStorage's tables."""
        import objstore.compat.adopted

        name = "history" if keep_history else "nohistory"
        self._sql(f"CREATE DATABASE {name}")
        objstore.compat.adopted.open_storage(self.url(name, keep_history=keep_history)).close()
        return name

    def _sql(self, statement):
        import psycopg2

        connection = psycopg2.connect(host="127.0.0.1", port=self.port, user="objstore", dbname="postgres")
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement)
        finally:
            connection.close()

    def hang_up(self, database):
        """End all connections to a database."""
        self._sql(
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'"  # noqa: S608
        )

    def fresh(self, *, keep_history=True):
        """The URL of an empty database."""
        name = f"d{next(self._numbers)}"
        self._sql(f"CREATE DATABASE {name} TEMPLATE {self._prepared(keep_history)} STRATEGY FILE_COPY")
        return self.url(name, keep_history=keep_history)

    def stop(self):
        self._run("pg_ctl", "-D", f"{self.directory}/data", "-m", "immediate", "-w", "stop")
        shutil.rmtree(self.directory, ignore_errors=True)


_running = []


def stop_all():
    """Stop the servers of this run. pytest calls it at the end of a session: the processes that xdist starts end
    without calling what `atexit` was given."""
    while _running:
        _running.pop().stop()


atexit.register(stop_all)


@cache
def zeos():
    """The ZEO servers of this run."""
    _running.append(Zeos())
    return _running[-1]


@cache
def postgresql():
    """The PostgreSQL server of this run."""
    _running.append(PostgreSQL())
    return _running[-1]
