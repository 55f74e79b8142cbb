"""What rules and networks may hold, what is said of what they may not, and that no text shows a secret."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from fumehood import Allow, Basic, Bearer, ExecutionRequest, Header, Network, Query, StoredSecret
from fumehood.errors import InvalidRequest
from fumehood.protocol.credentials import Credential

SECRET = "correct-horse-battery-staple"

RULES: dict[str, tuple[str, dict[str, Any]]] = {
    "host": ("api.example.com", {"host": "api.example.com"}),
    "spelled_otherwise": ("API.example.com.", {"host": "api.example.com"}),
    "subdomains": ("*.example.com", {"host": "*.example.com"}),
    "all": ("*", {"host": "*"}),
    "port": ("example.com:8443", {"host": "example.com", "ports": (8443,)}),
    "https": ("https://example.com", {"host": "example.com", "scheme": "https", "ports": (443,)}),
    "http": ("http://example.com", {"host": "example.com", "scheme": "http", "ports": (80,)}),
    "scheme_and_port": ("http://example.com:81", {"host": "example.com", "scheme": "http", "ports": (81,)}),
    "path": ("example.com/v1/models", {"host": "example.com", "paths": ("/v1/models",)}),
    "beginning_of_a_path": ("example.com/v1/*", {"host": "example.com", "paths": ("/v1/*",)}),
    "slash_alone": ("example.com/", {"host": "example.com"}),
    "network": ("example.com@10.0.0.0/8", {"host": "example.com", "addresses": ("10.0.0.0/8",)}),
    "address": ("example.com@10.1.2.3", {"host": "example.com", "addresses": ("10.1.2.3",)}),
    "network_of_ipv6": ("example.com@fd00::/8", {"host": "example.com", "addresses": ("fd00::/8",)}),
    "every_part": (
        "https://*.example.com:8443/v1/*@10.0.0.0/8",
        {"host": "*.example.com", "scheme": "https", "ports": (8443,), "paths": ("/v1/*",), "addresses": ("10.0.0.0/8",)},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "fields"), RULES.values(), ids=RULES.keys())
def test_a_text_stands_for_a_rule(text: str, fields: dict[str, Any]) -> None:
    assert Allow.parse(text) == Allow(**fields)
    assert Network(allow=[text]) == Network(allow=[Allow(**fields)])


NO_RULES = {
    "empty": "",
    "scheme_alone": "https://",
    "other_scheme": "ftp://example.com",
    "scheme_in_upper_case": "HTTPS://example.com",
    "one_slash": "https:/example.com",
    "port_alone": ":443",
    "path_alone": "/v1",
    "port_blank": "example.com:",
    "port_0": "example.com:0",
    "port_65536": "example.com:65536",
    "port_signed": "example.com:+80",
    "port_of_a_name": "example.com:https",
    "two_ports": "example.com:80:81",
    "list_of_ports": "example.com:80,81",
    "network_blank": "example.com@",
    "network_of_a_host": "user@example.com",
    "network_with_more_bits": "example.com@10.0.0.1/8",
    "network_too_long": "example.com@10.0.0.0/33",
    "two_networks": "example.com@10.0.0.0/8@fd00::/8",
    "user_and_password": "https://user:word@example.com",
    "star_inside": "api.*.com",
    "star_at_the_end": "example.*",
    "star_without_a_dot": "*example.com",
    "two_stars": "**",
    "two_stars_and_a_name": "**.example.com",
    "two_labels_of_stars": "*.*.com",
    "star_and_a_dot": "*.",
    "star_of_an_address": "*.0.0.1",
    "star_inside_a_path": "example.com/a*b",
    "two_stars_in_a_path": "example.com/**",
    "path_beyond_ascii": "example.com/\u00fc",
    "address": "127.0.0.1",
    "address_and_port": "127.0.0.1:80",
    "ipv6": "[::1]",
    "ipv6_and_port": "[::1]:443",
    "query": "example.com?x",
    "fragment": "example.com#x",
    "space": "example.com ",
    "line_feed": "example.com\n",
    "nul": "example.com\0",
    "two_hosts": "a.com,b.com",
    "beyond_ascii": "ex\u00e4mple.com",
}


@pytest.mark.parametrize("text", NO_RULES.values(), ids=NO_RULES.keys())
def test_a_text_that_is_no_rule_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match=r"host|scheme|addresses|path|@"):
        Allow.parse(text)


FIELDS: dict[str, tuple[dict[str, Any], str]] = {
    "host_type": ({"host": 5}, "host is int"),
    "host_bytes": ({"host": b"a.com"}, "host is bytes"),
    "host_none": ({"host": None}, "host is NoneType"),
    "host_with_port": ({"host": "a.com:80"}, "character ':'"),
    "ports_number": ({"ports": 443}, "ports of host"),
    "ports_text": ({"ports": "443"}, "ports of host"),
    "ports_of_texts": ({"ports": ("443",)}, "port '443'"),
    "port_0": ({"ports": (0,)}, "port 0"),
    "port_negative": ({"ports": (-1,)}, "port -1"),
    "port_65536": ({"ports": (443, 65536)}, "port 65536"),
    "port_bool": ({"ports": (True,)}, "port True"),
    "port_float": ({"ports": (443.0,)}, "port 443.0"),
    "scheme": ({"scheme": "ws"}, "scheme 'ws'"),
    "scheme_type": ({"scheme": None}, "scheme None"),
    "methods_text": ({"methods": "GET"}, "methods of host"),
    "method_lower_case": ({"methods": ("get",)}, "method 'get'"),
    "method_empty": ({"methods": ("",)}, "method ''"),
    "method_star": ({"methods": ("*",)}, r"method '\*'"),
    "method_line": ({"methods": ("GET\r\n",)}, "method"),
    "method_beyond_ascii": ({"methods": ("\u00c9",)}, "method"),
    "method_type": ({"methods": (b"GET",)}, "method"),
    "paths_text": ({"paths": "/v1"}, "paths of host"),
    "path_without_slash": ({"paths": ("v1",)}, "path 'v1'"),
    "path_empty": ({"paths": ("",)}, "path ''"),
    "path_star_alone": ({"paths": ("*",)}, r"path '\*'"),
    "path_star_inside": ({"paths": ("/*/x",)}, "path"),
    "path_beyond_ascii": ({"paths": ("/\u00fc",)}, "path"),
    "path_type": ({"paths": (5,)}, "path 5"),
    "addresses_text": ({"addresses": "10.0.0.0/8"}, "addresses of host"),
    "address_of_a_name": ({"addresses": ("localhost",)}, "write a network like"),
    "address_with_more_bits": ({"addresses": ("10.0.0.1/8",)}, "write a network like"),
    "address_octal": ({"addresses": ("010.0.0.1",)}, "write a network like"),
    "address_empty": ({"addresses": ("",)}, "write a network like"),
    "credential_text": ({"credential": SECRET}, "give Bearer"),
    "credential_dict": ({"credential": {"token": SECRET}}, "give Bearer"),
    "credential_class": ({"credential": Bearer}, "give Bearer"),
    "credential_secret_alone": ({"credential": StoredSecret(id="key")}, "give Bearer"),
}


@pytest.mark.parametrize(("fields", "why"), FIELDS.values(), ids=FIELDS.keys())
def test_a_rule_that_cannot_be_is_refused_and_told_why(fields: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidRequest, match=why) as caught:
        Allow(**{"host": "a.com", **fields})
    assert SECRET not in str(caught.value)


def test_ports_follow_from_the_scheme_where_none_is_named() -> None:
    assert [Allow(host="a.com", scheme=each).ports for each in ("", "https", "http")] == [(443, 80), (443,), (80,)]
    assert Allow(host="a.com", scheme="http", ports=(8080,)).ports == (8080,)


def test_requests_must_be_seen_for_a_credential_a_method_or_a_path_alone() -> None:
    seeing: list[dict[str, Any]] = [{"credential": Bearer(token=SECRET)}, {"methods": ("GET",)}, {"paths": ("/v1",)}]
    assert all(Allow(host="a.com", **each).needs_opening for each in seeing)
    others: list[dict[str, Any]] = [{}, {"websocket": True}, {"ports": (1,)}, {"addresses": ("10.0.0.0/8",)}]
    assert not any(Allow(host="a.com", **each).needs_opening for each in others)


NETWORKS: dict[str, tuple[dict[str, Any], str]] = {
    "allow_text": ({"allow": "a.com"}, "allow is str"),
    "allow_rule": ({"allow": Allow(host="a.com")}, "allow is Allow"),
    "allow_none": ({"allow": None}, "allow is NoneType"),
    "allow_set": ({"allow": {"a.com"}}, "allow is set"),
    "allow_of_numbers": ({"allow": [5]}, "allow has a int"),
    "allow_of_bytes": ({"allow": [b"a.com"]}, "allow has a bytes"),
    "allow_bad_text": ({"allow": ["a.com", "b_c"]}, "host 'b_c'"),
    "allow_1001": ({"allow": [f"a{number}.com" for number in range(1001)]}, "1001 rules: 1000 is the most"),
    "ports_33": ({"allow": [Allow(host="a.com", ports=tuple(range(1000, 1031)))]}, "33 ports: 32 is the most"),
    "ports_33_of_several_rules": ({"allow": [f"a.com:{port}" for port in range(1000, 1031)]}, "33 ports"),
    "connections_0": ({"connections": 0}, "connections is 0"),
    "connections_10001": ({"connections": 10_001}, "connections is 10001"),
    "connections_text": ({"connections": "5"}, "connections is '5'"),
    "connections_bool": ({"connections": True}, "connections is True"),
    "connections_none": ({"connections": None}, "connections is None"),
    "sent_negative": ({"sent_bytes": -1}, "sent_bytes is -1"),
    "sent_too_many": ({"sent_bytes": (1 << 50) + 1}, "sent_bytes is"),
    "received_negative": ({"received_bytes": -1}, "received_bytes is -1"),
    "received_infinite": ({"received_bytes": float("inf")}, "received_bytes is inf"),
    "seconds_0": ({"connection_seconds": 0}, "connection_seconds is 0"),
    "seconds_not_a_number": ({"connection_seconds": float("nan")}, "connection_seconds is nan"),
    "seconds_of_two_days": ({"connection_seconds": 172_800}, "connection_seconds is 172800"),
}


@pytest.mark.parametrize(("fields", "why"), NETWORKS.values(), ids=NETWORKS.keys())
def test_a_network_that_cannot_be_is_refused_and_told_why(fields: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidRequest, match=why):
        Network(**fields)


def test_a_network_may_have_its_limits_ends() -> None:
    Network(allow=[f"a{number}.com" for number in range(1000)])
    Network(allow=[Allow(host="a.com", ports=tuple(range(1000, 1030)))])
    Network(connections=1, sent_bytes=0, received_bytes=0, connection_seconds=0.01)
    Network(connections=10_000, sent_bytes=1 << 50, received_bytes=1 << 50, connection_seconds=86_400)


def test_a_network_allows_nothing_by_default_and_takes_the_usual_ports() -> None:
    assert Network().rules == ()
    assert Network().ports == (80, 443)
    assert Network(allow=["a.com:8443", "b.com:22"]).ports == (22, 80, 443, 8443)


TWINS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "the_same_rule": ({}, {}),
    "one_without_a_credential": ({}, {"credential": None}),
    "a_port_in_common": ({"ports": (443, 8443)}, {"ports": (8443, 9443)}),
    "a_path_in_common": ({"paths": ("/a", "/b")}, {"paths": ("/b", "/c")}),
    "a_method_in_common": ({"methods": ("GET", "PUT")}, {"methods": ("PUT",)}),
    "spelled_otherwise": ({"host": "A.COM."}, {}),
    "another_placeholder": ({"credential": Bearer(token=SECRET, placeholder="A")}, {"credential": Bearer(token=SECRET)}),
}  # fmt: skip


@pytest.mark.parametrize(("first", "second"), TWINS.values(), ids=TWINS.keys())
def test_the_same_requests_cannot_have_two_credentials(first: dict[str, Any], second: dict[str, Any]) -> None:
    rules = [
        Allow(**{"host": "a.com", "credential": Bearer(token=SECRET), **first}),
        Allow(**{"host": "a.com", "credential": Bearer(token=f"other-{SECRET}"), **second}),
    ]
    with pytest.raises(InvalidRequest, match="different credentials") as caught:
        Network(allow=rules)
    assert SECRET not in str(caught.value)


APART: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "ports": ({"ports": (443,)}, {"ports": (8443,)}),
    "paths": ({"paths": ("/a",)}, {"paths": ("/b",)}),
    "methods": ({"methods": ("GET",)}, {"methods": ("POST",)}),
    "hosts": ({"host": "*.a.com"}, {"host": "a.com"}),
}


@pytest.mark.parametrize(("first", "second"), APART.values(), ids=APART.keys())
def test_other_requests_may_have_another_credential(first: dict[str, Any], second: dict[str, Any]) -> None:
    rules = (
        Allow(**{"host": "a.com", "credential": Bearer(token=SECRET), **first}),
        Allow(**{"host": "a.com", "credential": Bearer(token=f"other-{SECRET}"), **second}),
    )
    assert Network(allow=rules).rules == rules


def test_placeholders_are_named_once_in_the_order_of_the_rules() -> None:
    bearers = [Bearer(token=SECRET, placeholder=name) for name in ("B", "", "A", "B")]
    network = Network(allow=[Allow(host=f"a{at}.com", credential=each) for at, each in enumerate(bearers)])
    assert network.placeholders == ("B", "A")
    assert network.has_credentials
    assert not Network(allow=["a.com"]).has_credentials


CREDENTIALS: dict[str, Credential] = {
    "bearer": Bearer(token=SECRET),
    "bearer_with_placeholder": Bearer(token=SECRET, placeholder="GH_TOKEN"),
    "basic": Basic(user="me", password=SECRET),
    "header": Header(name="X-Api-Key", value=SECRET),
    "query": Query(key="key", value=SECRET),
}


@pytest.mark.parametrize("credential", CREDENTIALS.values(), ids=CREDENTIALS.keys())
def test_no_text_of_a_record_shows_a_secret(credential: Credential) -> None:
    rule = Allow(host="a.com", credential=credential)
    network = Network(allow=[rule])
    request = ExecutionRequest(code="", network=network)
    for record in (credential, rule, network, request):
        for text in (repr(record), str(record), f"{record}", f"{[record]}"):
            assert SECRET not in text
            assert type(credential).__name__ in text
    assert SECRET not in network.describe()


@pytest.mark.parametrize("credential", CREDENTIALS.values(), ids=CREDENTIALS.keys())
def test_a_network_comes_out_of_json_as_it_went_in(credential: Credential) -> None:
    network = Network(
        allow=[
            Allow(
                host="*.a.com", ports=(443, 8443), scheme="https", credential=credential, methods=("GET", "PUT"),
                paths=("/v1/*", "/x"), websocket=True, addresses=("10.0.0.0/8", "fd00::/8"),
            ),
            "b.com",
        ],
        connections=7, sent_bytes=8, received_bytes=9, connection_seconds=1.5,
    )  # fmt: skip
    plain = json.dumps(network.as_plain())
    assert SECRET in plain
    assert Network.from_plain(json.loads(plain)) == network
    for rule in network.rules:
        assert Allow.from_plain(json.loads(json.dumps(rule.as_plain()))) == rule
    assert Network.from_plain(json.loads(json.dumps(Network().as_plain()))) == Network()


BAD_CREDENTIALS: dict[str, tuple[Callable[..., Credential], dict[str, Any]]] = {
    "bearer_empty": (Bearer, {"token": ""}),
    "bearer_type": (Bearer, {"token": [SECRET]}),
    "bearer_bytes": (Bearer, {"token": SECRET.encode()}),
    "bearer_line_feed": (Bearer, {"token": f"{SECRET}\n"}),
    "bearer_carriage_return": (Bearer, {"token": f"{SECRET}\rX: y"}),
    "bearer_nul": (Bearer, {"token": f"{SECRET}\0"}),
    "bearer_space_at_the_end": (Bearer, {"token": f"{SECRET} "}),
    "bearer_tab": (Bearer, {"token": f"{SECRET}\tx"}),
    "bearer_beyond_ascii": (Bearer, {"token": f"{SECRET}\u00fc"}),
    "bearer_placeholder_equals": (Bearer, {"token": SECRET, "placeholder": "A=B"}),
    "bearer_placeholder_line": (Bearer, {"token": SECRET, "placeholder": "A\n"}),
    "bearer_placeholder_type": (Bearer, {"token": SECRET, "placeholder": 5}),
    "basic_colon": (Basic, {"user": "a:b", "password": SECRET}),
    "basic_user_type": (Basic, {"user": None, "password": SECRET}),
    "basic_user_line": (Basic, {"user": "a\r\n", "password": SECRET}),
    "basic_password_line": (Basic, {"user": "a", "password": f"{SECRET}\n"}),
    "header_name_empty": (Header, {"name": "", "value": SECRET}),
    "header_name_space": (Header, {"name": "X Key", "value": SECRET}),
    "header_name_colon": (Header, {"name": "X-Key:", "value": SECRET}),
    "header_name_line": (Header, {"name": "X-Key\r\nHost", "value": SECRET}),
    "header_name_beyond_ascii": (Header, {"name": "X-K\u00e9y", "value": SECRET}),
    "header_host": (Header, {"name": "Host", "value": SECRET}),
    "header_length": (Header, {"name": "content-LENGTH", "value": SECRET}),
    "header_encoding": (Header, {"name": "Transfer-Encoding", "value": SECRET}),
    "header_connection": (Header, {"name": "Connection", "value": SECRET}),
    "header_upgrade": (Header, {"name": "Upgrade", "value": SECRET}),
    "header_value_line": (Header, {"name": "X-Key", "value": f"{SECRET}\r\nHost: evil"}),
    "query_key_empty": (Query, {"key": "", "value": SECRET}),
    "query_key_type": (Query, {"key": 5, "value": SECRET}),
    "query_value_nul": (Query, {"key": "k", "value": f"{SECRET}\0"}),
}


@pytest.mark.parametrize(("kind", "fields"), BAD_CREDENTIALS.values(), ids=BAD_CREDENTIALS.keys())
def test_a_credential_that_cannot_be_sent_is_refused_without_its_secret(
    kind: Callable[..., Credential], fields: dict[str, Any]
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        kind(**fields)
    assert shown_by(caught.value)
    assert SECRET not in shown_by(caught.value)


def test_what_goes_wrong_with_a_credential_later_does_not_show_it() -> None:
    bearer = Bearer(token=SECRET)
    doings: list[Callable[[], object]] = [
        lambda: bearer.replace(placeholder="A=B"),
        lambda: bearer.replace(user="me"),
        lambda: bearer.with_secret(f"{SECRET}\n"),
        lambda: setattr(bearer, "token", SECRET),
        lambda: delattr(bearer, "token"),
        lambda: Bearer(tokn=SECRET),  # type: ignore[call-arg]
        lambda: Bearer(*[SECRET]),  # type: ignore[call-arg]
        lambda: Network(allow=[bearer]),  # type: ignore[list-item]
        lambda: Network(allow=[Allow(host="a.com", credential=bearer)], connections=0),
        lambda: Allow(host="a_b", credential=bearer),
        lambda: Allow(host="a.com", credential=bearer).replace(scheme="ftp"),
        lambda: ExecutionRequest(code="", network=bearer),  # type: ignore[arg-type]
    ]
    for doing in doings:
        with pytest.raises((InvalidRequest, TypeError, AttributeError)) as caught:
            doing()
        assert SECRET not in shown_by(caught.value)


def shown_by(error: BaseException | None) -> str:
    """Return all that a log would have of an error and of those behind it."""
    if error is None:
        return ""
    return f"{error} {error!r} {shown_by(error.__cause__)} {shown_by(error.__context__)}"


def test_a_stored_secret_is_shown_by_no_more_than_its_credential() -> None:
    bearer = Bearer(token=StoredSecret(id="github"))
    assert bearer.secret == StoredSecret(id="github")
    filled = bearer.with_secret(SECRET)
    assert filled == Bearer(token=SECRET)
    assert SECRET not in repr(filled)
