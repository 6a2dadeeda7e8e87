"""This file holds the pages to the code: what they print, what they tell people to type, where their links lead.

The parts between `<!-- printed: NAME -->` and `<!-- /printed -->` are written by `make docs`. In a table of keys the
words of the last column are a person's and stay as they are; every key has to have some. What else is asked of every
page (that codes, commands and files exist at all) is in `test_house.py`.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import click
import pytest

import branchline
from branchline.adapters.servicefile import json_schema
from branchline.adapters.servicefile_tables import ProjectFile
from branchline.cli.main import SECTIONS, main
from branchline.cli.see import blank, explanation
from branchline.cli.session import Session
from branchline.core.codes import leaves
from branchline.errors import BranchlineError
from branchline.ports import Receipt
from branchline.server.wire import api
from tests.world import World

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "bench" / "README.md"])
PAGES += sorted((ROOT / "examples").rglob("README.md"))
REFERENCE = "docs/reference"
Print = Callable[[str, str, str], None]
Schema = Mapping[str, Any]
NUMBERS = {"N", "MAJOR", "SECONDS"}


@cache
def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def table(head: str, rows: Iterable[tuple[str, ...]]) -> str:
    columns = head.split(" | ")
    lines = [columns, ["---"] * len(columns), *([cell_of(text) for text in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cell_of(text: str) -> str:
    """A text as one cell, which a bar or the end of a line would break."""
    return re.sub(r"\s*\n\s*", " ", text.strip()).replace("|", "\\|")


# ── links ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def anchors(text: str) -> set[str]:
    """What the headings of a page can be linked by."""
    heads = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}


def test_every_link_leads_to_a_page_and_to_a_heading_of_it() -> None:
    broken = []
    for page in PAGES:
        for target, anchor in re.findall(r"\]\((?!https?:|mailto:)([^)#\s]*)#?([^)\s]*)\)", text_of(page)):
            path = page.parent / target if target else page
            if not path.exists() or (anchor and anchor not in anchors(text_of(path))):
                broken.append(f"{named(page)} → {target}#{anchor}")
    assert not broken


def test_no_table_is_broken_by_the_end_of_a_line() -> None:
    """Killer: a docstring of two lines, printed as it is, ends its row in the middle of a cell."""
    broken = [
        f"{named(page)}: {line}"
        for page in PAGES
        for line in re.sub(r"```.*?```", "", text_of(page), flags=re.DOTALL).splitlines()
        if line.startswith("|") and not line.endswith("|")
    ]
    assert not broken


# ── what people are told to type ───────────────────────────────────────────────────────────────────────────────────


def typed(text: str) -> Iterator[str]:
    """The command lines of a page: lines of its blocks, and code within its sentences."""
    for block in re.findall(r"```.*?```", text, re.DOTALL):
        yield from re.findall(r"^\s*(?:\$ )?branchline (.+)$", block, re.M)
    yield from re.findall(r"`branchline ([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))


def parse(line: str) -> None:
    """Read a command line as the command does, and do nothing; raises click's UsageError."""
    words = ["1" if word in NUMBERS else word for word in shlex.split(line, comments=True)]
    cut = next((place for place, word in enumerate(words) if word in {"|", ">", "&&", ";"}), len(words))
    command: click.Command | None = main
    context: click.Context | None = None
    name, words = "branchline", words[:cut]
    while command is not None:
        try:
            context = command.make_context(name, list(words), parent=context, obj=Session())
        except click.exceptions.Exit:  # --help and --version have answered
            return
        if not isinstance(command, click.Group):
            return
        name, command, words = command.resolve_command(context, [*context._protected_args, *context.args])  # type: ignore[assignment]


def refused(lines: Iterable[tuple[str, str]], mentions: bool = False) -> list[str]:
    """Those that cannot be typed; with `mentions` a lone word may be the name of a command that wants more."""
    found = []
    for place, line in lines:
        try:
            parse(line)
        except click.UsageError as error:
            if not (mentions and isinstance(error, click.MissingParameter) and line.isalpha()):
                found.append(f"{place}: branchline {line}: {error.format_message()}")
    return found


def test_every_command_line_of_the_pages_can_be_typed() -> None:
    lines = [(named(page), line) for page in PAGES for line in typed(text_of(page))]
    assert len(lines) >= 10
    assert not refused(lines, mentions=True)


def test_every_command_line_of_a_hint_can_be_typed() -> None:
    hints = [(code, blank(kind.hint)) for code, kind in leaves().items()]
    lines = [(code, line) for code, hint in hints for line in re.findall(r"(?:^|: )branchline ([^;]+)", hint)]
    assert len(lines) > 20
    assert not refused(lines)


def test_a_command_line_that_cannot_be_typed_is_found() -> None:
    wrong = ["statsu", "status --wach", "split housing", "data updat", "up --port x", "explain BL412 BL413"]
    assert len(refused((("", line) for line in wrong), mentions=True)) == len(wrong)
    assert refused([("", "abort")])


# ── what the pages print ───────────────────────────────────────────────────────────────────────────────────────────


def test_the_readme_shows_the_example_as_it_is(printed: Print) -> None:
    """architecture: what a person writes is one service file of at most 15 lines."""
    file = (ROOT / "examples" / "housing" / "housing" / "branchline.toml").read_text(encoding="utf-8").strip()
    assert len(file.splitlines()) <= 15
    printed("README.md", "service file", f"```toml\n{file}\n```")


def test_the_readme_is_read_in_a_minute() -> None:
    readme = re.sub(r"```.*?```|<!--.*?-->", "", text_of(ROOT / "README.md"), flags=re.DOTALL)
    assert len(readme.split()) <= 300
    assert "<!-- transcript -->\n```" in text_of(ROOT / "README.md")


@pytest.mark.parametrize("family", ["BL1", "BL2", "BL3", "BL4", "BL5", "BL6", "BL7", "BL0"])
def test_every_error_is_explained(printed: Print, family: str) -> None:
    rows = (row_of_error(code, kind) for code, kind in leaves().items() if code.startswith(family))
    printed(f"{REFERENCE}/errors.md", f"{family}xx", table("code | what happened | next | exit | HTTP", rows))


def row_of_error(code: str, kind: type[BranchlineError]) -> tuple[str, ...]:
    told = explanation(code, kind)
    again = ", may pass by itself" if told["transient"] else ""
    return code, told["message"].rstrip("."), told["hint"], f"{told['exit']}{again}", str(told["status"])


SERVICE_FILE = json_schema()
TABLES: dict[str, Schema] = {
    "service": SERVICE_FILE,
    "serve": SERVICE_FILE["$defs"]["ServeTable"],
    "serve.limits": SERVICE_FILE["$defs"]["LimitsTable"],
    "data.NAME": SERVICE_FILE["$defs"]["SourceTable"],
    "steps.NAME": SERVICE_FILE["$defs"]["StepTable"],
    "gates.NAME": SERVICE_FILE["$defs"]["GateTable"],
    "metric": SERVICE_FILE["$defs"]["MetricTable"],
    "metric.sql": SERVICE_FILE["$defs"]["SqlTable"],
    "watched.NAME": SERVICE_FILE["$defs"]["WatchedTable"],
    "guardrails": SERVICE_FILE["$defs"]["GuardrailsTable"],
    "guardrails.slow_requests": SERVICE_FILE["$defs"]["SlowRequestsTable"],
    "guardrails.bad_outcome": SERVICE_FILE["$defs"]["BadOutcomeTable"],
    "guardrails.prometheus.NAME": SERVICE_FILE["$defs"]["PrometheusTable"],
    "rollout": SERVICE_FILE["$defs"]["RolloutTable"],
    "rollout.canary": SERVICE_FILE["$defs"]["CanaryTable"],
    "rollout.unit": SERVICE_FILE["$defs"]["UnitTable"],
    "project": ProjectFile.model_json_schema()["$defs"]["ProjectTable"],
}


def test_no_table_of_the_service_file_is_left_out() -> None:
    assert set(SERVICE_FILE["$defs"]) == {schema["title"] for name, schema in TABLES.items() if "." in name} | {
        f"{name.capitalize()}Table" for name in ("serve", "metric", "guardrails", "rollout")
    }


@pytest.mark.parametrize("name", TABLES)
def test_every_key_of_the_service_file_is_explained(printed: Print, name: str) -> None:
    schema, page = TABLES[name], ROOT / REFERENCE / "service-file.md"
    part = page.read_text(encoding="utf-8").partition(f"<!-- printed: {name} -->")[2].partition("<!-- /printed -->")[0]
    words = {key: said.strip() for key, said in re.findall(r"^\| `(\w+)` \|.*\| ([^|]*) \|$", part, re.M)}
    rows = (
        (f"`{key}`", kind_of(each), default_of(key, each, schema), words.get(key, "").strip())
        for key, each in schema["properties"].items()
    )
    printed(f"{REFERENCE}/service-file.md", name, table("key | value | else | what it says", rows))
    assert all(words.get(key) for key in schema["properties"]), "write what the key says into the last column"


def kind_of(schema: Schema) -> str:
    """What a key takes, in words."""
    some = [each for each in schema.get("anyOf", []) if each.get("type") != "null"]
    if {each.get("type") for each in some} == {"number", "string"}:
        return "duration"
    if {each.get("type") for each in some} == {"integer", "string"}:
        return "size"
    if some:
        kinds = dict.fromkeys(kind_of(each) for each in some)
        return " or ".join(kind for kind in kinds if kind != "whole number" or "number" not in kinds)
    if "enum" in schema:
        return ", ".join(f'`"{word}"`' for word in schema["enum"])
    match schema.get("type", "table"):
        case "array":
            many = "two " if schema.get("maxItems") == 2 else ""
            return f"[{many}{kind_of(schema['items'])}s]"
        case "object":
            (inner,) = schema.get("patternProperties", {"": schema.get("additionalProperties")}).values()
            return f"NAME = {kind_of(inner)}"
        case "boolean":
            return "`true` or `false`"
        case "integer":
            return f"whole number{limits(schema)}"
        case "number":
            return f"number{limits(schema)}"
        case kind:
            return "text" if kind == "string" else str(kind)


def limits(schema: Schema) -> str:
    """Between which numbers it lies, in words."""
    if "exclusiveMinimum" in schema:
        return f" above {schema['exclusiveMinimum']:g}"
    low = f", {schema['minimum']:g}" if "minimum" in schema else ""
    return low + (f" to {schema['maximum']:g}" if "maximum" in schema else " or more" if low else "")


def default_of(key: str, schema: Schema, whole: Schema) -> str:
    """What holds when a key is left out."""
    if key in whole.get("required", ()):
        return "needed"
    default = schema.get("default")
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if kind_of(schema) == "duration" and default is not None:
        units = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))
        size, unit = next((each for each in units if default >= each[0] and default % each[0] == 0), (1, "s"))
        return f'`"{default / size:g}{unit}"`'
    if isinstance(default, dict | list) or default in (None, ""):
        return ""
    return f'`"{default}"`' if isinstance(default, str) else f"`{default:g}`"


def test_every_question_to_the_daemon_is_listed(printed: Print, tmp_path: Path) -> None:
    paths = api(World(tmp_path).controller).openapi()
    rows = (
        (
            f"`{method.upper()} {path}`",
            ", ".join(asked(operation, paths["components"]["schemas"])),
            operation["description"],
        )
        for path, operations in paths["paths"].items()
        for method, operation in operations.items()
    )
    printed(f"{REFERENCE}/http.md", "daemon", table("question | takes | what it does", rows))


def asked(operation: Schema, schemas: Schema) -> Iterator[str]:
    """The parameters of a question, those of its body after them; what may be left out is in brackets."""
    for each in operation.get("parameters", ()):
        yield f"`{each['name']}`" if each["required"] else f"[`{each['name']}`]"
    if "requestBody" in operation:
        reference = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        schema = schemas[reference.rpartition("/")[2]]
        yield from (f"`{key}`" if key in schema.get("required", ()) else f"[`{key}`]" for key in schema["properties"])


def test_every_word_for_an_outcome_is_explained() -> None:
    page = text_of(ROOT / REFERENCE / "http.md").partition("| word |")[2].partition("\n\n")[0]
    words = re.findall(r"^\| `(\w+)` \|", page, re.M)
    assert sorted(words) == sorted(
        re.findall(r"(?:^    |[;,] )(\w+)(?=[;:])", str(Receipt.__doc__).partition("\n")[2], re.M)
    )


@pytest.mark.parametrize("section", SECTIONS)
def test_every_command_and_option_is_listed(printed: Print, section: str) -> None:
    context = main.make_context("branchline", ["status"], obj=Session())
    parts: list[str] = []
    for name in SECTIONS[section]:
        command = main.get_command(context, name)
        assert command is not None
        parts += described(name, command)
    printed(f"{REFERENCE}/commands.md", section, "\n\n".join(parts))


def described(name: str, command: click.Command) -> Iterator[str]:
    """A command's heading, words and options; those of its own commands after it."""
    context = click.Context(command, info_name=name)
    arguments = [each.make_metavar(context) for each in command.params if isinstance(each, click.Argument)]
    yield f"### {' '.join([name, *arguments])}"
    yield "\n\n".join(" ".join(part.split()) for part in (command.help or "").split("\n\n"))
    records = [each.get_help_record(context) for each in command.params if isinstance(each, click.Option)]
    if any(records):
        yield table("option | what it does", ((f"`{each[0]}`", each[1]) for each in records if each))
    if isinstance(command, click.Group):
        for inner in command.list_commands(context):
            found = command.get_command(context, inner)
            assert found is not None
            yield from described(f"{name} {inner}", found)


# ── lists that are kept by hand ────────────────────────────────────────────────────────────────────────────────────


def test_every_bench_is_told_of() -> None:
    page = text_of(ROOT / "bench" / "README.md")
    assert not [each.name for each in (ROOT / "bench").glob("[!_]*.py") if f"`{each.name}`" not in page]


def test_the_changes_know_this_version() -> None:
    assert f"## {branchline.__version__.partition('.dev')[0]} " in text_of(ROOT / "CHANGELOG.md")
