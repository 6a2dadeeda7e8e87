"""This file records what a step meets besides its key: the files, folders, modules and code that a run depended on.

`begin(told, plan)` comes first in the step's own process, before any module of the project is imported. Each thing met
is a line of JSON `[kind, name, detail?]` in the descriptor `told`, a file or a memfd. It is open in threads and forks,
and the Python workers that `multiprocessing` and `loky` start are given it; `heard` reads it.

    file, listing, stat, module, ran        can be asked for again: a path from the project's root ("" is the root), a
                                            module, or `module:name` of a definition that ran outside of the closure
    child, network, outside, variable       cannot: a program, host:port, a path, a variable that is not set; the detail
                                            is the place in the project that asked
    blind                                   the recorder itself failed: what it told is not everything

The plan: `root` (the project's tree), `roots` (folders to import from, in order), `allowed` (what may be read besides:
inputs, scratch, environment), `files` (its files and folders, when it is less than the whole tree), `imported` and
`covered` (modules and their definitions that the key holds already). Rules. Nothing here raises into the step or
changes what it computes. Only names are told: who knows the tree knows the values. From Python 3.12 on, the code that
runs outside of the closure is told (PEP 669: it costs nothing once told); 3.11 tells of every module of the project
that was executed.
"""

from __future__ import annotations

import _thread
import ast
import functools
import json
import os
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from types import CodeType, FrameType
from typing import Any

from branchline.sdk.descend import descend
from branchline.sdk.facts import Facts, absolute, beyond, heard, imports, module_names, module_of, standard

__all__ = ["begin", "heard", "resume"]

PROBES = frozenset({"uname", "lscpu", "ldconfig", "lsb_release"})  # how libraries look at the machine
PATHS = ("genericpath", "posixpath", "pathlib", "pathlib._local", "pathlib._abc", "os")
LOST = b'["blind", "recorder"]\n'
FUNCTION = 1  # CO_OPTIMIZED: the bodies of modules and classes do not have it


def begin(told: int, plan: Mapping[str, Any]) -> None:
    """Record from now on, in this process and those it starts, into the descriptor `told`."""
    facts, guard = Facts(told, plan), _Guard(told)
    files, strangers, code = _Files(facts), _Strangers(facts), _Code(facts, guard, plan["covered"])
    watched = {**audited_files(files), **audited_strangers(strangers), "exec": code.executed}

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        act = watched.get(event)
        if act is not None:
            guard(act, *arguments)

    stand_before_stat(guard, files)
    stand_before_variables(guard, strangers)
    descend(told, plan, lambda words: guard(strangers.program, words))
    code.whole = not watch_code(told, code)
    code.loaded()
    sys.meta_path.insert(0, _Sought(code))
    sys.addaudithook(hook)


def resume(told: int, plan: int) -> None:
    """Record in a worker process, which was given the descriptors of its parent's record and plan."""
    document = os.pread(plan, os.fstat(plan).st_size, 0)
    os.close(plan)
    begin(told, json.loads(document))


class _Local(_thread._local):
    busy = False


class _Guard:
    """Lets a watch see what happened, but never what a watch does itself, and raises nothing."""

    def __init__(self, told: int) -> None:
        self.told = told
        self.local = _Local()

    def __call__(self, act: Callable[..., None], *arguments: Any, **named: Any) -> None:
        """Call `act` with the frame two above and the rest."""
        local = self.local
        if local.busy:
            return
        local.busy = True
        try:
            act(sys._getframe(2), *arguments, **named)
        except Exception:  # noqa: BLE001 - a recorder that fails says so and lets the step go on
            lose(self.told)
        finally:
            local.busy = False


def lose(told: int) -> None:
    """Say that not everything is told, with as few frames as there can be: the stack may be at its end."""
    try:  # noqa: SIM105
        os.write(told, LOST)
    except OSError:
        pass


# ---------------------------------------------------------------------------------------------------- files, folders


class _Files:
    """Watches of files and folders."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts

    def opened(self, frame: FrameType, path: Any, mode: str | None, flags: int) -> None:
        """A file is opened, or is not there; what replaces a file's content depends on none of it."""
        if isinstance(path, int) or flags & os.O_DIRECTORY or (imports(frame) and imports(frame.f_back)):
            return
        if module_of(frame) == "ast":  # the interpreter looks for `<unknown>` to show a line that it cannot parse
            return
        if flags & (os.O_TRUNC | os.O_EXCL):
            self.facts.make(absolute(path))
        elif flags & os.O_ACCMODE != os.O_WRONLY:
            self.facts.path(frame, "file", absolute(path))

    def opened_at(self, frame: FrameType, path: Any, flags: int, mode: int = 0, *, dir_fd: int | None = None) -> None:
        """A file is opened relative to a folder's descriptor, which the audit does not tell."""
        if dir_fd is not None:
            self.opened(frame, absolute(path, dir_fd), None, flags)

    def asked(self, frame: FrameType, path: Any, *_: Any, dir_fd: int | None = None, **__: Any) -> None:
        """Somebody asks whether a path is there, or how large; what a package asks for it may read unseen, in C."""
        where = absolute(path, dir_fd)
        if not where.startswith(os.sep):  # a descriptor may be a pipe's
            return
        if ("stat", where) in self.facts.passed:
            return
        asker = beyond(frame, PATHS)
        self.facts.path(frame, "stat", where)
        package = asker is not None and not standard(asker) and not self.facts.inside(asker.f_code.co_filename)
        if package and self.facts.where(where)[0] == "project" and os.path.isfile(where):
            self.facts.path(frame, "file", where)

    def listed(self, frame: FrameType, path: Any = None) -> None:
        """The names in a folder; the import system and the metadata of packages look for theirs alone."""
        if not imports(frame) and not module_of(frame).startswith("importlib.metadata"):
            self.facts.path(frame, "listing", absolute(path))

    def scanned(self, frame: FrameType, path: Any = None) -> None:
        """As `listed`; entries tell sizes besides, to all but the standard library, which hands on names alone."""
        self.listed(frame, path)
        folder = absolute(path)
        if not standard(frame) and self.facts.where(folder)[0] == "project" and os.path.isdir(folder):
            for name in os.listdir(folder):
                self.facts.path(frame, "stat", os.path.join(folder, name))

    def made(self, frame: FrameType, path: Any, *_: Any) -> None:
        """A folder is made."""
        self.facts.make(absolute(path))

    def moved(self, frame: FrameType, source: Any, target: Any, *_: Any) -> None:
        """A file gets a name by another."""
        self.facts.make(absolute(target))

    def database(self, frame: FrameType, path: Any, *_: Any) -> None:
        """SQLite opens a file by itself."""
        text = os.fsdecode(path)
        if text.startswith("file:"):
            from urllib.parse import unquote, urlsplit

            text = "" if "mode=memory" in text else unquote(urlsplit(text).path)
        if text and not text.startswith(":memory:"):
            self.facts.path(frame, "file", absolute(text))

    def library(self, frame: FrameType, path: Any) -> None:
        """The dynamic linker opens a file by itself."""
        if isinstance(path, (str, bytes)) and os.sep in os.fsdecode(path):
            self.facts.path(frame, "file", absolute(path))

    def extension(self, frame: FrameType, module: str, path: Any, *_: Any) -> None:
        """An extension module is loaded from a file; of other imports the finder hears more."""
        if path is not None:
            self.facts.path(frame, "file", absolute(path))


def audited_files(files: _Files) -> dict[str, Callable[..., None]]:
    """The audit events of the interpreter that tell of files."""
    return {
        "open": files.opened,
        "sqlite3.connect": files.database,
        "ctypes.dlopen": files.library,
        "import": files.extension,
        "os.listdir": files.listed,
        "os.scandir": files.scanned,
        "os.mkdir": files.made,
        "os.rename": files.moved,
        "os.link": files.moved,
        "os.symlink": files.moved,
    }


def stand_before_stat(guard: _Guard, files: _Files) -> None:
    """Stand before the functions of `os` that no audit event tells of; they take, give and are listed as before."""
    for name, act in (
        ("stat", files.asked),
        ("lstat", files.asked),
        ("access", files.asked),
        ("open", files.opened_at),
    ):
        watched = before(getattr(os, name), guard, act)
        for group in (os.supports_dir_fd, os.supports_fd, os.supports_follow_symlinks, os.supports_effective_ids):
            if getattr(os, name) in group:
                group.add(watched)
        setattr(os, name, watched)


def before(plain: Callable[..., Any], guard: _Guard, act: Callable[..., None]) -> Callable[..., Any]:
    """A function that lets `act` see its arguments first."""

    @functools.wraps(plain)
    def watched(path: Any, *arguments: Any, **named: Any) -> Any:
        guard(act, path, *arguments, **named)
        return plain(path, *arguments, **named)

    watched.__module__ = "os"  # where a pickle finds it
    return watched


# ------------------------------------------------------------------------------------------------------ modules, code


class _Code:
    """Watches of modules and of what runs in them."""

    def __init__(self, facts: Facts, guard: _Guard, covered: Mapping[str, Collection[str]]) -> None:
        self.facts, self.guard = facts, guard
        self.covered = covered
        self.whole = True

    def loaded(self) -> None:
        """Packages that were imported ahead were looked for, too."""
        ours = ("__main__", "__mp_main__", "branchline")
        ahead = [name for name in sys.modules if "." not in name and name not in sys.stdlib_module_names]
        for name in ahead:
            if name not in ours and name not in self.facts.imported:
                self.facts.note("module", name)

    def sought(self, frame: FrameType, name: str, path: Iterable[str] | None) -> None:
        """A module is looked for where the project could have it; the key knows what the closure imports, and what
        stands in the place of the standard library.
        """
        if name in self.facts.imported:
            return
        for folder in map(absolute, sys.path if path is None else path):
            if self.facts.where(folder)[0] != "project":
                continue
            last = os.path.join(folder, name.rpartition(".")[2])
            if name not in module_names(
                f"{last}.py", self.facts.roots
            ):  # by a way that the project's names do not tell
                self.facts.path(frame, "file", f"{last}.py")
                self.facts.path(frame, "file", os.path.join(last, "__init__.py"))
            elif name not in sys.stdlib_module_names:
                self.facts.note("module", name)

    def executed(self, frame: FrameType, code: Any, *_: Any) -> None:
        """A module of the project runs; it counts whole if nobody sees what of it runs later."""
        if not isinstance(code, CodeType) or code.co_name != "<module>" or not self.facts.inside(code.co_filename):
            return
        module = self.facts.module(code.co_filename)
        if module is None:
            self.facts.path(frame, "file", absolute(code.co_filename))
        elif self.whole or module not in self.facts.imported:
            self.facts.note("module", module)

    def ran(self, code: CodeType) -> None:
        """A function starts; the bodies of classes run with their module and are not asked for."""
        module = self.facts.module(code.co_filename)
        if module is None or module not in self.facts.imported or not code.co_flags & FUNCTION:
            return
        name = code.co_qualname.partition(".")[0]  # a definition counts whole with all that is in it
        if name in self.covered.get(module, ()) or name.startswith("<generic parameters"):
            return
        if name.startswith("<"):  # a lambda at the top of a module: ask for what it stands in
            name = self.statement(code)
        if not name:
            self.facts.note("module", module)
        elif name not in self.covered.get(module, ()):
            self.facts.note("ran", f"{module}:{name}")

    def statement(self, code: CodeType) -> str:
        """The name that the statement around a lambda binds; '' when it binds none, or several."""
        found = ""

        def look(_: FrameType) -> None:
            nonlocal found
            with open(code.co_filename, "rb") as file:
                found = bound_at(file.read(), code.co_firstlineno)

        self.guard(look)
        return found


def bound_at(text: bytes, line: int) -> str:
    """The one name that the statement at a line of a module binds, '' if there is none or there are more."""
    for node in ast.parse(text).body:
        first = min([node.lineno, *(each.lineno for each in getattr(node, "decorator_list", ()))])
        if first <= line <= (node.end_lineno or first):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                return node.name
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            return targets[0].id if len(targets) == 1 and isinstance(targets[0], ast.Name) else ""
    return ""


class _Sought:
    """The first finder of modules: finds none, hears of each that is looked for, found or not."""

    def __init__(self, code: _Code) -> None:
        self.code = code

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        """Hear of a module before it is found."""
        self.code.guard(self.code.sought, name, path)


def watch_code(told: int, code: _Code) -> bool:
    """Ask the interpreter to tell of each code object as it first starts (PEP 669); False if it cannot."""
    if sys.version_info < (3, 12):
        return False
    watch = sys.monitoring
    tool = next((number for number in (4, 3) if watch.get_tool(number) is None), None)
    if tool is None:
        return False
    once = watch.DISABLE

    def started(started: CodeType, _: int) -> object:
        try:
            code.ran(started)
        except Exception:  # noqa: BLE001 - as in the guard
            lose(told)
        return once

    watch.use_tool_id(tool, "branchline")
    watch.register_callback(tool, watch.events.PY_START, started)
    watch.set_events(tool, watch.events.PY_START)
    return True


# ------------------------------------------------------------------------------------ what nobody can ask for again


class _Strangers:
    """Watches of programs, addresses and variables."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts

    def program(self, frame: FrameType, command: Any, argv: Any = None, *_: Any) -> None:
        """A program is started; a shell is named after the first word that it is given."""
        given = argv or command
        words = [os.fsdecode(word) for word in ([given] if isinstance(given, (str, bytes)) else given)]
        if len(words) > 2 and words[1] == "-c" and os.path.basename(words[0]) in ("sh", "bash"):
            words = words[2:3]
        name = next(iter(words[0].split()), "") if len(words) == 1 else words[0]
        starter = beyond(frame, ("subprocess", "os"))
        if os.path.basename(name) not in PROBES or (starter and self.facts.inside(starter.f_code.co_filename)):
            self.facts.note("child", name, self.facts.asker(frame))

    def connected(self, frame: FrameType, _: Any, address: Any = None) -> None:
        """An address is connected or sent to; the local sockets of multiprocessing lead to our own workers."""
        if isinstance(address, tuple):
            self.named(frame, *address[:2])
        elif address:
            text = os.fsdecode(address)
            if not text.startswith("\0listener-") and self.facts.where(absolute(text))[0] != "allowed":
                self.facts.note("network", text, self.facts.asker(frame))

    def named(self, frame: FrameType, host: Any, port: Any = None, *_: Any) -> None:
        """A host is looked up."""
        if host is not None:
            words = [os.fsdecode(word) if isinstance(word, bytes) else str(word) for word in (host, port) if word]
            self.facts.note("network", ":".join(words), self.facts.asker(frame))

    def unset(self, frame: FrameType, name: Any) -> None:
        """The project asks for a variable that is not set; those that are set are in the key."""
        asker = beyond(frame, ("os", "posixpath", "_collections_abc", "collections.abc"))
        if asker is not None and self.facts.inside(asker.f_code.co_filename):
            self.facts.note("variable", os.fsdecode(name), self.facts.asker(asker))


def audited_strangers(strangers: _Strangers) -> dict[str, Callable[..., None]]:
    """The audit events of the interpreter that tell of programs and addresses."""
    return {
        "subprocess.Popen": strangers.program,
        "os.system": strangers.program,
        "os.posix_spawn": strangers.program,
        "os.exec": strangers.program,
        "socket.connect": strangers.connected,
        "socket.sendto": strangers.connected,
        "socket.sendmsg": strangers.connected,
        "socket.getaddrinfo": strangers.named,
        "socket.gethostbyname": strangers.named,
    }


def stand_before_variables(guard: _Guard, strangers: _Strangers) -> None:
    """Hear of the variables that are asked for in vain."""

    class Variables(os._Environ):  # type: ignore[type-arg]  # of text and of bytes
        def __getitem__(self, key: Any) -> Any:
            try:
                return super().__getitem__(key)
            except KeyError:
                guard(strangers.unset, key)
                raise

    for variables in (os.environ, os.environb):
        variables.__class__ = Variables
