"""This file tests how a service file is read: what it may say, and that all that is wrong with one is told at once."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from branchline.adapters import servicefile
from branchline.core import lifecycle as law
from branchline.core.spec import Gate, Metric, Project, Rollout, Serving, Source, Spec, Step, Unit
from branchline.core.waiting import fits
from branchline.errors import BadServiceFile

PATH = "services/housing/branchline.toml"
SMALL = 'kind = "app"\nserve = { command = ["node", "server.js"], health = "/healthz" }\n'
DIRECTION = 'gates.h: max_worse needs direction = "higher" or "lower": which way is better?'
WHOLE = """\
kind = "model"
major = 2
benchmark = true
python = "3.11"
serve = { predict = "s:predict", load = "s:load", sample = "tests/sample.json", schema = "schema.json", instances = 2 }
data = { sales = "data/sales/*.csv" }
parameters = { months = "2006-01..2007-12", depth = 3, fast = true }
shared = ["lib/common/"]
metric = { name = "abs_pct_error", kind = "error", bounds = [0, 100], mde = 3, window = "1s" }
[steps]
clean = "steps:clean"
report = { command = ["sh", "-c", "x"], inputs = ["clean"], output = "report.txt", seconds = "1m" }
[gates]
data = "gates:data"
unit = { pytest = "tests/unit" }
lint = { command = ["ruff", "check", "."] }
holdout = { value = "clean.mape", max = 25, max_worse = 1.0 }
load = { rps = 50, seconds = 2, p99_ms = 60 }
[guardrails]
bad_outcome = { above = 30 }
[rollout]
slots = 2
share = 20
approval = "before"
warm = "15m"
min_duration = "1d"
canary = { duration = "1.5h", requests = 50 }
skip_ab = "nobody would notice"
unit = { cookie = "customer" }
"""


def read(text: str, path: str = PATH) -> Spec:
    return servicefile.read_service(text.encode(), path)


def problems(text: str, path: str = PATH) -> tuple[str, ...]:
    with pytest.raises(BadServiceFile) as told:
        read(text, path)
    assert told.value.fields["path"] == path
    found: tuple[str, ...] = told.value.fields["problems"]
    assert told.value.cause == "\n".join(found)
    return found


# ---- what it may say


def test_a_small_file_is_enough_and_the_rest_has_defaults() -> None:
    spec = read(SMALL)
    assert spec == Spec(
        "housing", "services/housing", "app", serving=Serving(command=("node", "server.js"), health="/healthz")
    )


def test_all_that_can_be_said_arrives() -> None:
    spec = read(WHOLE)
    assert (spec.name, spec.folder, spec.kind, spec.python) == ("housing", "services/housing", "model", "3.11")
    assert spec.closure == ("services/housing", "lib/common")
    assert spec.serving == Serving("s:predict", "s:load", sample="tests/sample.json", instances=2, schema="schema.json")
    assert (spec.major, spec.benchmark) == (2, True)
    assert spec.data == (Source("sales", "data/sales/*.csv"),)
    assert spec.parameters == (("months", "2006-01..2007-12"), ("depth", "3"), ("fast", "true"))
    assert spec.steps == (
        Step("clean", "steps:clean"),
        Step("report", command=("sh", "-c", "x"), inputs=("clean",), output="report.txt", seconds=60),
    )
    assert spec.gates == (
        Gate("data", "call", "gates:data"),
        Gate("unit", "pytest", path="tests/unit"),
        Gate("lint", "command", command=("ruff", "check", ".")),
        Gate("holdout", "compare", value="clean.mape", max=25, max_worse=1),
        Gate("load", "load", rps=50, seconds=2, p99_ms=60),
    )
    assert spec.metric == Metric("abs_pct_error", "error", "lower", 3, (0, 100), 1.0)
    assert spec.guardrails.bad_outcome_above == 30
    assert spec.rollout == Rollout(
        slots=2, share=20, approval="before", min_seconds=86400, canary_seconds=5400, canary_requests=50,
        skip_ab="nobody would notice", unit=Unit("cookie", "customer"),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "seconds"),
    [('"250ms"', 0.25), ('"1s"', 1), ('"15m"', 900), ('"2h"', 7200), ('"14d"', 1209600), ("90", 90), ("0.5", 0.5)],
)
def test_durations(text: str, seconds: float) -> None:
    assert read(f"{SMALL}[rollout]\nwarm = {text}\n").rollout.warm_seconds == pytest.approx(seconds)


def test_the_same_file_is_the_same_spec_whatever_the_form_of_its_tables() -> None:
    assert read("kind = 'app'\n[serve]\nhealth = '/healthz'\ncommand = ['node', 'server.js']\n") == read(SMALL)


def test_the_project_file() -> None:
    text = b'[project]\nname = "shop"\ndefault_branch = "trunk"\ngateway_port = 8080\nhosts = ["nas.lan"]\n'
    assert servicefile.read_project(text) == Project("shop", "trunk", 8080, ("nas.lan",))
    with pytest.raises(BadServiceFile) as told:
        servicefile.read_project(b'[project]\nname = "shop"\ngateway = 1\n')
    assert told.value.cause == "line 3: unknown key project.gateway; did you mean gateway_port?"


@pytest.mark.parametrize("name", ["main", "next/shown", "release-1.2", ""])
def test_a_default_branch(name: str) -> None:
    text = f'[project]\nname = "shop"\ndefault_branch = "{name}"\n'
    assert servicefile.read_project(text.encode()).default_branch == name


@pytest.mark.parametrize("name", ["-x", "a..b", "a b", "$(id)", "/x", "x/", "experiment--housing--alex", "a.lock"])
def test_what_cannot_be_the_default_branch_is_refused_F8(name: str) -> None:
    with pytest.raises(BadServiceFile) as told:
        servicefile.read_project(f'[project]\nname = "shop"\ndefault_branch = "{name}"\n'.encode())
    assert told.value.cause.startswith(f"line 3: project.default_branch: {name!r} is ")


# ---- what is wrong with it

WRONG = {
    "kind = 'modle'\n": "kind: Input should be 'model' or 'app'",
    "serv = {}\n": "unknown key serv; did you mean serve?",
    "zzz = 1\n": "unknown key zzz",
    "serve = { predict = 'm:f', comand = ['x'] }": "unknown key serve.comand; did you mean command?",
    "serve = {}": "serve: exactly one of predict, command says what it is, not none",
    "serve = { predict = 'm:f', command = ['x'] }": "serve: exactly one of predict, command says what it is, "
    "not predict and command",
    "serve = { predict = 'm.f' }": "serve.predict: 'm.f' is no function; write it as module:function",
    "serve = { command = ['x'], load = 'm:f' }": "serve: load goes with predict, not with a command",
    "serve = { command = ['x'], prewarm = true }": "serve: prewarm goes with predict, not with a command",
    "serve = { command = 'x' }": "serve.command: Input should be a valid list",
    "serve = { command = [] }": "serve.command: List should have at least 1 item after validation, not 0",
    "serve = { command = ['x'], instances = '2' }": "serve.instances: Input should be a valid integer",
    "serve = { command = ['x'], instances = true }": "serve.instances: Input should be a valid integer",
    "serve = { command = ['x'], instances = 0 }": "serve.instances: Input should be greater than or equal to 1",
    "serve = { command = ['x'], start = '5 minutes' }": "serve.start: '5 minutes' is no duration; "
    'write it as "250ms", "1s", "15m", "2h" or "14d"',
    "serve = { command = ['x'], start = nan }": "serve.start: Input should be a finite number",
    "serve = { command = ['x'], drain = -1 }": "serve.drain: Input should be greater than or equal to 0",
    "data = { sales = '../secret' }": "data.sales.path: '../secret' leads out of the project; write a path below it",
    "data = { sales = '/etc' }": "data.sales.path: '/etc' leads out of the project; write a path below it",
    "data = { Sales = 'x' }": "data.Sales: String should match pattern '^[a-z][a-z0-9_]*$'",
    "shared = ['..']": "shared.0: '..' leads out of the project; write a path below it",
    "[steps]\ntrain = 'train'": "steps.train.call: 'train' is no function; write it as module:function",
    "[steps.train]\ncommand = ['x']": "steps.train: a command must say which file or folder it writes: output",
    "[steps.train]\ncal = 'm:f'": "unknown key steps.train.cal; did you mean call?",
    "[steps]\na = { call = 'm:f', output = 'x' }": "steps.a: a function's parameters are its inputs and its "
    "result its output; leave both out",
    "[steps]\na = { command = ['x'], output = 'o', inputs = ['b'] }": "step a needs 'b', which is no step, data or "
    "parameter",
    "data = { a = 'x' }\nsteps = { a = 'm:f' }": "a is used twice: steps, data and parameters share their names",
    "[gates]\nunit = 'tests/unit'": "gates.unit.call: 'tests/unit' is no function; write it as module:function",
    "[rollout]\nunit = {}": "rollout.unit: exactly one of header, cookie, path, claim says what it is, not none",
    "[rollout]\nunit = { cookie = 'a', claim = 'b' }": "rollout.unit: exactly one of header, cookie, path, claim says "
    "what it is, not cookie and claim",
    "[rollout]\nunit = { path = '/users/' }": "rollout.unit.path: String should match pattern "
    r"'^(/[A-Za-z0-9_.~-]+)*/\{unit\}(/[A-Za-z0-9_.~-]+)*/?$'",
    "[gates]\nunit = {}": "gates.unit: exactly one of call, pytest, command, value, rps says what it is, not none",
    "[gates]\nunit = { pytst = 'x' }": "unknown key gates.unit.pytst; did you mean pytest?",
    "[gates]\nunit = { pytest = 'x', max = 1 }": "gates.unit: max does not go with pytest; known are seconds",
    "[gates]\nh = { value = 'a.b' }": "gates.h: a comparison needs max, min or max_worse",
    "[gates]\nh = { value = 'a.b', max_worse = 1 }": DIRECTION,
    "[gates]\nh = { value = 'a.b', max_worse = 1, min = 0, max = 1 }": DIRECTION,
    "[gates]\nh = { value = 'a.b', max = 1 }": "gate h compares a.b, but there is no such step",
    "[metric]\nname = 'x'\nkind = 'error'": "metric: 'x' is no error; known are abs_pct_error, abs_error, "
    "squared_error",
    "[metric]\nname = 'abs_eror'\nkind = 'error'": "metric: 'abs_eror' is no error; known are abs_pct_error, "
    "abs_error, squared_error; did you mean abs_error?",
    "[metric]\nname = 'x'\nbounds = [1, 0]": "metric: bounds [1.0, 0.0] are empty; write the lower one first",
    "[metric]\nname = 'x'\nmde = 0": "metric.mde: Input should be greater than 0",
    "[metric]\nname = 'abs_error'\nkind = 'error'\ndirection = 'higher'": "metric: a larger error is never "
    "better: direction is lower",
    "guardrails.bad_outcome.above = 1": "guardrails.bad_outcome needs a [metric]: outcomes are its values",
    "guardrails.bad_outcome.abov = 1": "unknown key guardrails.bad_outcome.abov; did you mean above?",
    "[rollout]\nslots = 2\nshare = 50": "rollout: 2 challengers of 50 % leave the incumbent less than 2 %",
    "[rollout]\nslots = 3\nshare = 33": "rollout: 3 challengers of 33 % leave the incumbent less than 2 %",
    "[rollout]\nshare = 1": "rollout.share: Input should be greater than or equal to 2",
    "[rollout]\nshare = 99": "rollout.share: Input should be less than or equal to 98",
    "[rollout]\nslice = 100": "rollout.slice: Input should be less than or equal to 99",
    "[rollout]\nslots = 21": "rollout.slots: Input should be less than or equal to 20",
    "[rollout]\nshare = 20\nharm_budget = 5": "rollout: harm_budget says which share there is, as far as the "
    "evidence allows: leave share out",
    "[rollout]\nharm_budget = 5": "rollout.harm_budget is of an A/B test, and this is released without one",
    "kind = 'model'\nmetric = { name = 'x' }\n[rollout]\nharm_budget = 5": "rollout.harm_budget needs a [metric] with "
    "an mde or a margin: harm is what is lost on it",
    "kind = 'model'\nmetric = { name = 'x', kind = 'ratio', mde = 1 }\n[rollout]\nharm_budget = 5": "rollout."
    "harm_budget cannot hold for a ratio: nothing bounds what one unit can cost",
    "kind = 'model'\nmetric = { name = 'x', mde = 1 }\n[rollout]\nharm_budget = 5": "rollout.harm_budget needs "
    "metric.bounds: without them one unit can cost anything",
    "[rollout]\nmin_duration = '2d'\nmax_duration = '1d'": "rollout: min_duration is longer than max_duration",
    "[rollout.canary]\nrequest = 1": "unknown key rollout.canary.request; did you mean requests?",
    "[rollout]\napproval = 'never'": "rollout.approval: Input should be '', 'before' or 'after'",
}


@pytest.mark.parametrize(
    ("limits", "better"),
    [
        ("max_worse = 1, max = 9", "lower"),
        ("max_worse = 1, min = 9", "higher"),
        ("max_worse = 1, max = 9, direction = 'higher'", "higher"),
        ("max_worse = 1, min = 1, max = 9, direction = 'higher'", "higher"),
    ],
)
def test_which_way_is_better_is_what_the_one_limit_says_else_has_to_be_said(limits: str, better: str) -> None:
    """Killer: take lower for better where an accuracy has a floor: worse would pass, and better fail."""
    (gate,) = read(f"{SMALL}steps = {{ a = 'm:f' }}\n[gates]\nh = {{ value = 'a.b', {limits} }}\n").gates
    assert gate.direction == better


@pytest.mark.parametrize("slots", [1, 20])
@pytest.mark.parametrize("part", [1, 99])
@pytest.mark.parametrize("approval", ["", "before", "after"])
def test_the_law_takes_what_a_service_file_may_say(slots: int, part: int, approval: str) -> None:
    """Killer: let the reader take a slice of 100, which the law refuses for ever after."""
    rollout = read(f'{SMALL}[rollout]\nslots = {slots}\nslice = {part}\napproval = "{approval}"\n').rollout
    after = law.move(law.Service("housing"), law.Configured(rollout.slots, rollout.slice, rollout.approval))
    assert (after.slots, after.slice, after.approval) == (slots, part, approval)


@pytest.mark.parametrize(("slots", "share"), [(1, 2), (1, 98), (2, 49), (20, 4), (20, 0)])
def test_the_law_takes_every_share_a_service_file_may_ask_for(slots: int, share: int) -> None:
    asked = f"share = {share}\n" if share else ""
    rollout = read(f"{SMALL}[rollout]\nslots = {slots}\n{asked}").rollout
    service = law.Service("housing", slots=rollout.slots)
    share = rollout.share or 100 // (rollout.slots + 1)
    for number in range(slots):
        candidate = law.Candidate(f"b{number}", "c", "c", None, law.Method.AB_TEST, None, line=1, share=share)
        assert fits(service, candidate, share)
        service = replace(service, candidates=(*service.candidates, replace(candidate, phase=law.Phase.TESTING)))


@pytest.mark.parametrize(
    "metric", ["kind = 'binary', mde = 0.1", "kind = 'time-to', mde = 1", "bounds = [1, 5], margin = 1"]
)
def test_a_harm_budget_is_of_what_has_bounds(metric: str) -> None:
    text = f"{SMALL.replace('app', 'model')}metric = {{ name = 'x', {metric} }}\n[rollout]\nharm_budget = 5\n"
    assert (read(text).rollout.harm_budget, read(text).rollout.share) == (5, 0)


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_is_said(text: str) -> None:
    required = {"kind": "kind = 'app'", "serve": "serve = { command = ['x'] }"}
    whole = "\n".join([line for key, line in required.items() if not text.startswith(f"{key} =")] + [text])
    assert WRONG[text] in [re.sub("^line [0-9]+: ", "", problem) for problem in problems(whole)]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("kind = 'no'\nserve.command = ['x']", 1),
        ("kind = 'app'\n\nserve.comand = ['x']", 3),
        ("kind = 'app'\n[serve] # here\ncommand = ['x']\n  helth = '/'", 4),
        ("kind = 'app'\nserve = { command = ['x'], helth = '/' }", 2),
        ("kind = 'app'\n[serve]\ncommand = ['x']\n[rollout.canary]\nrequests = 0", 5),
        ("kind = 'app'\nserve.command = ['x']\n[steps]\na = 'm:f'\n\"b\" = 'm'", 5),
        ("kind = 'app'\n[serve]\nhealth = '/'", 2),
        ("kind = 'app'", 0),
    ],
)
def test_a_problem_is_found_on_its_line(text: str, line: int) -> None:
    (found, *_) = problems(text)
    assert found.startswith(f"line {line}: ") if line else not found.startswith("line")


def test_all_problems_are_told_at_once() -> None:
    found = problems('kind = "modle"\nserve = { predict = "m:f", helth = "/" }\nstpes = {}\n[rollout]\nslots = "1"\n')
    assert len(found) == 4
    assert found[1] == "line 2: unknown key serve.helth; did you mean health?"


@pytest.mark.parametrize("text", ["\nkind = \n", "kind = 'app'\nkind = 'app'\n", "\n[serve\n", "\n= 1"])
def test_what_is_no_TOML_is_said_with_its_line(text: str) -> None:
    (found,) = problems(text)
    assert "it is not TOML" in found
    assert "(at line 2" in found


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(BadServiceFile, match="cannot be used") as told:
        servicefile.read_service(b"kind = '\xff'", PATH)
    assert "not UTF-8" in told.value.cause


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"\xef\xbb\xbfkind = 'app'", "it begins with a byte order mark"),
        ("kind = 'app'".encode("utf-16"), "it is not UTF-8"),
        (b"a = " + b"[" * 5000, "its tables or lists are nested too deeply"),
        (b"a = " + b"{ a = " * 5000, "its tables or lists are nested too deeply"),
        (b"#" * 200_000, "it has 200,000 bytes; a file of at most 131,072 is read"),
    ],
    ids=["BOM", "UTF-16", "lists", "tables", "large"],
)
def test_what_no_person_wrote_is_refused_in_words_F2_F6(text: bytes, said: str) -> None:
    """Killer: leave the RecursionError to whoever reads the file, and a push stops the build as our own bug."""
    with pytest.raises(BadServiceFile) as told:
        servicefile.read_service(text, PATH)
    assert told.value.cause.startswith(said)


def test_a_thousand_steps_are_read_and_no_more_F7() -> None:
    def steps(number: int) -> str:
        return f"{SMALL}\n[steps]\n" + "\n".join(f"s{n} = 'm:f'" for n in range(number))

    assert len(servicefile.read_service(steps(1000).encode(), PATH).steps) == 1000
    assert problems(steps(1001)) == ("it has 1,001 steps; at most 1,000 are run",)


@pytest.mark.parametrize("folder", ["Housing", "a--b", "a_b", "x" * 41, "$(id)"])
def test_a_folder_whose_name_names_no_service_is_refused_F8(folder: str) -> None:
    (found,) = problems(SMALL, f"services/{folder}/branchline.toml")
    assert "cannot name a service" in found


def test_a_service_at_the_root_is_refused() -> None:
    (found,) = problems(SMALL, "branchline.toml")
    assert "[project] only" in found


# ---- the schema for editors


@cache
def schema() -> dict[str, Any]:
    return servicefile.json_schema()


def test_the_shipped_schema_is_in_step() -> None:
    """When this fails: python -m branchline.adapters.servicefile > branchline/adapters/branchline.schema.json."""
    shipped = Path(servicefile.__file__).with_name("branchline.schema.json")
    assert json.loads(shipped.read_text(encoding="utf-8")) == schema()


@pytest.mark.parametrize(
    ("document", "fine"),
    [
        ({"kind": "app", "serve": {"command": ["x"]}, "gates": {"a": "m:f", "b": {"pytest": "t"}}}, True),
        ({"kind": "app", "serve": {"command": ["x"]}, "rollout": {"warm": "1h"}}, True),
        ({"kind": "app", "serve": {"command": ["x"]}, "rollout": {"warm": 3600}}, True),
        ({"kind": "app", "serve": {"command": ["x"]}, "rollout": {"warm": -1}}, False),
        ({"kind": "app", "serve": {"command": ["x"]}, "rollout": {"warm": "1 hour"}}, False),
        ({"kind": "app", "serve": {"command": ["x"]}, "metric": {"name": "m", "window": 0}}, False),
        ({"kind": "app", "serve": {"command": ["x"]}, "gates": {"load": {"rps": 9, "seconds": -1}}}, False),
        ({"kind": "app", "serve": {"comand": ["x"]}}, False),
        ({"kind": "app"}, False),
    ],
)
def test_the_schema_says_what_the_reader_says(document: dict[str, Any], fine: bool) -> None:
    assert jsonschema.Draft202012Validator(schema()).is_valid(document) is fine


def test_the_schema_is_made_of_keywords_that_editors_know() -> None:
    """Killer: put a bound behind the validator of a duration, and the schema says `ge`."""
    known = {*jsonschema.Draft202012Validator.VALIDATORS, "$schema", "$defs", "title", "description", "default"}
    named = {"properties", "patternProperties", "$defs"}  # the keys of these are names, not keywords

    def unknown(schema: Any) -> set[str]:
        if isinstance(schema, list):
            return set().union(*map(unknown, schema))
        if not isinstance(schema, dict):
            return set()
        inner = [list(value.values()) if key in named else value for key, value in schema.items() if key != "default"]
        return (set(schema) - known).union(*map(unknown, inner))

    assert unknown({"minimum": 0, "ge": 0, "properties": {"le": {"gt": 0}}}) == {"ge", "gt"}
    assert not unknown(schema())


def test_all_that_a_step_and_a_source_can_say_arrives() -> None:
    """1.17, 2.16, 2.26, 3.23: fan-out, conditions, resources, an environment of its own; data with its key."""
    spec = read("""kind = "app"
serve = { command = ["x"] }
parameters = { regions = ["north", "south"], deep = true }
[data.sales]
path = "https://example.org/sales.csv"
key = ["pid"]
store = false
watch = true
every = "0 6 * * 1"
[steps.train]
call = "steps:train"
for_each = { region = "regions" }
when = "deep"
reads = ["sql/*.sql"]
env = { BATCH = "8" }
reuse = "always"
because = "it asks a server that never changes"
memory = "1.5GB"
cores = 2
gpus = 1
retries = 3
environment = "training"
save = "skops"
tolerance = 1e-6
""")
    assert spec.data == (Source("sales", "https://example.org/sales.csv", ("pid",), False, True, "0 6 * * 1"),)
    assert spec.parameters == (("regions", '["north", "south"]'), ("deep", "true"))
    assert spec.steps == (
        Step(
            "train", "steps:train", reads=("sql/*.sql",), env=(("BATCH", "8"),), reuse="always",
            because="it asks a server that never changes", for_each=("region", "regions"), when="deep",
            memory=1_500_000_000, cores=2.0, gpus=1, retries=3, environment="training", save="skops", tolerance=1e-6,
        ),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("said", "named"),
    [
        ('call = "s:f"\nreuse = "always"', "say why"),
        ('command = ["x"]\noutput = "o"\nsave = "json"', "a command writes its output itself"),
        ('call = "s:f"\nmemory = "2 gigs"', "no size"),
        ('call = "s:f"\nfor_each = { a = "gone" }', "needs 'gone'"),
        ('call = "s:f"\nfor_each = { rate = "rate" }', "the name of something else"),
        ('call = "s:f"\nwhen = "gone"', "needs 'gone'"),
        ('call = "s:f"\n[data]\nd = { path = "d", every = "mondays" }', "no schedule"),
    ],
)
def test_what_a_step_may_not_say(said: str, named: str) -> None:
    with pytest.raises(BadServiceFile) as caught:
        read(f'kind = "app"\nserve = {{ command = ["x"] }}\nparameters = {{ rate = 3 }}\n[steps.one]\n{said}\n')
    assert named in str(caught.value.cause)
