"""Masking of personal data, on a list of spellings in sentences and on the small web.

The list is made from seeds: addresses and numbers as people write them, and what only looks like them. Names are under
the reserved domains of RFC 2606; numbers are drawn at random.
"""

import re
from collections.abc import Callable, Iterator
from random import Random

from cs336_data.filter_evaluation import Case, Measurement, Settings, measure
from cs336_data.filters.pii import EMAIL, IPV4, IPV6, PHONE_NUMBER, Kind, mask
from cs336_data.labeled_data.pages import SMALL_WEB, small_web_pages

CASES_PER_FORM = 20
_BLANK = re.compile(r"\{(\w+)\}")
SENTENCES = (
    "{}",
    "{}.",
    "Contact: {}",
    "Write or call ({}), any day.",
    "Reach us at {}, please.",
    "See {}; it was last changed on 2023-10-12.",
    "You have it: “{}”!",
    "Is it {}?\nNobody knows.",
)

EMAILS = (
    "{name}@example.com", "{name}.{name}@example.org", "{name}_{n}@mail.example.net", "{name}+{name}@example.co.uk",
    "{NAME}@EXAMPLE.COM", "{name}-{name}@{name}-{name}.example", "{n}@example.info", "{name}@xn--bcher-kva.example",
    "{name}%{name}@example.museum", "o'{name}@example.ie", "jörg.{name}@müller.example",
)  # fmt: skip
NO_EMAILS = (
    "@{name}", "{name}@", "{name}@localhost", "{name}@2x.png", "lodash@{d}.{dd}.{dd}", "react@{d}.{d}.{d}.tgz",
    "@media (min-width: {ddd}px)", "{name} @ example.com", "{d} kg @ ${d}.{dd}", "meet @ {dd}:{dd}", "a@b",
    "{name}@{n}",
)  # fmt: skip
DISGUISED_EMAILS = ("{name} [at] example [dot] com", "{name} at example dot org", "{name}(at)example.net")

PHONES = (
    "{A}{X}{L}", "({A})-{X}-{L}", "({A}) {X} {L}", "{A}-{X}-{L}", "({A}) {X}-{L}", "{A}.{X}.{L}", "{A} {X} {L}",
    "({A}){X}-{L}", "({A}){X}{L}", "+1 {A} {X} {L}", "+1-{A}-{X}-{L}", "1-{A}-{X}-{L}", "+1 ({A}) {X}-{L}",
    "+1{A}{X}{L}", "1 ({A}) {X}-{L}", "{A}/{X}-{L}", "{A}-{X} {L}", "{A} – {X} – {L}", "+44 20 {L} {L}",
    "+44 7{ddd} {dddddd}",
    "+49 (0)30 {dddddd}", "+49 89 {dddd}-{ddd}", "+33 1 {dd} {dd} {dd} {dd}", "+34 {ddd} {ddd} {ddd}",
    "+86 138 {dddd} {dddd}", "+91-{ddddd}-{ddddd}", "+81 3-{dddd}-{dddd}", "0044 20 {dddd} {dddd}",
    "+61 2 {dddd} {dddd}", "+7 ({ddd}) {ddd}-{dd}-{dd}", "+55 11 9{dddd}-{dddd}", "+4479{dddddddd}",
)  # fmt: skip
NO_PHONES = (
    "20{dd}-1{e}-{dd}", "{dd}/{dd}/20{dd}", "20{dd}1{e}1{e}", "12 Oct. 20{dd}, {dd}:{dd}:{dd}", "20{dd}–20{dd}",
    "${d},{ddd},{ddd}",
    "${A}{X}{L}", "€ {A}{X}{L}", "{d}.{ddd}.{ddd}.{ddd} km", "978-0-{ddd}-{ddddd}-{d}", "ISBN {A}{X}{L}",
    "ISBN-13: 978-3-16-{dddddd}-{d}", "978{dddddddddd}", "ISSN {dddd}-{dddd}", "v{d}.{dd}.{ddd}", "{ddd}-{dd}-{dddd}",
    "{dddd} {dddd} {dddd} {dddd}", "0{d}.0{d}.20{dd} 12:{dd}", "0{d}-0{d}-20{dd}", "02139-{dddd}",
    "4{ddd}-{dddd}-{dddd}-{dddd}", "17{dddddddd}", "{d}.{dddddddddd}",
    "{ddd} {ddd} {dddd} {ddd}", "pp. {ddd}-{ddd}", "{dddd}-{dddd}", "192.0.2.{d}", "#{A}{X}{L}", "/item/{A}{X}{L}",
    "{ddddd}-{dddd}", "{dddddddddddddddd}", "{ddd}-{ddd}", "{d}:{dd}.{ddd}", "x{A}{X}{L}", "{ddddd}, {ddddd}",
    "1{d}:{dd}:{dd}+01:00", "+{ddd},{ddd}",
)  # fmt: skip
PHONES_ABROAD = (
    "020 {dddd} {dddd}", "0171 {ddddddd}", "01 {dd} {dd} {dd} {dd}", "(030) {dddddd}", "01440 {dddddd}",
    "0161 {ddd} {dddd}", "07700 {ddd} {ddd}", "021 {ddd} {dddd}", "089 / {dddd} {dddd}", "0{dddddddddd}",
    "{dd} {ddd}-{dd}-{dd}",
)  # fmt: skip

IPS = ("192.0.2.{d}", "198.51.100.{dd}", "10.{dd}.{dd}.{d}", "{dd}.{dd}.{dd}.{dd}", "255.255.255.0", "8.8.8.8")
NO_IPS = (
    "{d}.{d}.{d}", "version {d}.{d}.{d}.{d}", "v{d}.{d}.{d}.{dd}", "256.{d}.{d}.{d}", "{d}.{d}.{d}.{d}.{d}",
    "{d}.{ddd}.{ddd}.999", "Chrome/{dd}.0.{dddd}.{dd}", "Section {d}.{d}.{d}.{d}", "{d},{d},{d},{d}",
    "{dd}.{dd}.20{dd}",
    "1.3.6.1.4.1.{dd}", "{d}.{d}.{d}.{d}b2", "{A}.{X}.{L}", "Apache/{d}.{d}.{d}.{d}",
)  # fmt: skip
IPS6 = (
    "2001:db8::{h}", "fe80::{h}:{h}:{h}:{h}", "2001:db8:{h}:{h}:{h}:{h}:{h}:1", "::1", "::ffff:192.0.2.{d}",
    "2001:DB8::{d}", "2001:db8:{h}::",
)  # fmt: skip
NO_IPS6 = (
    "std::{name}", "{dd}:{dd}:{dd}", "0{d}:1a:2b:3c:4d:5e", "{name}::{name}", "::", "John 3:16", "{d}:{d}", "a::b",
    "12345::1",
)  # fmt: skip

LISTS: tuple[tuple[str, tuple[Kind, ...], tuple[str, ...], tuple[str, ...]], ...] = (
    ("email addresses", (EMAIL,), EMAILS, NO_EMAILS),
    ("disguised email addresses", (EMAIL,), DISGUISED_EMAILS, ()),
    ("phone numbers", (PHONE_NUMBER,), PHONES, NO_PHONES),
    ("foreign numbers without country code", (PHONE_NUMBER,), PHONES_ABROAD, ()),
    ("IPv4 addresses", (IPV4,), IPS, NO_IPS),
    ("IPv6 addresses (option)", (IPV6, IPV4), IPS6, NO_IPS6),
)
"""What is looked for, by which kinds, how it is spelled, and what only looks like it."""


def evaluate_list(settings: Settings) -> Iterator[Measurement]:
    """The masks on every spelling, in varying sentences: a case is found if just that stretch is masked."""
    for finds, kinds, forms, lookalikes in LISTS:
        yield measure("pii", finds, "list of spellings", _cases(kinds, forms, lookalikes, settings.seed))


def evaluate_small_web(settings: Settings) -> Iterator[Measurement]:
    """The masks on the articles of the small web: each page's counts against the number that it shows."""
    pages = list(small_web_pages(settings))
    for kind in (EMAIL, PHONE_NUMBER, IPV4):

        def cases(kind: Kind = kind) -> Iterator[Case]:
            for page, document in pages:
                text, spans = mask(document.text, [kind])
                shown, found = page.pii.get(kind.name, 0), len(spans)
                both = min(shown, found)
                yield from [Case(True, True, text)] * both
                yield from [Case(True, False, text, f"{shown} shown, {found} found")] * (shown - both)
                yield from [Case(False, True, text, f"{shown} shown, {found} found")] * (found - both)
                if not shown and not found:
                    yield Case(False, False, text)

        yield measure("pii", kind.name, SMALL_WEB, cases())


def _cases(kinds: tuple[Kind, ...], forms: tuple[str, ...], lookalikes: tuple[str, ...], seed: int) -> Iterator[Case]:
    random = Random(seed)
    for positive, group in ((True, forms), (False, lookalikes)):
        for form in group:
            for _ in range(CASES_PER_FORM):
                written, sentence = _written(form, random), random.choice(SENTENCES)
                text = sentence.format(written)
                masked, spans = mask(text, kinds)
                exact = masked == sentence.format(kinds[0].mask)
                yield Case(positive, exact if positive else bool(spans), text, f"became {masked!r}")


def _written(form: str, random: Random) -> str:
    """A form with its blanks filled: names, area and exchange codes, and runs of d for digits."""

    def digits(count: int) -> str:
        return str(random.randint(1, 9)) + "".join(str(random.randint(0, 9)) for _ in range(count - 1))

    def name() -> str:
        return "".join(random.choice("bdfklmnrst") + random.choice("aeiou") for _ in range(random.randint(1, 4)))

    blanks: dict[str, Callable[[], str]] = {
        "name": name,
        "NAME": lambda: name().upper(),
        "n": lambda: digits(4),
        "e": lambda: str(random.randint(0, 2)),
        "h": lambda: f"{random.randint(1, 0xFFFF):x}",
        "A": lambda: str(random.randint(201, 989)),
        "X": lambda: str(random.randint(100, 999)),
        "L": lambda: f"{random.randint(0, 9999):04}",
    }
    return _BLANK.sub(lambda match: blanks.get(match[1], lambda: digits(len(match[1])))(), form)
