"""This file fakes the Workers port: a service's functions are functions of the test."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from branchline.ports import Bench
from branchline.sdk import shim
from tests.waiting import wait_until

Call = Callable[[dict[str, Any]], Any]
BLANK = {
    "ok": False, "seconds": 0.01, "timed_out": False, "left": 0, "exit": 0, "reason": "ended", "summary": "",
    "error": "", "changed": [], "cpu": 0.01, "peak": 1 << 20, "facts": [],
}  # fmt: skip


class FakeWorkers:
    """The Workers port.

    `calls` maps `module:function` to what a step or gate does with its order: it returns the value (which becomes
    `value.json`), or raises: TimeoutError when it hangs, SystemExit(n) when it ends its process, ConnectionError when
    its worker dies; what is not there returns its own name. A call in `endless` ends only when it is stopped, and then
    is in `ended`. `facts` maps a call to what it met, `met` says that of all others. Every order is in `orders`, every
    bench in `benches`.
    """

    def __init__(
        self, calls: dict[str, Call] | None = None, endless: set[str] | None = None, ended: list[str] | None = None
    ) -> None:
        self.calls = {} if calls is None else calls
        self.endless = set() if endless is None else endless
        self.ended = [] if ended is None else ended
        self.facts: dict[str, list[list[str]]] = {}
        self.met: Callable[[Mapping[str, Any]], list[list[str]]] = lambda order: []
        self.orders: list[dict[str, Any]] = []
        self.benches: list[Bench] = []
        self.closed = False

    def do(
        self, bench: Bench, order: Mapping[str, Any], stopped: Callable[[], bool] = lambda: False
    ) -> Mapping[str, Any]:
        """Do what the call does."""
        order = dict(order)
        self.orders.append(order)
        self.benches.append(bench)
        paths = [*order.get("inputs", {}).values(), *order.get("data", {}).values()]
        before = {path: shim.marks(str(path)) for path in paths}
        answer = {**BLANK, "step": order["step"], **self._answer(order, stopped)}
        answer["facts"] = self.facts.get(order["call"]) or self.met(order)
        changed = [found for path in paths if (found := shim.difference(before[path], shim.marks(str(path))))]
        if changed:
            answer |= {"ok": False, "changed": changed, "error": f"{changed[0]} was changed"}
        return answer

    def close(self) -> None:
        """Do nothing more."""
        self.closed = True

    def _answer(self, order: dict[str, Any], stopped: Callable[[], bool]) -> dict[str, Any]:
        call, lost = order["call"], {"reason": "lost", "exit": 137}
        if self.closed:
            return {**lost, "error": "the workers were closed"}
        if call in self.endless:
            self.ended += [call] if wait_until(stopped) else []
            return {"reason": "stopped", "error": "stopped", "exit": 143}
        act = self.calls.get(call)
        try:
            value = act(order) if act else call
        except TimeoutError:
            return {"reason": "timed out", "timed_out": True, "error": f"stopped after {order['seconds']:g} s"}
        except ConnectionError:
            return {**lost, "error": "its worker ended: it was killed"}
        except SystemExit as ended:
            error = f"ended the process with exit {ended.code} before it returned"
            return {"reason": "left nothing", "exit": ended.code, "error": error}
        except Exception as error:  # noqa: BLE001 - the fake's functions raise what a step would
            return {"reason": "raised", "error": f"{type(error).__name__}: {error}"}
        stopped()
        if not order.get("gate"):
            Path(order["output"]).mkdir(parents=True, exist_ok=True)
            Path(order["output"], "value.json").write_text(json.dumps(value), encoding="utf-8")
        return {"ok": True, "value": value, "summary": str(value)[:60]}
