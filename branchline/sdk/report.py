"""This file reports outcomes to the gateway: what became of an answer that a service gave.

    from branchline.sdk.report import report
    report("housing", 184_000, request_id=answer.headers["x-request-id"])

An outcome names the unit (user, account) or the request it belongs to. Reporting the same one again is harmless, so a
report that got no answer is sent again; one that was refused is an error of the caller and raises `Refused`.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Mapping
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

GATEWAY = "BRANCHLINE_GATEWAY"
PAUSES = (0.1, 0.5, 2.0)


class Refused(Exception):
    """The gateway did not take the outcomes; `status` is its answer's, `problem` what it said (RFC 9457)."""

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        self.status, self.problem = status, problem
        super().__init__(f"{status}: {problem.get('detail') or problem.get('title') or 'refused'}")


def report(
    service: str, value: float, *, unit: str = "", request_id: str = "", id: str = "", metric: str = "",
    of: float | None = None, before: float | None = None, gateway: str = "",
) -> str:  # fmt: skip
    """Report one outcome (see `outcome`) and return what became of it: kept, duplicate, conflict, late, unknown.

    Raises Refused, or OSError when the gateway cannot be reached.
    """
    one = outcome(value, unit=unit, request_id=request_id, id=id, metric=metric, of=of, before=before)
    return report_many(service, [one], gateway=gateway)[0]


def report_many(service: str, outcomes: Iterable[Mapping[str, Any]], *, gateway: str = "") -> list[str]:
    """Report outcomes (mappings of value and unit or request_id, and id) at once; a word for each.

    `gateway` is its address (default: the variable BRANCHLINE_GATEWAY). Raises Refused, and OSError when it cannot be
    reached after several tries.
    """
    address = gateway or os.environ.get(GATEWAY, "")
    if not address:
        raise ValueError(f"no gateway: give its address, or set {GATEWAY}")
    body = json.dumps(list(outcomes), allow_nan=False).encode()
    for pause in (*PAUSES, None):
        try:
            status, answer = post(address, f"/{service}/-/outcomes", body)
        except (OSError, HTTPException) as error:
            if pause is None:
                raise ConnectionError(f"{address} cannot be reached: {error}") from error
        else:
            if "outcomes" in answer:  # a word for each, even where none was kept
                return [str(word) for word in answer["outcomes"]]
            if status < 500 or pause is None:
                raise Refused(status, answer)
        time.sleep(pause)
    raise AssertionError("unreachable")


def outcome(
    value: float, *, unit: str = "", request_id: str = "", id: str = "", metric: str = "", of: float | None = None,
    before: float | None = None,
) -> dict[str, Any]:  # fmt: skip
    """One outcome as it is sent; raises ValueError when it names neither a unit nor a request.

    `metric` names what was measured, `of` is what the value is a part of (kind ratio), `before` what the unit was like
    before its first request.
    """
    if not (unit or request_id):
        raise ValueError("an outcome names the unit or the request it belongs to")
    named = {"unit": unit, "request_id": request_id, "id": id, "metric": metric}
    numbers = {name: number for name, number in (("of", of), ("before", before)) if number is not None}
    return {"value": value, **{name: text for name, text in named.items() if text}, **numbers}


def post(address: str, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
    """POST JSON and return status and JSON object."""
    parts = urlsplit(address if "//" in address else f"//{address}")
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    connection = kind(parts.hostname or "127.0.0.1", parts.port, timeout=10)
    try:
        connection.request("POST", parts.path.rstrip("/") + path, body, {"content-type": "application/json"})
        answer = connection.getresponse()
        text = answer.read()
    finally:
        connection.close()
    try:
        document = json.loads(text)
    except ValueError:
        document = {}
    return answer.status, document if isinstance(document, dict) else {}
