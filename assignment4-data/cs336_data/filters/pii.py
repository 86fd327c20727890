"""Masking of personal data: email addresses, phone numbers, IP addresses.

Found are emails of Latin letters; phone numbers of the North American plan, others with their country code (E.164, "+"
or "00" before it) or with a zero before the area code and in common groups; IPv4 and, if asked for, IPv6 addresses.
What only looks like them stays: dates, prices, ISBNs, version numbers, digits of longer numbers.
"""

import ipaddress
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from cs336_data.document import Decision, Document, Span


class Kind(NamedTuple):
    """A kind of personal data: its name in counts, its label in masks, and what finds it."""

    name: str
    label: str
    find: Callable[[str], Iterator[tuple[int, int]]]

    @property
    def mask(self) -> str:
        """What stands for it in the text."""
        return f"|||{self.label}|||"


def find_emails(text: str) -> Iterator[tuple[int, int]]:
    """Start and end of every email address (RFC 5321, without quoted names and address literals)."""
    if "@" not in text:
        return
    for match in _EMAIL.finditer(text):
        if match["last_label"].lower() not in _FILE_SUFFIXES:
            yield match.span()


def find_phone_numbers(text: str) -> Iterator[tuple[int, int]]:
    """Start and end of every phone number: of North America, or others with a country code or a national zero."""
    for match in _PHONE_NUMBER.finditer(text):
        start, end = match.span()
        if _NOT_A_PHONE_NUMBER.search(text, max(0, start - 12), start):
            continue
        if match["international"]:
            end = start + _international_length(match["international"])
        if end > start:
            yield start, end


def find_ipv4(text: str) -> Iterator[tuple[int, int]]:
    """Start and end of every IPv4 address: four numbers up to 255, and no version number."""
    for match in _DOTTED_QUAD.finditer(text):
        if _is_address(match.group(), ipaddress.IPv4Address) and not _VERSION.search(
            text, max(0, match.start() - 20), match.start()
        ):
            yield match.span()


def find_ipv6(text: str) -> Iterator[tuple[int, int]]:
    """Start and end of every IPv6 address that holds a digit ("a::b" may be code)."""
    if "::" not in text and text.count(":") < 6:
        return
    for match in _COLON_GROUPS.finditer(text):
        found = match.group()
        # A last colon may be the sentence's.
        for candidate in (found, found[:-1]) if found.endswith(":") else (found,):
            if any(map(str.isdecimal, candidate)) and _is_address(candidate, ipaddress.IPv6Address):
                yield match.start(), match.start() + len(candidate)
                break


EMAIL = Kind("emails", "EMAIL_ADDRESS", find_emails)
PHONE_NUMBER = Kind("phones", "PHONE_NUMBER", find_phone_numbers)
IPV4 = Kind("ips", "IP_ADDRESS", find_ipv4)
IPV6 = Kind("ips", "IP_ADDRESS", find_ipv6)


def mask_emails(text: str) -> tuple[str, int]:
    """The text with every email address replaced by `|||EMAIL_ADDRESS|||`, and how many were replaced."""
    return _mask_one(text, EMAIL)


def mask_phone_numbers(text: str) -> tuple[str, int]:
    """The text with every phone number replaced by `|||PHONE_NUMBER|||`, and how many were replaced."""
    return _mask_one(text, PHONE_NUMBER)


def mask_ips(text: str, ipv6: bool = False) -> tuple[str, int]:
    """The text with every IP address replaced by `|||IP_ADDRESS|||`, and how many were replaced.

    Args:
        text: any text.
        ipv6: replace IPv6 addresses as well as IPv4.
    """
    masked, spans = mask(text, (IPV6, IPV4) if ipv6 else (IPV4,))
    return masked, len(spans)


def mask(text: str, kinds: Sequence[Kind]) -> tuple[str, tuple[Span, ...]]:
    """Replace personal data by masks.

    Args:
        text: any text.
        kinds: what to look for; where two overlap, the kind named first is taken.

    Returns:
        The masked text, and the places of the new masks in it; their labels are the kinds'.
    """
    found: list[tuple[int, int, Kind]] = []
    taken = bytearray(len(text))
    for kind in kinds:
        for start, end in kind.find(text):
            if not any(taken[start:end]):
                found.append((start, end, kind))
                taken[start:end] = b"\x01" * (end - start)
    pieces, spans, done, length = [], [], 0, 0
    for start, end, kind in sorted(found, key=lambda place: place[0]):
        pieces += text[done:start], kind.mask
        length += start - done + len(kind.mask)
        spans.append(Span(length - len(kind.mask), length, kind.label))
        done = end
    return "".join([*pieces, text[done:]]), tuple(spans)


def _mask_one(text: str, kind: Kind) -> tuple[str, int]:
    masked, spans = mask(text, [kind])
    return masked, len(spans)


@dataclass(frozen=True)
class PersonalDataFilter:
    """Masks personal data; keeps every document. The counts of new masks are noted under "masked".

    Attributes:
        emails: mask email addresses.
        phone_numbers: mask phone numbers.
        ipv4: mask IPv4 addresses.
        ipv6: mask IPv6 addresses.
    """

    name: ClassVar[str] = "pii"

    emails: bool = True
    phone_numbers: bool = True
    ipv4: bool = True
    ipv6: bool = False

    def __call__(self, document: Document) -> Decision:
        """Keep the document, with masks in its text."""
        wanted = {EMAIL: self.emails, IPV6: self.ipv6, IPV4: self.ipv4, PHONE_NUMBER: self.phone_numbers}
        kinds = [kind for kind, on in wanted.items() if on]
        text, spans = mask(document.text, kinds)
        if not spans:
            return Decision(True)
        labels = [span.label for span in spans]
        counts = {kind.name: count for kind in kinds if (count := labels.count(kind.label))}
        return Decision(True, text=text, spans=spans, metadata={"masked": counts})


def _international_length(number: str) -> int:
    """How much of a number with country code is one: whole groups, 8 to 15 digits (E.164); 0 if it is none."""
    for end in reversed([group.end() for group in _DIGIT_GROUP.finditer(number)]):
        digits = sum(map(str.isdecimal, number[:end])) - 2 * number.startswith("00")
        if digits <= 15:
            return end if digits >= 8 else 0
    return 0


def _is_address(candidate: str, address: type[ipaddress.IPv4Address] | type[ipaddress.IPv6Address]) -> bool:
    try:
        address(candidate)
    except ValueError:
        return False
    return True


_ALNUM = "0-9A-Za-zÀ-ÖØ-öø-ɏ"  # Latin letters only: other scripts set no spaces around an address
_LABEL = rf"[{_ALNUM}](?:[{_ALNUM}-]{{0,61}}[{_ALNUM}])?"
_NEXT_SENTENCE = r"(?<=[a-z]\.)[A-Z][a-z]"  # "Write to me@example.com.Thanks": no domain
_EMAIL = re.compile(
    rf"(?<![{_ALNUM}])"
    rf"[{_ALNUM}_](?:\.?[{_ALNUM}_%+'&-]){{0,63}}"
    rf"@{_LABEL}\.(?:{_LABEL}\.(?!{_NEXT_SENTENCE})){{0,7}}"
    rf"(?P<last_label>xn--[0-9A-Za-z-]{{2,59}}|[A-Za-zÀ-ÖØ-öø-ɏ]{{2,24}})(?![{_ALNUM}])"
)
_FILE_SUFFIXES = frozenset(
    ("png", "jpg", "jpeg", "gif", "svg", "webp", "avif", "css", "js", "json", "html", "gz", "tgz", "zip")
)
"""Pictures for fine screens are called "logo@2x.png", packages "react@18.2.0.tgz"."""

_SPACE = r"[ \t\xa0]"
_PUNCTUATION = rf"{_SPACE}?[-.‐‑‒–]{_SPACE}?"
_SEPARATOR = rf"(?:{_PUNCTUATION}|{_SPACE})"
_PHONE_NUMBER = re.compile(
    rf"""
    (?<![0-9A-Za-z+]) (?<![0-9][.,:-])
    (?:
        # North America with its country code, grouped or not: "+1 283 182 3829", "+1 (283) 182-3829".
        \+1 {_SEPARATOR}? (?: \([0-9]{{3}}\) | [0-9]{{3}} ) {_SEPARATOR}? [0-9]{{3}} {_SEPARATOR}? [0-9]{{4}}
    |
        # Other country codes: "+44 20 7946 0958", "+49 (0)30 901820", "0044 20 7946 0958".
        (?P<international>
            (?: \+ [2-9][0-9]*+ | (?<![#=/]) 00 [2-9][0-9]++ (?={_SEPARATOR}) )
            (?: {_SEPARATOR}? \( [0-9]{{1,4}} \) {_SEPARATOR}? [0-9]++ | {_SEPARATOR} [0-9]++ ){{0,6}}
        )
    |
        # With the zero of a national number, in the usual groups: "020 7946 0958", "01440 783281", "01 23 45 67 89".
        (?<![0-9]{_SPACE}) (?:
            0[1-9][0-9] [ -] [0-9]{{3,4}} [ -] [0-9]{{4}} | 0[1-9][0-9]{{2}} [ -] [0-9]{{3}} [ -]? [0-9]{{3,4}}
        |   0[1-9][0-9]{{3}} [ -] [0-9]{{3}} {_SPACE}? [0-9]{{3}}
        |   0[1-9] (?P<pair>[ .-]) [0-9]{{2}} (?: (?P=pair) [0-9]{{2}} ){{3}}
        |   \(0[1-9][0-9]{{1,3}}\) {_SEPARATOR}? [0-9]{{3,4}} {_SPACE}? [0-9]{{3,4}}
        )
        (?! {_SPACE}[0-9] | [A-Za-z] )
    |
        # Grouped: "(283)-182-3829", "(283) 182 3829", "283-182-3829", "1-283-182-3829", "283/182-3829".
        (?: 1 {_SEPARATOR}? )?
        (?:
            \([0-9]{{3}}\) {_SEPARATOR}? [0-9]{{3}} {_SEPARATOR}? [0-9]{{4}}
        |   [0-9]{{3}} (?:{_PUNCTUATION}|/) [0-9]{{3}} {_SEPARATOR}? [0-9]{{4}}
        |   [0-9]{{3}} {_SPACE}? [0-9]{{3}} {_PUNCTUATION} [0-9]{{4}}
        )
    |
        # Spaces alone: "283 182 3829", unless in a row of numbers.
        (?<![0-9]{_SPACE}) (?: 1 {_SPACE} )? [2-9][0-9]{{2}} {_SPACE} [0-9]{{3}} {_SPACE} [0-9]{{4}}
        (?! {_SPACE}[0-9] | [A-Za-z] )
    |
        # Ten digits in one; area codes begin with 2 to 9.
        (?<![#=/_$€£¥]) 1? [2-9][0-9]{{9}} (?![A-Za-z_=])
    )
    (?! [0-9] | [.,:-][0-9] )
    """,
    re.VERBOSE,
)
_DIGIT_GROUP = re.compile(r"[0-9]+")
_NOT_A_PHONE_NUMBER = re.compile(r"(?:\b(?:ISBN(?:-1[03])?|ISSN|EAN|UPC|LCCN|OCLC|PMID)|[$€£¥])[:\s]*\Z", re.IGNORECASE)

_DOTTED_QUAD = re.compile(r"(?<![0-9A-Za-z_.])[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?![0-9A-Za-z_]|\.[0-9])")
_VERSION = re.compile(
    r"(?:\b(?:version|ver|v|release|build|firmware|driver|section|chapter|sec|oid)\b[.:\s]*|§\s*|[A-Za-z]/)\Z",
    re.IGNORECASE,
)
_COLON_GROUPS = re.compile(r"(?<![0-9A-Za-z_:.])[0-9A-Fa-f:]{2,40}(?:\.[0-9]{1,3}){0,3}(?![0-9A-Za-z_:]|\.[0-9])")
