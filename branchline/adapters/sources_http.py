"""This file reads data from HTTP(S) addresses, and from no other place than the one that is meant (F45).

Rules: the address that a name leads to is looked at as we connect, and it is that one we connect to, so that no second
answer of a name server leads elsewhere; every redirect is looked at anew. Loopback, private, link-local and other
addresses that are not public are refused unless the project's own file names the host. No proxy is used, for it would
choose the address; no credentials are sent. Sizes and times have limits.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

from branchline.errors import DataMissing, DataRefused, DataUnreachable, DiskFull

MOST_BYTES = 64 << 30
MOST_REDIRECTS = 5
SILENCE, WHOLE = 30.0, 6 * 3600.0  # seconds without a byte, and for all of it
CHUNK = 1 << 20
REDIRECTS = frozenset({301, 302, 303, 307, 308})
MARKS = {"etag": "if-none-match", "last-modified": "if-modified-since"}
INSIDE = frozenset({"168.63.129.16"})  # public by its number, and a cloud's own metadata service
WITHIN = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("2002::/16"))  # IPv6 that carries an IPv4


class Refused(Exception):
    """This host is not to be asked."""


def is_address(where: str) -> bool:
    """Whether it is an address and not a path."""
    return where.startswith(("http://", "https://"))


def name_of(address: str) -> str:
    """The file that an address gives, by its path's last part."""
    name = PurePosixPath(unquote(urlsplit(address).path)).name
    return name if name and name not in (".", "..") and "\0" not in name and len(name.encode()) <= 200 else "data"


def fetched(
    source: str,
    address: str,
    target: Path,
    hosts: Collection[str] = (),
    marks: Mapping[str, str] | None = None,
    most: int = MOST_BYTES,
) -> dict[str, str] | None:
    """Write what an address gives into a file; returns the marks by which its server knows that version.

    None, and no file, when it is what the `marks` of last time stand for. Raises DataRefused, DataMissing,
    DataUnreachable, DiskFull.
    """
    try:
        return _followed(address, target, hosts, marks or {}, most)
    except Refused as refused:
        raise DataRefused(str(refused), where=shown(address), source=source) from refused
    except FileNotFoundError as missing:
        raise DataMissing(f"{shown(address)}: {missing}", source=source) from missing
    except (OSError, http.client.HTTPException, ValueError) as error:
        target.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno == 28:
            raise DiskFull(str(error), what=str(target)) from error
        cause = str(error) or type(error).__name__
        raise DataUnreachable(cause, where=shown(address), source=source) from error


def shown(address: str) -> str:
    """An address without what may be a secret in it."""
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.hostname or ''}{parts.path}"


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public network."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped:
            found = found.ipv4_mapped
        elif found in WITHIN[0]:
            found = ipaddress.ip_address(int(found) & 0xFFFFFFFF)
        elif found in WITHIN[1]:
            found = ipaddress.ip_address(int(found) >> 80 & 0xFFFFFFFF)
    return found.is_global and not found.is_multicast and str(found) not in INSIDE


def _followed(
    address: str, target: Path, hosts: Collection[str], marks: Mapping[str, str], most: int
) -> dict[str, str] | None:
    ends = time.monotonic() + WHOLE
    for _ in range(MOST_REDIRECTS + 1):
        parts = checked(address)
        with _asked(parts, hosts, marks) as answer:
            if answer.status in REDIRECTS and answer.headers["location"]:
                address = urljoin(address, answer.headers["location"])
                if parts.scheme == "https" and not address.startswith("https:"):
                    raise Refused("it leads from https to where anybody may change it")
                continue
            if answer.status == 304 and marks:
                return None
            if answer.status in (404, 410):
                raise FileNotFoundError(f"the server says {answer.status}")
            if answer.status in (401, 403):
                raise Refused(f"the server says {answer.status}")
            if answer.status != 200:
                raise OSError(f"the server says {answer.status}")
            _written(answer, target, most, ends)
            return {name: answer.headers[name] for name in MARKS if answer.headers[name]}
    raise OSError(f"it leads on more than {MOST_REDIRECTS} times")


def checked(address: str) -> SplitResult:
    """The parts of an address; raises Refused for one that is no plain HTTP(S) address."""
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Refused(f"{parts.scheme or 'no scheme'} is neither http nor https")
    if parts.username is not None or parts.password is not None:
        raise Refused("an address that is committed holds no name and no password")
    if any(ord(letter) <= 32 or ord(letter) == 127 for letter in address):
        raise Refused("it has spaces or control characters")
    return parts


@contextmanager
def _asked(parts: SplitResult, hosts: Collection[str], marks: Mapping[str, str]) -> Iterator[http.client.HTTPResponse]:
    """The answer of a server whose address was looked at."""
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    line = _Line(host, port, timeout=SILENCE)
    line.sock = connected(host, port, host.lower() in hosts)
    try:
        if parts.scheme == "https":
            line.sock = ssl.create_default_context().wrap_socket(line.sock, server_hostname=host)
        asked = {"accept-encoding": "identity", "user-agent": "branchline"}
        asked |= {MARKS[name]: value for name, value in marks.items() if name in MARKS}
        line.request("GET", (parts.path or "/") + (f"?{parts.query}" if parts.query else ""), headers=asked)
        yield line.getresponse()
    finally:
        line.close()


class _Line(http.client.HTTPConnection):
    """A connection that was made before, and is not made again by itself."""

    auto_open = 0


def connected(
    host: str, port: int, is_allowed: bool, lookup: Callable[..., list[tuple[object, ...]]] | None = None
) -> socket.socket:
    """A connection to a host at an address that was looked at; raises Refused when none of its addresses will do."""
    found = (lookup or socket.getaddrinfo)(host, port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(str(each[4][0]) for each in found))  # type: ignore[index]
    public = [each for each in addresses if is_allowed or is_public(each)]
    if not public:
        raise Refused(f"{host} is at {', '.join(addresses)}, which is no public address; hosts = [...] may allow it")
    problem: OSError = OSError(f"{host} has no address")
    for address in public:
        try:
            return socket.create_connection((address, port), timeout=SILENCE)
        except OSError as error:
            problem = error
    raise problem


def _written(answer: http.client.HTTPResponse, target: Path, most: int, ends: float) -> None:
    """Write the content of an answer, all of it or raise."""
    encoding = answer.headers["content-encoding"] or "identity"
    if encoding.lower() != "identity":
        raise OSError(f"the content is encoded ({encoding}) although it was not asked for so")
    promised = answer.headers["content-length"]
    if promised and promised.isdigit() and int(promised) > most:
        raise Refused(f"it is {int(promised):,} bytes; at most {most:,} are read")
    written = 0
    with target.open("wb") as file:
        while chunk := answer.read1(CHUNK):
            written += file.write(chunk)
            if written > most:
                raise Refused(f"it is more than {most:,} bytes")
            if time.monotonic() > ends:
                raise TimeoutError(f"it was not whole after {WHOLE:.0f} s")
    if promised and promised.isdigit() and written != int(promised) and answer.chunked is not True:
        raise ConnectionError(f"{written:,} of {int(promised):,} bytes came")
