"""This file writes the first files of a service: what is found in its folder decides, and nothing is overwritten.

Where the folder is new and an application is in the repository already, it stays where it is, and is shared.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

APPS = re.compile(r"^(\w+)\s*(?::[^=]*)?=\s*(?:fastapi\.)?(?:FastAPI|Starlette|Quart|Litestar)\(", re.MULTILINE)
HEALTH = re.compile(r"""\.(?:get|route)\(\s*["'](/(?:health|healthz|ready|readyz|live|livez|ping)/?)["']""")
AT_THE_ROOT = re.compile(r"""\.(?:get|route)\(\s*["']/["']""")
NAMED = re.compile(r"^\s*([A-Za-z0-9][A-Za-z0-9._-]*)", re.MULTILINE)
USUAL = ("main", "app", "asgi")  # modules that an application is looked for in first
NOT_SERVED = ("tests", "test", "docs", "examples")
NOT_IMPORTED = ("conftest.py", "setup.py", "noxfile.py", "tasks.py")
DECLARED = "branchline.toml"
ASKED = "requirements.txt"

SERVICE = """\
# {service}: how it is built, checked, served and judged. The folder's name is the service's name.
# branchline check tells what is wrong with this file; a key that nobody knows is an error.
kind = "{kind}"{kind_says}
serve = {serve}
{shared}{more}
[gates]  # what has to hold before any traffic; also: {{ call = "module:function" }}, {{ command = [...] }}, load tests
{gate}
"""
PYTEST = 'unit = { pytest = "tests" }'
BESIDE = 'unit = {{ command = ["python", "-m", "pytest", "-q", "{up}tests"] }}'
SHARED = "shared = [{shared}]  # of the repository, besides this folder: imported as from its root\n"
ANSWERS = "answers = { rps = 5, seconds = 2 }  # no Python here: so what is checked is what it answers in staging"
MODEL = """\
# data = {{ sales = "data/sales/*.csv" }}   # not in git; pinned by: branchline data update
# steps = {{ train = "steps:train" }}       # functions; their parameters name data and other steps
# What a challenger is judged by, and which effect is worth a change. Outcomes come in at POST /{service}/-/outcomes
metric = { name = "success", kind = "binary", direction = "higher", mde = 0.05, window = "1h" }
rollout = { share = 50 }                  # per cent of the traffic that a challenger gets
"""
APP = """\
rollout = { slice = 10 }   # per cent of the traffic that a canary gets
"""
SERVING = '''\
"""This file answers the requests of {service}."""


def predict(request: dict[str, float]) -> dict[str, float]:
    """Answer one request: its JSON comes in, what is returned goes out as JSON."""
    return {{"prediction": 0.0}}
'''
TEST_MODEL = '''\
"""The unit tests of {service}: the gate `unit` runs them."""

from serving import predict


def test_it_answers() -> None:
    assert predict({{}})["prediction"] == 0.0
'''
TEST_APP = '''\
"""The unit tests of {service}: the gate `unit` runs them."""


def test_it_can_be_imported() -> None:
    import {module}

    assert {module}
'''


@dataclass(frozen=True, slots=True)
class Found:
    """What the folder tells of a service: how it listens, and the packages that are needed for that.

    `asked` are those that its own requirements.txt names, normalised; None where there is no such file. `shared` are
    the paths of an application that is not in the folder itself, and `up` leads from there to the repository's root.
    """

    kind: str
    serve: str
    packages: tuple[str, ...]
    module: str = ""
    said: str = ""
    asked: frozenset[str] | None = None
    shared: tuple[str, ...] = ()
    up: str = ""

    @property
    def tested(self) -> bool:
        """Whether the repository's own tests are among what is shared."""
        return "tests" in self.shared

    @property
    def is_python(self) -> bool:
        """Whether there is Python to be tested by pytest."""
        return bool(self.packages)


def detected(folder: Path, kind: str = "", top: Path | None = None) -> Found:
    """Find out what is there already: how a service is served, and the packages that it asks for.

    For a new folder the whole repository is looked at, when its `top` is given.
    """
    found, path = served(folder, kind), folder / ASKED
    if top is not None and not any(folder.glob("*")) and (beside := shared(folder, kind, top)):
        found, path = beside, top / ASKED
    if not path.is_file():
        return found
    named = NAMED.findall(path.read_text(encoding="utf-8", errors="replace"))
    return replace(found, asked=frozenset(re.sub(r"[-_.]+", "-", name).lower() for name in named))


def served(folder: Path, kind: str = "") -> Found:
    """Find out how a service is served: a Procfile, an ASGI application, or else a `predict` of its own."""
    procfile = folder / "Procfile"
    if procfile.is_file():
        for line in procfile.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, command = line.partition(":")
            if name.strip() == "web":
                words = ", ".join(quoted(word) for word in shlex.split(command))
                said, packages = "Procfile: let it listen on {socket}", ("pytest",) if any(folder.glob("*.py")) else ()
                return Found(kind or "app", f"{{ command = [{words}] }}", packages, said=said)
    path = application(folder)
    return (
        asgi(folder, path, kind)
        if path
        else Found(kind or "model", '{ predict = "serving:predict" }', ("uvicorn",), "serving")
    )


def shared(folder: Path, kind: str, top: Path) -> Found | None:
    """An application of the repository that a folder of its own is to serve; None where there is none.

    Shared is what it can import: its package, or when it is a module of the root all that is there; and the tests.
    """
    path = application(top)
    if path is None:
        return None
    found, paths = asgi(top, path, kind), [path.parts[0]]
    if len(path.parts) == 1:
        paths = sorted(each.name for each in top.glob("*.py") if each.name not in NOT_IMPORTED)
        paths += sorted(each.parent.name for each in top.glob("*/__init__.py") if each.parent.name not in NOT_SERVED)
    paths += ["tests"] if (top / "tests").is_dir() else []
    return replace(found, shared=tuple(paths), up="../" * len(folder.relative_to(top).parts))


def application(folder: Path) -> PurePath | None:
    """The module below a folder that has an ASGI application; None where there is none."""
    texts = ((path, (folder / path).read_text(encoding="utf-8", errors="replace")) for path in modules(folder))
    return next((path for path, text in texts if APPS.search(text)), None)


def asgi(folder: Path, path: PurePath, kind: str) -> Found:
    """How the application in a module is served, and which of its paths says that it is ready."""
    text = (folder / path).read_text(encoding="utf-8", errors="replace")
    module = ".".join(path.with_suffix("").parts).removesuffix(".__init__")
    (name,) = APPS.findall(text)[:1]
    health = HEALTH.search(text)
    ready = health[1] if health else "" if AT_THE_ROOT.search(text) or "FastAPI(" not in text else "/openapi.json"
    words = f'command = ["uvicorn", "{module}:{name}", "--uds", "{{socket}}"]' + (
        f', health = "{ready}"' if ready else ""
    )
    return Found(kind or "app", f"{{ {words} }}", ("uvicorn",), module, f"{path}: an ASGI app")


def modules(folder: Path) -> list[PurePath]:
    """The modules an application may be in, by their path: the folder's own before its packages', usual ones first.

    What is in another service's folder is its own.
    """
    own = [*folder.glob("*.py"), *(each for each in folder.glob("*/*.py") if not (each.parent / DECLARED).exists())]
    paths = [path.relative_to(folder) for path in own]
    likely = [path for path in paths if all(part.isidentifier() for part in path.with_suffix("").parts)]
    within = [path for path in likely if path.parts[0] not in NOT_SERVED]
    return sorted(within, key=lambda path: (len(path.parts), path.stem not in USUAL, path))


def quoted(word: str) -> str:
    """A word as a TOML string."""
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'


def files(service: str, found: Found) -> dict[str, str]:
    """The files of a new service by their path in its folder."""
    model, gate = found.kind == "model", PYTEST if found.is_python else ANSWERS
    gate = BESIDE.format(up=found.up) if found.tested else gate
    paths = SHARED.format(shared=", ".join(map(quoted, found.shared))) if found.shared else ""
    says = "  # released by an A/B test" if model else "  # released by a canary"
    head = SERVICE.format(
        service=service, kind=found.kind, kind_says=says, serve=found.serve, gate=gate, shared=paths,
        more=(MODEL if model else APP).replace("{{", "{").replace("}}", "}").replace("{service}", service).rstrip(),
    )  # fmt: skip
    written = {DECLARED: head}
    if found.is_python:
        more = sorted({*found.packages, "pytest"} - (found.asked or frozenset()))
        lines = [f"-r {found.up}{ASKED}", *more] if found.asked is not None else more
        written["requirements.in"] = "".join(f"{line}\n" for line in lines)
    if found.module == "serving":
        written["serving.py"] = SERVING.format(service=service)
    if found.module and not found.tested:
        template = TEST_MODEL if found.module == "serving" else TEST_APP
        written[f"tests/test_{service.replace('-', '_')}.py"] = template.format(service=service, module=found.module)
    return written


def missing(folder: Path, written: dict[str, str]) -> dict[str, str]:
    """Those that are not there yet."""
    return {name: text for name, text in written.items() if not (folder / name).exists()}
