"""Which rule a connection and a request are made by, and what is said where there is none."""

from __future__ import annotations

from typing import Any

import pytest

from fumehood import Allow, Bearer, Network
from fumehood.egress.policy import Denied, Policy

SECRET = "correct-horse-battery-staple"


def policy(*rules: Allow | str, placeholders: dict[str, str] | None = None) -> Policy:
    return Policy(Network(allow=rules), placeholders or {})


RANKED = ("*", "*.com", "*.example.com", "example.com", "*.api.example.com", "v1.api.example.com")
RANKS = {
    "v1.api.example.com": "v1.api.example.com",
    "v2.api.example.com": "*.api.example.com",
    "x.v1.api.example.com": "*.api.example.com",
    "api.example.com": "*.example.com",
    "www.example.com": "*.example.com",
    "example.com": "example.com",
    "notexample.com": "*.com",
    "example.com.evil.com": "*.com",
    "com": "*",
    "example.org": "*",
    "example.com.org": "*",
}


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize(("host", "rule"), RANKS.items(), ids=RANKS.keys())
def test_the_most_exact_host_decides_whatever_the_order(host: str, rule: str, order: int) -> None:
    assert [each.host for each in policy(*RANKED[::order]).rules_for(host)] == [rule]


@pytest.mark.parametrize(
    "host", ["example.com", "com", "notexample.com", "www-example.com", "example.com.evil.org", "a.example.com.org"]
)
def test_a_wildcard_takes_subdomains_alone(host: str) -> None:
    with pytest.raises(Denied, match=f"host {host} is not allowed"):
        policy("*.example.com").connection(host, 443, "https")


@pytest.mark.parametrize("host", ["a.example.com", "a.b.example.com", "x-y.example.com"])
def test_a_wildcard_takes_subdomains_of_every_depth(host: str) -> None:
    assert policy("*.example.com").check_name(host)


@pytest.mark.parametrize("host", ["www.example.com", "xexample.com", "example.co", "example.com.org", "com"])
def test_a_name_stands_for_itself_alone(host: str) -> None:
    with pytest.raises(Denied, match="not allowed"):
        policy("example.com").connection(host, 443, "https")


def test_a_wider_rule_gives_nothing_to_a_host_with_a_rule_of_its_own() -> None:
    narrow = policy("*", Allow(host="*.example.com", methods=("GET",)), Allow(host="a.example.com", ports=(8443,)))
    with pytest.raises(Denied, match="port 443 of host a.example.com"):
        narrow.connection("a.example.com", 443, "https")
    with pytest.raises(Denied, match="POST /"):
        narrow.request("b.example.com", 443, "https", "POST", "/")
    narrow.request("b.org", 443, "https", "POST", "/")


def test_nothing_is_allowed_without_rules() -> None:
    with pytest.raises(Denied, match="no host is") as caught:
        policy().connection("example.com", 443, "https")
    assert (caught.value.host, caught.value.port, caught.value.rule) == ("example.com", 443, "example.com")


CONNECTIONS: dict[str, tuple[dict[str, Any], tuple[int, str]]] = {
    "https": ({}, (443, "https")),
    "http": ({}, (80, "http")),
    "https_on_80": ({}, (80, "https")),
    "other_port": ({"ports": (8443,)}, (8443, "https")),
    "https_alone": ({"scheme": "https"}, (443, "https")),
    "http_alone": ({"scheme": "http"}, (80, "http")),
}


@pytest.mark.parametrize(("fields", "wish"), CONNECTIONS.values(), ids=CONNECTIONS.keys())
def test_what_a_rule_names_is_allowed_unopened(fields: dict[str, Any], wish: tuple[int, str]) -> None:
    assert policy(Allow(host="a.com", **fields)).connection("a.com", *wish) is False


NO_CONNECTIONS: dict[str, tuple[dict[str, Any], tuple[int, str], str]] = {
    "port": ({}, (8443, "https"), "port 8443 of host a.com is not allowed: only 80, 443"),
    "port_80_of_another": ({"ports": (8443,)}, (80, "http"), "only 8443"),
    "port_443_of_another": ({"ports": (8443,)}, (443, "https"), "only 8443"),
    "port_80_of_https": ({"scheme": "https"}, (80, "http"), "port 80"),
    "port_443_of_http": ({"scheme": "http"}, (443, "https"), "port 443"),
    "http_on_https": ({"scheme": "https"}, (443, "http"), "http to port 443 of host a.com is not allowed: only https"),
    "https_on_http": ({"scheme": "http", "ports": (8080,)}, (8080, "https"), "https to port 8080 .* only http"),
}


@pytest.mark.parametrize(("fields", "wish", "why"), NO_CONNECTIONS.values(), ids=NO_CONNECTIONS.keys())
def test_other_ports_and_schemes_are_denied(fields: dict[str, Any], wish: tuple[int, str], why: str) -> None:
    held = policy(Allow(host="a.com", **fields), "*.a.com")
    with pytest.raises(Denied, match=why):
        held.connection("a.com", *wish)
    with pytest.raises(Denied, match=why):
        held.request("a.com", *wish, "GET", "/")


def test_ports_and_schemes_of_two_rules_are_not_mixed() -> None:
    held = policy(Allow(host="a.com", scheme="http", ports=(80,)), Allow(host="a.com", scheme="https", ports=(8443,)))
    assert held.connection("a.com", 80, "http") is False
    assert held.connection("a.com", 8443, "https") is False
    for port, scheme in ((80, "https"), (8443, "http")):
        with pytest.raises(Denied, match=f"{scheme} to port {port}"):
            held.connection("a.com", port, scheme)


OPENED: dict[str, tuple[dict[str, Any], bool]] = {
    "nothing": ({}, False),
    "websocket": ({"websocket": True}, False),
    "credential": ({"credential": Bearer(token=SECRET)}, True),
    "methods": ({"methods": ("GET",)}, True),
    "paths": ({"paths": ("/*",)}, True),
}


@pytest.mark.parametrize(("fields", "opened"), OPENED.values(), ids=OPENED.keys())
def test_tls_is_opened_where_requests_must_be_seen(fields: dict[str, Any], opened: bool) -> None:
    held = policy(Allow(host="a.com", **fields), Allow(host="a.com", ports=(8443,)), "b.com")
    assert held.connection("a.com", 443, "https") is opened
    assert held.connection("a.com", 8443, "https") is False  # no rule about this port needs it
    assert held.connection("b.com", 443, "https") is False


def test_a_placeholder_opens_every_host() -> None:
    rule = Allow(host="a.com", credential=Bearer(token=SECRET, placeholder="TOKEN"))
    held = policy(rule, "b.com", "*.c.com", placeholders={"TOKEN": "made-up"})
    assert [held.connection(host, 443, "https") for host in ("a.com", "b.com", "x.c.com")] == [True] * 3
    assert not policy(rule, "b.com").connection("b.com", 443, "https")


def test_a_placeholder_is_foreign_to_every_rule_but_its_own() -> None:
    own = Allow(host="a.com", credential=Bearer(token=SECRET, placeholder="A"))
    other = Allow(host="b.com", credential=Bearer(token=SECRET, placeholder="B"))
    unnamed, none = Allow(host="c.com", credential=Bearer(token=SECRET)), Allow(host="d.com")
    held = policy(own, other, unnamed, none, placeholders={"A": "made-up-a", "B": "made-up-b"})
    assert held.foreign_placeholders(own) == ["made-up-b"]
    assert held.foreign_placeholders(other) == ["made-up-a"]
    assert held.foreign_placeholders(unnamed) == held.foreign_placeholders(none) == ["made-up-a", "made-up-b"]


REQUESTS: dict[str, tuple[dict[str, Any], str, str]] = {
    "any": ({}, "DELETE", "/x"),
    "method": ({"methods": ("GET", "HEAD")}, "HEAD", "/x"),
    "path": ({"paths": ("/v1/models",)}, "GET", "/v1/models"),
    "path_and_query": ({"paths": ("/v1/models",)}, "GET", "/v1/models?a=1"),
    "path_and_odd_query": ({"paths": ("/v1/models",)}, "GET", "/v1/models?next=//a/../b;c%2e"),
    "second_path": ({"paths": ("/a", "/b")}, "GET", "/b"),
    "beginning": ({"paths": ("/v1/*",)}, "GET", "/v1/models"),
    "deep_beginning": ({"paths": ("/v1/*",)}, "GET", "/v1/a/b/c"),
    "beginning_within_a_part": ({"paths": ("/v1/mod*",)}, "GET", "/v1/models"),
    "method_and_path": ({"methods": ("POST",), "paths": ("/v1/*",)}, "POST", "/v1/chat"),
    "dots_within_a_part": ({"paths": ("/v1/*",)}, "GET", "/v1/..a/b.../.c"),
}


@pytest.mark.parametrize(("fields", "method", "target"), REQUESTS.values(), ids=REQUESTS.keys())
def test_a_request_that_a_rule_names_is_made_by_it(fields: dict[str, Any], method: str, target: str) -> None:
    rule = Allow(host="a.com", **fields)
    assert policy(rule, "*").request("a.com", 443, "https", method, target) == rule


NO_REQUESTS: dict[str, tuple[dict[str, Any], str, str]] = {
    "method": ({"methods": ("GET",)}, "POST", "/"),
    "method_in_lower_case": ({"methods": ("GET",)}, "get", "/"),
    "method_with_more": ({"methods": ("GET",)}, "GETX", "/"),
    "method_empty": ({"methods": ("GET",)}, "", "/"),
    "path": ({"paths": ("/v1/models",)}, "GET", "/v1/chat"),
    "path_below": ({"paths": ("/v1/models",)}, "GET", "/v1/models/x"),
    "path_with_more": ({"paths": ("/v1/models",)}, "GET", "/v1/models2"),
    "path_above": ({"paths": ("/v1/models",)}, "GET", "/v1"),
    "path_in_upper_case": ({"paths": ("/v1/models",)}, "GET", "/V1/models"),
    "path_encoded": ({"paths": ("/v1/models",)}, "GET", "/v1/m%6fdels"),
    "path_in_the_query": ({"paths": ("/v1/models",)}, "GET", "/x?/v1/models"),
    "beginning": ({"paths": ("/v1/*",)}, "GET", "/v2/models"),
    "beginning_without_its_slash": ({"paths": ("/v1/*",)}, "GET", "/v1"),
    "beginning_behind_another": ({"paths": ("/v1/*",)}, "GET", "/x/v1/models"),
    "star_of_options": ({"paths": ("/*",)}, "OPTIONS", "*"),
    "whole_url": ({"paths": ("/v1/*",)}, "GET", "https://a.com/v1/models"),
    "method_of_another_path": ({"methods": ("GET",), "paths": ("/v1/*",)}, "POST", "/v1/x"),
}


@pytest.mark.parametrize(("fields", "method", "target"), NO_REQUESTS.values(), ids=NO_REQUESTS.keys())
def test_a_request_that_no_rule_names_is_denied(fields: dict[str, Any], method: str, target: str) -> None:
    held = policy(Allow(host="a.com", **fields), "*")
    with pytest.raises(Denied, match="of host a.com"):
        held.request("a.com", 443, "https", method, target)
    held.request("b.com", 443, "https", method, target)


AMBIGUOUS = {
    "parent": "/v1/../admin",
    "parent_at_the_end": "/v1/..",
    "parent_in_front": "/../v1/x",
    "here": "/v1/./x",
    "here_at_the_end": "/v1/.",
    "empty_part": "/v1//x",
    "empty_part_in_front": "//v1/x",
    "backslash": "/v1/..\\admin",
    "semicolon": "/v1/..;/admin",
    "parameter": "/v1/x;a=b",
    "fragment": "/v1/x#/admin",
    "encoded_dots": "/v1/%2e%2e/admin",
    "encoded_dots_in_upper_case": "/v1/%2E%2E/admin",
    "one_encoded_dot": "/v1/.%2e/admin",
    "encoded_slash": "/v1%2f..%2fadmin",
    "encoded_slash_in_upper_case": "/v1/%2Fadmin",
    "encoded_backslash": "/v1/..%5cadmin",
    "encoded_backslash_in_upper_case": "/v1/..%5Cadmin",
    "encoded_percent": "/v1/%252e%252e/admin",
    "encoded_nul": "/v1/x%00.png",
}


@pytest.mark.parametrize("path", AMBIGUOUS.values(), ids=AMBIGUOUS.keys())
def test_a_path_that_can_be_read_in_two_ways_is_refused_where_paths_decide(path: str) -> None:
    held = policy(Allow(host="a.com", paths=("/v1/*", "/*")), Allow(host="a.com", methods=("GET",)), "b.com")
    with pytest.raises(Denied, match="in more than one way") as caught:
        held.request("a.com", 443, "https", "GET", path)
    assert caught.value.rule == ""
    with pytest.raises(Denied, match="in more than one way"):
        held.request("a.com", 443, "https", "GET", f"{path}?x")
    assert held.request("b.com", 443, "https", "GET", path).host == "b.com"


@pytest.mark.parametrize(
    ("pattern", "path"), [("/simple/*", "/simple/idna/"), ("/simple/", "/simple/"), ("/*", "/"), ("/", "/")]
)
def test_a_path_may_end_with_a_slash(pattern: str, path: str) -> None:
    rule = Allow(host="a.com", paths=(pattern,))
    assert policy(rule).request("a.com", 443, "https", "GET", path) == rule


def bearing(token: str, **fields: Any) -> Allow:
    return Allow(host="a.com", credential=Bearer(token=token), **fields)


RULES = (
    bearing("everywhere"),
    bearing("by-method", methods=("PUT",)),
    bearing("v1", paths=("/v1/*",)),
    bearing("v1-put", paths=("/v1/*",), methods=("PUT",)),
    bearing("v1-models", paths=("/v1/models/*",)),
    bearing("whole", paths=("/v1/models/whole",)),
)
CHOICES = {
    "no_path": ("GET", "/x", "everywhere"),
    "method": ("PUT", "/x", "by-method"),
    "beginning": ("GET", "/v1/x", "v1"),
    "beginning_and_method": ("PUT", "/v1/x", "v1-put"),
    "longer_beginning": ("GET", "/v1/models/x", "v1-models"),
    "longer_beginning_before_a_method": ("PUT", "/v1/models/x", "v1-models"),
    "whole_path": ("GET", "/v1/models/whole", "whole"),
    "below_a_whole_path": ("GET", "/v1/models/whole/x", "v1-models"),
}


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize(("method", "target", "token"), CHOICES.values(), ids=CHOICES.keys())
def test_the_rule_that_says_most_about_a_request_gives_the_credential(
    method: str, target: str, token: str, order: int
) -> None:
    rule = policy(*RULES[::order]).request("a.com", 443, "https", method, target)
    assert rule.credential == Bearer(token=token)


@pytest.mark.parametrize("order", [1, -1])
def test_a_whole_path_counts_more_than_the_same_as_a_beginning(order: int) -> None:
    rules = (bearing("whole", paths=("/v1/models",)), bearing("beginning", paths=("/v1/models*",)))
    rule = policy(*rules[::order]).request("a.com", 443, "https", "GET", "/v1/models")
    assert rule.credential == Bearer(token="whole")


def test_a_credential_goes_over_http_only_where_its_rule_says_so() -> None:
    with pytest.raises(Denied, match="https alone"):
        policy(bearing(SECRET)).request("a.com", 80, "http", "GET", "/")
    with pytest.raises(Denied, match="not allowed"):
        policy(bearing(SECRET, scheme="https", ports=(80,))).request("a.com", 80, "http", "GET", "/")
    rule = bearing(SECRET, scheme="http")
    assert policy(rule).request("a.com", 80, "http", "GET", "/") == rule
    # Nor does a rule without one take the request over.
    held = policy(bearing(SECRET, paths=("/v1/*",)), Allow(host="a.com"))
    with pytest.raises(Denied, match="https alone"):
        held.request("a.com", 80, "http", "GET", "/v1/x")
    assert held.request("a.com", 80, "http", "GET", "/x").credential is None


HINTS: dict[str, tuple[tuple[Allow | str, ...], tuple[str, int, str, str, str]]] = {
    "host": (("b.com",), ("a.com", 443, "https", "GET", "/")),
    "host_and_port": (("b.com",), ("a.com", 8443, "https", "GET", "/")),
    "port": (("a.com",), ("a.com", 8443, "https", "GET", "/")),
    "scheme": (("https://a.com",), ("a.com", 80, "http", "GET", "/")),
    "scheme_on_its_port": (("http://a.com:8080",), ("a.com", 8080, "https", "GET", "/")),
    "path": (("a.com/v1/*",), ("a.com", 443, "https", "GET", "/v2/x")),
    "path_and_port": (("a.com:8443/v1/*",), ("a.com", 8443, "https", "GET", "/v2/x")),
    "method": ((Allow(host="a.com", methods=("GET",)),), ("a.com", 443, "https", "POST", "/x")),
}


@pytest.mark.parametrize(("rules", "wish"), HINTS.values(), ids=HINTS.keys())
def test_a_denial_names_the_rule_that_would_allow_it(
    rules: tuple[Allow | str, ...], wish: tuple[str, int, str, str, str]
) -> None:
    with pytest.raises(Denied) as caught:
        policy(*rules).request(*wish)
    assert caught.value.rule
    assert caught.value.rule in str(caught.value)
    policy(*rules, caught.value.rule).request(*wish)


def test_a_denial_shows_no_credential() -> None:
    held = policy(bearing(SECRET, methods=("GET",), paths=("/v1/*",)))
    for wish in (("b.com", 443, "https", "GET", "/"), ("a.com", 1, "https", "GET", "/"), ("a.com", 443, "https", "PUT", "/"),
                 ("a.com", 80, "http", "GET", "/v1/x"), ("a.com", 443, "https", "GET", "/v1/..")):  # fmt: skip
        with pytest.raises(Denied) as caught:
            held.request(*wish)
        assert SECRET not in f"{caught.value} {caught.value!r} {caught.value.why} {caught.value.rule}"


def test_a_denied_path_may_have_an_at_sign() -> None:
    held = policy("a.com/v1/*")
    with pytest.raises(Denied) as caught:
        held.request("a.com", 443, "https", "GET", "/@scope/package")
    policy("a.com/v1/*", caught.value.rule).request("a.com", 443, "https", "GET", "/@scope/package")
