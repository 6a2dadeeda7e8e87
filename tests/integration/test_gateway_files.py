"""This file tests that a spoilt file of the gateway's folder moves nobody and stops no command (F71, 3.19)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.gateways import Gateway, gateway

A, B = "a" * 40, "b" * 40
SPOILT: dict[str, Callable[[Path], object]] = {
    "deleted": Path.unlink,
    "empty": lambda path: path.write_text(""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-40]),
    "another document": lambda path: path.write_text('{"port": 1}'),
    "no text": lambda path: path.write_bytes(b"\xff" * 40),
}


@pytest.fixture
def real(tmp_path: Path, runtime_dir: Path) -> Iterator[Gateway]:
    with gateway(tmp_path, runtime_dir) as made:
        yield made


@pytest.mark.parametrize("name", ["table.json", "table.copy.json"])
@pytest.mark.parametrize("how", SPOILT)
def test_a_spoilt_memory_moves_nobody(real: Gateway, name: str, how: str) -> None:
    """Killer: keep it once, and everybody draws lots again."""
    real.serve((real.backyard.add(A, "1.0.0"), 50), (real.backyard.add(B, "1.1.0"), 50))
    before = {unit: answer.revision for unit, answer in real.units(30).items()}
    memory = (real.folder / "table.json").read_text()
    SPOILT[how](real.folder / name)
    real.writer.stop()
    real.writer = real.another()
    real.writer.ensure()
    real.settled()
    assert {unit: answer.revision for unit, answer in real.units(30).items()} == before
    assert (real.folder / "table.json").read_text() == memory
