"""This file tests what an exception is told as, whatever an adapter made of it."""

from __future__ import annotations

import errno

import pytest

from branchline.core.codes import exit_of, problem, status_of, understood
from branchline.errors import BranchlineError, Exhausted, GatewayDown, UnknownService


def test_what_is_known_is_told_as_it_is_and_a_surprise_as_one() -> None:
    known = UnknownService(name="shop")
    assert understood(known) is known
    told = understood(ValueError("no such phase"))
    assert (type(told), told.cause) == (BranchlineError, "ValueError: no such phase")


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_no_file_to_open_is_told_whatever_was_made_of_it_F61(number: int) -> None:
    """Killer: look at the error itself only, and the gateway is said to be down."""
    try:
        try:
            raise OSError(number, "Too many open files")
        except OSError as root:
            raise GatewayDown("admin.sock") from root
    except GatewayDown as error:
        told = understood(error)
    assert (type(told), told.transient, status_of(told.code), exit_of(told.code)) == (Exhausted, True, 503, 75)
    assert "Too many open files" in problem(told)["detail"]
    assert type(understood(OSError(errno.EIO, "broken"))) is BranchlineError
