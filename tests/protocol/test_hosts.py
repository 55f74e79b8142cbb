"""A name of a host is read in one spelling; whatever else somebody could take for a name or an address is refused."""

from __future__ import annotations

import pytest

from fumehood.protocol.hosts import authority, host_name, port_number

LONGEST = ".".join(("a" * 63, "b" * 63, "c" * 63, "d" * 61))

NAMES = {
    "as_it_is": ("api.example.com", "api.example.com"),
    "upper_case": ("API.Example.COM", "api.example.com"),
    "one_dot_at_the_end": ("example.com.", "example.com"),
    "one_label": ("localhost", "localhost"),
    "digits_in_front": ("3com.com", "3com.com"),
    "digits_before_the_last_label": ("1.2.3.4.example", "1.2.3.4.example"),
    "hex_digits_before_the_last_label": ("0x7f.example", "0x7f.example"),
    "hex_letters_without_its_mark": ("dead.beef", "dead.beef"),
    "hex_mark_and_other_letters": ("a.0xyz", "a.0xyz"),
    "international": ("xn--mnchen-3ya.example", "xn--mnchen-3ya.example"),
    "hyphens_inside": ("a--b.example", "a--b.example"),
    "label_of_63": (f"{'a' * 63}.example", f"{'a' * 63}.example"),
    "name_of_253": (LONGEST, LONGEST),
    "name_of_253_and_a_dot": (f"{LONGEST}.", LONGEST),
}


@pytest.mark.parametrize(("text", "name"), NAMES.values(), ids=NAMES.keys())
def test_a_name_has_one_spelling(text: str, name: str) -> None:
    assert host_name(text) == name


NO_NAMES = {
    "empty": ("", "empty"),
    "dot": (".", "empty"),
    "two_dots": ("..", "empty"),
    "two_dots_at_the_end": ("example.com..", "empty"),
    "dot_in_front": (".example.com", "empty"),
    "two_dots_inside": ("api..example.com", "empty"),
    "nul": ("ok.com\0", "character"),
    "nul_and_another_name": ("ok.com\0.evil.com", "character"),
    "user": ("ok.com@evil.com", "character '@'"),
    "user_and_password": ("ok.com:x@evil.com", "character ':'"),
    "fragment": ("evil.com#.ok.com", "character '#'"),
    "query": ("evil.com?.ok.com", r"character '\?'"),
    "path": ("evil.com/.ok.com", "character '/'"),
    "backslash": ("evil.com\\.ok.com", "character"),
    "port": ("ok.com:443", "character ':'"),
    "encoded_dot": ("ok%2ecom", "character '%'"),
    "encoded_nul": ("ok.com%00", "character '%'"),
    "star": ("*.ok.com", r"character '\*'"),
    "underscore": ("_dmarc.ok.com", "character '_'"),
    "quote": ("ok.com'", "character"),
    "comma": ("ok.com,evil.com", "character ','"),
    "semicolon": ("ok.com;evil.com", "character ';'"),
    "space_in_front": (" ok.com", "character ' '"),
    "space_at_the_end": ("ok.com ", "character ' '"),
    "space_inside": ("ok.com evil.com", "character ' '"),
    "tab": ("ok\t.com", "character"),
    "line_feed_at_the_end": ("ok.com\n", "character"),
    "line_feed_inside": ("ok.com\r\nHost: evil.com", "character"),
    "delete": ("ok\x7f.com", "character"),
    "hyphen_in_front": ("-ok.com", "hyphen"),
    "hyphen_at_a_labels_end": ("ok-.com", "hyphen"),
    "hyphen_at_the_end": ("ok.com-", "hyphen"),
    "hyphen_alone": ("-", "hyphen"),
    "label_of_64": (f"{'a' * 64}.com", "63"),
    "name_of_254": (f"{LONGEST}d", "253"),
    "international_not_in_ascii": ("m\u00fcnchen.example", "xn--"),
    "cyrillic_letter": ("\u0430pi.example.com", "xn--"),
    "kelvin_sign_which_lowers_to_k": ("o\u212a.com", "xn--"),
    "dotless_i": ("\u0131.com", "xn--"),
    "fullwidth_letter": ("\uff4fk.com", "xn--"),
    "fullwidth_dot": ("ok\uff0ecom", "xn--"),
    "ideographic_dot": ("ok\u3002com", "xn--"),
    "halfwidth_ideographic_dot": ("ok\uff61com", "xn--"),
    "fullwidth_digits": ("\uff11\uff12\uff17.0.0.1", "xn--"),
    "arabic_digit": ("127.0.0.\u0661", "xn--"),
    "soft_hyphen": ("o\u00adk.com", "xn--"),
    "zero_width_space": ("ok\u200b.com", "xn--"),
    "surrogate": ("ok\udcff.com", "xn--"),
    "ipv4": ("127.0.0.1", "address"),
    "ipv4_of_the_internet": ("8.8.8.8", "address"),
    "ipv4_dot_at_the_end": ("127.0.0.1.", "address"),
    "ipv4_short": ("127.1", "address"),
    "ipv4_of_three_parts": ("127.0.1", "address"),
    "ipv4_decimal": ("2130706433", "address"),
    "ipv4_hex": ("0x7f000001", "address"),
    "ipv4_hex_upper_case": ("0X7F000001", "address"),
    "ipv4_hex_parts": ("0x7f.0x0.0x0.0x1", "address"),
    "ipv4_hex_last_part": ("127.0.0.0x1", "address"),
    "ipv4_hex_without_digits": ("127.0.0.0x", "address"),
    "ipv4_octal": ("0177.0.0.01", "address"),
    "ipv4_octal_whole": ("017700000001", "address"),
    "ipv4_zero": ("0", "address"),
    "ipv4_five_parts": ("1.2.3.4.5", "address"),
    "ipv4_too_great": ("999.999.999.999", "address"),
    "ipv4_behind_a_name": ("ok.com.127.0.0.1", "address"),
    "ipv6": ("::1", "character ':'"),
    "ipv6_in_brackets": ("[::1]", r"character '\['"),
    "ipv6_in_brackets_with_a_zone": ("[fe80::1%25eth0]", r"character '\['"),
    "ipv6_with_a_zone": ("fe80::1%eth0", "character"),
    "ipv6_of_ipv4": ("::ffff:127.0.0.1", "character ':'"),
    "zone_without_colons": ("ok.com%eth0", "character '%'"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "why"), NO_NAMES.values(), ids=NO_NAMES.keys())
def test_what_is_not_plainly_a_name_is_refused_and_told_why(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        host_name(text)


@pytest.mark.parametrize(("text", "port"), [("1", 1), ("80", 80), ("65535", 65535)])
def test_a_port_is_a_number(text: str, port: int) -> None:
    assert port_number(text) == port


NO_PORTS = {
    "blank": "",
    "space": " ",
    "zero": "0",
    "zeros": "00000",
    "65536": "65536",
    "six_digits": "000080",
    "5000_digits": "8" * 5000,
    "plus": "+80",
    "minus": "-80",
    "space_in_front": " 80",
    "space_at_the_end": "80 ",
    "line_feed": "80\n",
    "nul": "80\0",
    "underscore": "8_0",
    "point": "80.0",
    "hex": "0x50",
    "exponent": "8e1",
    "arabic_digits": "\u0668\u0660",
    "fullwidth_digits": "\uff18\uff10",
    "superscript": "8\u00b2",
    "name": "http",
    "two": "80:80",
    "user": "80@evil.com",
    "path": "80/",
}


@pytest.mark.parametrize("text", NO_PORTS.values(), ids=NO_PORTS.keys())
def test_what_is_no_port_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a number from 1 to 65535"):
        port_number(text)


@pytest.mark.parametrize(
    ("text", "place"),
    [("Example.com.", ("example.com", 443)), ("example.com:8443", ("example.com", 8443)), ("a:1", ("a", 1))],
)
def test_an_authority_is_a_host_and_its_port(text: str, place: tuple[str, int]) -> None:
    assert authority(text, 443) == place


@pytest.mark.parametrize(
    "text",
    ["", ":443", "example.com:", "example.com:0", "example.com:+80", "example.com:80:80", "example.com: 80",
     "user@example.com:80", "example.com:80@evil.com", "[::1]:80", "::1", "127.0.0.1:80", "example.com:80/"],
)  # fmt: skip
def test_what_is_no_authority_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        authority(text, 443)
