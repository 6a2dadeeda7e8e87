"""This file is the root of the tree of errors: a code, one sentence, a cause, and the next command to type."""

from __future__ import annotations

from typing import Any


class BranchlineError(Exception):
    """Something went wrong that a person can act on."""

    code, hint, transient = "BL000", "branchline doctor", False

    def __init__(self, cause: str = "", *, hint: str = "", log: str = "", **fields: Any) -> None:
        self.fields = fields
        self.cause = cause
        self.log = log
        self.next = (hint or type(self).hint).format_map(_Blank(fields))
        super().__init__(self.message)

    @property
    def message(self) -> str:
        """The leaf's sentence with its fields filled in."""
        sentence = str(type(self).__doc__).strip().splitlines()[0]
        return sentence.format_map(_Blank(self.fields)).rstrip(".")


class _Blank(dict[str, Any]):
    """Leaves an unknown field readable instead of raising while an error is being told."""

    def __missing__(self, key: str) -> str:
        return f"<{key}>"


class Transient:
    """Trying again can help."""

    transient = True
