"""This file is the command `try`: one request to one or two revisions by their explicit addresses, told side by side.

Such an address leads to one revision whatever the shares are: what is asked here is no exposure and belongs to no
bucket, so that looking at a preview never becomes part of a test.
"""

from __future__ import annotations

import difflib
import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import quote, urlsplit

import click

from branchline.cli import show
from branchline.cli.session import SERVICE_FILE, Session, as_json, naming, pass_session
from branchline.core import names
from branchline.errors import GatewayDown, NothingToDo, TooSlow, Unserved, UsageError

Document = Mapping[str, Any]
SECONDS = 60.0  # between two bytes; a gateway that is not told otherwise gives up sooner
GATEWAY = "the gateway"  # who answered when no revision did
KEPT = "%:/?[]@!$&'()*+,;=~"  # of a path: what is encoded already, and what has a meaning there (RFC 3986)
# What a terminal would obey instead of showing it, and halves of characters, which it cannot be sent.
UNSHOWN = re.compile("[\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\x7f-\\x9f\\ud800-\\udfff]")


@dataclass(frozen=True)
class Asked:
    """What is sent: `sample` says for a person where the body is from."""

    method: str
    path: str
    body: bytes | None
    sample: str


@dataclass(frozen=True)
class Answer:
    """What came back, after how many milliseconds; `revision` is who says that it answered."""

    address: str
    revision: str
    status: int
    ms: float
    body: bytes

    @property
    def size(self) -> str:
        """How long the body is."""
        return f"{len(self.body):,} bytes"

    @cached_property
    def text(self) -> str:
        """The body as it is read; only its size where it is no text in UTF-8."""
        try:
            found = self.body.decode()
        except UnicodeDecodeError:
            found = "\0"
        return f"{self.size}, not text" if UNSHOWN.search(found) else found

    @cached_property
    def value(self) -> Any:
        """The body as JSON; as text where it is none."""
        try:
            return json.loads(self.body)
        except ValueError:
            return self.text

    @property
    def is_json(self) -> bool:
        """Whether the body is JSON."""
        return self.value is not self.text

    @property
    def said(self) -> bytes:
        """What tells bodies apart: of JSON the value, else the bytes."""
        return json.dumps(self.value, sort_keys=True).encode() if self.is_json else self.body

    @property
    def lines(self) -> list[str]:
        """The body for people: JSON with a line for each member, in the order of their names."""
        if not self.is_json:
            return self.text.splitlines()
        told = json.dumps(self.value, indent=2, sort_keys=True, ensure_ascii=False)
        return (json.dumps(self.value, indent=2, sort_keys=True) if UNSHOWN.search(told) else told).splitlines()


@click.command("try")
@naming("service", metavar="SERVICE[@A]")
@naming("other", metavar="[@B]", required=False, default="")
@click.option("--path", default="/", show_default=True, help="What is asked of the service.")
@click.option("--data", type=click.Path(exists=True, dir_okay=False, allow_dash=True), metavar="FILE",
              help="The body; - reads standard input. Else the sample that the service file names.")  # fmt: skip
@click.option("--method", default="", show_default=False, help="POST where there is a body, else GET.")
@as_json
@pass_session
def try_(session: Session, service: str, other: str, path: str, data: str | None, method: str) -> None:
    """Send one request to a preview and to what serves.

    Both answers are shown, of JSON what differs. With A and B those are asked: versions, handles, branches, commits,
    `incumbent`, `challenger`. Nothing of it is part of a test.
    """
    pins = pins_of(service, other)
    name = pins[0][0]
    known = {each: session.client().get("/v1/status", reference=each)["services"][0] for each, _ in pins}
    asked = request_of(session, name, path, data, method)
    meant = [(known[each], pinned(session, each, pin)) for each, pin in pins] if pins[0][1] else both(known[name])
    if not session.json:
        show.say(f"asked     {asked.method} {asked.path}{asked.sample}")
    answers = [answer_of(each, pin, asked) for each, pin in meant]
    if session.json:
        show.document(document(asked, answers))
        return
    for line in [*heads(answers), *bodies(answers)]:
        show.out(line)


# ------------------------------------------------------------------------------------------------ who is asked


def pins_of(one: str, other: str) -> list[tuple[str, str]]:
    """Service and reference of each revision that was named; the reference is '' for a bare service."""
    first = pin_of(one)
    if not other:
        return [first]
    if not first[1]:
        raise UsageError(f"{other} beside what? Name both", hint=f"branchline try {one}@incumbent {other}")
    alone = "@" in other.lstrip("@") or names.branch(other)
    return [first, pin_of(other if alone else f"{first[0]}@{other.lstrip('@')}")]


def pin_of(text: str) -> tuple[str, str]:
    """Service and reference as they were typed, once they can be understood; raises BadName."""
    named = names.reference(text)
    if not named.service:
        raise UsageError(f"{text} is of which service?", hint=f"branchline try SERVICE@{text}")
    service, at, pin = text.partition("@")
    return (service, pin) if at else (named.service, text if named.kind == "branch" else "")


def pinned(session: Session, service: str, pin: str) -> str:
    """The reference that an address has: a role is whoever every command means by it; raises UnknownReference."""
    reference = f"{service}@{pin}"
    if names.reference(reference).kind != "role":
        return pin
    return str(session.client().get("/v1/revision", reference=reference)["version"])


def both(service: Document) -> list[tuple[Document, str]]:
    """The one preview, and what it would replace; the incumbent alone where there is no preview."""
    if not previews(service):
        return [(service, str(incumbents(service)[-1]["version"]))]
    new = preview(service)
    old = [row for row in service["rows"] if row["phase"] == "live"]
    same = [row for row in old if row["line"] == new["line"]] or old
    return [(service, str(row["version"])) for row in (new, *same[-1:])]


def incumbents(service: Document) -> Sequence[Document]:
    """The rows of what serves, the newest line last; raises NothingToDo when nothing does."""
    found = [row for row in service["rows"] if row["phase"] == "live"]
    if not found:
        raise NothingToDo(what=f"nothing of {service['name']} serves yet", hint=f"branchline status {service['name']}")
    return found


def previews(service: Document) -> Sequence[Document]:
    """The rows of open branches that run somewhere."""
    return [row for row in service["rows"] if row["phase"] not in ("live", "") and row["address"] and row["healthy"]]


def preview(service: Document) -> Document:
    """The one open branch that runs; raises NothingToDo when it is none, or not one alone."""
    found, name = previews(service), service["name"]
    if len(found) != 1:
        which = ", ".join(f"{name}@{row['version']}" for row in found)
        what = f"{names.counted(len(found), 'branch', 'es')} of {name} can be asked"
        raise NothingToDo(f"name one: {which}" if found else "", what=what, hint=f"branchline status {name}")
    return found[0]


# ------------------------------------------------------------------------------------------------ asking


def request_of(session: Session, service: str, path: str, data: str | None, method: str) -> Asked:
    """What is sent: the given body, else the sample of the service file in the work tree, else none."""
    if method and not (method.isascii() and method.isalpha()):
        raise UsageError(f"{method!r} is no method of HTTP", hint=f"branchline try {service} --method PUT")
    body, sample = (read(data), data) if data else sample_of(session, service)
    told = f" with {sample} ({len(body):,} bytes)" if body is not None else ""
    where = quote("/" + path.lstrip("/"), KEPT, errors="surrogateescape")
    return Asked(method.upper() or ("GET" if body is None else "POST"), where, body, told)


def read(path: str) -> bytes:
    """What stands in a file; `-` is standard input."""
    with click.open_file(path, "rb") as file:
        return bytes(file.read())


def sample_of(session: Session, service: str) -> tuple[bytes | None, str]:
    """The first request of a service's declared sample, and its path; none where no sample is declared."""
    folder = session.services.get(service)
    if folder is None:
        return None, ""
    from branchline.adapters.servicefile import read_service
    from branchline.sdk.load import bodies_of

    path = f"{folder}/{SERVICE_FILE}"
    sample = read_service((session.tree.root / path).read_bytes(), path).serving.sample
    return (bodies_of(session.tree.root / folder / sample)[0], f"{folder}/{sample}") if sample else (None, "")


def answer_of(service: Document, pin: str, asked: Asked) -> Answer:
    """Ask one revision; raises Unserved for a reference that leads to nobody, GatewayDown and TooSlow."""
    address = f"{service['address'].rstrip('/')}@{pin}{asked.path}"
    where = urlsplit(address)
    line = HTTPConnection(where.netloc, timeout=SECONDS)
    begun = time.perf_counter()
    try:
        line.request(asked.method, address.partition(where.netloc)[2], asked.body, {"content-type": kind(asked.body)})
        got = line.getresponse()
        body = got.read()
    except TimeoutError as error:
        raise TooSlow(f"{address}: nothing came for {SECONDS:.0f} s") from error
    except (OSError, HTTPException) as error:
        raise GatewayDown(f"{where.netloc}: {error}") from error
    finally:
        line.close()
    ms = (time.perf_counter() - begun) * 1000
    found = Answer(address, got.headers.get("x-branchline-revision", GATEWAY), got.status, ms, body)
    if found.revision == GATEWAY and isinstance(found.value, dict) and found.value.get("code") == Unserved.code:
        raise Unserved(address=address, hint=f"branchline status {service['name']}")
    return found


def kind(body: bytes | None) -> str:
    """The content type of a body."""
    try:
        json.loads(body or b"{}")
    except ValueError:
        return "application/octet-stream"
    return "application/json"


# ------------------------------------------------------------------------------------------------ telling


def document(asked: Asked, answers: Sequence[Answer]) -> Document:
    """Request and answers for programs."""
    told = [
        {"address": each.address, "revision": each.revision, "status": each.status, "ms": each.ms, "body": each.value}
        for each in answers
    ]
    same = len({(each.status, each.said) for each in answers}) == 1
    return {"schema": "branchline.try/1", "method": asked.method, "path": asked.path, "same": same, "answers": told}


def heads(answers: Sequence[Answer]) -> list[str]:
    """One line for each answer: who, status, time, and where it was asked."""
    rows = [("REVISION", "STATUS", "TIME", "ADDRESS")]
    rows += [(each.revision, str(each.status), f"{each.ms:.1f} ms", each.address) for each in answers]
    return show.table(rows)


def bodies(answers: Sequence[Answer]) -> Iterator[str]:
    """The body once where all have the same; what differs where both are JSON; else each by itself."""
    first, last = answers[0], answers[-1]
    if first.said == last.said:
        both = "the same of both" if first.status == last.status else "the same, with another status"
        yield f"body      {both if len(answers) > 1 else first.size}"
        yield from first.lines
    elif first.is_json and last.is_json:
        yield "body      differs"
        titles = (last.revision, first.revision)
        for line in difflib.unified_diff(last.lines, first.lines, *titles, lineterm=""):
            yield click.style(line, fg={"-": "red", "+": "green"}.get(line[0]))
    else:
        for each in answers:
            yield f"body      of {each.revision}"
            yield from each.lines
