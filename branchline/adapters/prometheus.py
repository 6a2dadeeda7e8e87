"""This file asks a Prometheus for one number, by its HTTP API.

Redirects are followed nowhere, an answer is read up to a limit, and one that is more than one series is refused: which
of them is meant is not ours to guess.
"""

from __future__ import annotations

import http.client
import json
import math
from typing import Any
from urllib.parse import urlencode, urlsplit

from branchline.errors import QueryFailed, QueryRefused

SECONDS = 10.0
LARGEST = 1 << 20  # bytes of an answer


class PrometheusReadings:
    """The Readings port."""

    def read(self, url: str, query: str, at: float) -> float | None:
        """What a query gives at a moment; None where there are no data."""
        where = urlsplit(url)
        kind = http.client.HTTPSConnection if where.scheme == "https" else http.client.HTTPConnection
        line = kind(where.hostname or "", where.port, timeout=SECONDS)
        target = f"{where.path.rstrip('/')}/api/v1/query?{urlencode({'query': query, 'time': f'{at:.3f}'})}"
        try:
            line.request("GET", target, headers={"accept": "application/json"})
            answer = line.getresponse()
            body = answer.read(LARGEST)
        except (OSError, http.client.HTTPException) as error:
            raise QueryFailed(f"{where.netloc}: {error}", table="guardrails.prometheus") from error
        finally:
            line.close()
        try:
            found = json.loads(body)
            if answer.status == 400:
                raise QueryRefused(table="guardrails.prometheus", reason=str(found["error"]))
            return number_of(found["data"])
        except (ValueError, LookupError, TypeError) as error:
            raise QueryFailed(
                f"{where.netloc} answered {answer.status} with what is no answer", table="guardrails.prometheus"
            ) from error


def number_of(data: Any) -> float | None:
    """The one number of an answer; raises QueryRefused where there are several, or none that is finite."""
    if data["resultType"] == "vector":
        series = data["result"]
        if not series:
            return None
        if len(series) > 1:
            raise QueryRefused(
                table="guardrails.prometheus", reason=f"it gives {len(series)} series; sum(...) makes them one"
            )
        found = float(series[0]["value"][1])
    elif data["resultType"] == "scalar":
        found = float(data["result"][1])
    else:
        raise QueryRefused(table="guardrails.prometheus", reason=f"it gives a {data['resultType']}, no number")
    return found if math.isfinite(found) else None
