"""This file serves bare repositories on loopback as forges do: over HTTP by `git http-backend`, over SSH by asyncssh.

Both ask who is there, both take any push that git takes. The SSH server is Python's own, for a machine may have none;
the client is the machine's. Ports are the system's choice, everything ends with the context.
"""

from __future__ import annotations

import asyncio
import base64
import os
import shlex
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import asyncssh

USER, PASSWORD = "git", "s3cret"
SERVED = ("git-upload-pack", "git-receive-pack")


@contextmanager
def over_http(root: Path) -> Iterator[str]:
    """The address below which the repositories of a folder are found; asks for USER and PASSWORD."""

    class Backend(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(b"")

        def do_POST(self) -> None:
            self._answer(self._body())

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        def _answer(self, body: bytes) -> None:
            known = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
            if self.headers.get("Authorization") != f"Basic {known}":
                self._send(401, [("WWW-Authenticate", 'Basic realm="git"')], b"who is there?\n")
                return
            path, _, query = self.path.partition("?")
            told = {
                "GIT_PROJECT_ROOT": str(root), "GIT_HTTP_EXPORT_ALL": "1", "REMOTE_USER": USER, "PATH_INFO": path,
                "REQUEST_METHOD": self.command, "QUERY_STRING": query, "CONTENT_LENGTH": str(len(body)),
                "CONTENT_TYPE": self.headers.get("Content-Type", ""), "REMOTE_ADDR": "127.0.0.1",
                "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            }  # fmt: skip
            done = subprocess.run(["git", "http-backend"], input=body, env={**os.environ, **told}, capture_output=True)
            head, _, content = done.stdout.partition(b"\r\n\r\n")
            rows = [row.partition(": ")[::2] for row in head.decode().split("\r\n") if row]
            status = next((int(value.split()[0]) for name, value in rows if name == "Status"), 200)
            self._send(status, [row for row in rows if row[0] != "Status"], content)

        def _send(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
            self.send_response(status)
            for name, value in (*headers, ("Content-Length", str(len(content)))):
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Backend)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def over_ssh(folder: Path) -> Iterator[tuple[str, str]]:
    """The address of this machine's files, and the ssh command that may ask there; keys are made in a new folder."""
    assert shutil.which("ssh"), "git over SSH needs the machine's ssh client"
    folder.mkdir()
    host, mine = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
    mine.write_private_key(folder / "mine")
    (folder / "mine").chmod(0o600)
    mine.write_public_key(folder / "mine.pub")
    ready, loop, ports = threading.Event(), asyncio.new_event_loop(), list[int]()
    over = asyncio.Event()

    async def served(process: asyncssh.SSHServerProcess[bytes]) -> None:
        program, *words = shlex.split(process.command or "")
        if program not in SERVED:
            process.exit(127)
            return
        pipe = asyncio.subprocess.PIPE
        child = await asyncio.create_subprocess_exec(program, *words, stdin=pipe, stdout=pipe, stderr=pipe)
        await process.redirect(stdin=child.stdin, stdout=child.stdout, stderr=child.stderr)
        code = await child.wait()
        await process.stdout.drain()
        await process.stderr.drain()
        process.exit(code)
        await process.wait_closed()

    async def serve() -> None:
        async with await asyncssh.listen(
            "127.0.0.1", 0, server_host_keys=[host], authorized_client_keys=str(folder / "mine.pub"),
            process_factory=served, encoding=None,
        ) as server:  # fmt: skip
            ports.append(server.get_port())
            ready.set()
            await over.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    try:
        assert ready.wait(60)
        public = host.export_public_key().decode()
        (folder / "known").write_text(f"[127.0.0.1]:{ports[0]} {public}", encoding="utf-8")
        options = f"-F /dev/null -i {folder}/mine -o IdentitiesOnly=yes -o UserKnownHostsFile={folder}/known"
        yield f"ssh://{USER}@127.0.0.1:{ports[0]}", f"ssh {options} -o StrictHostKeyChecking=yes -o BatchMode=yes"
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()
        loop.close()
