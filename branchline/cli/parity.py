"""This file is the command `parity`: whether git is what production is, and what to type where not.

With a daemon it is asked. Without one nothing is started, for starting would heal: the ledger is read here, under the
daemon's lock.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from branchline.cli import show
from branchline.cli.session import Session, as_json, pass_session
from branchline.errors import SecondDaemon


@click.command()
@as_json
@pass_session
def parity(session: Session) -> None:
    """Say whether git is what production is.

    Exit 1 when not: each drift, and the command that repairs it. Changes nothing, and starts no daemon.
    """
    found = looked(session)
    if session.json:
        show.document(found)
    elif found["ok"]:
        show.out(f"ok: git and production agree for {', '.join(found['services']) or 'no service yet'}")
    else:
        for drift in found["drifts"]:
            for line in drift_lines(drift):
                show.out(line)
    raise click.exceptions.Exit(0 if found["ok"] else 1)


def looked(session: Session) -> Mapping[str, Any]:
    """The daemon's answer, or our own while there is none."""
    running = session.running()
    if running is None:
        from branchline.app import looked as looked_without

        try:
            return looked_without(session.settings)
        except SecondDaemon:  # it is just starting
            running = session.started()
    return running.get("/v1/parity")


def drift_lines(drift: Mapping[str, Any]) -> tuple[str, str]:
    """A place where git, production and the record disagree, and below it what to type."""
    head = click.style("drift", fg="yellow")
    whose = f"{drift['service']}: " if drift["service"] else ""
    return f"{head}     {whose}{drift['drift']}: {drift['what']}", f"repair    {drift['repair']}"
