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
from branchline.engine.asking import Asked
from branchline.engine.controlling import Controller
from branchline.errors import BranchlineError

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


class Because(BaseModel):
    """Who wants something, and why."""

    model_config = ConfigDict(extra="forbid", strict=True)

    actor: str = "somebody"
    because: str = ""


class Run(BaseModel):
    """One request to run the steps and gates of a commit that the mirror can read."""

    model_config = ConfigDict(extra="forbid", strict=True)

    service: str
    commit: str
    gates: bool = True


def problem(error: BranchlineError) -> JSONResponse:
    """An error as problem details."""
    error = codes.understood(error)
    return JSONResponse(codes.problem(error), codes.status_of(error.code), media_type=PROBLEM)


def api(controller: Controller) -> FastAPI:
    """The application that speaks for a controller."""
    app = FastAPI(title="Branchline", version=branchline.__version__, docs_url=None, redoc_url=None)
    app.add_exception_handler(BranchlineError, lambda request, error: problem(error))
    app.add_exception_handler(Exception, unexpected)
    reads(app, controller)
    changes(app, controller)
    return app


def reads(app: FastAPI, controller: Controller) -> None:
    """Every question that changes nothing."""
    reader, memory = controller.reader, controller.memory

    @app.get("/healthz")
    def health() -> Document:
        """Whether it answers, its version, and its epoch: which controller of this repository it is."""
        return {"ok": True, "version": branchline.__version__, "epoch": controller.recorder.epoch}

    @app.get("/v1/status")
    def status(reference: str = "") -> Document:
        """Which revision serves where, how every branch stands, and whether git agrees; of one service or all."""
        document = reader.status(reference)
        known = set(controller.services())
        document["troubles"] = [text for (owner, _), text in sorted(controller.troubles.items()) if owner not in known]
        if lost := controller.ports.meter.loss():
            document["troubles"].append(f"{lost} requests were served and not logged: the gateway was killed")
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


def changes(app: FastAPI, controller: Controller) -> None:
    """Every request that changes something."""

    @app.post("/v1/ask")
    def ask(body: Ask) -> Document:
        """Do what a command asks for, or with `dry_run` only say what would be done."""
        asked: Asked = controller.desk.ask(
            body.command, body.reference, body.args, actor=body.actor, because=body.because, dry_run=body.dry_run
        )
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
        return {"schema": "branchline.run/1", "topic": controller.trials.begin(body.service, body.commit, body.gates)}


def unexpected(request: Request, error: Exception) -> JSONResponse:
    """Our own bug, told as such, or that the system has no more to give."""
    return problem(codes.understood(error))
