"""This file writes what a Prometheus reads: families of samples, as text of its format 0.0.4.

FAMILIES has every name and its meaning. Where the values come from is not known here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby

from branchline.core.rates import Total, below, spent

BOUNDS = (1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000)  # milliseconds
FAMILIES = {
    "branchline_build_info": ("gauge", "Which version of Branchline runs; the value is always 1."),
    "branchline_requests_total": ("counter", "Answers by revision and class of status code; no answer is 5xx."),
    "branchline_request_seconds": ("histogram", "Time until the answer of a revision was complete."),
    "branchline_active_requests": ("gauge", "Requests that a revision is answering now."),
    "branchline_process_threads": ("gauge", "Threads of a revision's processes."),
    "branchline_log_warnings_total": ("counter", "Warnings that a revision's processes have printed."),
    "branchline_log_exceptions_total": ("counter", "Tracebacks that a revision's processes have printed."),
    "branchline_gateway_up": ("gauge", "Whether the gateway's process runs."),
    "branchline_gateway_requests_total": ("counter", "All answers of the gateway by class of status code."),
    "branchline_gateway_connections": ("gauge", "Connections of callers that are open now."),
    "branchline_gateway_memory_bytes": ("gauge", "Memory that the gateway has allocated."),
    "branchline_gateway_rejected_documents_total": ("counter", "Documents that the gateway refused."),
    "branchline_exposures_unread_lines": ("gauge", "Lines of the gateway's log that are not in the ledger yet."),
    "branchline_exposures_unread_bytes": ("gauge", "Bytes of the gateway's log that are not in the ledger yet."),
    "branchline_exposures_unread_seconds": ("gauge", "How long the oldest request waits to be read from the log."),
    "branchline_exposures_lost": ("gauge", "Requests that a killed gateway had served and not logged."),
    "branchline_exposures_dropped": ("gauge", "Requests that the gateway could not log: a full disk, or nobody reads."),
    "branchline_outcomes_total": ("counter", "Reported outcomes by what became of them."),
    "branchline_metric_units": ("gauge", "Matured units on which the metric of a test is judged, by arm."),
    "branchline_metric_sum": ("gauge", "Sum of their values."),
    "branchline_metric_mean": ("gauge", "Mean of their values; to look at, for a ramp may pull it."),
    "branchline_metric_difference": ("gauge", "The estimate: challenger minus incumbent."),
    "branchline_metric_difference_low": ("gauge", "Lower end of its interval, valid at every look."),
    "branchline_metric_difference_high": ("gauge", "Upper end of its interval, valid at every look."),
    "branchline_metric_evidence": ("gauge", "Evidence that the challenger is better, or worse; decided at 2/alpha."),
    "branchline_metric_progress": ("gauge", "Information so far, as a part of what a test with one look needs."),
    "branchline_guardrail_requests": ("gauge", "Requests or outcomes of the challenger that a guardrail has counted."),
    "branchline_guardrail_bad": ("gauge", "How many of these were bad."),
    "branchline_guardrail_evidence": ("gauge", "Highest evidence that the challenger is worse; breached at 1/alpha."),
    "branchline_pass_seconds": ("summary", "Time of each of the daemon's passes."),
    "branchline_pass_failures_total": ("counter", "Passes that ended with an error."),
    "branchline_troubles": ("gauge", "Troubles as `branchline status` tells them; no service: of all."),
    "branchline_ledger_bytes": ("gauge", "Size of the ledger on the disk."),
    "branchline_disk_free_bytes": ("gauge", "Room that is left where the state folder is."),
}  # fmt: skip
Labels = Mapping[str, str]
Sample = tuple[str, str, Labels, float]  # family, suffix, labels, value

ESCAPED = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})


def histogram(name: str, labels: Labels, total: Total) -> Iterator[Sample]:
    """Times as Prometheus keeps them: in seconds, each bucket with all that was faster."""
    for bound in BOUNDS:
        yield name, "_bucket", {**labels, "le": f"{bound / 1000:g}"}, below(total.times, bound)
    count = sum(total.times.values())
    yield name, "_bucket", {**labels, "le": "+Inf"}, count
    yield name, "_sum", labels, spent(total.times) / 1000
    yield name, "_count", labels, count


def exposition(found: Iterable[Sample]) -> str:
    """The text format of Prometheus, version 0.0.4: each family together, with its type and meaning."""
    order = {name: number for number, name in enumerate(FAMILIES)}
    lines: list[str] = []
    for name, each in groupby(sorted(found, key=lambda sample: order[sample[0]]), key=lambda sample: sample[0]):
        kind, meaning = FAMILIES[name]
        lines += [f"# HELP {name} {meaning}", f"# TYPE {name} {kind}"]
        lines += [f"{name}{suffix}{labelled(labels)} {value:.17g}" for _, suffix, labels, value in each]
    return "\n".join(lines) + "\n"


def labelled(labels: Labels) -> str:
    """Labels in braces, in which backslash, quote and line end are escaped; nothing without any."""
    told = (f'{name}="{value.translate(ESCAPED)}"' for name, value in labels.items())
    return f"{{{','.join(told)}}}" if labels else ""
