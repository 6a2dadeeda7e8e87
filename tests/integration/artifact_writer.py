"""This file is the process that tests kill: it keeps artifacts and says which it was told are kept.

Run as `python -m tests.integration.artifact_writer STORE FOLDER N`; artifact N is a folder of two files made from N.
"""

from __future__ import annotations

import sys
from itertools import count
from pathlib import Path

from branchline.adapters.folder import FolderArtifacts


def main(store: Path, folder: Path, start: int) -> None:
    """Keep artifacts until killed."""
    artifacts = FolderArtifacts(store)
    for number in count(start):
        for name in ("one", "two"):
            (folder / name).write_bytes(content(number, name))
        print(number, artifacts.put(folder), flush=True)


def content(number: int, name: str) -> bytes:
    """What a file holds."""
    return f"{name} {number} ".encode() * 20_000


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
