"""This file holds dashboard, alert rules and their page to what is really served (3.28): each name, label and command.

Rules and dashboard are read here with what the standard library has; where a machine can have promtool, by that too.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from branchline.cli.main import COMMANDS
from branchline.server.exposition import FAMILIES
from tests import prometheus
from tests.exposition import SUFFIXES

ROOT = Path(__file__).resolve().parents[2]
ALERTS = ROOT / "docs" / "observability" / "alerts.yml"
DASHBOARD = ROOT / "docs" / "observability" / "dashboard.json"
LABELS = {"service", "revision", "code_class", "le", "document", "pass", "job", "word", "branch", "direction", "says"}
WANTED = {"DocumentRejected", "GatewayDown", "RevisionFails", "ExposuresBehind", "DiskFull", "MetricWorse"}
# What the rules say of a scrape: what was scraped every 15 s for five minutes, and which alerts are on then.
SERIES = """\
rule_files: [{rules}]
evaluation_interval: 15s
tests:
  - interval: 15s
    input_series:
      - series: '{series}'
        values: '{values}'
{more}
    alert_rule_test:
      - {{eval_time: 5m, alertname: {alert}, exp_alerts: [{labels}]}}
"""


def rules() -> dict[str, dict[str, str]]:
    """Each rule by its name: expression, how long, severity, summary and next command."""
    text = re.sub(r">-\n((?: {10}.*\n)+)", lambda block: " ".join(block[1].split()) + "\n", ALERTS.read_text())
    found = {}
    for rule in re.split(r"\n +- alert: ", text)[1:]:
        name, _, body = rule.partition("\n")
        found[name] = {key: value.strip().strip('"') for key, value in re.findall(r"^ +(\w+): (.+)$", body, re.M)}
    return found


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    return found


def expressions() -> Iterator[tuple[str, str]]:
    """Every expression, with where it stands."""
    for name, rule in rules().items():
        yield name, rule["expr"]
    for panel in panels():
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    for variable in json.loads(DASHBOARD.read_text())["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["name"], variable["query"]["query"]


def known() -> set[str]:
    """Every name of a sample that is served."""
    return {name + suffix for name, (kind, _) in FAMILIES.items() for suffix in SUFFIXES.get(kind, ("",))} | {"up"}


def test_every_name_is_one_that_is_served() -> None:
    """Killer: rename a metric, and an alert is silent for ever."""
    used = {(where, name) for where, text in expressions() for name in re.findall(r"\bbranchline_\w+", text)}
    assert len(used) > 20
    assert not [each for each in used if each[1] not in known()]


def test_every_label_is_one_that_is_served() -> None:
    for where, text in expressions():
        matched = re.findall(r"[{,]\s*(\w+)\s*(?:=~|!~|!=|=)", text)
        grouped = [
            label for group in re.findall(r"\b(?:by|on) \(([^)]*)\)", text) for label in re.split(r",\s*", group)
        ]
        assert {*matched, *grouped} <= LABELS, where


def test_what_has_to_be_known_has_a_rule() -> None:
    found = rules()
    assert {name.removeprefix("Branchline") for name in found} >= WANTED
    for name, rule in found.items():
        assert rule["severity"] in ("warning", "critical"), name
        assert len(rule["summary"]) > 20, name
        commands = [each.split()[1] for each in rule["next"].split("; ")]
        assert commands, name
        assert set(commands) <= COMMANDS.keys(), name


def test_the_dashboard_can_be_drawn() -> None:
    """No two panels on one place, none over the edge; each with what it shows."""
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24, panel["title"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
        assert panel["targets"], panel["title"]
        assert all(target["legendFormat"] for target in panel["targets"]), panel["title"]
    assert len({panel["id"] for panel in panels()}) == len(panels()) >= 12


def test_promtool_takes_the_rules_and_they_speak_up_in_time(tmp_path: Path) -> None:
    """Each of them on what it is for, and silent on what is well; without promtool the tests above have to do."""
    program = prometheus.program("promtool")
    if not program:
        return
    told = subprocess.run([program, "check", "rules", str(ALERTS)], capture_output=True, text=True)
    assert told.returncode == 0, told.stdout + told.stderr
    named = '{{service="s",revision="1.0.0",code_class="{}"}}'
    well = [f"      - series: 'branchline_requests_total{named.format('2xx')}'\n        values: '0+100x40'"]
    failing = 'branchline_requests_total{service="s",revision="1.0.0",code_class="5xx"}'
    of = "{exp_labels: {severity: critical, service: s, revision: 1.0.0}}"
    test = 'service="s",branch="b",revision="1.1.0",metric="m",direction="higher"'
    difference = f"branchline_metric_difference{{{test}}}"
    evidence = f"      - series: 'branchline_metric_evidence{{{{{test},says=\"worse\"}}}}'\n        values: '{{}}'"
    worse = "{exp_labels: {severity: warning, service: s, branch: b, revision: 1.1.0, metric: m, direction: higher}}"
    kept = "      - series: 'branchline_outcomes_total{{service=\"s\",word=\"kept\"}}'\n        values: '{}'"
    cases = [
        ("branchline_gateway_up", "1 1 0x40", "BranchlineGatewayDown", "{exp_labels: {severity: critical}}", []),
        ("branchline_gateway_up", "1x40", "BranchlineGatewayDown", "", []),
        (failing, "0+10x40", "BranchlineRevisionFails", of, well),
        (failing, "0+1x40", "BranchlineRevisionFails", "", well),
        ("branchline_exposures_unread_seconds", "0+10x40", "BranchlineExposuresBehind",
         "{exp_labels: {severity: warning}}", []),
        ("branchline_exposures_unread_seconds", "0.1x40", "BranchlineExposuresBehind", "", []),
        ('branchline_gateway_rejected_documents_total{document="rds"}', "0 0 0 0 1x40", "BranchlineDocumentRejected",
         "{exp_labels: {severity: critical, document: rds}}", []),
        (difference, "-1x40", "BranchlineMetricWorse", worse, [evidence.format("0+1x40")]),
        (difference, "-1x40", "BranchlineMetricWorse", "", [evidence.format("5x40")]),
        (difference, "1x40", "BranchlineMetricWorse", "", [evidence.format("0+1x40")]),
        ('branchline_outcomes_total{service="s",word="unknown"}', "0+9x40", "BranchlineOutcomesLost",
         "{exp_labels: {severity: warning, service: s}}", [kept.format("0+1x40")]),
        ('branchline_outcomes_total{service="s",word="unknown"}', "0+9x40", "BranchlineOutcomesLost", "",
         [kept.format("0+11x40")]),
    ]  # fmt: skip
    for number, (series, values, alert, labels, more) in enumerate(cases):
        file = tmp_path / f"{number}.yml"
        rest = "\n".join(more)
        text = SERIES.format(rules=bare(tmp_path), series=series, values=values, alert=alert, labels=labels, more=rest)
        file.write_text(text)
        told = subprocess.run([program, "test", "rules", str(file)], capture_output=True, text=True)
        assert told.returncode == 0, text + told.stdout + told.stderr


def test_the_page_shows_a_configuration_that_promtool_takes(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "guides" / "watching.md").read_text()
    block = re.search(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert block is not None
    assert "alerts.yml" in block[1]
    assert {name.strip("`") for name in re.findall(r"job_name: (\w+)", block[1])} == {"branchline"}  # as a rule has it
    program = prometheus.program("promtool")
    if not program:
        return
    (tmp_path / "prometheus.yml").write_text(block[1])
    shutil.copy(ALERTS, tmp_path)
    argv = [program, "check", "config", str(tmp_path / "prometheus.yml")]
    told = subprocess.run(argv, capture_output=True, text=True)
    assert told.returncode == 0, told.stdout + told.stderr


def bare(folder: Path) -> str:
    """The rules without what they say, so that a test need not say it again."""
    file = folder / "alerts.yml"
    text = re.sub(r"^ +annotations:\n(?: {10}.*\n)+", "", ALERTS.read_text(), flags=re.M)
    file.write_text(text)
    return str(file)


def test_the_page_names_every_metric(printed: Callable[[str, str, str], None]) -> None:
    """What is served and what it means, as the address itself says it."""
    rows = [f"| `{name}` | {kind} | {meaning} |" for name, (kind, meaning) in FAMILIES.items()]
    table = "\n".join(["| metric | type | what it says |", "| --- | --- | --- |", *rows])
    printed("docs/guides/watching.md", "metrics", table)
