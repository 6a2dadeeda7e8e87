"""This file is the command `branchline`: which commands there are, in which section of the help page, and how they end.

A command's file is imported when the command is used and not before, so that the help page and a typing error cost
nothing. Whatever a command raises ends here, as words for a person and an exit status for a program: 0 done, 1 the
answer is no, 2 not understood, 3 refused, 5 undecided yet, 69 not reachable, 70 our own bug, 75 busy, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from keyword import iskeyword
from pathlib import Path
from typing import Any

import click

import branchline
from branchline.cli import show
from branchline.cli.session import Session
from branchline.core.codes import exit_of, problem
from branchline.errors import BranchlineError

# Section -> command -> (the file it is in, what it does in a few words: the first line of its own help).
SECTIONS: dict[str, dict[str, tuple[str, str]]] = {
    "Work": {
        "init": ("work", "Write the files of a new service."),
        "check": ("work", "Say all that is wrong with the service files."),
        "start": ("work", "Begin an experiment: its branch, its hypothesis, its first push."),
        "fix": ("mend", "Begin a fix of what serves, or of a challenger."),
        "run": ("work", "Run steps and gates on the work tree as it is."),
        "sync": ("mend", "Bring a branch up to date with what it would replace."),
        "checkout": ("work", "Lay out the code, environment and artifacts of a revision."),
        "verify": ("reproduce", "Run a revision's steps again and say whether they leave the same."),
        "plan-test": ("plan", "Say how long an A/B test would take."),
        "data": ("data", "Pin data that is not in git, and see what is pinned."),
    },
    "Ship": {
        "deploy": ("ship", "Push the branch and follow it until it rests."),
        "approve": ("ship", "Let a candidate go on that waits for a person."),
        "split": ("ship", "Change a challenger's share of the traffic."),
        "scale": ("ship", "Change how many processes a revision has in production, now."),
        "conclude": ("ship", "Show the verdict and what follows; agree to it or overrule it."),
        "extend": ("ship", "Give a test without a verdict more time."),
        "abort": ("ship", "Take a candidate out of traffic or evaluation, now."),
        "rollback": ("ship", "Give all traffic back to what served before."),
        "close": ("ship", "Give a branch up: it is archived and deleted."),
        "retire": ("ship", "End a major version of a service, while another one serves."),
        "freeze": ("ship", "Let nothing of a service be promoted for now."),
        "thaw": ("ship", "Let a frozen service go on."),
    },
    "See": {
        "status": ("see", "Show which revision serves where, and how every branch stands."),
        "parity": ("parity", "Say whether git is what production is."),
        "history": ("see", "Show who did what, when and why."),
        "why": ("see", "Say why each step ran or was reused, and what the gates found."),
        "rejudge": ("plan", "Judge a recorded A/B test again, with other settings."),
        "backtest": ("plan", "Hold a metric of steps against the verdicts there were."),
        "runs": ("track", "Find runs by step, metric and state."),
        "compare": ("track", "Put two runs side by side."),
        "lineage": ("reproduce", "Walk from an answer back to its data, or on from data."),
        "notes": ("notes", "Print the release notes of a revision, as Markdown."),
        "dossier": ("dossier", "Tell all that is recorded of an experiment."),
        "try": ("console", "Send one request to a preview and to what serves."),
        "logs": ("see", "Show what a revision, the gateway or the daemon printed last."),
        "explain": ("see", "Explain an error by its code."),
    },
    "Run it": {
        "up": ("operate", "Start the daemon and the gateway."),
        "down": ("operate", "Stop everything that runs for this repository."),
        "gc": ("reproduce", "Clear away what nobody needs."),
        "doctor": ("operate", "Look whether this machine has all that is needed."),
        "demo": ("demo", "Play the whole story on real parts, in a scratch folder."),
        "completion": ("operate", "Print the lines that teach your shell to complete."),
    },
}
COMMANDS = {name: entry for section in SECTIONS.values() for name, entry in section.items()}


class Branchline(click.Group):
    """A group whose commands lie in other files."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every command, as the help page has them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command's file and return the command; None when there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        name = cmd_name.replace("-", "_") + "_" * iskeyword(cmd_name)
        found = getattr(import_module(f"branchline.cli.{COMMANDS[cmd_name][0]}"), name)
        return found if isinstance(found, click.Command) else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that was typed, or say which one was meant."""
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            raise click.UsageError(f"There is no command {args[0]!r}.{show.nearest(args[0], COMMANDS)}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the sections of the help page without importing a single command."""
        width = max(map(len, COMMANDS))
        for section, commands in SECTIONS.items():
            with formatter.section(section):
                formatter.write_dl([(name.ljust(width), words) for name, (_, words) in commands.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:
        """Complete a command's name without importing any."""
        from click.shell_completion import CompletionItem

        return [
            CompletionItem(name, help=words) for name, (_, words) in COMMANDS.items() if name.startswith(incomplete)
        ]

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any) -> Any:  # type: ignore[override]
        """Run what was typed and end the process with its exit status."""
        words = list(sys.argv[1:] if args is None else args) or ["--help"]
        extra["standalone_mode"] = False
        session = extra.setdefault("obj", Session())
        sys.exit(self.ended(session, words, prog_name or "branchline", extra))

    def ended(self, session: Session, words: list[str], name: str, extra: dict[str, Any]) -> int:
        """Run what was typed and return its exit status; everything that can go wrong is told here."""
        try:
            answer = super().main(words, name, **extra)
            sys.stdout.flush()
            return answer if isinstance(answer, int) else 0
        except (KeyboardInterrupt, click.Abort):
            show.say("\ninterrupted; what the daemon has begun goes on: branchline status")
            return 130
        except BranchlineError as error:
            show.problem(problem(error), session.json)
            return exit_of(error.code)
        except show.Answered as error:
            show.problem(error.problem, session.json)
            return exit_of(str(error.problem["code"]))
        except click.exceptions.NoArgsIsHelpError as error:
            show.out(error.ctx.get_help())
            return 0
        except click.ClickException as error:
            show.problem(misunderstood(error), session.json or "--json" in words)
            return error.exit_code
        except BrokenPipeError:  # whoever read our output has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        except Exception as error:  # noqa: BLE001 - our own bug: a report is written, the person gets a sentence
            show.problem(reported(session, words, error), session.json)
            return exit_of(BranchlineError.code)


def misunderstood(error: click.ClickException) -> dict[str, Any]:
    """What click complains of, as problem details."""
    path = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "branchline"
    first, *more = error.format_message().splitlines() or [""]
    code = "BL100" if error.exit_code == 2 else "BL000"
    hint = f"{path} --help" if error.exit_code == 2 else ""
    return {"code": code, "title": first.rstrip("."), "detail": "\n".join(more), "hint": hint}


def reported(session: Session, words: list[str], error: Exception) -> dict[str, Any]:
    """Write a traceback to a file of its own and say where it is."""
    import platform
    import tempfile
    import traceback

    text = "".join(traceback.format_exception(error))
    with tempfile.NamedTemporaryFile("w", prefix="branchline-report-", suffix=".txt", delete=False) as file:
        file.write(f"branchline {branchline.__version__}, Python {platform.python_version()}, {platform.platform()}\n")
        file.write(f"{words}\n\n{text}")
    if session.verbose or words[0] in ("-v", "--verbose"):  # it may have failed before that was read
        show.say(text)
    cause = f"{type(error).__name__}: {error}"
    hint = f"this is our bug; please report it with {file.name}"
    return {"code": "BL000", "title": "something failed inside", "detail": cause, "hint": hint}


@click.group(
    cls=Branchline,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="SERVICE@VERSION, SERVICE@BRANCH, SERVICE@incumbent, SERVICE@challenger or a commit name a revision.",
)
@click.option("-C", "folder", type=click.Path(exists=True, file_okay=False, path_type=Path), default=".",
              show_default=False, help="Work as if started there.")  # fmt: skip
@click.option("--state", type=click.Path(file_okay=False), default="", help="The state folder; else beside git's own.")
@click.option("-v", "--verbose", is_flag=True, help="Show the traceback of a bug.")
@click.version_option(branchline.__version__, message="branchline %(version)s")
@click.pass_obj
def main(session: Session, folder: Path, state: str, verbose: bool) -> None:
    """Release models and services by git branches.

    A branch becomes a revision, shares traffic, is judged, and is merged or deleted by the verdict.
    """
    session.folder, session.state, session.verbose = folder, state, verbose


if __name__ == "__main__":
    main()
