"""This file tests what the command line says and how it ends, without a repository, a daemon or a terminal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from branchline.cli import show, transport
from branchline.cli.follow import Rest, rest
from branchline.cli.main import COMMANDS, SECTIONS, Branchline, main, misunderstood
from branchline.core import codes

BRANCH = "experiment--housing--alex"


def typed(*words: str) -> Result:
    """Type a command; streams are kept apart, and none of them is a terminal."""
    return CliRunner().invoke(main, list(words), prog_name="branchline")


# ------------------------------------------------------------------------------------------------ the help page


@pytest.mark.parametrize("words", [(), ("--help",), ("-h",)])
def test_the_help_page_has_every_command_in_its_section(words: tuple[str, ...]) -> None:
    told = typed(*words)
    assert told.exit_code == 0
    places = [told.stdout.index(f"\n{section}:") for section in SECTIONS]
    assert places == sorted(places)
    for name, (_, words_said) in COMMANDS.items():
        assert f"  {name} " in told.stdout
        assert words_said in told.stdout


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "demo"])
def test_what_the_help_page_says_is_what_the_command_says(name: str) -> None:
    command, words = main.get_command(click.Context(main), name), COMMANDS[name][1]
    assert command is not None
    assert (command.help or "").split("\n\n")[0].replace("\n", " ") == words


def test_every_reading_command_has_json_and_every_changing_one_a_dry_run() -> None:
    context = click.Context(main)
    options: dict[str, set[str]] = {}
    for name in COMMANDS:
        command = main.get_command(context, name)
        assert command is not None
        options[name] = {option for each in command.params for option in each.opts}
    reads = {"check", "run", "checkout", "status", "parity", "history", "why", "logs", "explain", "doctor", "up",
             "runs", "compare"}  # fmt: skip
    assert all("--json" in options[name] for name in reads)
    changes = {"init", "start", "fix", "sync", "checkout", "up", "down", *SECTIONS["Ship"]}
    assert all("--dry-run" in options[name] for name in changes)
    assert all({"--yes", "--no-input"} <= options[name] for name in SECTIONS["Ship"] if name != "deploy")


def test_a_command_that_is_not_there_is_answered_with_what_is_near() -> None:
    told = typed("statsu")
    assert told.exit_code == 2
    assert told.stderr == (
        "error[BL100]: There is no command 'statsu'. Did you mean 'status'?\n  hint:  branchline --help\n"
    )
    assert told.stdout == ""


def test_an_option_that_is_not_there_ends_with_two_and_names_the_help_of_its_command() -> None:
    told = typed("explain", "--jsn")
    assert told.exit_code == 2
    assert "hint:  branchline explain --help" in told.stderr


def test_asked_for_json_an_error_is_problem_details() -> None:
    told = typed("explain", "--json", "BL999")
    assert told.exit_code == 2
    assert json.loads(told.stderr)["code"] == "BL107"
    assert json.loads(typed("explain", "--json", "--no").stderr)["code"] == "BL100"


def test_a_bug_ends_with_seventy_and_a_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(COMMANDS, "status", ("nowhere", ""))
    told = typed("status")
    assert told.exit_code == 70
    assert "error[BL000]: something failed inside" in told.stderr
    assert "Traceback" not in told.stderr
    report = Path(told.stderr.split()[-1])
    assert "Traceback" in report.read_text()
    report.unlink()
    told = typed("-v", "status")
    assert "Traceback" in told.stderr
    Path(told.stderr.split()[-1]).unlink()


@pytest.mark.parametrize("raised", [KeyboardInterrupt, click.Abort])
def test_an_interruption_ends_with_130(raised: type[BaseException]) -> None:
    def interrupt() -> None:
        raise raised

    told = CliRunner().invoke(Branchline("branchline", callback=interrupt), ["explain"])
    assert told.exit_code == 130
    assert "what the daemon has begun goes on" in told.stderr


def test_what_click_complains_of_becomes_problem_details() -> None:
    found = misunderstood(click.ClickException("first\nsecond"))
    assert (found["title"], found["detail"], found["hint"]) == ("first", "second", "")
    assert misunderstood(click.UsageError("no such option"))["hint"] == "branchline --help"


# ------------------------------------------------------------------------------------------------ explain, offline


def test_explain_knows_every_code() -> None:
    """Offline, without a repository."""
    listed = typed("explain").stdout
    assert all(f"{code}  " in listed for code in codes.leaves())
    assert "{" not in listed
    one = typed("explain", "bl412")
    assert one.exit_code == 0
    assert one.stdout.startswith("BL412  REVISION did not become ready.")


def test_explain_says_exit_status_and_next_command() -> None:
    found = json.loads(typed("explain", "BL702", "--json").stdout)
    assert found["schema"] == "branchline.errors/1"
    assert found["errors"][0]["exit"] == 75


def test_completion_prints_a_script_for_each_shell() -> None:
    for shell in ("bash", "zsh", "fish"):
        assert "_BRANCHLINE_COMPLETE" in typed("completion", shell).stdout


def test_completion_knows_commands_and_codes() -> None:
    def completed(words: str) -> list[str]:
        environ = {"_BRANCHLINE_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        told = CliRunner().invoke(main, [], prog_name="branchline", env=environ)
        return [line.partition(",")[2] for line in told.stdout.splitlines()]

    assert completed("branchline sta") == ["start", "status"]
    assert completed("branchline explain BL41") == ["BL412", "BL413", "BL414", "BL415", "BL416"]


# ------------------------------------------------------------------------------------------------ printing


def test_a_table_is_reckoned_without_its_colours() -> None:
    lines = show.table([("A", "B"), (click.style("long", fg="red"), "b"), ("s", "")])
    assert [click.unstyle(line) for line in lines] == ["A     B", "long  b", "s"]


@pytest.mark.parametrize(("share", "wanted"), [(0, ""), (1, "#"), (50, "####"), (100, "########")])
def test_a_share_is_a_bar(share: int, wanted: str) -> None:
    assert show.bar(share) == wanted


@pytest.mark.parametrize(
    ("seconds", "wanted"), [(-1, "0 s"), (59, "59 s"), (60, "1 min"), (7300, "2 h"), (21 * 86400, "21 d")]
)
def test_a_time_that_has_passed(seconds: float, wanted: str) -> None:
    assert show.ago(seconds) == wanted


def test_an_error_has_cause_log_and_hint(capsys: pytest.CaptureFixture[str]) -> None:
    """The last lines of the process that failed are shown."""
    log = "\n".join(f"line {n}" for n in range(30))
    show.problem({"code": "BL412", "title": "it failed", "detail": "why\nreally", "log": log, "hint": "do this"})
    told = capsys.readouterr().err.splitlines()
    assert told[:3] == ["error[BL412]: it failed", "  cause: why", "         really"]
    assert told[3:-1] == [f"  | line {n}" for n in range(10, 30)]
    assert told[-1] == "  hint:  do this"


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [({}, False), ({"CLICOLOR_FORCE": "1"}, True), ({"CLICOLOR_FORCE": "1", "NO_COLOR": "1"}, False)],
)
def test_colour_is_as_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], wanted: bool
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    told = typed("statsu").stderr
    assert ("\x1b[" in told) is wanted


def test_a_note_has_its_further_lines_below_it() -> None:
    line = show.note({"mark": "no", "name": "train", "text": "it raised\nValueError", "seconds": 1.25})
    first, second = click.unstyle(line).splitlines()
    assert first.startswith(" no  train")
    assert first.endswith("1.2s")
    assert second.strip() == "ValueError"


# ------------------------------------------------------------------------------------------------ where deploy rests


def row(state: str, **more: Any) -> dict[str, Any]:
    """A status row of the branch."""
    return {"branch": BRANCH, "commit": "c1", "tip": "c1", "phase": state, "state": state, "share": 0, **more}


LIVE = {"branch": "main", "commit": "c0", "phase": "live", "state": "incumbent", "share": 100, "version": "1.0.0"}
RESTS: list[tuple[list[dict[str, Any]], tuple[int, str] | None]] = [
    ([], None),
    ([LIVE], None),
    ([{**LIVE, "commit": "c1"}], (0, "serves")),
    ([row("building")], None),
    ([row("evaluating")], None),
    ([row("evaluation failed", detail="unit")], (1, "stays")),
    ([row("measured")], (0, "measured")),
    ([row("queued", waits_for="")], None),
    ([row("queued", waits_for="approval")], (0, "waits")),
    ([row("queued", waits_for="slot")], (0, "waits")),
    ([row("A/B test")], None),
    ([row("A/B test", share=50)], (0, "serves")),
    ([row("canary", share=10)], (0, "serves")),
    ([row("won", waits_for="approval")], (0, "waits")),
    ([row("concluding", waits_for="")], None),
    ([row("concluding", waits_for="remote")], None),
    ([row("concluding", waits_for="permission")], (0, "waits")),
    ([row("rolled back")], (1, "stays")),
    ([row("inconclusive")], (1, "stays")),
    ([row("superseded")], (1, "stays")),
    ([row("A/B test", share=50, commit="older")], (0, "waits")),
    ([row("building", commit="older")], None),
    ([row("A/B test", share=50, commit="older", tip="older")], None),
]


@pytest.mark.parametrize(("rows", "wanted"), RESTS)
def test_deploy_follows_to_the_next_rest(rows: list[dict[str, Any]], wanted: tuple[int, str] | None) -> None:
    """Exit 0: promoted, or waiting for a person; 1: a gate said no."""
    found = rest(rows, "housing", BRANCH, "c1")
    assert (found and (found.code, found.word)) == wanted


def test_a_rest_names_what_to_type() -> None:
    found = rest([row("queued", waits_for="approval")], "housing", BRANCH, "c1")
    assert found == Rest(0, "waits", f"{BRANCH} is queued and waits for: approval", f"branchline approve {BRANCH}")


# ------------------------------------------------------------------------------------------------ the daemon's answers


def test_an_answer_that_is_no_problem_becomes_one() -> None:
    assert transport.as_problem({"code": "BL102"}, 404) == {"code": "BL102"}
    assert transport.as_problem({"detail": []}, 422)["code"] == "BL100"
    assert transport.as_problem({}, 500)["code"] == "BL000"


def test_an_answer_is_taken_whole_or_not_at_all() -> None:
    whole = b"HTTP/1.1 404 Not Found\r\nserver: x\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
    assert transport.answered(whole) == (404, b"{}")
    for broken in (b"", whole[:-1], whole + b"}", b"SSH-2.0-x\r\n\r\n", whole.replace(b"Content-Length", b"x")):
        with pytest.raises(ConnectionError):
            transport.answered(broken)


def test_a_question_says_how_long_it_is() -> None:
    asked = transport.asked("POST", "/v1/ask", {"because": "é"})
    head, _, content = asked.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/ask HTTP/1.0\r\n")
    assert head.endswith(b"content-length: %d" % len(content))
    assert json.loads(content) == {"because": "é"}


def test_a_daemon_that_did_not_come_up_is_heard() -> None:
    said = "INFO begun\nerror[BL501]: No Envoy can be started here\n  cause: not installed\n  hint: pip install it\n"
    found = transport.why_it_ended(said, 69)
    assert (found["code"], found["title"]) == ("BL501", "No Envoy can be started here")
    assert (found["detail"], found["hint"]) == ("not installed", "pip install it")
    found = transport.why_it_ended("Traceback\nValueError: x\n", 1)
    assert (found["code"], found["log"]) == ("BL701", "Traceback\nValueError: x")
