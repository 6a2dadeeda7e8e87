"""This file makes Envoy show what the gateway is to know, in the only safe order, and reads every change back.

Rules. New clusters stand beside the old ones before a route names them, and the old ones go when no route names them
any more. A version is the serial number and a digest, so no two contents share one; what Envoy is known to have
accepted is not written again. A refused document is put back as it was. A gateway that is dead, or deaf because its
folder was taken from under it, is started anew from its documents; one that only takes its time is waited for.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Iterable, Mapping, Set
from functools import lru_cache

from branchline.adapters.envoy import FILES, Envoy
from branchline.adapters.envoy_documents import STRICT, Places, as_text, cluster_texts
from branchline.adapters.envoy_files import Files
from branchline.adapters.envoy_listener import bootstrap, listeners
from branchline.adapters.envoy_routes import encoded_routes
from branchline.adapters.envoy_table import Gateway
from branchline.adapters.envoy_wire import in_file, version_of
from branchline.errors import EnvoyRejected, GatewayDown

READ_BACK_SECONDS = 5.0
AGAIN_SECONDS = 5.0  # until documents that keep Envoy from starting are tried once more: it was not for want of trying
WARM_SECONDS = 3.0


class Display:
    """The documents of one gateway, as they lie in its folder and as Envoy has accepted them."""

    def __init__(self, envoy: Envoy, files: Files, places: Places) -> None:
        self._envoy = envoy
        self._files = files
        self._places = places
        self._boot = ""
        self._accepted: dict[str, str] = {}  # the versions that this boot has taken
        self._refused: dict[str, int] = {}  # and how many it had refused then; asking costs a read-back's time
        self._shown: tuple[object, ...] = ()
        self._refused_at_start: tuple[dict[str, tuple[str, bytes]], float, str] = {}, 0.0, ""

    def show(self, gateway: Gateway) -> None:
        """Start the gateway, or change what differs; raises EnvoyRejected, GatewayDown, PortTaken, DiskFull."""
        running = self._envoy.pid
        if self._envoy.boot != self._boot:
            self._envoy.settle()
            running, self._boot, self._accepted = self._envoy.pid, self._envoy.boot, {}
        if self._shown[1:] != (self._boot, *self._traces()):
            self._refused = {}  # somebody else has written, and may have been refused, since
        if running and self._shown == (gateway.serial, self._boot, *self._traces()):
            return
        beginning, listener = _fixed(self._places, gateway.port)
        self._files.put("bootstrap.json", beginning)
        cds = cluster_texts(gateway, self._places)
        wanted = {"cds": _listed(cds.values()), "rds": encoded_routes(gateway), "lds": listener}
        self._shown = ()
        try:
            if not running:
                raise GatewayDown
            standing = _standing(self._files.read(FILES["cds"]))
            old = [text for name, text in standing.items() if name not in cds]
            fresh = {name for name in cds if name.endswith(STRICT)} - standing.keys()
            self._change(gateway, wanted, _listed([*cds.values(), *old]) if old else wanted["cds"], fresh)
        except GatewayDown:
            self._envoy.stop()
            self._start(gateway, wanted)
        self._shown = (gateway.serial, self._boot, *self._traces())

    def strayed(self, gateway: Gateway) -> tuple[str, ...]:
        """The files that are not what they should be, or that a running Envoy has not accepted so; changes nothing."""
        running = self._envoy.pid
        if running and self._shown == (gateway.serial, self._envoy.boot, *self._traces()):
            return ()
        beginning, listener = _fixed(self._places, gateway.port)
        cds = _listed(cluster_texts(gateway, self._places).values())
        wanted = {"cds": cds, "lds": listener, "rds": encoded_routes(gateway)}
        found = ["bootstrap.json"] if self._files.read("bootstrap.json") != beginning else []
        for kind, body in wanted.items():
            version, file = self._rendered(gateway, kind, body)
            is_edited = self._files.read_bytes(FILES[kind]) != file
            if is_edited or (running and self._envoy.accepted(kind)[0] != version):
                found.append(FILES[kind])
        return tuple(found)

    def _change(self, gateway: Gateway, wanted: Mapping[str, bytes], both: bytes, fresh: Set[str]) -> None:
        self._write_and_wait(gateway, "cds", both)
        if fresh:
            self._wait_warm(fresh)
        for kind in ("rds", "cds", "lds"):
            self._write_and_wait(gateway, kind, wanted[kind])

    def _wait_warm(self, strict: Set[str]) -> None:
        """Wait until who is well is so through its strict cluster too: else its first requests met the incumbent.

        Who is not well by then shall not be asked, and no change waits for it any longer.
        """

        both = {*strict, *(name.removesuffix(STRICT) for name in strict)}

        def warm() -> bool:
            healthy = self._envoy.healthy(both)
            return all(healthy.get(name) or not healthy.get(name.removesuffix(STRICT)) for name in strict)

        self._envoy.wait(warm, WARM_SECONDS)

    def _start(self, gateway: Gateway, wanted: Mapping[str, bytes]) -> None:
        versions = {kind: self._rendered(gateway, kind, body) for kind, body in wanted.items()}
        refused, again, why = self._refused_at_start
        if refused == versions and time.monotonic() < again:
            raise EnvoyRejected(why, log=self._envoy.reason(20))
        for kind, (_, file) in versions.items():
            self._files.put_bytes(FILES[kind], file)
        try:
            self._envoy.start(self._places.host, gateway.port)
        except EnvoyRejected as error:
            self._refused_at_start = versions, time.monotonic() + AGAIN_SECONDS, error.cause
            raise
        self._boot, self._accepted = self._envoy.boot, {}
        for kind, (version, _) in versions.items():
            self._accepted[kind] = self._envoy.accepted(kind)[0]
            if self._accepted[kind] != version:
                raise self._rejected(kind)

    def _write_and_wait(self, gateway: Gateway, kind: str, body: bytes) -> None:
        """Write one document and wait until Envoy has accepted this very version of it."""
        last = self._files.read_bytes(FILES[kind])
        version, file = self._rendered(gateway, kind, body)
        if (last, self._accepted.get(kind)) == (file, version):
            return
        refused = self._refused[kind] if kind in self._refused else self._envoy.accepted(kind)[1]
        self._files.put_bytes(FILES[kind], file)
        found = ("", refused)

        def answered() -> bool:
            nonlocal found
            found = self._envoy.version(kind), refused
            if found[0] != version:
                found = self._envoy.accepted(kind)
            return found[0] == version or found[1] > refused

        if not self._envoy.wait(answered, READ_BACK_SECONDS):
            raise GatewayDown(f"Envoy did not take {FILES[kind]}", log=self._envoy.reason(20))
        self._accepted[kind], self._refused[kind] = found
        if found[0] != version:
            self._files.put_bytes(FILES[kind], last)
            raise self._rejected(kind)

    def _rejected(self, kind: str) -> EnvoyRejected:
        return EnvoyRejected(f"{kind}: {self._envoy.reason()}", log=self._envoy.reason(20))

    def _rendered(self, gateway: Gateway, kind: str, body: bytes) -> tuple[str, bytes]:
        """A document's version and file; the version of what lies there, if that has the same content."""
        digest = hashlib.sha256(body).hexdigest()[:16]
        lies, is_text = self._files.read_bytes(FILES[kind]), FILES[kind].endswith(".json")
        version = _json_version(lies) if is_text else version_of(lies)
        if version.partition(".")[2] != digest:
            version = f"{gateway.serial}.{digest}"
        return version, _json_file(version, body) if is_text else in_file(version, body)

    def _traces(self) -> tuple[object, ...]:
        """What tells that nobody else has touched the documents since."""
        found: list[object] = []
        for name in (*FILES.values(), "bootstrap.json"):
            with contextlib.suppress(FileNotFoundError):
                stat = (self._envoy.folder / name).stat()
                found.append((name, stat.st_ino, stat.st_mtime_ns))
        return tuple(found)


@lru_cache(maxsize=4)
def _fixed(places: Places, port: int) -> tuple[str, bytes]:
    """What does not depend on what is served: bootstrap and listeners."""
    return as_text(bootstrap(places)), as_text(listeners(places, port)).encode()


@lru_cache(maxsize=1)
def _standing(written: str) -> Mapping[str, str]:
    """The clusters of a document by name; none where somebody else wrote something there: it is written anew."""
    try:
        return {each["name"]: as_text(each) for each in json.loads(written)["resources"]}
    except (ValueError, LookupError, TypeError):
        return {}


def _listed(texts: Iterable[str]) -> bytes:
    return f"[{','.join(texts)}]".encode()


def _json_file(version: str, resources: bytes) -> bytes:
    return b'{"version_info":"%s","resources":%s}' % (version.encode(), resources)


def _json_version(text: bytes) -> str:
    return text[:80].partition(b'"version_info":"')[2].partition(b'"')[0].decode("utf-8", "replace")
