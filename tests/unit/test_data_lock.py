"""This file tests `data.lock`: what it pins is read as it was written, and what is none is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from branchline.adapters import servicefile
from branchline.errors import BadServiceFile
from branchline.ports import DataVersion


def test_a_lock_is_read_as_it_was_written_and_has_one_form() -> None:
    columns = (("id", "number"), ("zone", "text"))
    sales, maps = DataVersion("sales", "a" * 64, 31, 1319, 99, columns), DataVersion("maps", "b" * 64, 1, 0, 5)
    text = servicefile.lock([sales, maps])
    assert text == servicefile.lock([maps, sales])
    assert servicefile.read_lock(text, "data.lock") == {"sales": "a" * 64, "maps": "b" * 64}
    assert servicefile.pins(text, "data.lock") == {"sales": sales, "maps": maps}
    assert text.endswith(b"}\n")


def test_a_lock_from_before_columns_were_known_is_read_and_a_wide_one_is_short() -> None:
    old = b'{"sales": {"digest": "%s", "files": 1, "rows": 2, "size": 3}}' % (b"a" * 64)
    assert servicefile.pins(old, "")["sales"] == (known := DataVersion("sales", "a" * 64, 1, 2, 3))
    assert b"columns" not in servicefile.lock([replace(known, columns=(("c", "text"),) * 1001)])


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b'{"sales": {"digest": "x"}}', b'{"sales": 1}', b"\xff"])
def test_a_lock_that_is_none_is_refused(text: bytes) -> None:
    with pytest.raises(BadServiceFile) as told:
        servicefile.read_lock(text, "services/housing/data.lock")
    assert "branchline data update" in told.value.cause
