"""This file tests what the recorder decides without watching anything: names of paths and modules, words, lines."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from branchline.sdk.descend import carried
from branchline.sdk.facts import absolute, heard, mark, module_names, place, spots
from branchline.sdk.record import bound_at

KNOWN = spots(["/tree"], ["/tree/data", "/env", "/", "/data/one.csv"])


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/tree", ("project", "")),
        ("/tree/sql/q.sql", ("project", "sql/q.sql")),
        ("/tree/data", ("allowed", "")),
        ("/tree/data/x", ("allowed", "")),
        ("/tree/database", ("project", "database")),
        ("/data/one.csv", ("allowed", "")),
    ],
)
def test_the_deepest_folder_decides(path: str, found: tuple[str, str]) -> None:
    assert place(path, KNOWN) == found


def test_what_is_in_no_folder_is_outside() -> None:
    known = spots(["/tree"], ["/tree", "/env/"])
    assert [place(path, known)[0] for path in ("/tree2", "/tree/x", "/env/x", "/x")] == [
        "outside",
        "project",
        "allowed",
        "outside",
    ]


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("/tree/service/features.py", ["features", "service.features"]),
        ("/tree/service/models/__init__.py", ["models", "service.models"]),
        ("/tree/service/__init__.py", ["service"]),
        ("/tree/lib.py", ["lib"]),
        ("/tree/no-name.py", []),
        ("/tree/lib.so", []),
        ("/other/lib.py", []),
    ],
)
def test_a_file_may_be_imported_by_several_names(path: str, names: list[str]) -> None:
    assert module_names(path, ["/tree/service", "/tree"]) == names


def test_paths_are_made_absolute(tmp_path: Path) -> None:
    here = os.getcwd()
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        assert [absolute("a/../b"), absolute(b"a"), absolute(Path("a")), absolute(None)] == [
            f"{here}/b",
            f"{here}/a",
            f"{here}/a",
            here,
        ]
        assert [absolute(folder), absolute("x", folder), absolute("/x//y", folder)] == [
            str(tmp_path),
            f"{tmp_path}/x",
            "/x/y",
        ]
    finally:
        os.close(folder)


def test_a_file_that_is_written_has_another_mark(tmp_path: Path) -> None:
    path = tmp_path / "a"
    absent = mark(str(path))
    path.write_text("1")
    one = mark(str(path))
    path.write_text("12")
    assert absent is None
    assert one not in (None, mark(str(path)))


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        (b"", []),
        (b'["file", "a"]\n["file", "a"]\n["stat", "a"]\n', [["file", "a"], ["stat", "a"]]),
        (b'["child", "cat", "a.py:1"]\n["child", "cat", "a.py:2"]\n', [["child", "cat", "a.py:1"]]),
        (b'["file", "a"]\n["fi', [["file", "a"], ["blind", "torn"]]),
        (b'["file"]\n3\n["file", "a"]\n', [["blind", "torn"], ["file", "a"]]),
    ],
)
def test_facts_are_heard_once_and_a_torn_line_is_not_lost(text: bytes, facts: list[list[str]]) -> None:
    assert heard(text) == facts


@pytest.mark.parametrize(
    ("words", "carried_words"),
    [
        ("python -c x --multiprocessing-fork", ["python", "-c", "BEGIN; x", "--multiprocessing-fork"]),
        (
            "python -X dev -Wdefault -W error -P -c x",
            ["python", "-X", "dev", "-Wdefault", "-W", "error", "-P", "-c", "BEGIN; x"],
        ),
        (
            "python -m a.b --pipe 3",
            [
                *("python", "-c", "BEGIN; import runpy; runpy.run_module('a.b', run_name='__main__', alter_sys=True)"),
                *("--pipe", "3"),
            ],
        ),
        ("python file.py -c x", None),
        ("python", None),
        ("python -c", None),
        ("python -E", None),
    ],
)
def test_a_python_worker_records_before_its_own_work(words: str, carried_words: list[str] | None) -> None:
    assert carried(words.split(), "BEGIN") == carried_words


MODULE = b"""
A = sorted(
    [],
    key=lambda each: each,
)
B, C = (lambda: 1), 2
D = E = lambda: 1
F: object = lambda: 1
G.h = lambda: 1
@d(lambda: 1)
def f(x=lambda: 1):
    pass
@d(
    lambda: 1
)
class K: x = lambda: 1
f(lambda: 1)
"""


@pytest.mark.parametrize(
    ("line", "name"),
    [
        (2, "A"),
        (4, "A"),
        (6, ""),
        (7, ""),
        (8, "F"),
        (9, ""),
        (10, "f"),
        (11, "f"),
        (14, "K"),
        (16, "K"),
        (17, ""),
        (99, ""),
    ],
)
def test_a_lambda_is_named_after_the_statement_around_it(line: int, name: str) -> None:
    assert bound_at(MODULE, line) == name
