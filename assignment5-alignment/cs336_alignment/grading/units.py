r"""Units behind an answer: 5.4 \text{ cents}, 864 \mbox{ inches}^2, 72 clips, 50\%, 90^\circ, 3 cm."""

import re

_UNIT_NAMES = {
    "cm": "cm centimeter centimeters centimetre centimetres",
    "mm": "mm millimeter millimeters millimetre millimetres",
    "km": "km kilometer kilometers kilometre kilometres",
    "m": "m meter meters metre metres",
    "in": "in inch inches",
    "ft": "ft foot feet",
    "yd": "yd yard yards",
    "mi": "mi mile miles",
    "kg": "kg kilogram kilograms",
    "g": "g gram grams",
    "lb": "lb lbs pound pounds",
    "oz": "oz ounce ounces",
    "l": "l L liter liters litre litres",
    "ml": "ml mL milliliter milliliters",
    "h": "h hr hrs hour hours",
    "min": "min mins minute minutes",
    "s": "s sec secs second seconds",
    "day": "day days",
    "week": "week weeks",
    "month": "month months",
    "year": "year years",
    "dollar": "dollar dollars USD",
    "cent": "cent cents",
    "mph": "mph",
    "kph": "kph",
    "unit": "unit units",
    "degree": "degree degrees",
    "radian": "radian radians rad",
    "percent": "percent",
}
_CANONICAL = {spelling: unit for unit, spellings in _UNIT_NAMES.items() for spelling in spellings.split()}
_POWERS = {"square": "2", "sq": "2", "squared": "2", "cubic": "3", "cubed": "3"}
_VAGUE = {"unit", "degree"}
"""Units whose names say nothing: square units of a length that the question leaves open, degrees of an angle."""

_DEGREES = re.compile(
    r"\s*\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![a-zA-Z]))(?:\s*(?:\\text\s*\{\s*[CF]\s*\}|[CF](?![a-zA-Z])))?"
)
_TRIGONOMETRY = re.compile(r"sin|cos|tan|cot|sec|csc")
_PERCENT = re.compile(r"\s*%$")
_EXPONENT = re.compile(r"\s*\^\s*\{?\s*([23])\s*\}?\s*$")
_TEXT_UNIT = re.compile(r"\\text\s*\{([^{}]*)\}\s*$")
_WORD_UNIT = re.compile(r"(?:(?<=[\d})\]])|(?<=\s))[a-zA-Z]+(?:[ /-][a-zA-Z]+){0,4}$")
_STARTS_LIKE_A_QUANTITY = re.compile(r"[-+]?\s*(?:\\[a-zA-Z]|[\d.(])")


def split_unit(text: str) -> tuple[str, str]:
    """The answer without its unit, and the unit in one spelling ("" if there is none, "percent" for %).

    Words are taken for a unit only behind a quantity; a letter such as m only if it stands apart: 5 m, not 5m.
    """
    if not _TRIGONOMETRY.search(text):
        text = _DEGREES.sub("", text)
    percent = _PERCENT.search(text)
    if percent:
        return text[: percent.start()], "percent"
    exponent = _EXPONENT.search(text)
    power = exponent[1] if exponent else ""
    rest = text[: exponent.start()] if exponent else text
    in_text = _TEXT_UNIT.search(rest)
    match = in_text or _WORD_UNIT.search(rest)
    if not match or not _STARTS_LIKE_A_QUANTITY.match(rest[: match.start()]):
        return text, ""
    words = match[1] if in_text else match.group()
    stands_apart = rest[: match.start()].endswith(" ")
    if not in_text and not (_reads_as_unit(words) and (stands_apart or len(words) > 1)):
        return text, ""
    return rest[: match.start()].rstrip(), _canonical(words, power)


def units_differ(a: str, b: str) -> bool:
    """Whether both units are known and they are not the same; an answer without its unit is right as well."""
    known = [unit.rstrip("23") in _CANONICAL.values() for unit in (a, b)]
    vague = any(unit.rstrip("23") in _VAGUE for unit in (a, b))
    return all(known) and not vague and a != b


def _reads_as_unit(words: str) -> bool:
    first = words.split()[0]
    return first in _CANONICAL or first in _POWERS or (len(first) > 2 and bool(set(first) & set("aeiou")))


def _canonical(words: str, power: str) -> str:
    names = [name for name in re.split(r"[^a-zA-Z]+", words) if name]
    power = next((_POWERS[name] for name in names if name in _POWERS), power)
    units = [_CANONICAL.get(name, name) for name in names if name not in _POWERS]
    return " ".join(units) + power
