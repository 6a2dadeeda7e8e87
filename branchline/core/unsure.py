"""This file says what of a step's code makes its reuse unsure, as far as its text tells: notices BL301 to BL306."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from typing import NamedTuple

from branchline.core.reuse import Notice


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


PROCESSES = _words(
    "subprocess.run subprocess.Popen subprocess.call subprocess.check_call subprocess.check_output "
    "subprocess.getoutput subprocess.getstatusoutput os.system os.popen os.posix_spawn os.posix_spawnp os.exec* "
    "os.spawn* os.startfile pty.spawn asyncio.create_subprocess_exec asyncio.create_subprocess_shell"
)
NETWORKS = _words(
    "socket.socket socket.create_connection socket.create_server urllib.request.urlopen urllib.request.urlretrieve "
    "urllib.request.build_opener http.client.HTTPConnection http.client.HTTPSConnection requests.get requests.post "
    "requests.put requests.patch requests.delete requests.head requests.request requests.Session httpx.get httpx.post "
    "httpx.put httpx.patch httpx.delete httpx.head httpx.request httpx.stream httpx.Client httpx.AsyncClient "
    "aiohttp.ClientSession ftplib.FTP ftplib.FTP_TLS smtplib.SMTP smtplib.SMTP_SSL"
)
CLOCKS = _words(
    "time.time time.time_ns time.localtime time.gmtime time.ctime time.strftime datetime.datetime.now "
    "datetime.datetime.utcnow datetime.datetime.today datetime.date.today uuid.uuid1 uuid.uuid4 secrets.* os.urandom "
    "pandas.Timestamp.now pandas.Timestamp.today"
)
DICE = tuple(
    f"random.{name}"
    for name in _words(
        "random randint randrange choice choices shuffle sample uniform gauss normalvariate betavariate "
        "expovariate triangular getrandbits randbytes"
    )
) + tuple(
    f"numpy.random.{name}"
    for name in _words("rand randn randint random random_sample choice shuffle permutation normal uniform")
)
SEEDS = {"random": "random.seed", "numpy": "numpy.random.seed"}
VARIABLES = frozenset({"os.environ", "os.environ.get", "os.environ.pop", "os.environ.setdefault", "os.getenv"})


class Seen(NamedTuple):
    """What was met in one definition: wide, unread, outside or variable; `line` 0 is the definition's own."""

    kind: str
    text: str
    line: int


def matches(name: str, known: Iterable[str]) -> bool:
    """Is a name one of these? One that ends in a star stands for all that begin so."""
    return any(name == each or (each.endswith("*") and name.startswith(each[:-1])) for each in known)


def told(step: str, met: Iterable[tuple[str, Seen]], declared: frozenset[str]) -> Iterator[Notice]:
    """A notice for each thing that was met; `met` has the place of the definition with each."""
    every = list(met)
    outside = {each.text for _, each in every if each.kind == "outside"}
    for place, each in every:
        if each.kind == "outside" and not sort(each.text):
            continue
        where = f"{place.partition(':')[0]}:{each.line}" if each.line else place
        first, _, rest = each.text.partition(" ")
        if each.kind == "wide":
            target = "every module that it imports" if first == "*" else f"all of `{first}`"
            yield Notice("BL305", f"`{step}` depends on {target}: {rest} ({where})", where)
        elif each.kind == "unread":
            text = f"`{first}` does not parse here ({rest}): all of the project is in the key of `{step}`"
            yield Notice("BL304", text, where)
        elif each.kind == "variable" and first in VARIABLES and rest not in declared:
            text = f"`{step}` reads `{rest}` ({where}), which is not declared and so hidden from it"
            yield Notice("BL306", f'{text}. hint: env = {{ {rest} = "..." }}', where)
        elif each.kind == "outside":
            yield from _outside(step, first, where, outside)


@cache
def sort(name: str) -> str:
    """The notice that a name from outside of the project deserves, if any."""
    kinds = {"BL301": PROCESSES, "BL302": NETWORKS, "BL303": CLOCKS, "dice": DICE}
    return next((code for code, known in kinds.items() if matches(name, known)), "")


def _outside(step: str, name: str, where: str, outside: set[str]) -> Iterator[Notice]:
    code = sort(name)
    if code == "BL301":
        text = f"`{step}` starts a process ({name}, {where}); what it reads cannot be seen"
        yield Notice("BL301", f"{text}. hint: list it in `reads`, or make it a command step", where, refuses=True)
    elif code == "BL302":
        text = f"`{step}` connects to a network ({name}, {where}); results cannot be verified"
        hint = 'declare a data source, or `reuse = "always"` with a reason'
        yield Notice("BL302", f"{text}. hint: {hint}", where, refuses=True)
    elif code == "BL303":
        text = f"`{step}` reads the clock ({name}, {where}): a reused result keeps the old time"
        if not name.startswith(("time.", "datetime.", "pandas.")):
            text = f"`{step}` draws at random ({name}, {where}): a reused result keeps the old draw"
        yield Notice("BL303", f"{text}. hint: take it from the run", where)
    elif code == "dice" and SEEDS[name.partition(".")[0]] not in outside:
        text = f"`{step}` draws at random without a seed ({name}, {where}): a reused result keeps the old draw"
        yield Notice("BL303", f"{text}. hint: seed it", where)


def noticed(notices: Iterable[Notice]) -> tuple[Notice, ...]:
    """The same notice once, in the order of codes and places."""
    return tuple(sorted(set(notices), key=lambda each: (each.code, each.where, each.text)))
