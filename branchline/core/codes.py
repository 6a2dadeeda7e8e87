"""This file says what an error means to a machine: its HTTP status, its exit status, its problem document.

Two tables only, by code; what is in neither follows its hundred. A third one has the codes that are no errors.
"""

from __future__ import annotations

from errno import EMFILE, ENFILE
from typing import Any

from branchline.errors import BranchlineError, Exhausted

HTTP: dict[str, int] = {
    "BL102": 404, "BL104": 404, "BL107": 404, "BL505": 404,
    "BL507": 503, "BL508": 504, "BL509": 413, "BL510": 400,
    "BL105": 409, "BL204": 409, "BL702": 409, "BL705": 409, "BL706": 409,
    "BL202": 503, "BL414": 503, "BL506": 503, "BL701": 503, "BL708": 503, "BL710": 503, "BL707": 507,
    "BL611": 422,
}  # fmt: skip
EXIT: dict[str, int] = {
    "BL105": 3, "BL414": 75, "BL501": 69, "BL506": 69, "BL701": 69, "BL702": 75, "BL705": 75, "BL708": 75, "BL000": 70,
    "BL710": 75,
}  # fmt: skip
# What makes the reuse of a step unsure (`core.reuse`).
NOTICES = {
    "BL301": "A step starts another program; what that reads cannot be seen, so it runs every time",
    "BL302": "A step connects to a network; the answer cannot be looked at again, so it runs every time",
    "BL303": "A step reads the clock, or draws without a seed: a reused result keeps what it was then",
    "BL304": "A file does not parse here: all of the project is in the key",
    "BL305": "A module counts whole: what of it is used cannot be told",
    "BL306": "A step reads a variable that its service file does not declare: it never has a value",
    "BL307": "A step reads a file outside of its service, data and environment, so it runs every time",
    "BL308": "A run met what its code did not tell of; it guards the reuse of the result from now on",
    "BL309": "What a step reads could not be recorded, so it runs every time",
    "BL310": "Data was changed since it was pinned; what is pinned is what is used",
    "BL311": "A lock file is behind the file that it was made from; the lock is what is installed",
}


def status_of(code: str) -> int:
    """The HTTP status of an error code: its own, or that of its hundred (1xx: 422, 6xx: 403, others: 500)."""
    return HTTP.get(code, {"1": 422, "6": 403}.get(code[2], 500))


def exit_of(code: str) -> int:
    """The exit status of an error code (sysexits and the field's habits): 2 usage, 1 it did not work, 3 policy, 69,
    75.
    """
    return EXIT.get(code, {"1": 2, "5": 69, "6": 3, "7": 69}.get(code[2], 1))


def leaves() -> dict[str, type[BranchlineError]]:
    """Every error by its code."""
    found: dict[str, type[BranchlineError]] = {}
    todo: list[type[BranchlineError]] = [BranchlineError]
    while todo:
        kind = todo.pop()
        found[kind.code] = kind
        todo.extend(kind.__subclasses__())
    return dict(sorted(found.items()))


def understood(error: BaseException) -> BranchlineError:
    """What an exception is told as: itself, and a surprise as one; but Exhausted, whatever was made of it, where at its
    root the system had no file to give (F61).
    """
    root: BaseException | None = error
    while root is not None:
        if is_exhausted(root):
            return Exhausted(str(root))
        root = root.__cause__
    return error if isinstance(error, BranchlineError) else BranchlineError(f"{type(error).__name__}: {error}")


def is_exhausted(error: BaseException) -> bool:
    """Whether the system had no file to give: that says nothing of what was to be opened (F61)."""
    return isinstance(error, OSError) and error.errno in (EMFILE, ENFILE)


def problem(error: BranchlineError) -> dict[str, Any]:
    """The error as RFC 9457 problem details, with its code, the next command, and the last lines of what failed."""
    return {
        "type": f"urn:branchline:error:{error.code}",
        "title": error.message,
        "status": status_of(error.code),
        "detail": error.cause,
        "code": error.code,
        "hint": error.next,
        "log": error.log,
        "transient": error.transient,
    }
