"""How pages are encoded and what they and their servers say of it, rightly or wrongly."""

from typing import NamedTuple

from cs336_data.small_web.choices import Choices

LEGACY = {
    "en": ("cp1252", "iso-8859-1"),
    "de": ("iso-8859-1", "cp1252"),
    "fr": ("iso-8859-1", "cp1252"),
    "es": ("iso-8859-1", "cp1252"),
    "ru": ("koi8-r", "cp1251"),
    "zh": ("gb18030", "gbk"),
    "ja": ("shift_jis", "euc-jp"),
}
LEGACY_SHARE = {"en": 0.1}
OTHER_LEGACY_SHARE = 0.4
BROKEN_SHARE = 0.03
_LABELS = {"cp1252": "windows-1252", "cp1251": "windows-1251"}


class Encoding(NamedTuple):
    """A page's codec, the labels in its markup and in the HTTP header (empty: none), and whether bytes are broken."""

    codec: str
    meta: str
    http: str
    broken: bool


def choose_encoding(language: str, choices: Choices) -> Encoding:
    """An encoding that is common for the language, with a right, a missing or a wrong declaration."""
    if not choices.happens(LEGACY_SHARE.get(language, OTHER_LEGACY_SHARE)):
        declared = choices.pick((("utf-8", ""), ("", "UTF-8"), ("utf-8", "utf-8"), ("", "")))
        return Encoding("utf-8", *declared, choices.happens(BROKEN_SHARE))
    codec = choices.pick(LEGACY[language])
    label = _LABELS.get(codec, codec)
    declared = choices.pick_weighted(
        {
            (label, ""): 0.3,
            ("", label): 0.2,
            (label, label): 0.1,
            ("", ""): 0.2,
            ("", "utf-8"): 0.1,  # the server is set up wrongly
            (label, "iso-8859-1"): 0.1,  # the server says of all pages what its maker thought of as the default
        }
    )
    return Encoding(codec, *declared, broken=False)
