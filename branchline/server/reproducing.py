"""This file is the part of the API that brings back what was: run again, laid out, traced, and what goes for good."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict

from branchline.engine.controlling import Controller
from branchline.engine.laying import lay_out
from branchline.engine.trying import Wanted

Document = dict[str, Any]


class Again(BaseModel):
    """A revision whose steps are to be run again: all, or one."""

    model_config = ConfigDict(extra="forbid", strict=True)

    reference: str
    step: str = ""


class Laid(BaseModel):
    """A revision to lay out."""

    model_config = ConfigDict(extra="forbid", strict=True)

    reference: str


class Sweep(BaseModel):
    """One request to clear away what nobody needs."""

    model_config = ConfigDict(extra="forbid", strict=True)

    dry_run: bool = False


def reproduction(app: FastAPI, controller: Controller) -> None:
    """What brings a revision back."""

    @app.post("/v1/verify")
    def verify(body: Again) -> Document:
        """Run a revision's steps again and compare; a note named `verified` tells, before the end."""
        revision = controller.desk.revision(body.reference)
        wanted = Wanted(gates=False, verify=body.step or "*", of=revision)
        topic = controller.trials.begin(revision.service, revision.commit, wanted)
        return {"schema": "branchline.run/1", "topic": topic, "reference": revision.name, "commit": revision.commit}

    @app.get("/v1/lineage")
    def lineage(reference: str) -> Document:
        """What a request, revision, data version or result came from, or what came of it: nodes and edges."""
        return controller.tracing.lineage(reference)

    @app.post("/v1/checkout")
    def checkout(body: Laid) -> Document:
        """Lay out what a revision needs beside its code: environment, data, results."""
        return lay_out(controller.ports, controller.desk.revision(body.reference))

    @app.post("/v1/gc")
    def gc(body: Sweep) -> Document:
        """Clear away what nobody needs, or only say what that is."""
        return controller.sweeper.sweep(body.dry_run)
