"""A PostgreSQL server of the tests' own: Debian's binaries, a temporary folder, a Unix socket, nothing durable."""

from __future__ import annotations

import ctypes
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

from atoll.core.database import Database

START_S = 120.0
_PR_SET_PDEATHSIG = 1
_QUICK = ("fsync=off", "full_page_writes=off", "synchronous_commit=off", "shared_buffers=16MB", "max_connections=60")


def binaries() -> Path | None:
    """Folder of the newest PostgreSQL server on this machine, or None."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).parent if on_path else None


def server_user() -> str | None:
    """Whom the server runs as: PostgreSQL refuses root. None for ourselves."""
    if os.getuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def _die_with_the_tests() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGINT), 0, 0, 0)


class Cluster:
    """One running server; `make()` hands out databases that are migrated and empty."""

    def __init__(self, folder: Path) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="atoll-pg-", dir="/tmp"))
        self._user = server_user()
        self._bin = folder
        self._data = self._folder / "data"
        try:
            if self._user is not None:
                shutil.chown(self._folder, self._user)
            self._initdb()
            self._process = self._start()
            with self._connect("postgres") as connection:
                connection.execute("CREATE DATABASE template_atoll")
            template = Database(self.url("template_atoll"))
            template.migrate()
            template.close()
        except BaseException:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise

    def url(self, name: str) -> str:
        return f"postgresql+psycopg://atoll@/{name}?host={self._folder}"

    def make(self) -> str:
        """A new database; its URL."""
        name = f"atoll_{uuid.uuid4().hex}"
        with self._connect("postgres") as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE template_atoll")
        return self.url(name)

    def make_empty(self) -> str:
        """A new database without any schema; its URL."""
        name = f"atoll_{uuid.uuid4().hex}"
        with self._connect("postgres") as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def hang_up(self, url: str) -> None:
        """Break every connection to the database, as a restart of the server does."""
        end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
        with self._connect("postgres") as connection:
            connection.execute(end, [database_name(url)])

    def drop(self, url: str) -> None:
        with self._connect("postgres") as connection:
            connection.execute(f"DROP DATABASE {database_name(url)} WITH (FORCE)")

    def stop(self) -> None:
        self._process.send_signal(signal.SIGINT)
        self._process.wait(timeout=120)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _connect(self, name: str) -> Any:
        import psycopg

        return psycopg.connect(host=str(self._folder), user="atoll", dbname=name, autocommit=True)

    def _initdb(self) -> None:
        command = [self._bin / "initdb", "-D", self._data, "-U", "atoll", "-A", "trust", "-E", "UTF8", "--no-sync"]
        done = subprocess.run(
            [*command, "--locale=C"], user=self._user, cwd="/", capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr

    def _start(self) -> subprocess.Popen[bytes]:
        import psycopg

        options = [word for setting in _QUICK for word in ("-c", setting)]
        with (self._folder / "server.log").open("wb") as log:
            process = subprocess.Popen(
                [self._bin / "postgres", "-D", self._data, "-k", self._folder, "-c", "listen_addresses=", *options],
                user=self._user,
                cwd="/",
                stdout=log,
                stderr=log,
                preexec_fn=_die_with_the_tests,
            )
        deadline = time.monotonic() + START_S
        while True:
            try:
                self._connect("postgres").close()
            except psycopg.OperationalError:
                assert process.poll() is None, (self._folder / "server.log").read_text()
                assert time.monotonic() < deadline, "PostgreSQL did not start"
                time.sleep(0.05)
            else:
                return process


def database_name(url: str) -> str:
    return url.partition("?")[0].rpartition("/")[2]
