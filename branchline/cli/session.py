"""This file is where a command was typed: the work tree, its services, who types, and the daemon that answers.

Each is found when it is first asked for. A command that needs the daemon gets it started, and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeVar

import click

from branchline.cli import show
from branchline.errors import BadServiceFile, BranchlineError, DaemonDown, NothingToDo, UnknownService

if TYPE_CHECKING:
    from branchline.adapters.git_worktree import WorkTree
    from branchline.cli.transport import Client
    from branchline.core import names
    from branchline.settings import Settings

SERVICE_FILE = "branchline.toml"
WHO = 'git config user.name "YOUR NAME" && git config user.email YOU@EXAMPLE.ORG'  # what git wants to know
Decorated = TypeVar("Decorated", bound=Callable[..., Any])


@dataclass
class Session:
    """One command that was typed, with its global options."""

    folder: Path = Path()
    state: str = ""
    verbose: bool = False
    json: bool = False

    @cached_property
    def tree(self) -> WorkTree:
        """The work tree it was typed in; raises NotARepository."""
        from branchline.adapters.git_worktree import WorkTree

        return WorkTree(self.folder.resolve())

    @cached_property
    def settings(self) -> Settings:
        """Where the state folder and the sockets of this repository are."""
        from branchline.settings import settings_of

        return settings_of(self.tree.root, self.tree.common, self.state)

    @property
    def actor(self) -> str:
        """Who types, as git knows them."""
        return self.tree.person() or "somebody"

    def running(self) -> Client | None:
        """The daemon if it answers; raises DaemonDown when it is stopped."""
        client = self._going()
        return client if client.answers() else None

    def client(self) -> Client:
        """The daemon; it is started when nobody listens there. Whether it answers is seen when it is asked, but for one
        that is stopped: raises DaemonDown.
        """
        found = self._going()
        if not found.listens():
            show.say("the daemon is not running; starting it (branchline down stops it)")
            found = self.started()
        return found

    def _going(self) -> Client:
        from branchline.cli.transport import Client

        found = Client(self.settings.socket)
        if pid := found.stopped():
            raise DaemonDown(f"its process {pid} is stopped", hint=f"kill -CONT {pid}")
        return found

    def started(self, port: int = 0) -> Client:
        """Start the daemon and wait until it answers; `port` is the gateway's, 0 leaves it to the daemon."""
        from branchline.cli.transport import start

        return start(self.settings, port)

    def trunk(self) -> str:
        """The branch that shows what serves; raises BadServiceFile."""
        from branchline.settings import default_branch

        return default_branch(self.tree)

    @cached_property
    def services(self) -> Mapping[str, str]:
        """The services of the work tree: name -> folder below its root; raises BadServiceFile for a name used twice."""
        from branchline.core import names

        found: dict[str, str] = {}
        for path in map(PurePosixPath, self.tree.files(SERVICE_FILE)):
            folder = path.parent
            if folder == PurePosixPath() or not names.is_word(folder.name):
                continue
            if folder.name in found:
                raise BadServiceFile(f"{found[folder.name]} and {folder} have the same name", path=str(path))
            found[folder.name] = str(folder)
        return found

    def service(self, given: str) -> str:
        """The service that is meant: the one that was named, the branch's, or the only one there is."""
        if given:
            return self.known(given)
        branch = branch_named(self.tree.branch)
        if branch and branch.service in self.services:
            return branch.service
        if len(self.services) == 1:
            return next(iter(self.services))
        if not self.services:
            raise NothingToDo(what="this repository has no service yet", hint="branchline init SERVICE")
        raise NothingToDo(what=f"there are several services, name one: {', '.join(self.services)}")

    def known(self, name: str) -> str:
        """The name, if the work tree has such a service; raises UnknownService with what is near."""
        if name not in self.services:
            near = show.nearest(name, self.services).strip()
            known = f"in this work tree: {', '.join(self.services)}" if self.services else "there is none yet"
            raise UnknownService(near or known, name=name, hint="" if self.services else f"branchline init {name}")
        return name

    def branch(self, given: str) -> names.Branch:
        """The experiment or fix that is meant: the one that was named, or the one that is checked out."""
        text = given or self.tree.branch
        found = branch_named(text)
        if found is None:
            known = text and (text == self.tree.branch or self.tree.tip(text))
            what = f"{text!r} is neither an experiment nor a fix" if known else f"there is no branch {text!r}"
            what = what if text else "no branch is checked out"
            home = "" if text else f"git switch {self.trunk()}, then: "
            hint = f"{home}branchline start SERVICE, or name a branch: experiment--SERVICE--HANDLE"
            raise NothingToDo(what=what, hint=hint)
        return found


def branch_named(text: str) -> names.Branch | None:
    """What a branch's name says; None when it is neither an experiment nor a fix."""
    from branchline.core import names

    return names.branch(text)


def completed(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """The services and branches of the folder that somebody types in, for their shell; nothing where there are none."""
    session = Session()
    try:
        known = [*session.services, *(session.tree.branches if parameter.name != "service" else ())]
    except BranchlineError:
        return []
    return [name for name in known if name.startswith(incomplete)]


naming = partial(click.argument, shell_complete=completed)  # an argument that names a service, a branch or a revision
pass_session: Callable[[Callable[..., Any]], Callable[..., Any]] = click.make_pass_decorator(Session)


def _set_json(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    session = context.find_object(Session)
    if session:
        session.json = session.json or value


def as_json(command: Decorated) -> Decorated:
    """Give a command the option --json."""
    said = "Print one JSON document with its schema id."
    return click.option("--json", is_flag=True, expose_value=False, callback=_set_json, help=said)(command)


def dry_run(command: Decorated) -> Decorated:
    """Give a command the option --dry-run."""
    return click.option("--dry-run", is_flag=True, help="Only say what would be done.")(command)
