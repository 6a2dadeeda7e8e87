"""This file tests how Envoy's documents are written in binary form; that Envoy reads the same is tested with one."""

from __future__ import annotations

from typing import Any

import pytest

from branchline.adapters.envoy_documents import typed
from branchline.adapters.envoy_wire import encoded, in_file, resource, version_of


@pytest.mark.parametrize(
    ("message", "document", "written"),
    [
        ("DirectResponseAction", {"status": 150}, "089601"),  # as protobuf.dev has it
        ("RegexMatcher", {"regex": "testing"}, "120774657374696e67"),
        ("HeaderValueOption", {"append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}, "1802"),
        ("WeightedCluster", {"use_hash_policy": True}, "2a020801"),
        ("MaxStreamDuration", {"max_stream_duration": "0.25s"}, "0a07" + "0800" + "1080e59a77"),
        ("MaxStreamDuration", {"max_stream_duration": "1800s"}, "0a05" + "08880e" + "1000"),
        ("VirtualHost", {"domains": ["a", "b"]}, "120161120162"),
        ("FilterConfig", {"config": {}}, "0a00"),  # there, and of no type
        ("PreviousHostsPredicate", {}, ""),
        ("Metadata", {"filter_metadata": {"f": {"k": "v"}}}, "0a0f0a0166120a0a080a016b12031a0176"),
    ],
)
def test_each_kind_of_field_is_written_as_the_encoding_has_it(
    message: str, document: dict[str, Any], written: str
) -> None:
    assert encoded(message, document).hex() == written


def test_a_field_that_is_not_known_is_never_left_out() -> None:
    with pytest.raises(KeyError, match="prefx"):
        encoded("RouteMatch", {"prefx": "/"})


def test_what_is_encoded_already_stands_as_it_is() -> None:
    inner = {"map": {"/a": {"action": {"name": "one"}}, "/b": {"action": {"name": "two"}}}}
    assert encoded("MatcherTree", {"prefix_match_map": encoded("MatchMap", inner)}) == encoded(
        "MatcherTree", {"prefix_match_map": inner}
    )
    hosts = encoded("RouteConfiguration", {"virtual_hosts": [{"name": "a"}]})
    table = typed("config.route.v3.RouteConfiguration", name="t")
    assert resource({**table, "virtual_hosts": hosts}) == resource({**table, "virtual_hosts": [{"name": "a"}]})


def test_a_file_says_its_version() -> None:
    assert version_of(in_file("7.abc", resource(typed("config.route.v3.RouteList")))) == "7.abc"


@pytest.mark.parametrize("spoilt", [b"", b'{"version_info":"x"}', b"\x0a", b"\x0a\xff\xff\x7fx", bytes(9)])
def test_a_file_of_somebody_else_has_none(spoilt: bytes) -> None:
    """F64. Killer: take the first bytes for one, whatever they are."""
    assert version_of(spoilt) == ""
