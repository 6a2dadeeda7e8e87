"""This file holds how Envoy's interface (v3) numbers the fields that our routes say, by message; data alone.

A field is its number and its name, and behind them its kind where that is no text: `int` (any varint), `enum`, `bytes`,
`scalar` (a wrapped number or truth value) or a message. In brackets stands what may come several times, in braces what
stands by name. Numbers are never given again (protobuf.dev), so they hold for every version of Envoy that knows the
field. Source: the .proto files of Envoy's and xDS's interfaces.
"""

from __future__ import annotations

MESSAGES = {
    # ---------------------------------------------------------------------------------------- routes
    "RouteConfiguration": (
        "1 name, 2 virtual_hosts [VirtualHost], 4 response_headers_to_add [HeaderValueOption], "
        "7 validate_clusters scalar, 11 max_direct_response_body_size_bytes scalar, 14 ignore_port_in_host_matching int"
    ),
    "VirtualHost": "1 name, 2 domains [], 3 routes [Route], 16 retry_policy RetryPolicy, 21 matcher Matcher",
    "Route": (
        "1 match RouteMatch, 2 route RouteAction, 4 metadata Metadata, 7 direct_response DirectResponseAction, "
        "9 request_headers_to_add [HeaderValueOption], 12 request_headers_to_remove [], "
        "13 typed_per_filter_config {Any}, 14 name"
    ),
    "RouteList": "1 routes [Route]",
    "RouteMatch": (
        "1 prefix, 2 path, 6 headers [HeaderMatcher], 10 safe_regex RegexMatcher, 13 dynamic_metadata "
        "[MetadataMatcher], 14 path_separated_prefix"
    ),
    "RouteAction": (
        "1 cluster, 3 weighted_clusters WeightedCluster, 5 prefix_rewrite, 8 timeout Duration, "
        "9 retry_policy RetryPolicy, 15 hash_policy [HashPolicy], 24 idle_timeout Duration, "
        "32 regex_rewrite RegexMatchAndSubstitute, 36 max_stream_duration MaxStreamDuration"
    ),
    "WeightedCluster": "1 clusters [ClusterWeight], 5 use_hash_policy scalar",
    "ClusterWeight": "1 name, 2 weight scalar",
    "HashPolicy": "1 header Header",
    "Header": "1 header_name, 2 regex_rewrite RegexMatchAndSubstitute",
    "MaxStreamDuration": "1 max_stream_duration Duration",
    "RetryPolicy": (
        "1 retry_on, 2 num_retries scalar, 3 per_try_timeout Duration, 4 retry_priority TypedExtension, "
        "5 retry_host_predicate [TypedExtension], 6 host_selection_retry_max_attempts int"
    ),
    "TypedExtension": "1 name, 3 typed_config Any",
    "PreviousPrioritiesConfig": "1 update_frequency int",
    "PreviousHostsPredicate": "",
    "DirectResponseAction": "1 status int, 2 body DataSource",
    "DataSource": "3 inline_string",
    "FilterConfig": "1 config Any, 3 disabled int",
    # ---------------------------------------------------------------------------------------- what matches
    "HeaderMatcher": (
        "1 name, 7 present_match int, 8 invert_match int, 13 string_match StringMatcher, "
        "14 treat_missing_header_as_empty int"
    ),
    "StringMatcher": "1 exact, 5 safe_regex RegexMatcher",
    "RegexMatcher": "2 regex",
    "RegexMatchAndSubstitute": "1 pattern RegexMatcher, 2 substitution",
    "MetadataMatcher": "1 filter, 2 path [PathSegment], 3 value ValueMatcher",
    "PathSegment": "1 key",
    "ValueMatcher": "5 present_match int",
    "Matcher": "2 matcher_tree MatcherTree",
    "MatcherTree": "1 input TypedExtensionConfig, 3 prefix_match_map MatchMap",
    "MatchMap": "1 map {OnMatch}",
    "OnMatch": "2 action TypedExtensionConfig",
    "TypedExtensionConfig": "1 name, 2 typed_config Any",
    "HttpRequestHeaderMatchInput": "1 header_name",
    # ---------------------------------------------------------------------------------------- headers, metadata
    "HeaderValueOption": "1 header HeaderValue, 3 append_action enum",
    "HeaderValue": "1 key, 2 value",
    "Metadata": "1 filter_metadata {Struct}",
}
COMMON = {  # a file, and what Protocol Buffers themselves know
    "DiscoveryResponse": "1 version_info, 2 resources [Any]",
    "Any": "1 type_url, 2 value bytes",
    "Duration": "1 seconds int, 2 nanos int",
    "Scalar": "1 value int",
    "Struct": "1 fields {Value}",
    "Value": "3 string_value",
}
NUMBERS = {"OVERWRITE_IF_EXISTS_OR_ADD": 2}
