"""This file is a package index of our own on the loopback address, with wheels of a few bytes, so that a test can have
a package vanish, be yanked or be another one than it was, and never asks the network.
"""

from __future__ import annotations

import hashlib
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


def wheel(folder: Path, name: str, version: str, text: str = "") -> Path:
    """Write a wheel whose one module says its version; the same words are the same bytes."""
    path, about = folder / f"{name}-{version}-py3-none-any.whl", f"{name}-{version}.dist-info"
    files = {
        f"{name}/__init__.py": f'VERSION = "{version}"\ndef f(): ...\n{text}',
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{each},,\n" for each in (*files, f"{about}/RECORD"))
    with zipfile.ZipFile(path, "w") as archive:
        for each, content in {**files, f"{about}/RECORD": record}.items():
            archive.writestr(zipfile.ZipInfo(each), content)
    return path


@dataclass
class Index:
    """Wheels in a folder, served as a simple index at `address`; `yanked` are versions with the reason, by file name,
    `asked` the paths that were asked for.
    """

    folder: Path
    address: str = ""
    yanked: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def add(self, name: str, version: str, text: str = "") -> str:
        """Publish a version; returns the line that locks it."""
        return f"{name}=={version} --hash=sha256:{digest(wheel(self.folder, name, version, text))}\n"

    def environ(self, cache: Path) -> Mapping[str, str]:
        """The variables by which uv asks nobody but this index, with a cache of its own."""
        return {"UV_DEFAULT_INDEX": f"{self.address}/simple", "UV_CACHE_DIR": str(cache), "UV_HTTP_RETRIES": "0"}

    def page(self, name: str) -> str:
        """The files of a package; '' for one that there is none of."""
        lines = []
        for path in sorted(self.folder.glob(f"{name}-*.whl")):
            yanked = f' data-yanked="{self.yanked[path.name]}"' if path.name in self.yanked else ""
            lines.append(f'<a href="/files/{path.name}#sha256={digest(path)}"{yanked}>{path.name}</a>')
        return "<!DOCTYPE html><html><body>" + "\n".join(lines) + "</body></html>" if lines else ""


def digest(path: Path) -> str:
    """The SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


@contextmanager
def serving(folder: Path) -> Iterator[Index]:
    """An index at a port that was free, until the end of the block."""
    folder.mkdir(parents=True, exist_ok=True)
    index = Index(folder)

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            index.asked.append(self.path)
            kind, _, name = self.path.strip("/").partition("/")
            path = folder / name
            content = path.read_bytes() if kind == "files" and path.is_file() else index.page(name).encode()
            self.send_response(200 if content else 404)
            self.send_header("Content-Type", "text/html" if kind == "simple" else "application/octet-stream")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        def do_HEAD(self) -> None:
            self.do_GET()

        def log_message(self, *words: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    index.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield index
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
