"""Masking: the forms that count, what only looks like them, and counts against independent references."""

import ipaddress
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cs336_data.document import Document
from cs336_data.filters.pii import (
    EMAIL,
    IPV4,
    IPV6,
    PHONE_NUMBER,
    PersonalDataFilter,
    mask,
    mask_emails,
    mask_ips,
    mask_phone_numbers,
)

from .adapters import run_mask_emails, run_mask_ips, run_mask_phone_numbers

EMAIL_MASK, PHONE_MASK, IP_MASK = "|||EMAIL_ADDRESS|||", "|||PHONE_NUMBER|||", "|||IP_ADDRESS|||"
AREA = st.integers(200, 999).map(str)
EXCHANGE = st.integers(100, 999).map(str)
LINE = st.integers(0, 9999).map("{:04}".format)


@pytest.mark.parametrize(
    "email",
    [
        "test@example.com", "first.last+tag@mail.example.co.uk", "A_B-C@EXAMPLE.ORG", "x@xn--bcher-kva.example",
        "jörg@müller.example", "o'neil@example.ie", "9@example.museum",
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "sentence", ["{}", "Write to {}.", "<{}>, please", "mailto:{}?subject=x", "'{}'", "邮箱是{}请联系"]
)
def test_emails(email, sentence):
    assert run_mask_emails(sentence.format(email)) == (sentence.format(EMAIL_MASK), 1)


@pytest.mark.parametrize(
    "text",
    ["@name", "name@", "a@b", "a@b.c", "logo@2x.png", "react@18.2.0", "2 @ 3.50", "x@-a.com", "a@b..com", EMAIL_MASK],
)
def test_no_emails(text):
    assert run_mask_emails(text) == (text, 0)


def test_emails_next_to_text_and_masks():
    assert mask_emails(f"{EMAIL_MASK} and a@b.com, c@d.org") == (f"{EMAIL_MASK} and {EMAIL_MASK}, {EMAIL_MASK}", 2)
    assert mask_emails("Ask me@example.com.Thanks") == (f"Ask {EMAIL_MASK}.Thanks", 1)


@pytest.mark.parametrize(
    "number",
    [
        "2831823829", "(283)-182-3829", "(283) 182 3829", "283-182-3829", "283.182.3829", "283 182 3829",
        "(283)182-3829", "(283) 182-3829", "+1 283 182 3829", "1-283-182-3829", "+1 (283) 182-3829", "12831823829",
        "+12831823829", "283/182-3829", "283 - 182 - 3829", "123-456-7890", "+44 20 7946 0958", "+49 (0)30 901820",
        "+33 1 23 45 67 89", "+86 138 0013 8000", "+91-98765-43210", "0044 20 7946 0958", "+4420794609582",
        "020 7946 0958", "0161 496 0018", "01440 783281", "0171 1234567", "01 23 45 67 89", "(020) 7946 0958",
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "sentence", ["{}", "Call {}.", "({}), or not", "tel:{}, now", "Is it {}?\n2 people know.", "电话{}吗"]
)
def test_phone_numbers(number, sentence):
    assert run_mask_phone_numbers(sentence.format(number)) == (sentence.format(PHONE_MASK), 1)


@pytest.mark.parametrize(
    "text",
    [
        "2023-10-12", "20231012101530", "$2831823829", "€ 283 182 3829", "ISBN 2831823829", "978-0-306-40615-7",
        "0-306-40615-2", "9780306406157", "1700000000", "3.2831823829", "2831823829.5", "100 200 3000 400",
        "192.168.100.100", "id=2831823829", "#2831823829", "12:30:45", "+100 000 000", "1,234,567,890",
        "4111 1111 1111 1111", "4111-1111-1111-1111", "123-45-6789", "2023-2024", "10/12/2023", "v1.283.182", "+12",
        "007 1234567", "01.02.2023", "01-02-2023", "02139-4307", "10.1080/00222933.2017.1395919", "Lccn\n2013049256",
        PHONE_MASK,
    ],
)  # fmt: skip
def test_no_phone_numbers(text):
    assert run_mask_phone_numbers(text) == (text, 0)


def test_phone_numbers_next_to_numbers():
    assert mask_phone_numbers("283-182-3829/283-182-3830") == (f"{PHONE_MASK}/{PHONE_MASK}", 2)
    assert mask_phone_numbers("+1 283 182 3829 24 hours") == (f"{PHONE_MASK} 24 hours", 1)
    assert mask_phone_numbers("+44 20 7946 0958 - 2023") == (f"{PHONE_MASK} - 2023", 1)
    assert mask_phone_numbers(f"{PHONE_MASK} 283-182-3829") == (f"{PHONE_MASK} {PHONE_MASK}", 1)


@given(
    AREA,
    EXCHANGE,
    LINE,
    st.sampled_from(["{}{}{}", "({})-{}-{}", "({}) {} {}", "{}-{}-{}", "({}) {}-{}", "{}.{}.{}", "+1 {} {} {}"]),
)
@settings(deadline=None, derandomize=True, max_examples=100)
def test_every_north_american_number_in_every_form(area, exchange, line, form):
    number = form.format(area, exchange, line)
    assert mask_phone_numbers(f"My number is {number}. Call!") == (f"My number is {PHONE_MASK}. Call!", 1)


@given(st.text("0123456789", max_size=40))
@settings(deadline=None, derandomize=True, max_examples=100)
def test_digit_runs_are_numbers_only_at_the_right_length(digits):
    national = digits[1:] if len(digits) == 11 and digits.startswith("1") else digits
    expected = len(national) == 10 and national[0] in "23456789"
    assert mask_phone_numbers(digits)[1] == expected


@given(st.lists(st.text("0123456789. ", max_size=18), max_size=6))
@settings(deadline=None, derandomize=True, max_examples=150)
def test_ipv4_against_the_standard_library(pieces):
    text = " ".join(pieces)
    expected = []
    for token in text.split(" "):
        address = token.rstrip(".")
        try:
            ipaddress.IPv4Address(address)
            expected.append(token.replace(address, IP_MASK))
        except ValueError:
            expected.append(token)
    assert mask_ips(text)[0] == " ".join(expected)


@given(st.ip_addresses(v=4), st.sampled_from(["{}", "at {}.", "http://{}:80/", "{}/24", "({})", "{},", "地址{}是"]))
@settings(deadline=None, derandomize=True, max_examples=100)
def test_every_ipv4_address(address, sentence):
    assert run_mask_ips(sentence.format(address)) == (sentence.format(IP_MASK), 1)


@given(st.ip_addresses(v=6), st.sampled_from(["{}", "at {}.", "[{}]:80", "{}/64", "({})", "{}, it", "x {}: y"]))
@settings(deadline=None, derandomize=True, max_examples=100)
def test_ipv6_addresses_as_an_option(address, sentence):
    text = sentence.format(address)
    if any(map(str.isdecimal, str(address))):
        assert mask_ips(text, ipv6=True) == (sentence.format(IP_MASK), 1)
    assert mask_ips(text) == (text, 0)


@pytest.mark.parametrize(
    "text",
    [
        "256.1.1.1", "1.2.3.4.5", "1.2.3", "version 1.2.3.4", "v1.2.3.4", "Firefox/3.0.0.1", "Section 3.2.1.4",
        "01.2.3.4", "1.2.3.4b1", IP_MASK,
    ],
)  # fmt: skip
def test_no_ipv4(text):
    assert run_mask_ips(text) == (text, 0)


@pytest.mark.parametrize(
    "text", ["std::vector", "a::b", "::", "12:30:45", "00:1A:2B:3C:4D:5E", "12345::1", "John 3:16"]
)
def test_no_ipv6(text):
    assert mask_ips(text, ipv6=True) == (text, 0)


def test_filter_masks_all_and_says_where():
    text = "Mail 2831823829@example.com, call (283) 182 3829 or ping 192.0.2.1 and 192.0.2.2. |||IP_ADDRESS|||"
    decision = pickle.loads(pickle.dumps(PersonalDataFilter()))(Document(text))
    assert decision.keep
    masked = f"Mail {EMAIL_MASK}, call {PHONE_MASK} or ping {IP_MASK} and {IP_MASK}. |||IP_ADDRESS|||"
    assert decision.text == masked
    assert decision.metadata == {"masked": {"emails": 1, "phones": 1, "ips": 2}}
    assert [masked[span.start : span.end] for span in decision.spans] == [EMAIL_MASK, PHONE_MASK, IP_MASK, IP_MASK]
    assert PersonalDataFilter()(Document(masked)).text is None


def test_filter_options():
    document = Document("me@example.com 283-182-3829 192.0.2.1 2001:db8::1")
    assert PersonalDataFilter(emails=False, phone_numbers=False, ipv4=False)(document).text is None
    assert PersonalDataFilter(ipv6=True)(document).text == f"{EMAIL_MASK} {PHONE_MASK} {IP_MASK} {IP_MASK}"


@given(st.text(alphabet=st.one_of(st.sampled_from("0123456789.:+-() @ab|/\n"), st.characters()), max_size=120))
@settings(deadline=None, derandomize=True, max_examples=150)
def test_any_text_is_masked_once(text):
    kinds = (EMAIL, IPV6, IPV4, PHONE_NUMBER)
    masked, spans = mask(text, kinds)
    assert [masked[span.start : span.end] for span in spans] == [f"|||{span.label}|||" for span in spans]
    # What is not masked stays, in order.
    rest, done = "", 0
    for span in spans:
        rest += masked[done : span.start]
        done = span.end
    letters = iter(text)
    assert all(character in letters for character in rest + masked[done:])
    if not spans:
        assert masked == text


@pytest.mark.parametrize(
    "text",
    [
        "+" + "1 " * 20_000, "+" + "9" * 20_000, "a." * 20_000 + "@", "@" + "a." * 20_000, "(283)" * 10_000,
        "1." * 20_000, "1:" * 20_000, ":" * 20_000, "0" * 20_000, "a@a." * 10_000, "a" * 40_000 + "@", "-" * 20_000,
        "2 " * 20_000, "+2(1)" * 10_000,
    ],
)  # fmt: skip
def test_hostile_texts_end(text):
    mask(text, (EMAIL, IPV6, IPV4, PHONE_NUMBER))
