"""This file asks `housing`, by whatever revision serves it at this moment, and can do without the answer.

Where other services are is told by BRANCHLINE_GATEWAY. The caller's unit is passed on, so that who looks at houses
meets the same revision of `housing` each time; so is the trace, if the caller has one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import urlsplit

PASSED_ON = ("x-branchline-unit", "traceparent", "tracestate")
SECONDS = 1.0


def estimate(facts: Mapping[str, Any], headers: Mapping[str, str]) -> dict[str, Any] | None:
    """What a house is worth in dollars and who says so; None when that cannot be had within about a second."""
    connection = HTTPConnection(urlsplit(os.environ["BRANCHLINE_GATEWAY"]).netloc, timeout=SECONDS)
    passed_on = {name: headers[name] for name in PASSED_ON if name in headers}
    try:
        connection.request("POST", "/housing/", json.dumps(facts), {"content-type": "application/json", **passed_on})
        answer = connection.getresponse()
        said = json.loads(answer.read())
        return {"estimate": round(said["prediction"]), "by": answer.headers["x-branchline-revision"]}
    except (OSError, HTTPException, ValueError, KeyError, TypeError):  # down, slow, or an answer without a prediction
        return None
    finally:
        connection.close()
