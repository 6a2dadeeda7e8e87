"""This file is what `import branchline` brings: the SDK of a service and the words that its file may say.

It loads nothing until asked, and then only `sdk` and `core`, which import the standard library alone: they ride into
the environment of any revision by path and never meet the pins of the service.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

__version__ = "0.1.0"

_PARTS = {"sdk": "branchline.sdk", "spec": "branchline.core.spec"}


def __getattr__(name: str) -> ModuleType:
    """Load a part on first use, so that a command that needs neither starts at once."""
    if name in _PARTS:
        return import_module(_PARTS[name])
    raise AttributeError(f"module 'branchline' has no attribute {name!r}")


def __dir__() -> list[str]:
    return ["__version__", *_PARTS]
