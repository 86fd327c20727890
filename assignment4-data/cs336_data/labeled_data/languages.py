"""Language identification on the small web's articles and on the Universal Declaration of Human Rights."""

import zipfile
from collections.abc import Iterator

from cs336_data.document import Document
from cs336_data.fasttext_model import find_model
from cs336_data.filter_evaluation import Case, Measurement, Settings, measure, rejections
from cs336_data.filters.language import MODEL_NAMES, LanguageFilter, identify_language
from cs336_data.labeled_data.pages import SMALL_WEB, small_web_pages

UDHR = "text/udhr2.zip"
UDHR_LANGUAGES = {
    "arb": "ar", "bul": "bg", "ben": "bn", "ces": "cs", "cmn_hans": "zh", "dan": "da", "deu_1901": "de",
    "ell_monotonic": "el", "eng": "en", "spa": "es", "est": "et", "pes_1": "fa", "fin": "fi", "fra": "fr", "heb": "he",
    "hin": "hi", "hun": "hu", "ind": "id", "ita": "it", "jpn": "ja", "kor": "ko", "lit": "lt", "lav": "lv", "nld": "nl",
    "nob": "no", "pol": "pl", "por_PT": "pt", "ron": "ro", "rus": "ru", "slk": "sk", "slv": "sl", "swe": "sv",
    "tam": "ta", "tha": "th", "tur": "tr", "ukr": "uk", "urd": "ur", "vie": "vi",
}  # fmt: skip
"""Files of the archive (ISO 639-3, sometimes with the edition) and the codes that identifiers give."""
MIN_CHARACTERS = 40


def evaluate_small_web(settings: Settings) -> Iterator[Measurement]:
    """The filter ought to reject articles that are not English."""
    labeled = (
        (document, page.language != "en") for page, document in small_web_pages(settings) if page.kind == "article"
    )
    yield measure(_name(), "articles not in English", SMALL_WEB, rejections(LanguageFilter(), labeled))


def evaluate_udhr(settings: Settings) -> Iterator[Measurement]:
    """The filter ought to reject paragraphs of the Declaration that are not English.

    Raises:
        MissingData: the archive is not among the shared data.
    """
    labeled = ((Document(text), language != "en") for language, text in udhr_paragraphs(settings))
    yield measure(_name(), "paragraphs not in English", "UDHR", rejections(LanguageFilter(), labeled))


def evaluate_udhr_languages(settings: Settings) -> Iterator[Measurement]:
    """Each language's paragraphs among those of all.

    Raises:
        MissingData: the archive is not among the shared data.
    """
    identified = [(language, text, *identify_language(text)) for language, text in udhr_paragraphs(settings)]
    for wanted in sorted(set(UDHR_LANGUAGES.values())):
        cases = (
            Case(language == wanted, found == wanted, text, f"{language} taken for {found}, {score:.2f}")
            for language, text, found, score in identified
        )
        yield measure(_name(), f"paragraphs in {wanted}", "UDHR", cases)


def udhr_paragraphs(settings: Settings) -> Iterator[tuple[str, str]]:
    """Language and text of the paragraphs of at least 40 characters.

    Raises:
        MissingData: the archive is not among the shared data.
    """
    with zipfile.ZipFile(settings.shared_file(UDHR)) as archive:
        for name, language in UDHR_LANGUAGES.items():
            text = archive.read(f"udhr2/{name}.txt").decode("utf-8")
            for line in text.splitlines():
                if len(line.strip()) >= MIN_CHARACTERS:
                    yield language, line.strip()


def _name() -> str:
    return f"language ({'lid.176' if find_model(MODEL_NAMES) else 'py3langid'})"
