"""This file tests data that is read from HTTP(S) addresses, against a server of this machine (1.17, 3.30, F45).

The server is at a loopback address, so every test that reaches it says that its host is allowed.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from branchline.adapters import sources_http as web
from branchline.adapters.folder import FolderArtifacts
from branchline.adapters.sources import LocalSources
from branchline.errors import DataGone, DataMissing, DataRefused, DataUnreachable

CSV = b"id,price\n1,10\n2,20\n"


class Server(ThreadingHTTPServer):
    """Gives what a test says: path -> status, headers, content; and remembers what it was asked for."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answering)
        self.gives: dict[str, tuple[int, dict[str, str], bytes]] = {}
        self.asked: list[tuple[str, str]] = []

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.server_port}"


class Answering(BaseHTTPRequestHandler):
    """Gives it."""

    server: Server

    def do_GET(self) -> None:
        """Answer; 304 to who has that version."""
        had = self.headers.get("if-none-match", "")
        self.server.asked.append((self.path, had))
        status, headers, content = self.server.gives.get(self.path, (404, {}, b""))
        if had and had == headers.get("etag"):
            status, content = 304, b""
        self.send_response(status)
        for name, value in {"content-length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *words: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def sources(tmp_path: Path) -> LocalSources:
    store = FolderArtifacts(tmp_path / "store")
    return LocalSources(tmp_path, tmp_path / "pins", store, lambda: ("127.0.0.1",))


def test_an_address_is_a_source(server: Server, sources: LocalSources, tmp_path: Path) -> None:
    """Its version is that of a file with the same name and content."""
    server.gives["/data/sales.csv?year=7"] = 200, {}, CSV
    version = sources.pin("sales", f"{server.url}/data/sales.csv?year=7")
    assert (version.files, version.rows, version.size) == (1, 2, len(CSV))
    assert version.columns == (("id", "number"), ("price", "number"))
    sources.lay("sales", version.digest, tmp_path / "out")
    assert (tmp_path / "out" / "sales.csv").read_bytes() == CSV
    (tmp_path / "sales.csv").write_bytes(CSV)
    assert sources.pin("sales", "sales.csv") == version
    assert list((tmp_path / "pins").glob("fetched-*")) == []


def test_what_did_not_change_is_not_read_again(server: Server, sources: LocalSources) -> None:
    """Killer: forget the mark of last time; or believe it when the store has lost the content."""
    server.gives["/a.csv"] = 200, {"etag": '"1"', "last-modified": "Mon, 02 Feb 2026 10:00:00 GMT"}, CSV
    first = sources.pin("sales", f"{server.url}/a.csv")
    assert sources.pin("sales", f"{server.url}/a.csv") == first
    server.gives["/a.csv"] = 200, {"etag": '"2"'}, CSV + b"3,30\n"
    assert sources.pin("sales", f"{server.url}/a.csv").rows == 3
    assert server.asked == [("/a.csv", ""), ("/a.csv", '"1"'), ("/a.csv", '"1"')]


def test_an_address_that_is_not_stored_is_asked_again_F46(
    server: Server, sources: LocalSources, tmp_path: Path
) -> None:
    server.gives["/a.csv"] = 200, {}, CSV
    version = sources.pin("sales", f"{server.url}/a.csv", store=False)
    sources.lay("sales", version.digest, tmp_path / "out")
    assert (tmp_path / "out" / "a.csv").read_bytes() == CSV
    server.gives["/a.csv"] = 200, {}, CSV.replace(b"1", b"7")
    with pytest.raises(DataGone):
        sources.lay("sales", version.digest, tmp_path / "gone")


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ((404, {}, b""), DataMissing),
        ((403, {}, b""), DataRefused),
        ((500, {}, b""), DataUnreachable),
        ((304, {}, b""), DataUnreachable),
        ((200, {"content-length": "100"}, CSV), DataUnreachable),
        ((200, {"content-encoding": "gzip"}, CSV), DataUnreachable),
        ((302, {"location": "/a.csv"}, b""), DataUnreachable),
        ((302, {"location": "file:///etc/passwd"}, b""), DataRefused),
        ((302, {"location": "http://localhost/"}, b""), DataRefused),
        ((302, {"location": "http://169.254.169.254/latest/meta-data/"}, b""), DataRefused),
    ],
)
def test_a_bad_answer_is_told_and_leaves_nothing_F45_F48(
    server: Server, sources: LocalSources, tmp_path: Path, answer: tuple[int, dict[str, str], bytes], error: type
) -> None:
    """Killers: look at the first address only; take what came of it when the line breaks."""
    server.gives["/a.csv"] = answer
    with pytest.raises(error):
        sources.pin("sales", f"{server.url}/a.csv")
    assert list((tmp_path / "pins").iterdir()) == []


def test_it_follows_where_it_may(server: Server, sources: LocalSources) -> None:
    server.gives["/a.csv"] = 301, {"location": "b/c.csv"}, b""
    server.gives["/b/c.csv"] = 200, {}, CSV
    assert sources.pin("sales", f"{server.url}/a.csv").rows == 2


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1:{port}/a.csv",
        "http://localhost:{port}/a.csv",
        "http://127.1:{port}/a.csv",
        "http://2130706433:{port}/a.csv",
        "http://0.0.0.0:{port}/a.csv",
        "http://[::1]:{port}/a.csv",
        "http://[::ffff:127.0.0.1]:{port}/a.csv",
        "http://10.0.0.1/a.csv",
        "http://169.254.169.254/latest/meta-data/",
        "http://[fd00:ec2::254]/latest/meta-data/",
        "http://100.100.100.200/latest/meta-data/",
        "http://168.63.129.16/metadata",
        "http://[64:ff9b::7f00:1]/",
        "http://[2002:7f00:1::]/",
        "http://me:secret@example.org/a.csv",
        "http:///a.csv",
        "http://exa mple.org/",
    ],
)
def test_an_address_that_is_not_public_is_refused_F45(server: Server, tmp_path: Path, address: str) -> None:
    """Nobody is asked. Killer: ask, and look at the address afterwards."""
    server.gives["/a.csv"] = 200, {}, CSV
    with pytest.raises(DataRefused) as told:
        web.fetched("sales", address.format(port=server.server_port), tmp_path / "out")
    assert server.asked == []
    assert "secret" not in told.value.message + told.value.cause
    assert not (tmp_path / "out").exists()


def test_what_was_looked_at_is_what_is_connected_to_F45(server: Server) -> None:
    """DNS rebinding. A name with a public and a private address is asked at the public one alone."""
    asked: list[str] = []

    def lookup(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        asked.append(host)
        return [(2, 1, 6, "", ("127.0.0.1", port))]

    with pytest.raises(web.Refused):
        web.connected("rebound.example", server.server_port, False, lookup)
    with web.connected("rebound.example", server.server_port, True, lookup) as line:
        assert line.getpeername() == ("127.0.0.1", server.server_port)
    assert asked == ["rebound.example"] * 2  # once each: there is no second answer that could be another


def test_public_addresses_are_known() -> None:
    assert all(
        map(web.is_public, ("93.184.216.34", "2606:2800:220:1::1", "64:ff9b::5db8:d822", "::ffff:93.184.216.34"))
    )
    assert not any(map(web.is_public, ("224.0.0.1", "fe80::1%eth0", "::", "192.168.1.1", "ff02::1", "198.18.0.1")))


def test_too_much_is_refused(server: Server, tmp_path: Path) -> None:
    """Whether the server says so or not."""
    for headers in ({}, {"transfer-encoding": "identity", "content-length": ""}):
        server.gives["/a.csv"] = 200, dict(headers), CSV
        with pytest.raises(DataRefused):
            web.fetched("sales", f"{server.url}/a.csv", tmp_path / "out", ("127.0.0.1",), most=10)


def test_nobody_there_is_said(tmp_path: Path) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{deaf.getsockname()[1]}/a.csv?key=secret"
        with pytest.raises(DataUnreachable) as told:
            web.fetched("sales", address, tmp_path / "out", ("127.0.0.1",))
    assert told.value.transient
    assert "secret" not in told.value.message


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("https://a.org/x/sales%20of.csv?y=1", "sales of.csv"),
        ("https://a.org/", "data"),
        ("https://a.org/x/%2e%2e", "data"),
        ("https://a.org/x%2f..%2fy.csv", "y.csv"),
        (f"https://a.org/{'x' * 300}", "data"),
    ],
)
def test_an_address_names_its_file(address: str, name: str) -> None:
    assert web.name_of(address) == name


def test_what_is_not_stored_is_not_copied(tmp_path: Path) -> None:
    """Killer: copy it all the same."""
    (tmp_path / "a.csv").write_bytes(CSV)
    sources = LocalSources(tmp_path, tmp_path / "pins", FolderArtifacts(tmp_path / "store"))
    version = sources.pin("sales", "a.csv", store=False)
    assert not any(CSV in path.read_bytes() for path in (tmp_path / "store").rglob("*") if path.is_file())
    assert sources.pin("sales", "a.csv") == version
    (tmp_path / "a.csv").unlink()
    sources.lay("sales", version.digest, tmp_path / "out")  # by then it was stored
    assert (tmp_path / "out" / "a.csv").read_bytes() == CSV
