"""From the bytes of an HTML page to its text.

The encoding is UTF-8 wherever the bytes are valid UTF-8, else what the server or the page declares, else what
Resiliparse detects; Resiliparse (https://resiliparse.chatnoir.eu) takes the text out of the markup.
"""

import codecs
import re

from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.encoding import detect_encoding, map_encoding_to_html5

_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_META_SCAN_BYTES = 4096  # browsers look at 1,024; generators that write long comments first need more
_META_CHARSET = re.compile(rb"""<(?:meta|\?xml)[^>]*?(?:charset|encoding)\s*=\s*["']?\s*([\w:.-]+)""", re.IGNORECASE)
_WESTERN = {"cp1252", "iso8859-1", "ascii"}
_OTHER_LATIN = re.compile(r"cp125[0247]|iso8859-(?:[12349]|10|13|14|15|16)|mac-roman|utf-8")
_MAX_DAMAGED_UTF8 = 0.2
"""Share of broken ones among non-ASCII characters; in text of another encoding more than half are."""


def extract_text(html: bytes, declared: str | None = None) -> str | None:
    """The text of an HTML page, by Resiliparse's `extract_plain_text`.

    Args:
        html: the page's bytes.
        declared: the encoding that the server named (the charset of its Content-Type), if it did.

    Returns:
        The text, empty for a page that shows none; None if the bytes are no text in any encoding.
    """
    text = decode_html(html, declared)
    return None if text is None else extract_plain_text(text)


def decode_html(html: bytes, declared: str | None = None) -> str | None:
    """The characters of a page, without a byte-order mark; None if the bytes are no text. Never raises.

    What is not valid UTF-8 is tried strictly as `declared`, then as the encoding that the page itself declares, then
    as the detected one; if none of them fits every byte, broken bytes become U+FFFD. Three refinements:

    - A page that is UTF-8 but for a few broken bytes (cut off within a character, a foreign snippet) stays UTF-8.
    - Latin-1 is what many servers say of every page: it does not count against a declaration inside the page, nor
      against bytes in which the detector sees another script.
    - ISO-2022-JP and UTF-16 can look like valid UTF-8; they are taken if a byte-order mark or a declaration says so.
    """
    for mark, encoding in _BYTE_ORDER_MARKS:
        if html.startswith(mark):
            return html[len(mark) :].decode(encoding, "replace")
    try:
        text = html.decode("utf-8")
    except UnicodeDecodeError:
        text = None
    if text is not None and b"\x1b" not in html and b"\0" not in html:
        return text
    declarations = [name for name in (_python_codec(declared), _python_codec(_meta_charset(html))) if name]
    for name in declarations:
        if (name == "iso2022_jp" and b"\x1b" in html) or (name.startswith("utf-16") and b"\0" in html):
            return html.decode(name, "replace")
    if text is not None:
        return text
    if b"\0" in html:
        return None  # an image, an archive, a program: no encoding but UTF-16 has such bytes in its text
    if (text := _nearly_utf8(html)) is not None:
        return text
    candidates = [name for name in declarations if name not in (*_WESTERN, "utf-8")]
    if (text := _first_strict(html, candidates)) is not None:
        return text
    detected = _python_codec(detect_encoding(html)) or "cp1252"
    western = [name for name in declarations if name in _WESTERN]
    candidates += [*western, detected] if _OTHER_LATIN.fullmatch(detected) else [detected, *western]
    text = _first_strict(html, [*candidates, "cp1252"])
    return html.decode(candidates[0], "replace") if text is None else text


def _first_strict(html: bytes, codecs_to_try: list[str]) -> str | None:
    """The page in the first of the encodings that fits every byte."""
    for name in codecs_to_try:
        try:
            return html.decode(name)
        except UnicodeDecodeError:
            continue
    return None


def _nearly_utf8(html: bytes) -> str | None:
    """The page read as UTF-8 if nearly all of its non-ASCII characters are sound; text in another encoding is not."""
    text = html.decode("utf-8", "replace")
    broken = text.count("\ufffd")
    non_ascii = len(text) - len(text.encode("ascii", "ignore"))
    return text if broken <= max(_MAX_DAMAGED_UTF8 * non_ascii, 1) and non_ascii > broken else None


def _meta_charset(html: bytes) -> str | None:
    match = _META_CHARSET.search(html, 0, _META_SCAN_BYTES)
    return match[1].decode("ascii") if match else None


def _python_codec(name: str | None) -> str | None:
    """Python's codec for an encoding's name as the web uses it (WHATWG Encoding Standard); None if it is unknown."""
    mapped = map_encoding_to_html5(name, fallback_utf8=False) if name else None
    if mapped is None:
        return None
    try:
        codec = codecs.lookup(mapped)
    except LookupError:
        return None
    # The standard reads the older Chinese encodings as their superset.
    return "gb18030" if codec.name in ("gbk", "gb2312") else codec.name
