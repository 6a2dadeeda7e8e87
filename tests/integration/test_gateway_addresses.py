"""This file asks a real gateway for addresses that are meant to lead elsewhere: up, around, or to nobody (1.24)."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.gateways import Gateway, gateway

A, B, C = "a" * 40, "b" * 40, "c" * 40
# What leads nowhere, in the place of a revision: of housing@HERE/predict, and of the header that names one.
NOWHERE = (
    "..", "%2e%2e", ".%2E", "..%2f..", "..\\..", "..%5c..", "%252e%252e", "..;", "..%00", "%c0%ae%c0%ae",
    "\uff0e\uff0e", "../listings", "..%2flistings", "%2e%2e%2flistings@2.0.0", "1.1.0%2f..",
    "1.1.0%2f..%2f..%2flistings", "1.1.0@..", "1.1.0%00", "1.1.0%20", "1.1.0\\..", "1.1.0;", "", "@", "*", "-",
    "-/v", "refs/heads/main", "1.1",
)  # fmt: skip
# What is a way up for every reader of addresses (RFC 3986, 5.2.4), or for some, and to whom it leads; "" to nobody.
WAYS = {
    "/housing@1.1.0/../housing@1.1.0/predict": B,
    "/housing@nobody/../listings/predict": C,
    "/listings/%2e%2e/housing@1.1.0/predict": B,
    "/housing@1.1.0/./predict": B,
    "/housing@1.1.0/..%2f..%2flistings/predict": B,
    "/housing@1.1.0/..;/predict": "",
    "/../../housing@1.1.0/predict": B,
    "/housing@1.1.0/../../listings/predict": C,
    "//listings/predict": "",
    "/housing@1.1.0/../../../etc/passwd": "",
}


@pytest.fixture
def real(tmp_path: Path, runtime_dir: Path) -> Iterator[Gateway]:
    """A service with a challenger, and another service beside it."""
    with gateway(tmp_path, runtime_dir) as made:
        made.serve((made.backyard.add(A, "1.0.0"), 50), (made.backyard.add(B, "1.1.0", pins=("1.1.0",)), 50))
        made.serve((made.backyard.add(C, "2.0.0", pins=("2.0.0",)), 100), service="listings")
        yield made


def asked(real: Gateway, path: str, more: str = "") -> tuple[int, str]:
    """Status and who answered, for a path that is sent as it is written; '' when nobody of a service did."""
    where = urlsplit(real.writer.address("housing"))
    with socket.create_connection((str(where.hostname), int(where.port or 0)), timeout=60) as wire:
        wire.sendall(f"GET {path} HTTP/1.1\r\nhost: x\r\nx-branchline-unit: me\r\n{more}\r\n".encode())
        answer = http.client.HTTPResponse(wire)
        answer.begin()
        with closing(answer):
            answer.read()
        return answer.status, answer.headers.get("x-branchline-revision", "")


def test_no_address_of_a_revision_leads_out_of_it(real: Gateway) -> None:
    """Bad input: path traversal. Killer: take an address apart after what it is written in was undone."""
    for reference in NOWHERE:
        status, by = asked(real, f"/housing@{reference}/predict")
        assert (status in (400, 404), by) == (True, ""), f"{reference!r}: {status} by {by!r}"
        if reference and reference.isascii():
            status, by = asked(real, "/housing/predict", f"x-branchline-pin: {reference}\r\n")
            assert (status in (400, 404), by) == (True, ""), f"header {reference!r}: {status} by {by!r}"
    assert asked(real, "/housing@1.1.0/predict") == (200, "housing@1.1.0")


def test_a_way_up_leads_where_every_reader_of_addresses_goes(real: Gateway) -> None:
    names = {A: "housing@1.0.0", B: "housing@1.1.0", C: "listings@2.0.0", "": ""}
    told = {path: asked(real, path) for path in WAYS}
    assert {path: by for path, (_, by) in told.items()} == {path: names[whose] for path, whose in WAYS.items()}
    assert all(status == 200 if by else status in (400, 404) for status, by in told.values())
