"""Decoding pages in many encodings, rightly, wrongly and not declared, and taking their text out."""

import codecs

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from resiliparse.extract.html2text import extract_plain_text

from cs336_data.extraction import decode_html, extract_text
from cs336_data.small_web.choices import Choices
from cs336_data.small_web.prose import article
from cs336_data.web_archive.records import read_records

from .adapters import run_extract_text_from_html_bytes

ENCODINGS = {
    "en": ["utf-8", "utf-16"],
    "de": ["utf-8", "iso-8859-1", "cp1252"],
    "fr": ["utf-8", "iso-8859-1"],
    "es": ["cp1252"],
    "ru": ["utf-8", "koi8-r", "cp1251", "iso8859-5"],
    "zh": ["utf-8", "gb18030", "gbk"],
    "ja": ["utf-8", "shift_jis", "euc-jp"],
}
CASES = [(language, encoding) for language, encodings in ENCODINGS.items() for encoding in encodings]


def page(language, encoding, head=""):
    """A page in a language as characters, and what its bytes in an encoding can tell of them."""
    title, paragraphs = article(language, Choices(f"extraction/{language}"), 3)
    body = "".join(f"<p>{each}</p>" for each in paragraphs)
    html = f"<html><head>{head}</head><body><h1>{title}</h1>{body}</body></html>"
    data = html.encode(encoding, "xmlcharrefreplace")
    return data.decode(encoding), data


@pytest.mark.parametrize(("language", "encoding"), CASES)
@pytest.mark.parametrize("declared", [None, "right", "utf-8", "iso-8859-1", "nonsense", ""])
def test_encodings_with_right_wrong_and_no_declaration(language, encoding, declared):
    html, data = page(language, encoding)
    assert decode_html(data, encoding if declared == "right" else declared) == html
    assert extract_text(data, declared if declared != "right" else encoding) == extract_plain_text(html)


@pytest.mark.parametrize(("language", "encoding"), CASES)
def test_declaration_inside_the_page(language, encoding):
    head = f'<meta http-equiv="Content-Type" content="text/html; charset={encoding}">'
    html, data = page(language, encoding, head)
    assert decode_html(data) == html
    assert decode_html(data, "iso-8859-1") == html


def test_declaration_decides_where_detection_cannot():
    # Latin-2 and Latin-1 differ in few letters, and this text is short.
    for encoding in ("iso8859-2", "iso8859-15", "cp1254"):
        text = "<p>Łódź €</p>" if encoding == "iso8859-2" else "<p>ğış €</p>" if encoding == "cp1254" else "<p>œ €</p>"
        data = text.encode(encoding, "xmlcharrefreplace")
        assert decode_html(data, encoding) == data.decode(encoding)
        meta = f"<meta charset='{encoding}'>".encode() + data
        assert decode_html(meta) == meta.decode(encoding)


def test_escape_sequences_of_iso_2022_jp_are_read_only_where_declared():
    text = "<p>今日は天気がいい</p>"
    data = text.encode("iso2022_jp")
    assert decode_html(data, "ISO-2022-JP") == text
    assert decode_html(data) == data.decode("ascii")


@pytest.mark.parametrize("mark", [codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE])
def test_byte_order_marks_win_and_disappear(mark):
    encoding = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16-le"}.get(mark, "utf-16-be")
    assert decode_html(mark + "<p>naïve</p>".encode(encoding), "shift_jis") == "<p>naïve</p>"


@pytest.mark.parametrize("language", ["de", "ru", "zh"])
def test_utf8_with_a_few_broken_bytes_stays_utf8(language):
    html, data = page(language, "utf-8")
    place = data.index(b"</h1>")
    assert decode_html(data[:place] + b"\xff" + data[place:]) == html.replace("</h1>", "\ufffd</h1>")
    cut = "Ende ä".encode()[:-1]
    assert decode_html(data + cut, "iso-8859-1") == f"{html}Ende \ufffd"


def test_bytes_that_are_no_text_give_none():
    image = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(range(256))
    assert decode_html(image) is None
    assert extract_text(image) is None
    assert run_extract_text_from_html_bytes(image) is None


def test_pages_without_text_give_an_empty_one():
    for html in (b"", b"<html></html>", b"<script>alert(1)</script><style>p {}</style>"):
        assert extract_text(html) == ""


@settings(deadline=None, derandomize=True, max_examples=300)
@given(st.binary(max_size=300), st.sampled_from([None, "utf-8", "latin1", "gbk", "rot13", "hex", "utf-16", "\0", "é"]))
def test_any_bytes_are_decoded_or_refused(data, declared):
    text = decode_html(data, declared)
    assert text is None or isinstance(text, str)
    extract_text(data, declared)


@settings(deadline=None, derandomize=True, max_examples=200)
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x1b\0"), max_size=200))
def test_valid_utf8_is_never_taken_for_anything_else(text):
    text = text.removeprefix("\ufeff")
    for declared in (None, "shift_jis", "iso-8859-1"):
        assert decode_html(text.encode(), declared) == text


def test_adapter_equals_resiliparse_on_the_decoded_page():
    for language, encoding in CASES:
        html, data = page(language, encoding)
        assert run_extract_text_from_html_bytes(data) == extract_plain_text(html)


def test_deeply_nested_and_very_long_pages():
    assert extract_text(b"<div>" * 50_000 + b"bottom") == "bottom"
    assert len(extract_text(b"<p>" + b"word " * 400_000)) == 5 * 400_000 - 1


# What each page of this archive that is not UTF-8 is written in, by its own words.
REAL = {"cp1251": "Стратегия пожарной безопасности", "gb18030": "上海特舟实业有限公司", "cp1252": "Registrieren"}


def test_real_pages_that_are_not_utf8(shared_data):
    texts = []
    for record in read_records(shared_data / "warc" / "warcfile.warc.gz", types=("response",)):
        if record.media_type == "text/html":
            try:
                record.payload.decode("utf-8")
            except UnicodeDecodeError:
                texts.append(extract_text(record.payload, record.charset))
    assert len(texts) == 9
    assert all("\ufffd" not in text for text in texts)
    for words in REAL.values():
        assert any(words in text for text in texts)
