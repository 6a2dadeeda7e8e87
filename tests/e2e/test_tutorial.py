"""This file plays pages of `docs` as their reader would: a page's files, its commands, at a shell of its own.

A block whose paragraph ends with `PATH`: is a file. In a `console` block lines after `$ ` are typed, in order; those
between are what they print. Compared is what does not differ from day to day: numbers (but versions), commits, the port
and how long things took are not. A block after `<!-- until -->` is typed again until it prints what the page says.
After a change of what commands print: `pytest tests/e2e/test_tutorial.py --write-docs` writes the page's output anew.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
LOCKS = (ROOT / "requirements.lock", ROOT / "examples" / "housing" / "housing" / "requirements.lock")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ADDRESS = re.compile(r"http://127\.0\.0\.1:\d+")
PATIENCE = 240.0


@dataclass
class Reader:
    """Who follows the page: where they are, and at which address the gateway answered last."""

    folder: Path
    address: str = "http://127.0.0.1:0"

    def type(self, command: str) -> str:
        """Type a command; what it prints on both streams, without what is only for the moment."""
        place = self.folder.parent / "place"
        script = f"{{ {ADDRESS.sub(self.address, command)}\n}} 2>&1; code=$?; pwd > {place}; exit $code"
        environ = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "UV_CONSTRAINT": " ".join(map(str, LOCKS)),  # the versions that the other tests have fetched
        }
        ran = subprocess.run(
            ["bash", "-c", script], cwd=self.folder, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            text=True, timeout=600, check=False,
        )  # fmt: skip
        assert ran.returncode == 0, f"{command} ended with {ran.returncode}\n{ran.stdout}"
        self.folder = Path(place.read_text(encoding="utf-8").strip())
        for found in ADDRESS.findall(ran.stdout):
            self.address = found
        lines = (line.rstrip() for line in ran.stdout.rstrip().splitlines())
        return "".join(f"{line}\n" for line in lines if not line.startswith(" .. "))


def told(text: str) -> list[str]:
    """The lines of an output, as far as they are the same on every day and every machine."""
    lines = (re.sub(r"\s+[\d.]+s$", "", line.rstrip()) for line in text.splitlines())
    return [" ".join(unsaid(line).split()) for line in lines if line]


def unsaid(line: str) -> str:
    """A line without commits, digests and numbers; versions stay."""
    line = re.sub(r"\b(?:[0-9a-f]{40}|[0-9a-f]{7,8})\b|(?<=lock )\w+", "COMMIT", line)
    line = re.sub(r"\([^()]* ago\)", "AGO", line)
    number = re.compile(r"-?\+?\d[\d.]*(?:e[+-]?\d+)?")
    return number.sub(lambda n: n[0] if re.fullmatch(r"\d+\.\d+\.\d+\.?\d?", n[0]) else "N", line)


def missing(wanted: Sequence[str], found: Sequence[str]) -> str:
    """The first line of the page that was not printed, in this order; '' when all were."""
    rest: Iterator[str] = iter(found)
    return next((line for line in wanted if line not in rest), "")


def commands(block: str) -> list[tuple[str, str]]:
    """What is typed in a console block, each with what the page says it prints."""
    parts = re.split(r"^\$ (.*)\n", block, flags=re.MULTILINE)
    assert parts[0] == "", f"a console block begins with a command: {block}"
    return list(zip(parts[1::2], parts[2::2], strict=True))


def play(reader: Reader, block: str, again: bool) -> str:
    """Type a console block; returns it with what was really printed."""
    printed: list[tuple[str, str]] = []

    def typed() -> bool:
        printed[:] = [(command, reader.type(command)) for command, _ in commands(block)]
        return not any(
            missing(told(said), told(out)) for (_, said), (_, out) in zip(commands(block), printed, strict=True)
        )

    if again:
        wait_until(typed, PATIENCE, every=0.5)
    else:
        typed()
    return "".join(f"$ {command}\n{out}" for command, out in printed)


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("name", ["tutorial.md", "guides/your-project.md"])
def test_a_page_does_what_it_says(name: str, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    """Issue 4, 9: by the page alone, from nothing to a verdict, and from a project of one's own to a challenger's."""
    page = (DOCS / name).read_text(encoding="utf-8")
    work = tmp_path / "work"
    work.mkdir()
    reader, new, end = Reader(work), "", 0
    try:
        for block in BLOCK.finditer(page):
            kind, text = block.groups()
            before = page[end : block.start()].rstrip()
            file = re.search(r"`([^`\n]+)`:$", before)
            if kind == "console":
                again = before.endswith("<!-- until -->")
                text = play(reader, text, again)
                for (command, said), (_, out) in zip(commands(block[2]), commands(text), strict=True):
                    lost = missing(told(said), told(out))
                    assert pytestconfig.getoption("--write-docs") or not lost, f"$ {command}\n{out}\nlacks: {lost}"
            elif file:
                path = reader.folder / file[1]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
            new += f"{page[end : block.start()]}```{kind}\n{text}```"
            end = block.end()
    finally:
        subprocess.run([sys.executable, "-P", "-m", "branchline.cli.main", "down"], cwd=reader.folder, check=False)
    if pytestconfig.getoption("--write-docs"):
        (DOCS / name).write_text(ADDRESS.sub("http://127.0.0.1:20000", new + page[end:]), encoding="utf-8")
    else:
        assert "BL" not in "".join(re.findall(r"^error.*", new, re.MULTILINE))


def test_what_the_page_says_is_held_against_what_is_printed() -> None:
    """Killer: another version, another word, another order are found; other numbers, commits and times are not."""
    said = " ok  built  eta@1.1.0-distance.1  95192cc\n ok  gate unit   2 tests passed    4.5s\n"
    assert not missing(told(said), told(said.replace("95192cc", "0000000").replace("4.5s", "13.1s")))
    for wrong in (said.replace("1.1.0", "1.2.0"), said.replace("unit", "units"), said.splitlines()[1]):
        assert missing(told(said), told(wrong))
    assert told("412 outcomes, +0.20 [-0.10, +0.5]") == told("7 outcomes, -1.25 [-2, +0.25]")
