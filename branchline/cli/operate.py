"""This file is the commands that run Branchline itself: the daemon up and down, the machine looked over."""

from __future__ import annotations

import fcntl
import json
import os
import signal
from pathlib import Path
from typing import Any

import click

from branchline.cli import show, transport
from branchline.cli.session import Session, as_json, dry_run, pass_session
from branchline.errors import LedgerBusy, UsageError
from branchline.settings import made

DOWN_SECONDS = 90.0


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), help="The gateway's port; else the project's, else its last.")
@click.option("--restored", is_flag=True,
              help="Let a ledger that is an older copy count: what was recorded after it is lost.")  # fmt: skip
@click.option("--foreground", is_flag=True, help="Stay here and print the log; Ctrl-C ends the daemon.")
@dry_run
@as_json
@pass_session
def up(session: Session, port: int | None, restored: bool, foreground: bool, dry_run: bool) -> None:
    """Start the daemon and the gateway.

    What serves already goes on serving. Any command that needs the daemon starts it, too.
    """
    settings = session.settings
    running = session.running()
    if running and port and gateway(settings.state) != address(port):
        hint = f"branchline down; branchline up --port {port}"
        raise UsageError(f"the gateway stays at {gateway(settings.state)} as long as the daemon runs", hint=hint)
    if dry_run:
        steps = [("process", f"start the daemon for {settings.state}"), ("process", "start the gateway")]
        steps = [] if running else steps
        steps += [("ledger", "let it count as it is: traffic and processes go back to it")] if restored else []
        for line in show.plan(steps):
            show.out(line)
        return
    if foreground:
        made(settings)
        command = transport.command(settings, port or 0)
        os.execv(command[0], command)
    client = running or session.started(port or 0)
    back = client.post("/v1/restore", {"actor": session.actor})["services"] if restored else []
    pid, services = client.pid(), client.get("/v1/status")["services"]
    if session.json:
        addresses = {each["name"]: each["address"] for each in services}
        show.document(
            {"schema": "branchline.up/1", "pid": pid, "gateway": gateway(settings.state), "services": addresses}
        )
        return
    show.say(f"daemon   {'runs already' if running else 'runs'} (pid {pid}), log {settings.state / 'daemon.log'}")
    show.say(f"gateway  {gateway(settings.state)}")
    if restored:
        show.say(f"ledger   counts as it is for {', '.join(back)}" if back else "ledger   is no older copy")
    for each in services:
        show.out(each["address"])
    if not services:
        show.say("next     branchline init SERVICE, or branchline deploy")


def gateway(state: Path) -> str:
    """The gateway's address, as its own memory has it."""
    path = state / "gateway" / "table.json"
    port = json.loads(path.read_text(encoding="utf-8")).get("port") if path.is_file() else None
    return address(port) if port else "has no address yet"


def address(port: int) -> str:
    """The gateway's address at a port."""
    return f"http://127.0.0.1:{port}/"


@click.command()
@click.option("--daemon-only", is_flag=True, help="End the daemon; everything that serves goes on serving.")
@dry_run
@pass_session
def down(session: Session, daemon_only: bool, dry_run: bool) -> None:
    """Stop everything that runs for this repository.

    Nothing recorded is lost.
    """
    running = session.running()
    pid = running.pid() if running else 0
    if dry_run:
        steps = [] if daemon_only else [("process", "stop every instance"), ("process", "stop the gateway")]
        steps += [("process", f"end the daemon (pid {pid})")] if pid else []
        for line in show.plan(steps if running or serving(session) else []):
            show.out(line)
        return
    if running is None and (daemon_only or not serving(session)):
        show.say("nothing runs")
        return
    if running is None:
        show.say("the daemon is not running, but something serves; starting it to stop that in good order")
        pid = session.started().pid()
    number = signal.SIGTERM if daemon_only else signal.SIGUSR2
    if not transport.end(pid, number, DOWN_SECONDS):
        raise LedgerBusy(
            f"the daemon (pid {pid}) has not ended within {DOWN_SECONDS:.0f} s", hint="branchline logs daemon"
        )
    show.say(
        "daemon ended; what serves goes on" if daemon_only else "everything is stopped; branchline up brings it back"
    )


def serving(session: Session) -> bool:
    """Whether a gateway or an instance may still run without the daemon."""
    from branchline.adapters.envoy import Envoy

    state = session.settings.state
    if (state / "gateway").is_dir() and Envoy(state / "gateway", session.settings.runtime).pid:
        return True
    return any(held(lock) for lock in state.glob("instances/*/*/lock"))


def held(lock: Path) -> bool:
    """Whether a supervisor lives that holds its lock."""
    try:
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


@click.command()
@as_json
@pass_session
def doctor(session: Session) -> None:
    """Look whether this machine has all that is needed.

    Each lack with its cure; exit 1 when there is any. Needs no daemon.
    """
    from branchline.cli.doctor import findings

    found = findings(session)
    bad = [each for each in found if not each.ok]
    if session.json:
        told: list[dict[str, Any]] = [
            {"name": each.name, "ok": each.ok, "text": each.text, "cure": each.cure} for each in found
        ]
        show.document({"schema": "branchline.doctor/1", "ok": not bad, "findings": told})
    else:
        for each in found:
            show.out(show.note({"mark": "ok" if each.ok else "no", "name": each.name, "text": each.text}))
            if not each.ok:
                show.out(f"       cure: {each.cure}")
    raise click.exceptions.Exit(1 if bad else 0)


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the lines that teach your shell to complete.

    For bash: branchline completion bash > ~/.local/share/bash-completion/completions/branchline
    """
    from click.shell_completion import get_completion_class

    from branchline.cli.main import main

    kind = get_completion_class(shell)
    if kind is not None:
        show.out(kind(main, {}, "branchline", "_BRANCHLINE_COMPLETE").source())
