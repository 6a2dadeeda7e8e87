"""This file is the service that deeds are done to: its branches, its files, and the ways in which they are changed.

It needs no package: a server of the standard library, and a gate that is a command.
"""

from __future__ import annotations

from collections.abc import Mapping

from branchline.core import names

SERVICE = "housing"
A, B, C = (names.experiment(SERVICE, handle) for handle in "abc")
FIX, OTHER, ON_A, ON_B = (f"fix--{SERVICE}--{rest}" for rest in ("x", "y", "x--a", "y--b"))
BRANCHES = (A, B, C, FIX, OTHER, ON_A, ON_B)
HOWS = ("well", "unfit", "sick", "broken", "model", "app", "benchmark", "major", "old", "log", "clash")
FILE = """\
kind = "{kind}"
{extra}
serve = {{ command = ["python", "server.py"], start = "60s", drain = "0s" }}
metric = {{ name = "rating", bounds = [0, 10], mde = 2, window = "10s" }}
guardrails = {{ bad_outcome = {{ below = 1 }} }}
gates = {{ good = {{ command = ["test", "-f", "good"] }} }}

[rollout]
slots = {slots}
slice = 50
approval = "{approval}"
warm = "60s"
canary = {{ duration = "0s", requests = 4 }}
"""
EXTRA = {"benchmark": "benchmark = true", "major": "major = 2"}
SERVER = """\
import os, sys
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer

if Path("mode").read_text() == "dies\\n":
    sys.exit("no model here")

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def address_string(self):
        return "unix"

    def log_message(self, *words):
        pass

    def do_GET(self):
        self.send_response(503 if self.headers.get("x-fails") else 200)
        self.send_header("x-envoy-upstream-healthchecked-cluster", os.environ["BRANCHLINE_NONCE"])
        self.send_header("content-length", "0")
        self.end_headers()

class Server(ThreadingMixIn, UnixStreamServer):
    daemon_threads = True

Server(os.environ["BRANCHLINE_SOCKET"], Handler).serve_forever()
"""
LOG = "# Hypothesis\nBetter.\n# Metric\nrating\n# Log\nTried.\n"


def changed(
    there: Mapping[str, str], branch: str, how: str, number: int, policy: Mapping[str, object]
) -> dict[str, str | None]:
    """What a push changes (None deletes), by path in the service's folder, given all texts where it begins."""
    files: dict[str, str | None] = {}
    if f"{SERVICE}/server.py" not in there:
        files |= {"server.py": SERVER, "requirements.lock": "# nothing\n", "EXPERIMENT.md": LOG, "good": "yes\n"}
        files |= {"branchline.toml": FILE.format(kind="model", extra="", **policy), "mode": "well\n"}
    if how == "log":
        return {**files, "EXPERIMENT.md": f"{LOG}{number}\n"}
    files |= {f"note-{branch.partition('--')[2].replace('--', '-')}": f"{number}\n"}
    match how:
        case "unfit":
            files["good"] = None
        case "sick":
            files["mode"] = "dies\n"
        case "broken":
            files["branchline.toml"] = "kind = \n"
        case "clash":
            files["words"] = f"{number}\n"
        case _:
            files |= {"mode": "well\n", "good": "yes\n"}
    if how in ("model", "app", "benchmark", "major"):
        kind = "app" if how == "app" else "model"
        files["branchline.toml"] = FILE.format(kind=kind, extra=EXTRA.get(how, ""), **policy)
    return files
