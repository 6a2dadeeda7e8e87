"""This file tests with a real Envoy that it reads the binary documents as what they say: every field of them."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

from branchline.adapters.envoy_fields import MESSAGES
from branchline.adapters.envoy_router import RouteWriter
from branchline.adapters.envoy_routes import routes
from branchline.adapters.envoy_table import Gateway, Routes, offered, shifted, to_json
from branchline.core.spec import UNIT, Requests, Unit
from branchline.ports import Endpoint

CALLS = Requests(protocol="http2", timeout=0)
TWICE = Requests(idempotent=True, try_timeout=0.25, timeout=90)
UNITS = (UNIT, Unit("cookie", "who"), Unit("path", "/users/{unit}/"), Unit("claim", "sub"), Unit("header", "x-tenant"))
NUMBER = re.compile(r"-?\d+(\.\d+)?s?")


def everything(folder: Path) -> Gateway:
    """Services of every kind."""
    found = {}
    for n, (unit, requests) in enumerate((unit, asked) for unit in UNITS for asked in (Requests(), CALLS, TWICE)):
        ends = [
            Endpoint(
                commit * 40, version, f"{commit}{n}", (str(folder / f"{commit}{n}"), str(folder / f"{commit}{n}b")),
                ("kim", commit), health="/health", nonce_aware=commit == "a", unit=unit, requests=requests,
            )
            for commit, version in (("a", "1.0.0"), ("b", "1.1.0"), ("c", "2.0.0"))
        ]  # fmt: skip
        of = shifted(offered(Routes(), ends), f"s-{n}", 1, [("a" * 40, 90), ("b" * 40, 10)], 1)
        found[f"s-{n}"] = shifted(of, f"s-{n}", 2, [("c" * 40, 100)], 1)
    return Gateway(0, 1, found)


def same(document: Any) -> Any:
    """A document without what is as it would be unsaid, and numbers and times as numbers."""
    if isinstance(document, dict):
        pairs = {name: same(value) for name, value in document.items()}
        return {name: value for name, value in pairs.items() if value not in ("", False, [])}
    if isinstance(document, list):
        return [same(each) for each in document]
    if isinstance(document, str) and NUMBER.fullmatch(document):
        document = Decimal(document.removesuffix("s"))
    return document


def named(message: str, document: Any) -> set[tuple[str, str]]:
    """Every field of every message that a document names."""
    found = set()
    for name, value in document.items():
        if name == "@type":
            continue
        found.add((message, name))
        several, kind = re.findall(rf"\d+ {name} ?([\[{{]?)(\w*)", MESSAGES[message])[0]
        inner = value if several == "[" else value.values() if several == "{" else [value]
        for each in inner:
            if kind == "Any" and each:
                found |= named(each["@type"].rpartition(".")[2], each)
            elif kind in MESSAGES:
                found |= named(kind, each)
    return found


def test_envoy_reads_every_field_as_it_was_meant(tmp_path: Path, runtime_dir: Path) -> None:
    """Killer: give a route's two time-outs each other's number."""
    gateway, folder = everything(runtime_dir), tmp_path / "gateway"
    folder.mkdir()
    (folder / "table.json").write_text(to_json(gateway))
    writer = RouteWriter(folder, runtime_dir, ingest=runtime_dir / "i.sock")
    try:
        assert writer.ensure()
        told = json.loads(writer.envoy.ask("/config_dump"))["configs"]
    finally:
        writer.stop()
    of = {each["@type"].rpartition(".")[2]: each for each in told}
    tables = of["RoutesConfigDump"]["dynamic_route_configs"]
    table = routes(gateway)[0]
    assert [same(each["route_config"]) for each in tables] == [same(table)]
    assert named("RouteConfiguration", table) >= {
        (message, name) for message, fields in MESSAGES.items() for name in re.findall(r"\d+ (\w+)", fields)
    }
