"""This file keeps what was built and what the gates found: the Catalog port on SQLite.

Rules: every row is a fact and is never changed. A version is allocated by a row of `version`, whose primary key gives
each one once (I25); a revision is called by its final version as soon as it has one.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import BindParameter, bindparam, func, insert, select
from sqlalchemy.engine import Connection, RowMapping

from branchline.adapters import sqlite_runs
from branchline.adapters.sqlite import SqliteFile
from branchline.adapters.sqlite_tables import gate_result, revision, version
from branchline.core import names
from branchline.core.reuse import Trace
from branchline.core.revision import GateResult, Result, Revision, StepRun
from branchline.core.tracking import Query, Run
from branchline.errors import UnknownReference

_OF_SERVICE: BindParameter[str] = bindparam("service")
_OF_COMMIT: BindParameter[str] = bindparam("commit")
NAMED = select(revision, version.c.version, version.c.final).join(
    version, (version.c.service == revision.c.service) & (version.c.commit == revision.c.commit)
)
# A revision comes with both its versions; the final one, if any, last.
ONE = NAMED.where(revision.c.service == _OF_SERVICE, revision.c.commit == _OF_COMMIT).order_by(version.c.final)
ALL = NAMED.where(revision.c.service == _OF_SERVICE).order_by(revision.c.number, version.c.final)
TAKEN = select(version.c.version).where(version.c.service == _OF_SERVICE)
BUILDS = select(func.count()).where(revision.c.service == _OF_SERVICE, revision.c.branch == bindparam("branch"))
GATES_NEWEST = select(func.max(gate_result.c.evaluation)).where(
    gate_result.c.service == _OF_SERVICE, gate_result.c.commit == _OF_COMMIT
)
GATES = (
    select(gate_result)
    .where(gate_result.c.service == _OF_SERVICE, gate_result.c.commit == _OF_COMMIT)
    .where(gate_result.c.evaluation == bindparam("newest"))
    .order_by(gate_result.c.number)
)

Wanted = tuple[str, int, str]  # the bump, the line, and for a patch the version that it mends


class SqliteCatalog:
    """The Catalog port."""

    def __init__(self, file: SqliteFile) -> None:
        self._file = file

    def add(self, revision: Revision, bump: str, line: int, after: str = "") -> Revision:
        """Keep a built revision and allocate its pre-release version; the same commit again is returned as it is."""
        with self._file.writing("the revision") as connection:
            kept = _one(connection, revision.service, revision.commit)
            if kept is None:
                _insert(connection, revision, (bump, line, after))
                _allocate(connection, revision, _prerelease(connection, revision, (bump, line, after)), final=False)
                kept = _one(connection, revision.service, revision.commit)
        assert kept is not None
        return kept[0]

    def finish(self, service: str, commit: str) -> Revision:
        """Allocate the final version (unique, never given again) and return the revision; again: as it is."""
        with self._file.writing("the version") as connection:
            kept = _one(connection, service, commit)
            if kept is None:
                raise UnknownReference(reference=f"{service}@{commit}")
            found, wanted = kept
            if found.final:
                return found
            number = str(names.following(_taken(connection, service), *wanted))
            _allocate(connection, found, number, final=True)
        return replace(found, version=number, final=True)

    def reserve(self, service: str, versions: Mapping[str, str]) -> None:
        """Keep these versions from being given to anybody; one that is taken already stays whose it is."""
        with self._file.writing("the versions") as connection:
            taken = {str(each) for each in _taken(connection, service)}
            for number, commit in sorted(versions.items()):
                if names.version(number) and number not in taken:
                    row = {"service": service, "version": number, "commit": f"{commit} {number}", "final": True}
                    connection.execute(insert(version).values(**row))

    def revision(self, service: str, commit: str) -> Revision:
        """Raises UnknownReference."""
        with self._file.reading() as connection:
            kept = _one(connection, service, commit)
        if kept is None:
            raise UnknownReference(reference=f"{service}@{commit}")
        return kept[0]

    def revisions(self, service: str) -> tuple[Revision, ...]:
        """All of them, newest first."""
        with self._file.reading() as connection:
            rows = connection.execute(ALL, {"service": service}).mappings().all()
        by_commit = {row["commit"]: _revision(row) for row in rows}  # the final version comes last, and stays
        return tuple(reversed(by_commit.values()))

    def keep_gates(self, service: str, commit: str, results: Sequence[GateResult]) -> None:
        """Keep one evaluation's results; older evaluations of the commit stay in history, and are read no more."""
        with self._file.writing("the gates") as connection:
            newest = connection.execute(GATES_NEWEST, {"service": service, "commit": commit}).scalar_one() or 0
            rows = [
                {
                    "service": service, "commit": commit, "evaluation": newest + 1, "gate": each.gate,
                    "result": each.result.value, "summary": each.summary, "numbers": json.dumps(each.numbers),
                    "seconds": each.seconds, "log": each.log,
                }
                for each in results
            ]  # fmt: skip
            if rows:
                connection.execute(insert(gate_result), rows)

    def gates(self, service: str, commit: str) -> tuple[GateResult, ...]:
        """The results of the newest evaluation, in order."""
        with self._file.reading() as connection:
            newest = connection.execute(GATES_NEWEST, {"service": service, "commit": commit}).scalar_one() or 0
            rows = connection.execute(GATES, {"service": service, "commit": commit, "newest": newest}).all()
        return tuple(
            GateResult(row.gate, Result(row.result), row.summary, _pairs(row.numbers), row.seconds, row.log)
            for row in rows
        )

    def keep_run(self, service: str, commit: str, runs: Sequence[StepRun], run: int = 0) -> int:
        """Keep what became of the steps, with what they told of themselves, in one transaction."""
        with self._file.writing("the run") as connection:
            return sqlite_runs.keep(connection, service, commit, runs, run)

    def run(self, service: str, commit: str) -> tuple[StepRun, ...]:
        """The steps of the newest run of that commit; () when there was none."""
        with self._file.reading() as connection:
            newest = sqlite_runs.newest(connection, service, commit)
            return sqlite_runs.steps(connection, newest, service, commit)

    def numbered(self, run: int) -> Run:
        """One run with all that is known of it; raises UnknownReference."""
        with self._file.reading() as connection:
            service, commit = sqlite_runs.owner(connection, run)
            if not service:
                raise UnknownReference("no run has this number", reference=str(run), hint="branchline runs")
            return Run(run, service, commit, sqlite_runs.steps(connection, run, service, commit))

    def runs(self, query: Query) -> tuple[Run, ...]:
        """The runs that a query means, newest first, in brief."""
        with self._file.reading() as connection:
            return sqlite_runs.found(connection, query)

    def traces(self, keys: Collection[str]) -> dict[str, tuple[Trace, ...]]:
        """The results that may be reused under each key, newest first."""
        with self._file.reading() as connection:
            return sqlite_runs.traces(connection, keys)


def _one(connection: Connection, service: str, commit: str) -> tuple[Revision, Wanted] | None:
    """A revision under its best version, with what its final version is to follow."""
    rows = connection.execute(ONE, {"service": service, "commit": commit}).mappings().all()
    if not rows:
        return None
    return _revision(rows[-1]), (rows[-1]["bump"], rows[-1]["line"], rows[-1]["after"])


def _insert(connection: Connection, new: Revision, wanted: Wanted) -> None:
    row = {column.name: getattr(new, column.name) for column in revision.c if hasattr(new, column.name)}
    row |= {"artifacts": json.dumps(new.artifacts), "data": json.dumps(new.data)}
    row |= dict(zip(("bump", "line", "after"), wanted, strict=True))
    connection.execute(insert(revision), row)


def _allocate(connection: Connection, of: Revision, number: str, *, final: bool) -> None:
    row = {"service": of.service, "version": number, "commit": of.commit, "final": final}
    connection.execute(insert(version), row)


def _prerelease(connection: Connection, of: Revision, wanted: Wanted) -> str:
    """`X.Y.Z-HANDLE.N`: the version it would get now, and how many times its branch was built."""
    taken = _taken(connection, of.service)
    branch = names.branch(of.branch)
    handle = branch.handle if branch else "build"
    # Branches of one handle (an experiment and a fix) count apart, so N may be taken: the next free one is as good.
    n = connection.execute(BUILDS, {"service": of.service, "branch": of.branch}).scalar_one()
    following = names.following(taken, *wanted)
    while (number := replace(following, pre=f"{handle}.{n}")) in taken:
        n += 1
    return str(number)


def _taken(connection: Connection, service: str) -> list[names.Version]:
    read = (names.version(text) for text in connection.execute(TAKEN, {"service": service}).scalars())
    return [each for each in read if each]


def _revision(row: RowMapping) -> Revision:
    plain = "service commit version branch tree environment sdk spec schema trained author built"
    return Revision(
        **{name: row[name] for name in plain.split()},
        artifacts=_pairs(row["artifacts"]),
        data=_pairs(row["data"]),
        final=bool(row["final"]),
    )


def _pairs(text: str) -> tuple[tuple[str, Any], ...]:
    return tuple((name, value) for name, value in json.loads(text))
