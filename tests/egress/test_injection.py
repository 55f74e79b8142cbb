"""A credential takes the place of what the program put there, does not come back, and its placeholder is found where it is sent."""

from __future__ import annotations

import base64

import pytest

from fumehood import Basic, Bearer, Header, Query
from fumehood.egress.injection import SHORTEST, Injection, Placeholders, Redactor, masked
from fumehood.protocol.credentials import Credential

SECRET = "correct-horse/battery+staple"
BASIC = base64.b64encode(f"me:{SECRET}".encode())

PLACES: dict[str, tuple[Credential, tuple[bytes, bytes]]] = {
    "bearer": (Bearer(token=SECRET), (b"authorization", f"Bearer {SECRET}".encode())),
    "basic": (Basic(user="me", password=SECRET), (b"authorization", b"Basic " + BASIC)),
    "header": (Header(name="X-Api-Key", value=SECRET), (b"x-api-key", SECRET.encode())),
}


@pytest.mark.parametrize(("credential", "header"), PLACES.values(), ids=PLACES.keys())
def test_a_header_takes_the_place_of_the_programs_own(credential: Credential, header: tuple[bytes, bytes]) -> None:
    others = [(b"accept", b"*/*"), (b"x-other", b"1"), (b"cookie", b"a=b")]
    own = [(header[0], b"the program's"), (header[0], b""), (header[0], b"another of the program's")]
    for given in (others, [*own, *others], [*others, *own], [own[0], *others, *own[1:]]):
        sent = Injection(credential).headers(given)
        assert [each for each in sent if each[0] == header[0]] == [header]
        assert [each for each in sent if each in others] == others
        assert len(sent) == len(others) + 2


def test_basic_is_as_the_standard_spells_it() -> None:
    """RFC 7617, 2 and 2.1: both examples."""
    for user, password, value in (
        ("Aladdin", "open sesame", b"Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
        ("test", "123\u00a3", b"Basic dGVzdDoxMjPCow=="),
    ):
        sent = Injection(Basic(user=user, password=password)).headers([])
        assert (b"authorization", value) in sent


@pytest.mark.parametrize("credential", [*(each for each, _header in PLACES.values()), Query(key="k", value=SECRET)])
def test_no_compressed_answer_is_asked_for(credential: Credential) -> None:
    for given in ([], [(b"accept-encoding", b"gzip")], [(b"accept-encoding", b"br"), (b"accept-encoding", b"zstd")]):
        sent = Injection(credential).headers(given)
        assert [value for name, value in sent if name == b"accept-encoding"] == [b"identity"]


@pytest.mark.parametrize("credential", [each for each, _header in PLACES.values()])
def test_a_header_leaves_the_target_as_it_is(credential: Credential) -> None:
    for target in ("/", "/?k=v&&k", "/a?authorization=x#", "*"):
        assert Injection(credential).target(target) == target


def test_a_parameter_leaves_authorization_as_it_is() -> None:
    assert (b"authorization", b"own") in Injection(Query(key="k", value=SECRET)).headers([(b"authorization", b"own")])


SPELLED = "correct-horse%2Fbattery%2Bstaple"
TARGETS = {
    "none": ("/a", f"/a?key={SPELLED}"),
    "mark_alone": ("/a?", f"/a?key={SPELLED}"),
    "others": ("/a?x=1&y=2", f"/a?x=1&y=2&key={SPELLED}"),
    "own": ("/a?key=mine", f"/a?key={SPELLED}"),
    "own_between_others": ("/a?x=1&key=mine&y=2", f"/a?x=1&y=2&key={SPELLED}"),
    "own_many_times": ("/a?key=1&key=2&x=1&key=3", f"/a?x=1&key={SPELLED}"),
    "own_without_a_value": ("/a?key&x=1", f"/a?x=1&key={SPELLED}"),
    "own_empty": ("/a?key=", f"/a?key={SPELLED}"),
    "own_encoded": ("/a?%6bey=mine&%6B%65%79=mine", f"/a?key={SPELLED}"),
    "own_with_two_equals": ("/a?key==mine", f"/a?key={SPELLED}"),
    "others_that_begin_or_end_like_it": ("/a?keys=1&akey=2&KEY=3", f"/a?keys=1&akey=2&KEY=3&key={SPELLED}"),
    "others_encoded": ("/a?x=%26key%3dmine&%79=a+b", f"/a?x=%26key%3dmine&%79=a+b&key={SPELLED}"),
    "others_twice": ("/a?x=1&x=2", f"/a?x=1&x=2&key={SPELLED}"),
    "second_mark": ("/a?x=?&key=1?key=2", f"/a?x=?&key={SPELLED}"),
    "empty_ones": ("/a?&&x=1&&", f"/a?x=1&key={SPELLED}"),
}


@pytest.mark.parametrize(("target", "sent"), TARGETS.values(), ids=TARGETS.keys())
def test_a_parameter_takes_the_place_of_the_programs_own(target: str, sent: str) -> None:
    assert Injection(Query(key="key", value=SECRET)).target(target) == sent


def test_a_parameters_name_is_encoded_like_its_value() -> None:
    injection = Injection(Query(key="a key&x", value="s&x=1 #"))
    assert injection.target("/?a+key%26x=mine&a%20key%26x=mine&x=2") == "/?x=2&a+key%26x=s%26x%3D1+%23"


SPELLINGS: dict[str, tuple[Credential, tuple[bytes, ...]]] = {
    "bearer": (Bearer(token=SECRET), (SECRET.encode(), SPELLED.encode(), b"correct-horse/battery%2Bstaple")),
    "basic": (Basic(user="me", password=SECRET), (SECRET.encode(), SPELLED.encode(), BASIC)),
    "header": (Header(name="X-Key", value=SECRET), (SECRET.encode(), SPELLED.encode())),
    "query": (Query(key="k", value="a secret & more"), (b"a secret & more", b"a%20secret%20%26%20more", b"a+secret+%26+more")),
}  # fmt: skip


@pytest.mark.parametrize(("credential", "spellings"), SPELLINGS.values(), ids=SPELLINGS.keys())
def test_no_usual_spelling_of_a_secret_comes_back(credential: Credential, spellings: tuple[bytes, ...]) -> None:
    secrets = Injection(credential).secrets
    for each in spellings:
        data = b'{"heard": "' + each + b'"}'
        assert masked(data, secrets) == data.replace(each, b"*" * len(each))
        redactor = Redactor(secrets)
        assert redactor.feed(data) + redactor.end() == data.replace(each, b"*" * len(each))


def test_a_secret_that_is_found_in_everything_is_not_looked_for() -> None:
    assert Injection(Bearer(token="a" * (SHORTEST - 1))).secrets == ()
    assert Injection(Bearer(token="a" * SHORTEST)).secrets == (b"a" * SHORTEST,)
    # That it is sent is another matter.
    assert (b"authorization", b"Bearer a") in Injection(Bearer(token="a")).headers([])


def test_without_secrets_everything_passes_at_once() -> None:
    redactor = Redactor(())
    assert redactor.is_idle
    assert redactor.feed(SECRET.encode()) == SECRET.encode()
    assert redactor.end() == b""
    assert not Redactor((b"secret",)).is_idle


def test_a_secret_is_masked_wherever_it_is_cut() -> None:
    secret = SECRET.encode()
    whole = b"before " + secret + b" between " + secret + secret + b" after"
    hidden = whole.replace(secret, b"*" * len(secret))
    for cut in range(len(whole) + 1):
        redactor = Redactor((secret,))
        assert redactor.feed(whole[:cut]) + redactor.feed(whole[cut:]) + redactor.end() == hidden
    redactor = Redactor((secret,))
    assert b"".join(redactor.feed(whole[at : at + 1]) for at in range(len(whole))) + redactor.end() == hidden


def test_as_much_is_held_back_whatever_it_is() -> None:
    # Else whoever has a guess echoed would see how much of it is right.
    secret = b"abcabd-secret"
    for length in range(len(secret)):
        for tail in (secret[:length], b"?" * length):
            redactor = Redactor((secret, b"other-one"))
            assert len(redactor.feed(b"x" * 20 + tail)) == 20 + length - (len(secret) - 1)
            assert len(redactor.feed(b"!")) == 1
            assert len(redactor.end()) == len(secret) - 1


def test_what_is_held_back_comes_at_the_end() -> None:
    redactor = Redactor((b"secret-one", b"secret-three"))
    assert redactor.feed(b"some words and a secret-") == b"some words an"
    assert redactor.holds
    assert redactor.end() == b"d a secret-"
    assert redactor.end() == b""
    assert not redactor.holds


def test_a_secret_may_repeat_its_own_beginning() -> None:
    redactor = Redactor((b"ababac",))
    assert redactor.feed(b"abab") + redactor.feed(b"ab") + redactor.feed(b"ac") + redactor.end() == b"ab******"


VALUE = "fumehood-placeholder-0123456789abcdef0123456789abcdef"


def test_a_placeholder_is_found_as_it_stands() -> None:
    for data in (VALUE, f"token={VALUE}&x=1", f"x{VALUE}y", f'{{"key": "{VALUE}"}}'):
        assert Placeholders([VALUE]).are_in(data.encode())


def test_a_placeholder_is_found_wherever_it_is_cut() -> None:
    data = f"token={VALUE}&x=1".encode()
    begins, ends = data.index(VALUE.encode()), data.index(b"&")
    for cut in range(len(data) + 1):
        look = Placeholders(["something-else", VALUE])
        assert look.are_in(data[:cut]) is (cut >= ends)
        assert look.are_in(data[cut:]) is (cut < ends or cut - begins < len(data))
    look = Placeholders([VALUE])
    assert [look.are_in(data[at : at + 1]) for at in range(ends)] == [False] * (ends - 1) + [True]


@pytest.mark.parametrize("before", range(7))
@pytest.mark.parametrize("behind", range(4))
@pytest.mark.parametrize("value", [VALUE, VALUE[:-1], VALUE[:-2]])
def test_a_placeholder_is_found_within_base64(before: int, behind: int, value: str) -> None:
    data = base64.b64encode(b"\xff" * before + value.encode() + b"\xff" * behind)
    assert value.encode() not in data
    assert Placeholders([value]).are_in(data)
    look = Placeholders([value])
    assert any(look.are_in(data[at : at + 5]) for at in range(0, len(data), 5))


def test_a_placeholder_is_found_in_basic_credentials() -> None:
    for user in ("x-access-token", "me", "git", ""):
        value = base64.b64encode(f"{user}:{VALUE}".encode())
        assert Placeholders([VALUE]).are_in(b"Basic " + value)


def test_nothing_else_is_taken_for_a_placeholder() -> None:
    other = VALUE[:-1] + "0"
    for data in (b"", b"fumehood-placeholder-", VALUE[:-1].encode(), other.encode(), base64.b64encode(b"x" * 100)):
        assert not Placeholders([VALUE]).are_in(data)
    assert not Placeholders([]).are_in(VALUE.encode())
    look = Placeholders([VALUE])
    assert not look.are_in(VALUE[:20].encode())
    assert not look.are_in(b" " + VALUE[20:].encode())
