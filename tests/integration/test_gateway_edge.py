"""This file sends a real gateway what is too large, too slow, malformed or meant to deceive (F72)."""

from __future__ import annotations

import asyncio
import http.client
import json
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import pytest

from branchline.adapters.envoy_documents import LARGEST_BODY
from branchline.core.spec import Requests
from tests.calls import asked_h2
from tests.gateways import Answer, Gateway, gateway
from tests.upstreams import Upstream
from tests.waiting import wait_until

A = "a" * 40
CRLF = "\r\n"


@pytest.fixture
def real(tmp_path: Path, runtime_dir: Path) -> Iterator[Gateway]:
    with gateway(tmp_path, runtime_dir) as made:
        yield made


@pytest.fixture
def port(real: Gateway) -> int:
    """The port before one revision that has all the traffic."""
    real.serve((real.backyard.add(A, "1.0.0"), 100))
    return int(real.writer.address("housing").split(":")[2].partition("/")[0])


def sent(port: int, text: str) -> Answer:
    """What comes back for these bytes."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as wire:
        wire.sendall(text.encode("latin-1"))
        answer = http.client.HTTPResponse(wire)
        answer.begin()
        with closing(answer):
            told = json.loads(answer.read() or b"{}")
        return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, told)


# ------------------------------------------------------------------------------------------------ too much


@pytest.mark.parametrize(
    ("lines", "status", "code", "reason"),
    [
        (["GET /housing/ HTTP/1.1", "host: x", "x-a: " + "a" * (61 << 10)], 431, "BL509", "larger"),
        (["GET /housing/ HTTP/1.1", "host: x", *(f"x-{n}: 1" for n in range(201))], 431, "BL509", "larger"),
        (["POST /housing/ HTTP/1.1", "host: x", f"content-length: {LARGEST_BODY + 1}"], 413, "BL509", "larger"),
        (["GET /housing/ HTTP/1.1", "host: x", "upgrade: soap", "connection: upgrade"], 403, "BL510", "WebSocket"),
        (["GET /housing/ HTTP/1.1", "host: x", "content-length: five"], 400, "BL510", "well-formed"),
        (["GET /housing/ HTTP/1.1"], 400, "BL510", "well-formed"),
        (["GET /housing/ HTTP/1.1", "host: x", "slow"], 408, "BL510", "slowly"),
    ],
    ids=["large-header", "many-headers", "large-body", "upgrade", "malformed", "no-host", "slow-headers"],
)
def test_what_is_refused_says_why_F72(port: int, lines: list[str], status: int, code: str, reason: str) -> None:
    """Every refusal is a problem document with a code that fits. Killer: one code for every 400."""
    answer = sent(port, CRLF.join(lines) + ("" if lines[-1] == "slow" else CRLF + CRLF))
    assert (answer.status, answer.headers["content-type"]) == (status, "application/problem+json")
    assert (answer.body["code"], answer.body["status"]) == (code, status)
    assert reason in answer.body["title"]


async def swallows(head: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Take a body of any size, and say how large it was."""
    size = 0
    while length := int(await reader.readline(), 16):
        size += len(await reader.readexactly(length + 2)) - 2
    await reader.readline()
    told = f'{{"size": {size}}}'.encode()
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(told) + told)


def grown(real: Gateway) -> int:
    """The most memory the gateway ever had, in bytes."""
    status = Path(f"/proc/{real.writer.envoy.pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) << 10


def poured(port: int, size: int) -> Answer:
    """The answer to a body in chunks that nobody told the size of; what is sent after the answer does not matter."""
    block = b"x" * (1 << 20)
    chunk = b"%x\r\n" % len(block) + block + b"\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=60) as wire:
        wire.sendall(b"POST /housing/ HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
        try:
            for _ in range(size >> 20):
                wire.sendall(chunk)
            wire.sendall(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            pass
        answer = http.client.HTTPResponse(wire)
        answer.begin()
        with closing(answer):
            return Answer(answer.status, {}, json.loads(answer.read()))


@pytest.mark.parametrize(("asked", "status"), [(Requests(), 413), (Requests(timeout=0), 200)], ids=["limit", "stream"])
def test_a_body_in_chunks_is_counted_and_not_kept_F72(real: Gateway, asked: Requests, status: int) -> None:
    """But for what may take any time, which may be of any size. Killers: no limit; a buffer."""
    real.serve((real.backyard.add(A, "1.0.0", asked=asked, speaks=swallows), 100))
    port = int(real.writer.address("housing").split(":")[2].partition("/")[0])
    before = grown(real)
    answer = poured(port, LARGEST_BODY + (1 << 20))
    assert answer.status == status
    assert answer.body.get("code") == ("BL509" if status == 413 else None)
    assert grown(real) - before < LARGEST_BODY // 2


@pytest.mark.slow
def test_two_gigabytes_pass_to_who_may_take_any_time_and_stay_nowhere_F72(real: Gateway) -> None:
    """Bad input: a 2 GB body. Killer: a buffer, in memory or on the disk."""
    real.serve((real.backyard.add(A, "1.0.0", asked=Requests(timeout=0), speaks=swallows), 100))
    port = int(real.writer.address("housing").split(":")[2].partition("/")[0])
    before, lain = grown(real), sum(path.stat().st_size for path in real.folder.iterdir())
    answer = poured(port, 2 << 30)
    assert (answer.status, answer.body["size"]) == (200, 2 << 30)
    assert grown(real) - before < LARGEST_BODY // 2
    assert sum(path.stat().st_size for path in real.folder.iterdir()) - lain < 1 << 20


def test_one_connection_has_its_share_of_streams_F72(port: int) -> None:
    connection = h2.connection.H2Connection(h2.config.H2Configuration())
    connection.initiate_connection()
    told: dict[int, int] = {}
    with socket.create_connection(("127.0.0.1", port), timeout=60) as wire:
        wire.sendall(connection.data_to_send())
        while not told:
            for event in connection.receive_data(wire.recv(1 << 16)):
                if isinstance(event, h2.events.RemoteSettingsChanged):
                    told = {int(code): setting.new_value for code, setting in event.changed_settings.items()}
    assert (told[3], told[4]) == (128, 1 << 18), "streams, and bytes of each that nobody has read yet"


# ------------------------------------------------------------------------------------------------ meant to deceive


def test_headers_and_paths_mean_the_same_behind_it(real: Gateway, port: int) -> None:
    """An underscore is no dash; a slash that was written otherwise stays so, and leads to no other service."""
    answer = sent(port, f"GET /housing/a%2F..%2Fb HTTP/1.1{CRLF}host: x{CRLF}x_forwarded_prefix: /no{CRLF}{CRLF}")
    assert answer.body["path"] == "/a%2F..%2Fb"
    assert not [name for name in answer.body["headers"] if "_" in name]
    assert answer.body["headers"]["x-forwarded-prefix"] == "/housing"
    assert sent(port, f"GET /other%2F..%2Fhousing/ HTTP/1.1{CRLF}host: x{CRLF}{CRLF}").status == 404


SMUGGLED = f"GET /housing/smuggled HTTP/1.1{CRLF}host: x{CRLF}{CRLF}"
CHUNKS = f"0{CRLF}{CRLF}{SMUGGLED}"
CORPUS = {
    "CL.TE": (["content-length: {size}", "transfer-encoding: chunked"], CHUNKS),
    "TE.CL": (["transfer-encoding: chunked", "content-length: 4"], f"5c{CRLF}{SMUGGLED}{CRLF}0{CRLF}{CRLF}"),
    "TE with a space before the colon": (["content-length: {size}", "transfer-encoding : chunked"], CHUNKS),
    "TE folded": (["content-length: {size}", f"transfer-encoding:{CRLF} chunked"], CHUNKS),
    "TE of two": (["content-length: {size}", "transfer-encoding: chunked, identity"], CHUNKS),
    "TE twice": (["transfer-encoding: identity", "transfer-encoding: chunked"], CHUNKS),
    "TE unknown": (["content-length: {size}", "transfer-encoding: xchunked"], CHUNKS),
    "TE after a vertical tab": (["content-length: {size}", "transfer-encoding:\x0bchunked"], CHUNKS),
    "CL twice": (["content-length: 0", "content-length: {size}"], SMUGGLED),
    "CL list": (["content-length: 0, {size}"], SMUGGLED),
    "CL with a sign": (["content-length: +{size}"], SMUGGLED),
    "CL below zero": (["content-length: -1"], SMUGGLED),
    "CL in hexadecimal": (["content-length: 0x{size}"], SMUGGLED),
    "CL folded": ([f"content-length: 0{CRLF} {{size}}"], SMUGGLED),
    "CL in a name with a null": (["content-length\x00: 0", "content-length: {size}"], SMUGGLED),
    "bare LF": (["x-a: b\ncontent-length: {size}"], SMUGGLED),
    "bare CR": (["x-a: b\rcontent-length: 0", "content-length: {size}"], SMUGGLED),
    "chunk size too large": (["transfer-encoding: chunked"], f"10000000000000000{CRLF}{CHUNKS}"),
    "chunk size with a sign": (["transfer-encoding: chunked"], f"-1{CRLF}{CHUNKS}"),
    "chunk that ends with LF": (["transfer-encoding: chunked"], f"1\nx\n0{CRLF}{CRLF}"),
    "HTTP/1.0 in chunks": (["transfer-encoding: chunked", "connection: keep-alive"], CHUNKS),
}


@dataclass
class Recorder(Upstream):
    """Reads as strictly as one can, and keeps every head."""

    heads: list[str] = field(default_factory=list)

    async def _answer(self, head: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not head.startswith("GET /health"):
            self.heads.append(head)
            if framing(head) == ["transfer-encoding: chunked"]:
                while length := int(await reader.readline(), 16):
                    await reader.readexactly(length + 2)
                await reader.readline()
            for size in framing(head):
                await reader.readexactly(int(size.partition(":")[2]) if size.startswith("content-length") else 0)
        known = f"x-envoy-upstream-healthchecked-cluster: {self.nonce}"
        writer.write(f"HTTP/1.1 200 OK{CRLF}content-length: 2{CRLF}{known}{CRLF}{CRLF}{{}}".encode())


def framing(head: str) -> list[str]:
    """The lines that say where a body ends, to any reader who does not look too closely."""
    words = ("content-length", "transfer-encoding")
    return [line.lower() for line in head.split(CRLF) if line.partition(":")[0].strip().lower().startswith(words)]


@pytest.mark.parametrize("name", CORPUS)
def test_of_one_request_at_most_one_comes_out_F72(real: Gateway, name: str) -> None:
    """Whatever is written so that two might read it in two ways arrives in one way, or not at all."""
    recorder = real.backyard.add(A, "1.0.0", Recorder)
    assert isinstance(recorder, Recorder)
    real.serve((recorder, 100))
    port = int(real.writer.address("housing").split(":")[2].partition("/")[0])
    lines, body = CORPUS[name]
    version = "1.0" if name.startswith("HTTP/1.0") else "1.1"
    text = CRLF.join([f"POST /housing/first HTTP/{version}", "host: x", *lines]).format(size=len(body))
    answer = sent(port, text + CRLF + CRLF + body)
    assert real.ask("/housing/last").status == 200
    assert wait_until(lambda: any("/last" in head for head in recorder.heads))
    firsts = [head.partition(" HTTP/")[0] for head in recorder.heads]
    assert firsts in (["GET /last"], ["POST /first", "GET /last"])
    assert (answer.status == 200) == (len(firsts) == 2)
    for head in recorder.heads:
        assert len(framing(head)) <= 1
        assert not set(framing(head)) - {"transfer-encoding: chunked", f"content-length: {len(body)}"}
        assert "\n" not in head.replace(CRLF, "")
        assert "\r" not in head.replace(CRLF, "")
        assert not any(line.startswith((" ", "\t")) for line in head.split(CRLF))


@pytest.mark.parametrize(
    "more",
    [("transfer-encoding", "chunked"), ("content-length", "3"), ("x-a", f"b{CRLF}content-length: 3"), ("a: b", "c")],
    ids=["TE", "CL", "CRLF", "colon"],
)
def test_what_http2_lets_write_does_not_come_out_as_http1_F72(real: Gateway, more: tuple[str, str]) -> None:
    """Its headers are bytes with a length, and those of the older kind end where a line does."""
    recorder = real.backyard.add(A, "1.0.0", Recorder)
    assert isinstance(recorder, Recorder)
    real.serve((recorder, 100))
    port = int(real.writer.address("housing").split(":")[2].partition("/")[0])
    reply = asked_h2(port, "/housing/first", method="POST", body=SMUGGLED.encode(), odd=[more])
    assert reply.is_reset or reply.headers.get(":status") in ("400", None)
    assert real.ask("/housing/last").status == 200
    assert [head.partition(" HTTP/")[0] for head in recorder.heads] == ["GET /last"]


@pytest.fixture
def files() -> Iterator[int]:
    """How many files this process may have open: as many as the system lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_ten_thousand_connections_are_all_answered_F72(files: int, port: int) -> None:
    """Killer: a gateway of 1,024 files, or a limit of connections below it."""
    with ExitStack() as opened:
        wires = [
            opened.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60))
            for _ in range(min(10_000, files // 2))
        ]
        for wire in wires[::50]:
            wire.sendall(b"GET /housing/ HTTP/1.1\r\nhost: x\r\n\r\n")
        # 503 is an answer, too: the upstream lives in this very process, and may be out of breath just now.
        assert {wire.recv(12) for wire in wires[::50]} <= {b"HTTP/1.1 200", b"HTTP/1.1 503"}
