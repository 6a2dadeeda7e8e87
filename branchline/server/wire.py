"""This file is the API: what may be asked of the daemon, and how an answer or an error looks.

Reads return the engine's documents with their schema id. Every change goes through `ask`, which can also only say
what would be done. Errors are RFC 9457 problem details with a code and the next command.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

import branchline
from branchline.core import codes
from branchline.engine.arriving import made_of
from branchline.engine.asking import Asked
from branchline.engine.controlling import Controller
from branchline.engine.tracking import Tracker
from branchline.engine.trying import Wanted
from branchline.errors import BranchlineError
from branchline.server.planning import planning
from branchline.server.reproducing import reproduction

Document = dict[str, Any]
PROBLEM = "application/problem+json"


class Ask(BaseModel):
    """One request to change something."""

    model_config = ConfigDict(extra="forbid", strict=True)

    command: str
    reference: str
    args: dict[str, int | str] = Field(default_factory=dict)
    actor: str = "somebody"
    because: str = ""
    dry_run: bool = False


class Named(BaseModel):
    """A revision, as people name it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    reference: str


class Result(Named):
    """A result of one of its steps."""

    step: str


class Because(BaseModel):
    """Who wants something, and why."""

    model_config = ConfigDict(extra="forbid", strict=True)

    actor: str = "somebody"
    because: str = ""


class Arrived(BaseModel):
    """New data, of a service and of a source; '' means every one."""

    model_config = ConfigDict(extra="forbid", strict=True)

    service: str = ""
    source: str = ""


class Run(BaseModel):
    """One request to run the steps and gates of a commit that the mirror can read."""

    model_config = ConfigDict(extra="forbid", strict=True)

    service: str
    commit: str
    gates: bool = True
    keep_going: bool = False
    verify: str = ""
    dry_run: bool = False


class Stopping(BaseModel):
    """One request to end a run."""

    model_config = ConfigDict(extra="forbid", strict=True)

    topic: str


def problem(error: BranchlineError) -> JSONResponse:
    """An error as problem details."""
    error = codes.understood(error)
    return JSONResponse(codes.problem(error), codes.status_of(error.code), media_type=PROBLEM)


def api(controller: Controller, metrics: str = "") -> FastAPI:
    """The application that speaks for a controller; `metrics` is the address where a Prometheus may ask."""
    app = FastAPI(title="Branchline", version=branchline.__version__, docs_url=None, redoc_url=None)
    app.add_exception_handler(BranchlineError, lambda request, error: problem(error))
    app.add_exception_handler(Exception, unexpected)
    reads(app, controller, metrics)
    tracking(app, Tracker(controller.ports, controller.desk))
    dossiers(app, controller)
    changes(app, controller)
    arrivals(app, controller)
    reproduction(app, controller)
    planning(app, controller)
    return app


def reads(app: FastAPI, controller: Controller, metrics: str) -> None:
    """Every question that changes nothing."""
    reader, memory = controller.reader, controller.memory

    @app.get("/healthz")
    def health() -> Document:
        """Whether it answers, its version, its epoch (which controller of this repository it is), and where it is
        scraped.
        """
        return {"ok": True, "version": branchline.__version__, "epoch": controller.recorder.epoch, "metrics": metrics}

    @app.get("/v1/status")
    def status(reference: str = "") -> Document:
        """Which revision serves where, how every branch stands, and whether git agrees; of one service or all."""
        document = reader.status(reference) | {"metrics": metrics}
        known = set(controller.services())
        document["troubles"] = [text for (owner, _), text in sorted(controller.troubles.items()) if owner not in known]
        document["troubles"] += controller.unlogged()
        return document

    @app.get("/v1/parity")
    def parity() -> Document:
        """Every difference between git, production and the record, with what repairs it."""
        return controller.parity.document()

    @app.get("/v1/history")
    def history(service: str = "", limit: int = 50, before: int = 0) -> Document:
        """Who did what, when and why, the newest first; `before` is the number of an entry."""
        return reader.history(service, max(1, min(limit, 1000)), before)

    @app.get("/v1/revision")
    def revision(reference: str) -> Document:
        """One revision: what it was made of, its gates, its steps."""
        return memory.revision(reference)

    @app.get("/v1/notes")
    def notes(reference: str) -> Document:
        """What a release brings: commits, gates, verdict."""
        return memory.notes(reference)

    @app.get("/v1/why")
    def why(reference: str, step: str = "") -> Document:
        """Why each step of a revision ran or was reused, and what its gates found."""
        return memory.why(reference, step)

    @app.get("/v1/logs")
    def logs(reference: str, lines: int = 40) -> Document:
        """What the instances of a revision, or its build and gates, printed last."""
        return memory.log(reference, max(1, min(lines, 2000)))

    @app.get("/v1/progress")
    def progress(since: int = 0, topic: str = "", wait: float = 0.0) -> Document:
        """What was done since a note, for whoever follows a deployment; waits up to `wait` seconds for more."""
        notes = controller.progress.since(since, topic, max(0.0, min(wait, 10.0)))
        return {
            "schema": "branchline.progress/1",
            "newest": controller.progress.number,
            "notes": [asdict(n) for n in notes],
        }


def tracking(app: FastAPI, tracker: Tracker) -> None:
    """What runs told, and what they left."""

    @app.get("/v1/runs")
    def runs(
        service: str = "", step: str = "", state: str = "", where: str = "", limit: int = 20, before: int = 0
    ) -> Document:
        """Recorded runs, the newest first; `where` is bounds of metrics with commas between them: mape<10,loss<1."""
        return tracker.runs(service, step, state, filter(None, where.split(",")), limit, before)

    @app.get("/v1/compare")
    def compare(a: str, b: str) -> Document:
        """Two runs side by side; each is a run's number, a revision or a branch."""
        return tracker.compare(a, b)

    @app.post("/v1/lay")
    def lay(body: Result) -> Document:
        """Lay the result of a revision's step out as a folder to read from."""
        return tracker.lay(body.reference, body.step)


def dossiers(app: FastAPI, controller: Controller) -> None:
    """What is told of a whole experiment."""

    @app.get("/v1/dossier")
    def dossier(reference: str) -> Document:
        """All that is recorded of an experiment, in one document that suffices to recompute its verdict."""
        return controller.keeping.dossier(reference)

    @app.get("/v1/dossiers")
    def listed(service: str = "") -> Document:
        """Every concluded experiment whose dossier git keeps, the newest first; of one service or all."""
        return controller.keeping.listed(service)


def changes(app: FastAPI, controller: Controller) -> None:
    """Every request that changes something."""

    @app.post("/v1/ask")
    def ask(body: Ask, within: float = 0.0) -> Document:
        """Do what a command asks for, or with `dry_run` only say what would be done; refused where another process
        still holds the ledger after `within` seconds, if any are said.
        """
        asked: Asked = controller.desk.ask(
            body.command, body.reference, body.args, actor=body.actor, because=body.because, dry_run=body.dry_run,
            within=within,
        )  # fmt: skip
        return {"schema": "branchline.plan/1", **asdict(asked)}

    @app.post("/v1/look")
    def look() -> Document:
        """Fetch now, and take up what was pushed."""
        number = controller.progress.number
        return {"schema": "branchline.look/1", "changed": controller.watch(), "progress": number}

    @app.post("/v1/restore")
    def restore(body: Because) -> Document:
        """Let an older ledger count: somebody says that what came after it is lost."""
        restored = controller.restore(body.actor, body.because)
        return {"schema": "branchline.restore/1", "services": list(restored)}

    @app.post("/v1/mend")
    def mend(body: Named) -> Document:
        """Put back the files of a revision that were changed on the disk."""
        mended = controller.parity.mend(controller.desk.revision(body.reference))
        return {"schema": "branchline.mend/1", "files": list(mended)}

    @app.post("/v1/run")
    def run(body: Run) -> Document:
        """Run the steps, and the gates, of a commit that the mirror can read."""
        wanted = Wanted(body.gates, body.keep_going, body.verify, body.dry_run)
        return {"schema": "branchline.run/1", "topic": controller.trials.begin(body.service, body.commit, wanted)}

    @app.post("/v1/run/stop")
    def stop(body: Stopping) -> Document:
        """End a run where it is; what its steps have finished is kept."""
        return {"schema": "branchline.stopped/1", "stopped": controller.trials.stop(body.topic)}


def arrivals(app: FastAPI, controller: Controller) -> None:
    """What is asked and said of data."""

    @app.get("/v1/data")
    def data(service: str) -> Document:
        """Which revisions were made of which data version."""
        return {"schema": "branchline.made/1", "made": made_of(controller.ports, service)}

    @app.post("/v1/data/arrived")
    def arrived(body: Arrived) -> Document:
        """Look at data now: what is new, and makes a difference, opens an experiment of itself."""
        heard = controller.arrivals.arrived(body.service, body.source)
        return {"schema": "branchline.arrived/1", "heard": [list(each) for each in heard]}


def unexpected(request: Request, error: Exception) -> JSONResponse:
    """Our own bug, told as such, or that the system has no more to give."""
    return problem(codes.understood(error))
