"""The page of kept and rejected documents: what is drawn and highlighted, and the page in headless Chromium."""

import json
import random
import re
from collections import Counter

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from playwright.sync_api import expect

from cs336_basics.command_line import UsageError
from cs336_data.browse.command import main
from cs336_data.browse.excerpts import MASK, pieces_of, spans_of, visible
from cs336_data.browse.page import json_for_html, render_page, write_page
from cs336_data.browse.samples import KEPT, Samples, document_files, draw_samples
from cs336_data.document import Span
from cs336_data.filters.pii import EMAIL, IPV4, PHONE_NUMBER

ATTACK = "window.attacked = true; fetch('https://outside.example/')"
HOSTILE = [
    f"</script><script>{ATTACK}</script> <!--<script>",
    f'<img src=\'https://outside.example/x.png\' onerror="{ATTACK}"> <svg onload="{ATTACK}">',
    f"{{{{ 7 * 7 }}}} {{% raw %}} ${{{ATTACK}}} `${{1}}` \\u003cscript>{ATTACK}</script>",
    "reversed \u202egnp.exe\u202c, hidden \u200b\u200b\u200b, isolated \u2066x\u2069, \x00 nul, \ud800 lone",
    "x" * 300_000,
    "a\u0300" * 500 + "\u2028 separators \u2029 &lt;b&gt; &amp;",
]


def _record(text, number=0, **more):
    return {
        "id": f"{number:016x}", "url": f"https://site.example/{number}", "text": text, "source": "crawl.warc.gz",
        "offset": number, "language": "en", "scores": {}, "masked": {}, **more,
    }  # fmt: skip


def _rejected(text, name, reason="too bad", spans=(), **more):
    return _record(text, **more) | {"filter": name, "reason": reason, "spans": [list(span) for span in spans]}


def _samples(records):
    return Samples(records, Counter(record.get("filter", KEPT) for record in records))


def _write(path, records):
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = b"".join(json.dumps(record).encode() + b"\n" for record in records)
    path.write_bytes(zstandard.compress(lines))
    return path


# ---- excerpts -------------------------------------------------------------------------------------------------------


def _plain(pieces):
    return "".join(piece if isinstance(piece, str) else piece[1] for piece in pieces)


spans_strategy = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20), st.sampled_from("abc")), max_size=6)


@settings(deadline=None, derandomize=True, max_examples=300)
@given(st.text(st.sampled_from("ab 😀é\n\u202e|A"), max_size=60), spans_strategy)
def test_every_character_is_shown_once_and_highlighted_as_the_spans_say(text, places):
    spans = sorted(
        Span(start, min(start + size, len(text)), label) for start, size, label in places if start < len(text)
    )
    position = 0
    for piece in pieces_of(text, spans, 1000):
        kind, shown, label = ("", piece, "") if isinstance(piece, str) else piece
        if kind == "control":
            match = re.fullmatch(r"U\+202E(?: ×(\d+))?", shown)
            shown = "\u202e" * int(match[1] or 1)
        assert text[position : position + len(shown)] == shown
        assert shown
        for place in range(position, position + len(shown)):
            covering = {span.label for span in spans if span.start <= place < span.end}
            is_masked = any(match.start() <= place < match.end() for match in MASK.finditer(text))
            assert set(label.split(" + ")) - {"A", "AA", ""} == covering - {"A"} or is_masked
            if kind != "control":
                assert kind == ("mask" if is_masked else "span" if covering else "")
        position += len(shown)
    assert position == len(text)


@settings(deadline=None, derandomize=True, max_examples=200)
@given(
    st.integers(0, 3000),
    st.integers(1, 500),
    st.lists(st.tuples(st.integers(0, 3000), st.integers(1, 300)), max_size=8),
)
def test_long_texts_are_cut_and_nothing_is_lost_unsaid(length, max_characters, places):
    text = "".join(chr(ord("a") + number % 26) for number in range(length))
    spans = sorted(Span(start, min(start + size, length), "label") for start, size in places if start < length)
    pieces = pieces_of(text, spans, max_characters)
    position = shown = 0
    for piece in pieces:
        if not isinstance(piece, str) and piece[0] == "gap":
            position += int(piece[1].split()[0].replace(",", ""))
            continue
        content = piece if isinstance(piece, str) else piece[1]
        assert text[position : position + len(content)] == content
        position += len(content)
        shown += len(content)
    assert position == length
    assert min(length, max_characters) <= shown <= 2 * max_characters


def test_a_span_far_inside_is_shown():
    text = "." * 50_000 + "the reason" + "." * 50_000
    pieces = pieces_of(text, [Span(50_000, 50_010, "why")], 1000)
    assert ["span", "the reason", "why"] in pieces
    assert [piece[1] for piece in pieces if piece[0] == "gap"] == [
        "48,900 characters are not shown", "49,900 characters are not shown",
    ]  # fmt: skip


@pytest.mark.parametrize("kind", [EMAIL, PHONE_NUMBER, IPV4])
def test_masks_of_the_filter_are_marked(kind):
    assert pieces_of(f"call {kind.mask} now", [], 100) == ["call ", ["mask", kind.mask, kind.label], " now"]


def test_what_is_no_span_is_left_out():
    record = {
        "text": "0123456789",
        "spans": [[2, 4, "good"], [4, 2, "back"], [0, 99, "far"], [-1, 3, "before"], "x", None],
    }
    assert spans_of(record) == [Span(2, 4, "good")]
    assert spans_of({"text": "", "spans": None}) == []


def test_unseen_characters_are_written_out_but_not_those_of_emoji_and_persian():
    assert visible("a\u202eb\u200b\u200b") == "a⟨U+202E⟩b⟨U+200B ×2⟩"
    assert visible("👩\u200d🔬 می\u200cروم \t\n") == "👩\u200d🔬 می\u200cروم \t\n"


# ---- samples --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A run of 20,000 documents in four shards, a third of them kept."""
    folder = tmp_path_factory.mktemp("run")
    kinds = [KEPT, "gopher", "language"]
    for shard in range(4):
        for place in ("kept", "rejected"):
            records = []
            for number in range(shard, 20_000, 4):
                kind = kinds[number % 3]
                if (kind == KEPT) == (place == "kept"):
                    text = f"document {number}"
                    records.append(_record(text, number) if kind == KEPT else _rejected(text, kind, number=number))
            _write(folder / place / f"{shard}.jsonl.zst", records)
    return folder


def test_samples_are_of_every_kind_and_depend_on_the_seed_alone(many):
    files = document_files([many])
    samples = draw_samples(files, 50, seed=3)
    assert samples.counts == {KEPT: 6667, "gopher": 6667, "language": 6666}
    drawn = Counter(record.get("filter", KEPT) for record in samples.records)
    assert drawn == {KEPT: 50, "gopher": 50, "language": 50}
    ids = [record["id"] for record in samples.records]
    assert len(set(ids)) == 150
    random.Random(0).shuffle(files)
    assert draw_samples(files, 50, seed=3).records == samples.records
    others = {record["id"] for record in draw_samples(files, 50, seed=4).records}
    assert len(others & set(ids)) < 10  # 1.1 are expected
    places = sorted(record["offset"] for record in samples.records)
    assert 8_000 < sum(places) / len(places) < 12_000  # 4.2 standard deviations about the middle
    assert len(draw_samples(files[:1], 10_000).records) == draw_samples(files[:1], 10_000).counts.total()


def test_damage_is_counted(tmp_path):
    path = tmp_path / "some.jsonl"
    path.write_text('{"text": "good"}\n{"text": 3}\nnonsense\n\n[1]\n')
    samples = draw_samples([path], 10)
    assert (len(samples.records), samples.num_damaged) == (1, 3)
    cut = tmp_path / "cut.jsonl.zst"
    cut.write_bytes(
        _write(tmp_path / "whole.jsonl.zst", [_record(str(n) * 999, n) for n in range(99)]).read_bytes()[:-9]
    )
    assert draw_samples([cut], 10).num_damaged == 1


def test_bad_input_is_told_in_one_sentence(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    for arguments, message in (
        ([str(tmp_path)], "no documents in"), ([str(tmp_path / "none")], "no file or folder"),
        ([str(tmp_path / "notes.txt")], "no file of documents"), (["--samples", "0"], "--samples 0"),
        (["--max_characters", "-1"], "--max_characters -1"), (["--seed", "-1"], "--seed -1"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=message):
            main([*arguments, "--quiet"])


# ---- the page -------------------------------------------------------------------------------------------------------


@settings(deadline=None, derandomize=True, max_examples=40)
@given(
    st.recursive(
        st.text() | st.integers() | st.none(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_json_within_html_ends_nothing_and_comes_back(value):
    embedded = json_for_html(value)
    assert "<" not in embedded
    assert json.loads(embedded) == value


def test_a_page_of_nothing():
    assert "0 documents" in render_page(Samples(), "nothing")


@pytest.fixture
def open_page(browser, tmp_path):
    """Opens a page of samples, which must ask nobody for anything and not complain."""
    contexts, asked, complaints = [], [], []

    def open_it(samples, **settings):
        write_page(tmp_path / "samples.html", samples, "Some <b>documents</b>", **settings)
        context = browser.new_context(viewport={"width": 1200, "height": 1000})
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(dialog.message))
        page.goto((tmp_path / "samples.html").as_uri())
        return page

    yield open_it
    for context in contexts:
        context.close()
    assert asked
    assert {url.partition("#")[0] for url in asked} == {(tmp_path / "samples.html").as_uri()}
    assert complaints == []


def test_hostile_documents_are_shown_and_nothing_else(open_page):
    odd = {"url": HOSTILE[0], "language": HOSTILE[1][:9], "scores": {HOSTILE[1]: float("nan"), "big": 10**400}}
    records = [_record(text, number, **odd) for number, text in enumerate(HOSTILE)]
    records += [_rejected(text, text[:99], text[:999], [(0, 20, text[:99])], number=9) for text in HOSTILE]
    records.append(
        _record("odd fields", url=["a", 1], scores=[1], masked="x", language=None, source={"a": "<b>"}, id=1.5)
    )
    page = open_page(_samples(records))
    assert page.locator("article").count() == 2 * len(HOSTILE) + 1
    page.wait_for_timeout(100)  # what an attack would need to begin
    assert page.evaluate("window.attacked") is None
    assert page.locator("img, svg, iframe, link, a, b").count() == 0
    assert page.locator("script").count() == 2
    texts = page.locator(".text").all_text_contents()
    for text in HOSTILE[:3]:
        assert text in texts
    assert any("U+202E" in text and "U+200B ×3" in text and "U+0000" in text and "U+D800" in text for text in texts)
    assert not any("\u202e" in text for text in [page.content()])
    assert any("296,000 characters are not shown" in text for text in texts)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert page.title() == "Some <b>documents</b>"


@pytest.fixture
def usual_page(open_page):
    records = [_record(f"A kept text {number}.", number, scores={"quality": number / 40}) for number in range(40)]
    records[7]["text"] = "😀 write to |||EMAIL_ADDRESS||| today"
    records[7]["masked"] = {"emails": 1}
    records += [
        _rejected(f"😀 bad bad text {n}", "gopher", "repeats", [(2, 5, "bad"), (6, 9, "bad")], number=n)
        for n in range(5)
    ]
    records += [_rejected(f"un texte {n}", "language", "language fr", language="fr", number=n) for n in range(3)]
    return open_page(_samples(records))


def _count(page):
    return page.inner_text("#count")


def test_tabs_filters_and_languages(usual_page):
    page = usual_page
    assert _count(page) == "48 of 48"
    page.click("[data-tab='rejected']")
    assert _count(page) == "8 of 48"
    assert page.locator(".badge.kept").count() == 0
    page.click("text=gopher >> nth=0")
    assert _count(page) == "5 of 48"
    assert set(page.locator(".badge").all_text_contents()) == {"gopher"}
    assert page.get_attribute("[data-filter='0']", "aria-pressed") == "true"
    page.click("[data-filter='0']")  # once more: no filter
    assert _count(page) == "8 of 48"
    page.select_option("#language", "fr")
    assert _count(page) == "3 of 48"
    page.click("[data-tab='kept']")
    assert _count(page) == "0 of 48"
    page.select_option("#language", "")
    assert _count(page) == "40 of 48"
    assert [cell.strip() for cell in page.locator("#filters tbody tr").nth(0).locator("td").all_text_contents()] == [
        "5", "10.4 %", "10.4 %",
    ]  # fmt: skip


def test_reasons_and_masks_are_highlighted(usual_page):
    page = usual_page
    page.click("[data-filter='0']")
    card = page.locator("article").first
    assert card.locator("mark").all_text_contents() == ["bad", "bad"]  # though an emoji stands before them
    assert card.locator(".reason").inner_text() == "repeats"
    assert card.locator(".labels").inner_text() == "highlighted: bad (2)"
    page.click("[data-tab='kept']")
    assert page.locator("article mark.mask").all_text_contents() == ["|||EMAIL_ADDRESS|||"]
    assert "masked emails" in page.locator("article", has=page.locator("mark.mask")).inner_text()


def test_search_order_more_and_address(usual_page):
    page = usual_page
    assert page.locator("article").count() == 25
    page.click("#more")
    assert page.locator("article").count() == 48
    assert page.is_hidden("#more")
    page.select_option("#order", "-score quality")
    assert page.locator(".text").first.inner_text() == "A kept text 39."
    page.select_option("#order", "+score quality")
    assert page.locator(".text").first.inner_text() == "A kept text 0."
    page.fill("#search", "KEPT text 1")
    expect(page.locator("#count")).to_have_text("11 of 48")
    page.reload()
    assert _count(page) == "11 of 48"
    assert page.input_value("#search") == "KEPT text 1"
    page.fill("#search", "language FR")  # of the reason
    expect(page.locator("#count")).to_have_text("3 of 48")


def test_long_texts_unfold(open_page):
    page = open_page(_samples([_record("line\n" * 200), _record("short", 1)]))
    assert page.locator(".unfold:visible").count() == 1
    height = page.locator(".text").first.bounding_box()["height"]
    page.click(".unfold:visible")
    assert page.locator(".text").first.bounding_box()["height"] > 3 * height
    page.click(".unfold:visible")
    assert page.locator(".text").first.bounding_box()["height"] == height


def test_command_and_thousands_of_documents(many, browser, tmp_path, capsys):
    main([str(many), "--samples", "2000", "--out", str(tmp_path / "page.html"), "--quiet"])
    assert "20,000 documents: 6,667 kept, 6,667 by gopher, 6,666 by language" in capsys.readouterr().out
    page = browser.new_page()
    page.goto((tmp_path / "page.html").as_uri())
    assert page.inner_text("#count") == "6,000 of 6,000"
    assert page.locator("article").count() == 25
    page.close()
