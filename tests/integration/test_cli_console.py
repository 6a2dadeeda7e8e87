"""This file tests the request console (2.45): `branchline try` asks explicit addresses and shows both answers.

The gateway is a server of the test, which notes what it was asked; that a real one takes such a request for no exposure
is in `tests/e2e/test_colours.py`.
"""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner

from branchline.cli.main import main
from tests.places import Place
from tests.world import KIM, MODEL, SAM

Answers = dict[str, tuple[int, dict[str, str], bytes]]
OLD, NEW, OTHER = "housing@1.0.0", "housing@1.1.0", "housing@1.2.0"


def says(revision: str, body: object, status: int = 200) -> tuple[int, dict[str, str], bytes]:
    """An answer of a revision, JSON unless it is bytes."""
    return status, {"x-branchline-revision": revision}, body if isinstance(body, bytes) else json.dumps(body).encode()


class Gateway(ThreadingHTTPServer):
    """Answers by what stands behind a revision's address; `asked` is what came, in order."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Line)
        self.answers: Answers = {OLD: says(OLD, {"price": 1, "unit": "m2"}), NEW: says(NEW, {"price": 2, "unit": "m2"})}
        self.asked: list[tuple[str, str, bytes, str]] = []


class _Line(BaseHTTPRequestHandler):
    server: Gateway

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.server.asked.append((self.command, self.path, body, self.headers["content-type"]))
        unknown = (404, {"content-type": "application/problem+json"}, b'{"code": "BL505"}')
        status, headers, answer = self.server.answers.get(self.path.split("/")[1], unknown)
        self.send_response(status)
        for name, value in {**headers, "content-length": str(len(answer))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer)

    def do_POST(self) -> None:
        self.do_GET()

    def do_PUT(self) -> None:
        self.do_GET()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    with Gateway() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def place(tmp_path: Path, gateway: Gateway) -> Iterator[Place]:
    """One revision serves, another is under test."""
    made = Place(tmp_path)
    made.world.router.port = gateway.server_port
    made.world.released()
    made.world.testing()
    with made.answering():
        yield made


def test_a_preview_is_asked_beside_the_incumbent_2_45(place: Place, gateway: Gateway) -> None:
    told = place.type("try", "housing")
    assert told.exit_code == 0, told.stderr
    assert gateway.asked == [("GET", f"/{each}/", b"", "application/json") for each in (NEW, OLD)]
    lines = told.stdout.splitlines()
    assert [line.split()[:2] for line in lines[:3]] == [["REVISION", "STATUS"], [NEW, "200"], [OLD, "200"]]
    assert lines[3:6] == ["body      differs", f"--- {OLD}", f"+++ {NEW}"]
    assert lines[7:] == [" {", '-  "price": 1,', '+  "price": 2,', '   "unit": "m2"', " }"]


def test_the_sample_of_the_service_file_is_sent_unless_another_is_given(
    place: Place, gateway: Gateway, tmp_path: Path
) -> None:
    for pin in ("housing@sam", f"housing@{SAM}"):
        gateway.answers[pin] = gateway.answers[NEW]
    service = place.git.work / "housing"
    service.mkdir(exist_ok=True)
    (service / "branchline.toml").write_text(MODEL.replace("predict =", 'sample = "ask.json", predict ='))
    (service / "ask.json").write_text('{"rooms": 3}')
    told = place.type("try", "housing@sam", "--path", "predict")
    assert told.stderr == "asked     POST /predict with housing/ask.json (12 bytes)\n"
    (tmp_path / "mine.txt").write_bytes(b"no json")
    place.type("try", f"{SAM}", "--data", str(tmp_path / "mine.txt"), "--method", "put")
    typed = io.BytesIO(b"[1]")
    words = ["-C", str(place.git.work), "try", "housing@1.0.0", "--data", "-"]
    told = CliRunner().invoke(main, words, prog_name="branchline", input=typed)
    assert told.exit_code == 0, (told.stderr, told.exception)
    assert gateway.asked == [
        ("POST", "/housing@sam/predict", b'{"rooms": 3}', "application/json"),
        ("PUT", f"/housing@{SAM}/", b"no json", "application/octet-stream"),
        ("POST", "/housing@1.0.0/", b"[1]", "application/json"),
    ]


@pytest.mark.parametrize(
    ("words", "paths"),
    [
        (("housing@challenger", "@incumbent"), [NEW, OLD]),
        (("housing@1.0.0", "1.1.0"), [OLD, NEW]),
        (("housing@incumbent",), [OLD]),
        ((SAM, "housing@1.0.0"), [f"housing@{SAM}", OLD]),
    ],
)
def test_who_is_asked_can_be_named(place: Place, gateway: Gateway, words: tuple[str, ...], paths: list[str]) -> None:
    gateway.answers[f"housing@{SAM}"] = gateway.answers[NEW]
    assert place.type("try", *words).exit_code == 0
    assert [path for _, path, _, _ in gateway.asked] == [f"/{each}/" for each in paths]


def test_programs_get_both_answers(place: Place, gateway: Gateway) -> None:
    gateway.answers[NEW] = says(NEW, b"<b>2</b>", 500)
    found = place.read("try", "housing")
    assert (found["schema"], found["method"], found["path"], found["same"]) == ("branchline.try/1", "GET", "/", False)
    assert [(each["revision"], each["status"], each["body"]) for each in found["answers"]] == [
        (NEW, 500, "<b>2</b>"), (OLD, 200, {"price": 1, "unit": "m2"}),
    ]  # fmt: skip
    assert all(each["ms"] > 0 for each in found["answers"])


def test_answers_that_are_the_same_are_shown_once_and_what_is_no_json_by_itself(place: Place, gateway: Gateway) -> None:
    gateway.answers[NEW] = says(NEW, {"unit": "m2", "price": 1})
    assert place.type("try", "housing").stdout.splitlines()[3:] == [
        "body      the same of both", "{", '  "price": 1,', '  "unit": "m2"', "}",
    ]  # fmt: skip
    gateway.answers[NEW] = says(NEW, b"two\nlines")
    lines = place.type("try", "housing").stdout.splitlines()
    assert lines[3:7] == [f"body      of {NEW}", "two", "lines", f"body      of {OLD}"]
    assert place.type("try", "housing@1.1.0").stdout.splitlines()[2:] == ["body      9 bytes", "two", "lines"]


def test_what_is_no_text_is_compared_by_its_bytes_and_not_shown(place: Place, gateway: Gateway) -> None:
    """Two pictures are two, though both read the same once their bytes are replaced. Killer: compare the lines."""
    gateway.answers[NEW], gateway.answers[OLD] = says(NEW, b"\xff" * 300), says(OLD, b"\xfe" * 300)
    lines = place.type("try", "housing").stdout.splitlines()
    assert lines[3:] == [f"body      of {NEW}", "300 bytes, not text", f"body      of {OLD}", "300 bytes, not text"]
    found = place.read("try", "housing")
    assert (found["same"], [each["body"] for each in found["answers"]]) == (False, ["300 bytes, not text"] * 2)
    gateway.answers[OLD] = says(OLD, b"\xff" * 300)
    lines = place.type("try", "housing").stdout.splitlines()
    assert lines[3:] == ["body      the same of both", "300 bytes, not text"]
    assert place.read("try", "housing")["same"] is True


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        (b"a\x1b[2Jb", "6 bytes, not text"),
        (b"\xc2\x9b2J", "4 bytes, not text"),
        (b'"\xc2\x9b2J"', '"\\u009b2J"'),
        (b'"\\ud800"', '"\\ud800"'),
        ('"Zoë\t"'.encode(), '"Zoë\t"'),
        ('"Zoë"'.encode(), '"Zoë"'),
    ],
)
def test_a_terminal_is_told_nothing_by_an_answer(place: Place, gateway: Gateway, body: bytes, shown: str) -> None:
    gateway.answers[OLD] = says(OLD, body)
    told = place.type("try", "housing@1.0.0")
    assert told.exit_code == 0, told.exception
    assert told.stdout.splitlines()[3:] == [shown]


def test_the_same_body_with_another_status_is_not_the_same(place: Place, gateway: Gateway) -> None:
    """Killer: compare the bodies alone."""
    gateway.answers[NEW], gateway.answers[OLD] = says(NEW, {"price": 1}), says(OLD, {"price": 1}, 404)
    lines = place.type("try", "housing").stdout.splitlines()
    assert lines[3] == "body      the same, with another status"
    assert place.read("try", "housing")["same"] is False


def test_values_are_compared_as_JSON_has_them(place: Place, gateway: Gateway) -> None:
    """Neither spaces nor order are of a value; `true` is no number."""
    gateway.answers[NEW], gateway.answers[OLD] = says(NEW, b'{"a":1, "b":2}'), says(OLD, b'{"b": 2,"a":1}')
    assert place.read("try", "housing")["same"] is True
    gateway.answers[NEW], gateway.answers[OLD] = says(NEW, [1]), says(OLD, [True])
    assert place.read("try", "housing")["same"] is False


def test_without_a_preview_the_incumbent_alone_is_asked(place: Place, gateway: Gateway) -> None:
    place.world.ask("abort", SAM)
    place.world.settle()
    assert place.type("try", "housing").exit_code == 0
    assert [path for _, path, _, _ in gateway.asked] == [f"/{OLD}/"]
    told = place.type("try", "housing@challenger")
    assert "error[BL104]: 'housing@challenger' names no revision" in told.stderr


def test_the_challenger_is_who_serves_as_everywhere(place: Place, gateway: Gateway) -> None:
    """A preview is none, however many there are. Killer: take the one that runs."""
    place.world.push(KIM, MODEL)
    place.world.settle()
    told = place.type("try", "housing@challenger")
    assert (told.exit_code, [path for _, path, _, _ in gateway.asked]) == (0, [f"/{NEW}/"]), told.stderr


def test_of_several_previews_one_has_to_be_named(place: Place) -> None:
    toml = MODEL.replace("rollout = {", 'rollout = { approval = "before",')
    place.world.push(KIM, toml)
    place.world.settle()
    told = place.type("try", "housing")
    assert told.exit_code == 2
    assert f"error[BL109]: 2 branches of housing can be asked\n  cause: name one: {NEW}, {OTHER}" in told.stderr


@pytest.mark.parametrize(
    ("typed", "sent"),
    [
        ("/ä b", "/%C3%A4%20b"),
        ("/a%20b/c;d=1?x[]=1,2&y=/z+1@w:~", "/a%20b/c;d=1?x[]=1,2&y=/z+1@w:~"),
        ('/a#b?c="<>"', "/a%23b?c=%22%3C%3E%22"),
    ],
)
def test_a_path_is_sent_as_it_was_meant_2_45(place: Place, gateway: Gateway, typed: str, sent: str) -> None:
    """What no path can hold is encoded; what is encoded, or parts it, is left. Killer: send it as it was typed."""
    told = place.type("try", "housing@1.0.0", "--path", typed)
    assert told.exit_code == 0, told.stderr
    assert told.stderr == f"asked     GET {sent}\n"
    assert [path for _, path, _, _ in gateway.asked] == [f"/{OLD}{sent}"]


@pytest.mark.parametrize("method", ["GE T", "GET\r\nx-admin: yes", "ä", "1"])
def test_what_is_no_method_is_refused_and_nobody_is_asked(place: Place, gateway: Gateway, method: str) -> None:
    told = place.type("try", "housing", "--method", method)
    assert (told.exit_code, gateway.asked) == (2, [])
    assert "error[BL100]" in told.stderr
    assert "is no method of HTTP" in told.stderr


@pytest.mark.parametrize(
    ("words", "code", "title"),
    [
        (("housing@nobody",), "BL505", "leads to no revision"),
        (("hosing",), "BL102", "There is no service 'hosing'"),
        (("housing", "@1.0.0"), "BL100", "@1.0.0 beside what?"),
        (("4f1c2ab",), "BL100", "4f1c2ab is of which service?"),
        (("housing@..",), "BL101", "'housing@..'"),
    ],
)
def test_what_cannot_be_asked_says_so(place: Place, words: tuple[str, ...], code: str, title: str) -> None:
    told = place.type("try", *words)
    assert told.exit_code != 0
    assert f"error[{code}]" in told.stderr
    assert title in told.stderr


def test_a_gateway_that_is_down_says_what_to_type(place: Place, gateway: Gateway) -> None:
    gateway.socket.close()
    gateway.shutdown()
    told = place.type("try", "housing")
    assert told.exit_code == 69
    assert "error[BL506]: The gateway does not answer" in told.stderr
    assert "hint:  branchline up" in told.stderr


def test_where_nothing_serves_yet_it_says_so(place: Place) -> None:
    place.world.push("experiment--rent--alex", MODEL.replace("gates:unit", "gates:data"), says={"data": False})
    place.world.settle()
    assert "error[BL109]: nothing of rent serves yet" in place.type("try", "rent").stderr
