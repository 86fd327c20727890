"""Language identification: known texts, odd texts, and both identifiers behind one function."""

import pickle
import zipfile

import fasttext
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cs336_basics.command_line import UsageError
from cs336_data.document import Document
from cs336_data.filters.language import LanguageFilter, identify_language

from .adapters import run_identify_language

SENTENCES = {
    "en": "All human beings are born free and equal, and nobody in this house would say otherwise.",
    "de": "Der Wagen stand den ganzen Winter vor dem Haus, weil niemand den Schlüssel finden konnte.",
    "fr": "Les enfants jouaient dans la cour pendant que leur mère préparait le repas du soir.",
    "es": "El tren sale a las ocho de la mañana y llega a la ciudad antes del mediodía.",
    "it": "La biblioteca rimane aperta fino a tardi, ma oggi non c'è nessuno che legga.",
    "ru": "Каждое утро он выходит из дома и идёт к реке, чтобы посмотреть на воду.",
    "zh": "我们每天早上都去公园散步,然后一起吃早饭。",
    "ja": "昨日は雨が降っていたので、家で本を読んでいました。",
    "ko": "어제는 비가 와서 집에서 책을 읽고 있었습니다.",
    "ar": "ذهبنا إلى السوق صباحا لشراء الخبز والفاكهة ثم عدنا إلى البيت.",
}


@pytest.fixture(autouse=True)
def no_downloaded_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def small_fasttext_model(tmp_path_factory):
    """A real fastText model that tells English from German by character n-grams, as lid.176 does for its languages."""
    folder = tmp_path_factory.mktemp("fasttext")
    lines = [f"__label__{language} {SENTENCES[language].lower()}\n" for language in ("en", "de") for _ in range(50)]
    (folder / "train.txt").write_text("".join(lines), encoding="utf-8")
    model = fasttext.train_supervised(
        str(folder / "train.txt"), dim=8, minn=2, maxn=4, bucket=5000, epoch=20, thread=1, verbose=0
    )
    path = folder / "languages.bin"
    model.save_model(str(path))
    return path


@pytest.mark.parametrize("language", SENTENCES)
def test_known_sentences(language):
    found, score = run_identify_language(SENTENCES[language])
    assert found == language
    assert type(score) is float
    assert 0.5 < score <= 1


@pytest.mark.parametrize("text", ["你好，世界", "北京大学", "欢迎光临", "請問車站在哪裡？"])
def test_a_few_characters_of_chinese(text):
    language, score = run_identify_language(text)
    assert language == "zh"
    assert score > 0.9


def test_line_breaks_are_spaces():
    text = SENTENCES["en"]
    assert (
        identify_language(text.replace(" ", "\n"))
        == identify_language(text.replace(" ", "\r\n\t"))
        == (identify_language(text))
    )


@pytest.mark.parametrize("text", ["", " \n", "12345", "!?… 10:30 🙂", "\0"])
def test_texts_without_letters_are_unknown(text):
    assert run_identify_language(text) == ("unknown", 1.0)


@given(st.text(alphabet=st.characters(), max_size=80))  # lone surrogates too
@settings(deadline=None, derandomize=True, max_examples=100)
def test_any_text_has_a_score(text):
    language, score = identify_language(text)
    assert isinstance(language, str)
    assert language
    assert type(score) is float
    assert 0 < score <= 1
    decision = LanguageFilter()(Document(text))
    assert decision.metadata == {"language": language, "language_score": score}
    assert decision.keep == (language == "en" and score >= 0.65)


def test_a_fasttext_model_is_used_where_given(small_fasttext_model):
    for language in ("en", "de"):
        found, score = identify_language(SENTENCES[language].lower() + "\n", small_fasttext_model)
        assert found == language
        assert 0.5 < score <= 1
    # It knows two languages only, so it is that model which answers.
    assert identify_language(SENTENCES["it"], small_fasttext_model)[0] in ("en", "de")
    assert identify_language("\ud800 the wagon", small_fasttext_model)[0] in ("en", "de")


@pytest.mark.parametrize("place", ["data/lid.176.bin", "data/models/lid.176.ftz"])
def test_a_fasttext_model_in_the_data_folder_is_found(place, small_fasttext_model, tmp_path):
    (tmp_path / place).parent.mkdir(parents=True)
    (tmp_path / place).write_bytes(small_fasttext_model.read_bytes())
    assert identify_language(SENTENCES["ru"])[0] in ("en", "de")
    decide = LanguageFilter(min_score=0.5)
    assert decide.model == str(tmp_path / place)
    assert pickle.loads(pickle.dumps(decide))(Document(SENTENCES["en"])).keep


def test_filter_keeps_wanted_languages_and_says_why_not():
    decide = pickle.loads(pickle.dumps(LanguageFilter(languages=["en", "de"])))
    assert decide(Document(SENTENCES["en"])).keep
    assert decide(Document(SENTENCES["de"])).metadata["language"] == "de"
    rejected = decide(Document(SENTENCES["fr"]))
    assert not rejected.keep
    assert rejected.reason.startswith("language fr with score ")
    assert rejected.reason.endswith("wanted: de, en")


def test_filter_by_score_and_without_languages():
    unsure = Document("menu home about")
    score = identify_language(unsure.text)[1]
    assert not LanguageFilter(min_score=score + 1e-6)(unsure).keep
    assert LanguageFilter(min_score=score)(unsure).keep
    assert LanguageFilter(languages=(), min_score=0)(Document("12")).keep


@pytest.mark.parametrize("options", [{"min_score": 1.5}, {"min_score": -0.1}, {"model": "no_such_file.bin"}])
def test_bad_options(options):
    with pytest.raises(UsageError, match=str(next(iter(options.values())))):
        LanguageFilter(**options)


def test_a_file_that_is_no_model(tmp_path):
    path = tmp_path / "text.bin"
    path.write_text("no model")
    with pytest.raises(UsageError, match="no fastText model"):
        LanguageFilter(model=path)


def test_declaration_of_human_rights(shared_data):
    right = total = 0
    with zipfile.ZipFile(shared_data / "text/udhr2.zip") as archive:
        for name, language in {"eng": "en", "deu_1901": "de", "fra": "fr", "spa": "es", "cmn_hans": "zh"}.items():
            lines = archive.read(f"udhr2/{name}.txt").decode().splitlines()
            for line in [line for line in lines if len(line) >= 40][:20]:
                total += 1
                right += identify_language(line)[0] == language
    assert total > 80
    assert right / total >= 0.95
