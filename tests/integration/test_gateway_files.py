"""This file spoils files of the gateway's folder, which moves nobody, and asks for one cluster (F71, 3.19)."""

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


def test_one_is_asked_for_by_its_name(real: Gateway) -> None:
    """What is told of all grows with all. Killer: leave out the filter, or what in a name is no letter."""
    real.serve((real.backyard.add(A, "1.0.0"), 50), (real.backyard.add(B, "1.1.0"), 50))
    envoy = real.writer.envoy
    assert envoy.healthy(["housing@1.0.0~n001"]) == {"housing@1.0.0~n001": 1}
    assert envoy.healthy(["housing@1.1.0~n002!", "nobody"]) == {"housing@1.1.0~n002!": 1}
    assert envoy.healthy(["housing@1+0.0~n001"]) == {}
    assert len(envoy.healthy([f"n{number}" for number in range(1000)])) == len(envoy.healthy()) > 3
