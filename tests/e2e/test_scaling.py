"""This file changes how many processes serve while everything is asked of them, on real parts (1.20, 1.45, I8)."""

from __future__ import annotations

import threading
from functools import partial

import pytest

from tests.typed import Shell, app

ENVIRON = {"UV_OFFLINE": "1"}


@pytest.mark.timeout(600)
def test_more_processes_and_fewer_lose_no_request_1_20(shell: Shell) -> None:
    shell.first("tray", app("tray"))
    over, seen = threading.Event(), list[int]()

    def ask() -> None:
        while not over.is_set():
            seen.append(shell.call("/tray/").status)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        for wanted in (3, 1):
            shell.type("scale", "tray", str(wanted), "--yes")
            shell.until(f"{wanted} serve", partial(is_so, shell, wanted))
    finally:
        over.set()
        asking.join()
    assert len(seen) > 20
    assert set(seen) == {200}
    assert shell.history("tray")[-1]["detail"]["instances"] == 1
    told = shell.refused("scale", "tray@nobody", "2", ok=2)
    assert told["code"] == "BL104"


def is_so(shell: Shell, wanted: int) -> bool:
    """Whether one incarnation runs, of that many processes: a supervisor and a server each."""
    return [len(pids) for pids in shell.instances_of("tray", "1.0.0")] == [2 * wanted]
