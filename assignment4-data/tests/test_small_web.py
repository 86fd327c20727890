"""The small web is what its labels say, and the same every time."""

import hashlib
import itertools
import json
import re
from collections import Counter

import pytest
from py3langid.langid import MODEL_FILE, LanguageIdentifier

from cs336_basics.command_line import UsageError
from cs336_data.extraction import extract_text
from cs336_data.small_web import write_small_web
from cs336_data.small_web.choices import Choices
from cs336_data.small_web.generator import make_page
from cs336_data.small_web.page_kinds import KINDS, masked_spelling
from cs336_data.small_web.personal_data import contact_paragraph
from cs336_data.small_web.prose import LANGUAGES, TOPICS, article
from cs336_data.small_web.writer import read_labels
from cs336_data.web_archive.records import ReadCounts, read_records

NUM_PAGES = 500


@pytest.fixture(scope="module")
def web(tmp_path_factory):
    """A folder with a small web, its archives, its labels by URL and its responses by URL."""
    folder = tmp_path_factory.mktemp("web")
    paths = write_small_web(folder, num_pages=NUM_PAGES, pages_per_file=200)
    labels = {label["url"]: label for label in read_labels(folder)}
    responses = {}
    for path in paths:
        for record in read_records(path, types=("response",)):
            responses[record.url] = record
    return folder, paths, labels, responses


def test_files_and_labels_fit_together(web):
    _, paths, labels, responses = web
    assert [path.name for path in paths] == [f"small-web-{number:05}.warc.gz" for number in range(3)]
    assert len(labels) == NUM_PAGES
    assert set(labels) <= set(responses)
    for path in paths:
        here = [record.url for record in read_records(path) if record.url in labels and record.type == "response"]
        assert here == [url for url, label in labels.items() if label["file"] == path.name]
        wet = path.with_name(path.name.replace(".warc.gz", ".warc.wet.gz"))
        texts = {each.url: each.payload.decode() for each in read_records(wet, types=("conversion",))}
        assert texts == {url: labels[url]["text"] + "\n" for url in here if labels[url]["kind"] != "empty"}
    records = Counter(record.type for path in paths for record in read_records(path))
    assert records["warcinfo"] == 3
    assert records["request"] == records["metadata"] == NUM_PAGES
    assert records["revisit"] > 0
    others = {record.http_status for url, record in responses.items() if url not in labels}
    assert others == {200, 301, 404}


def test_the_share_of_each_kind(web):
    *_, labels, _ = web
    originals = [label for label in labels.values() if not label["duplicate"]]
    kinds = Counter(label["kind"] for label in originals)
    for name, kind in KINDS.items():
        expected = kind.share * len(originals)
        assert abs(kinds[name] - expected) <= 4 * expected**0.5, name
    assert {label["language"] for label in originals} == set(LANGUAGES)
    assert {label["duplicate"] for label in labels.values()} == {"", "exact", "near", "url"}
    assert {label["encoding"] for label in originals} >= {
        "utf-8",
        "cp1252",
        "iso-8859-1",
        "koi8-r",
        "shift_jis",
        "gb18030",
    }
    assert 0.25 * NUM_PAGES < sum(label["should_keep"] for label in labels.values()) < 0.5 * NUM_PAGES


def test_every_page_can_be_read_whatever_its_server_says(web):
    """All visible lines come back from the bytes, through encodings, chunks and compression."""
    *_, labels, responses = web
    wrong = []
    for url, label in labels.items():
        text = extract_text(responses[url].payload, responses[url].charset) or ""
        folded = " ".join(text.replace("•", " ").split())
        lines = [" ".join(line.split()) for line in label["text"].split("\n")[1:]]  # the first is the window's title
        lost = [line for line in lines if line not in folded]
        if len(lost) > (1 if label["broken_bytes"] else 0):
            wrong.append((url, label["encoding"], label["declared"], lost[:2]))
    # Short pages without a declaration, or with a wrong one, are beyond any detector.
    assert len(wrong) <= 0.01 * len(labels), wrong
    assert all(declared != encoding for _, encoding, declared, _ in wrong)


def test_languages_are_what_the_labels_say(web):
    *_, labels, _ = web
    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    articles = [label for label in labels.values() if label["kind"] == "article"]
    wrong = [label["url"] for label in articles if identifier.classify(label["text"])[0] != label["language"]]
    assert len(wrong) <= 0.01 * len(articles), wrong


def shingles(text):
    words = text.split()
    return set(zip(*(words[start:] for start in range(5)), strict=False))


def test_copies_are_as_alike_as_the_labels_say(web):
    *_, labels, responses = web
    copies = [label for label in labels.values() if label["duplicate"]]
    assert len(copies) > 30
    for label in copies:
        original = labels[label["duplicate_of"]]
        assert (original["duplicate"], original["kind"], original["language"]) == ("", "article", "en")
        if label["duplicate"] == "near":
            first, second = shingles(original["text"]), shingles(label["text"])
            assert 0.75 < len(first & second) / len(first | second) < 1
        else:
            assert responses[label["url"]].payload == responses[original["url"]].payload
        if label["duplicate"] == "url":
            core = re.sub(r"^https?://(www\.)?|:443|[?#].*", "", label["url"].lower())
            assert core == re.sub(r"^https://(www\.)?", "", original["url"].lower())
    # Two originals never look like copies of each other.
    articles = [shingles(label["text"]) for label in labels.values() if label["should_keep"]]
    assert max(len(a & b) / len(a | b) for a, b in itertools.combinations(articles[:120], 2)) < 0.5


def test_personal_data_is_counted(web):
    *_, labels, _ = web
    patterns = {
        "emails": r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+",
        "phones": r"(?:\+1 )?\(?\d{3}\)?[ .-]{0,2}555[ .-]?01\d\d",
        "ips": r"\b(?:192\.0\.2|198\.51\.100|203\.0\.113)\.\d{1,3}\b",
    }
    assert sum(sum(label["pii"].values()) for label in labels.values()) > 50
    for label in labels.values():
        for sort, pattern in patterns.items():
            assert len(re.findall(pattern, label["text"])) == label["pii"][sort], label["url"]


def test_a_page_does_not_depend_on_how_many_there_are(web, tmp_path):
    *_, labels, _ = web
    write_small_web(tmp_path, num_pages=30, pages_per_file=7)
    again = list(read_labels(tmp_path))
    assert [label | {"file": ""} for label in again] == [
        label | {"file": ""} for label in itertools.islice(labels.values(), 30)
    ]
    assert make_page(0, 17).url == again[17]["url"]
    write_small_web(tmp_path, num_pages=30, seed=1, pages_per_file=7)
    assert not {label["url"] for label in again} & {label["url"] for label in read_labels(tmp_path)}


def test_the_same_pages_on_every_machine():
    """The digest was computed on Linux x86-64 with Python 3.11; a change of the generator changes it."""
    digest = hashlib.sha256()
    for number in range(60):
        page = make_page(0, number)
        digest.update(json.dumps([page.url, page.duplicate, page.lines()], sort_keys=True).encode() + page.html())
    assert digest.hexdigest() == "bb7edfca237250730ff9901b070fc2fec2d989e1c9a5e174da625b8118e5cfd3"


def test_nothing_is_written_twice(tmp_path):
    (path,) = write_small_web(tmp_path, num_pages=5)
    before = path.stat().st_mtime_ns
    assert write_small_web(tmp_path, num_pages=5) == [path]
    assert path.stat().st_mtime_ns == before
    path.unlink()
    assert write_small_web(tmp_path, num_pages=5) == [path]
    assert path.stat().st_size


def test_damaged_archives(tmp_path):
    paths = write_small_web(tmp_path, num_pages=40, pages_per_file=20, damage=True)
    for path in paths:
        counts = ReadCounts()
        for _ in read_records(path, counts=counts):
            pass
        assert counts.bad.total() == 2
        assert counts.good > 55


def test_numbers_out_of_range(tmp_path):
    with pytest.raises(UsageError, match="num_pages is 0; at least 1 is needed"):
        write_small_web(tmp_path, num_pages=0)
    with pytest.raises(UsageError, match="seed is -1; at least 0 is needed"):
        write_small_web(tmp_path, seed=-1)
    assert not list(tmp_path.iterdir())


def test_every_topic_and_language_makes_articles():
    for language, topic in [*((language, "") for language in LANGUAGES[1:]), *(("en", topic) for topic in TOPICS)]:
        for number in range(20):
            title, paragraphs = article(language, Choices(f"{topic}/{number}"), 4, topic)
            assert len(paragraphs) == 4
            assert not re.search(r"[$<>{}|^@¶]|  ", title + " ".join(paragraphs))


def test_masked_spellings_and_contacts():
    spellings = {masked_spelling("stupid", Choices(f"mask/{number}")) for number in range(200)}
    assert {"st*pid", "5tupid", "s t u p i d", "$tupid"} <= spellings
    for number in range(50):
        _, counts = contact_paragraph(Choices(f"contact/{number}"))
        assert 1 <= sum(counts.values()) <= 6


def test_choices_follow_their_weights():
    choices = Choices("weights")
    counts = Counter(choices.pick_weighted({"a": 1, "b": 3}) for _ in range(4000))
    assert 900 < counts["a"] < 1100
    assert sorted(choices.some("abc", 5)) == ["a", "b", "c"]
    assert {choices.whole(2, 4) for _ in range(99)} == {2, 3, 4}
