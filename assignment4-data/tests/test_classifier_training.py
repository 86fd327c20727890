"""Training models by the command: on the small web, on files of each format, and with bad input."""

import csv
import gzip
import json
import math
import random

import pytest

from cs336_basics.command_line import UsageError
from cs336_data import fasttext_model
from cs336_data.classifier_training import main, score
from cs336_data.document import Document
from cs336_data.fasttext_model import classify_line, find_model, train_classifier
from cs336_data.filters import make_filter
from cs336_data.filters.quality import classify_quality
from cs336_data.filters.toxic import classify_toxic_speech
from cs336_data.page_disguise import as_page, excerpt
from cs336_data.small_web import write_small_web
from cs336_data.training_sets import is_held_out, split
from cs336_data.training_texts import read_labeled, read_texts, wikitext_articles


@pytest.fixture(autouse=True)
def _own_data_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("task", ["quality", "toxic", "nsfw", "perplexity", "importance"])
def test_each_task_trains_on_the_small_web(task, capsys):
    main([task, "--smoke", "--epochs", "25", "--order", "3"])
    output = capsys.readouterr().out
    suffix = "npz" if task in ("perplexity", "importance") else "bin"
    path = f"data/models/small-web-{task}.{suffix}"
    assert path in output
    decide = make_filter(task, model=path)
    decision = decide(Document("The council met on Monday to talk about the garden."))
    assert decision.metadata
    # Without data of the user's the model stays out of the way of the filters' defaults.
    assert find_model([f"{task}.{suffix}"]) is None


def test_without_arguments_it_trains_the_quality_classifier(capsys):
    main([])
    assert "small-web-quality.bin" in capsys.readouterr().out


def test_toxic_from_a_table(tmp_path, capsys):
    rows = [("you &amp; your zork zork", "0")] * 3 + [(f"zork number {i}", "0") for i in range(60)]
    rows += [(f"nice day number {i}", "2") for i in range(60)]
    with open("tweets.csv", "w", newline="") as file:
        csv.writer(file).writerows([("tweet", "class"), *rows])
    flags = ["--text_field", "tweet", "--label_field", "class", "--unsafe_labels", "0", "1"]
    main(["toxic", "--labeled", "tweets.csv", *flags, "--epochs", "20"])
    output = capsys.readouterr().out
    assert "classifier, toxic: precision 1.000, recall 1.000" in output
    assert "lexicon, toxic: precision nan, recall 0.000" in output
    assert classify_toxic_speech("zork you")[0] == "toxic"  # found in data/models
    assert classify_toxic_speech("a nice day")[0] == "non-toxic"


def test_quality_from_archives_and_json(tmp_path, capsys):
    archives = write_small_web(tmp_path / "web", num_pages=40, pages_per_file=40)
    with gzip.open("reference.jsonl.gz", "wt") as file:
        for i in range(40):
            row = {"text": f"The battle of {i} was fought in 18{i + 10} by the empire, according to historians. " * 10}
            file.write(json.dumps(row) + "\n")
    wet = str(archives[0]).replace(".warc.gz", ".warc.wet.gz")
    data = ["--reference", "reference.jsonl.gz", "--crawl", str(archives[0]), wet]
    main(["quality", *data, "--epochs", "20"])
    main(["quality", *data, "--kind", "statistics", "--smoke", "--out", "statistics.json"])
    assert "fasttext" not in capsys.readouterr().err
    text = "The battle of the harbor was fought in 1820, according to historians. " * 10
    assert classify_quality(text)[0] == "wiki"
    assert classify_quality(text, "statistics.json")[0] == "wiki"
    provenance = json.loads((tmp_path / "statistics.json").read_text())["provenance"]
    assert provenance["reference"] == ["reference.jsonl.gz"]
    assert 20 < provenance["reference_texts"] < 40


def test_same_seed_gives_the_same_model(tmp_path):
    for name in ("a.json", "b.json"):
        with open("r.txt", "w") as file:
            file.write("The empire was founded by the navy in 1820. " * 30)
        with open("c.jsonl", "w") as file:
            file.writelines(json.dumps({"text": f"Buy {i} boots now! You save $5. " * 9}) + "\n" for i in range(9))
        data = ["--reference", "r.txt", "--crawl", "c.jsonl", "--held_out", "0", "--smoke"]
        main(["quality", *data, "--kind", "statistics", "--out", name])
    assert (tmp_path / "a.json").read_text() == (tmp_path / "b.json").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["toxic", "--reference", "a.txt"], "toxic is trained on --labeled"),
        (["quality", "--reference", "a.txt"], "needs both"),
        (["quality", "--labeled", "a.csv"], "needs both"),
        (["quality", "--held_out", "1"], "--held_out 1"),
        (["quality", "--reference", "a.pdf", "--crawl", "a.pdf"], "no known format"),
        (["toxic", "--labeled", "empty.csv"], "at least two"),
        (["quality", "--smoke", "--threads", "0"], "threads is 0: at least 1 is needed"),
        (["quality", "--smoke", "--epochs", "0"], "epochs is 0: at least 1 is needed"),
        (["quality", "--smoke", "--learning_rate", "-1"], "learning_rate is -1.0: it must be greater than 0"),
        (["toxic", "--labeled", "wrong.csv"], "no 'text'"),
        (["toxic", "--labeled", "plain.txt"], "__label__"),
    ],
)
def test_bad_input_is_one_sentence(arguments, message, tmp_path):
    (tmp_path / "a.pdf").write_bytes(b"%PDF")
    (tmp_path / "empty.csv").write_text("text,label\n")
    (tmp_path / "wrong.csv").write_text("tweet,label\nhello,1\n")
    (tmp_path / "plain.txt").write_text("hello\n")
    with pytest.raises(UsageError, match=message):
        main(arguments)
    assert not (tmp_path / "data").exists()


def test_nan_halves_the_learning_rate():
    """fastText itself runs into NaN at rates like these: at some of them, or at all that are tried."""
    examples = [("a", "x y " * 50), ("b", "z w " * 50)] * 50
    rate = train_classifier(examples, "m.bin", learning_rate=1000, buckets=100, dimension=4)
    assert rate in (500, 250, 125)
    assert classify_line("m.bin", "x y")[0] == "a"
    with pytest.raises(UsageError, match="NaN at each learning rate"):
        train_classifier(examples, "n.bin", learning_rate=1e30, buckets=100, dimension=4)
    assert find_model(["n.bin"], ["."]) is None


def test_training_is_repeatable_and_predictions_are_probabilities():
    examples = [("a", f"x y {i}") for i in range(30)] + [("b", f"z w {i}") for i in range(30)]
    for name in ("1.bin", "2.bin"):
        train_classifier(examples, name, buckets=1000, dimension=8)
    first, second = (classify_line(name, "x\ny") for name in ("1.bin", "2.bin"))
    assert first == second
    assert first[0] == "a"
    assert 0.5 < first[1] <= 1
    assert fasttext_model.one_line("a\nb\ud800\0c") == "a b? c"


def test_wikitext_is_spelled_as_before():
    text = (
        ' = First Title = \n \n It cost 1 @,@ 000 men @-@ at @-@ arms , isn \'t it ? ( Yes ) " No " said <unk> . \n'
        " = = Part = = \n Dog 's . \n = Second = \n \n End . \n"
    )
    assert wikitext_articles(text) == [
        "First Title\nIt cost 1,000 men-at-arms, isn't it? (Yes) \"No\" said unknown.\nPart\nDog's.",
        "Second\nEnd.",
    ]
    assert wikitext_articles("plain text") == []


def test_formats_of_texts(tmp_path):
    (tmp_path / "one.txt").write_text("a text\nof two lines")
    (tmp_path / "rows.tsv").write_text("text\tlabel\nhello, you\t1\n")
    (tmp_path / "lines.txt").write_text("__label__toxic bad words\n__label__non-toxic good words\n")
    (tmp_path / "broken.jsonl").write_text('{"text": "fine"}\n{"text": \n')
    assert list(read_texts("one.txt")) == ["a text\nof two lines"]
    assert list(read_texts("rows.tsv")) == ["hello, you"]
    assert list(read_labeled("rows.tsv", label_field="label")) == [("hello, you", "1")]
    assert list(read_labeled("lines.txt", label_field="label")) == [
        ("bad words", "toxic"),
        ("good words", "non-toxic"),
    ]
    with pytest.raises(UsageError, match="line 2 is no JSON"):
        list(read_texts("broken.jsonl"))


def test_split_depends_on_the_text_alone():
    examples = [(i % 2 == 0, f"text {i // 3}") for i in range(3000)]
    parts = split(examples, 0.25)
    assert not {text for _, text in parts.train} & {text for _, text in parts.held_out}
    assert len(parts.held_out) / 3000 == pytest.approx(0.25, abs=0.05)
    assert all(is_held_out(text, 0.25) for _, text in parts.held_out)
    assert split(examples, 0).held_out == []


def test_score_counts_by_hand():
    result = score(lambda text: text in "ab", [(True, "a"), (False, "b"), (True, "c"), (True, "d"), (False, "e")])
    assert result == (pytest.approx(1 / 2), pytest.approx(1 / 3), 3, 2)
    assert math.isnan(score(lambda text: False, [(True, "a")]).precision)


def test_disguises_keep_the_text():
    article = "Title\n" + "\n".join(f"Sentence {i} of the article is here. It goes on." for i in range(50))
    for seed in range(20):
        choices = random.Random(seed)
        part = excerpt(article, choices, 60)
        assert 0 < len(part.split()) <= 60
        assert part.replace("\n", " ") in article.replace("\n", " ")
        page = as_page(part, choices, references=bool(seed % 2))
        assert part.split()[-1] in page.split()
        assert len(page) >= len(part)
