"""This file is what `import branchline` brings: what a step, a service file or a notebook may call.

It loads nothing until asked, and then only `sdk` and `core`, which import the standard library alone: they ride into
the environment of any revision by path and never meet the pins of the service.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for editors and type checkers, which do not ask __getattr__
    from branchline.sdk.log import log as log
    from branchline.sdk.notebook import load as load
    from branchline.sdk.notebook import runs as runs

__version__ = "0.1.0"

_PARTS = {"sdk": "branchline.sdk", "spec": "branchline.core.spec"}
_CALLS = {"log": "branchline.sdk.log", "load": "branchline.sdk.notebook", "runs": "branchline.sdk.notebook"}


def __getattr__(name: str) -> Any:
    """Load a part, or the part that a call is in, on first use: a command that needs none of them starts at once."""
    if name in _PARTS:
        return import_module(_PARTS[name])
    if name in _CALLS:
        found = globals()[name] = getattr(import_module(_CALLS[name]), name)
        return found
    raise AttributeError(f"module 'branchline' has no attribute {name!r}")


def __dir__() -> list[str]:
    return ["__version__", *_CALLS, *_PARTS]
