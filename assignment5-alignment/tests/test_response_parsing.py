"""MMLU's letters and GSM8K's numbers in free text."""

import csv
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cs336_alignment.response_parsing import parse_gsm8k_response, parse_mmlu_response

VIRUSES = {
    "subject": "virology",
    "question": "How many human polyomaviruses are known at present?",
    "options": ["100", "1", "10", "unknown"],
    "answer": "A",
}
CITIES = {"question": "Which one?", "options": ["a dog", "New York", "York", "Vitamin C"], "answer": "B"}


@pytest.mark.parametrize(
    ("output", "letter"),
    [
        ("The correct answer is B. There are 10 of them.", "B"),
        ("The correct answer is B", "B"),
        (" The correct answer is (B).", "B"),
        ('The correct answer is "B"', "B"),
        ("The correct answer is **B**.", "B"),
        ("The correct answer is option B.", "B"),
        ("The correct answer is A because it is.", "A"),
        ("The answer is b.", "B"),
        ("the correct option is: C", "C"),
        ("answer: B", "B"),
        ("Answer: (C) 10", "C"),
        ("B.", "B"),
        ("B", "B"),
        ("(B)", "B"),
        ("B) 1", "B"),
        ("**C.** 10", "C"),
        ("D: unknown", "D"),
        ("A\nbecause", "A"),
        ("It's C.", "C"),
        ("I would choose D, since", "D"),
        (r"So $\boxed{D}$", "D"),
        (r"\boxed{\text{(D)}}", "D"),
        ("One sees that (C) holds", "C"),
        ("The answer is B. Wait, no: the answer is C.", "C"),
        ("The correct answer is B.\n\nQuestion: Another?\nThe correct answer is C.", "B"),
        ("unknown", "D"),
        ("10", "C"),
        ("The answer is 10.", "C"),
        ("That is unknown to me", "D"),
    ],
)
def test_the_chosen_option_is_found(output, letter):
    assert parse_mmlu_response(VIRUSES, output) == letter


@pytest.mark.parametrize(
    "output",
    [
        *(
            "",
            " ",
            "The correct answer is 10000 polyomaviruses.",
            "The correct answer is _",
            "The correct answer is E.",
        ),
        *("A virus is small.", "the answer is a virus", "I think", "The answer is not A.", "Vitamin C helps", "A dog"),
        *(
            "The options are (A) and (B).",
            "There are 100 or 10 of them.",
            "Of 10 people, 3",
            "Bananas",
            "DNA",
            "A-level",
        ),
    ],
)
def test_what_names_no_option_gives_none(output):
    assert parse_mmlu_response(VIRUSES, output) is None


@pytest.mark.parametrize(
    ("output", "letter"),
    [("It is a dog.", "A"), ("a dog", "A"), ("It is New York.", "B"), ("I love York", "C"), ("Vitamin C", "D")],
)
def test_the_text_of_an_option_stands_for_its_letter(output, letter):
    assert parse_mmlu_response(CITIES, output) == letter
    assert parse_mmlu_response(CITIES, "New York is in, and a dog is out") is None


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.sampled_from("ABCD"), st.text(alphabet=st.characters(whitelist_categories=["Ll", "Zs"]), max_size=40))
def test_the_sentence_of_the_prompt_wins_over_what_follows(letter, rest):
    assert parse_mmlu_response(VIRUSES, f"The correct answer is {letter}. {rest}") == letter


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.text() | st.lists(st.sampled_from([*"ABCD().: \n", "answer is", "option", "a"]), max_size=20).map(" ".join))
def test_any_text_gives_an_option_or_none(output):
    assert parse_mmlu_response(VIRUSES, output) in {"A", "B", "C", "D", None}
    assert parse_mmlu_response({}, output) in {"A", "B", "C", "D", None}


@pytest.mark.parametrize(
    "piece", [" ", "\n", "answer is ", "(", "**", "answer", "A", "9", "1,", ",234", "-", "$", ".", "\\boxed{"]
)
def test_long_texts_are_parsed_in_linear_time(piece):
    parse_mmlu_response(VIRUSES, "The answer is " + piece * 30_000)
    parse_mmlu_response(VIRUSES, piece * 30_000)
    parse_gsm8k_response("1" + piece * 100_000)


def test_every_real_question_is_parsed_from_its_letter_and_mostly_from_its_option(shared_data):
    right = total = 0
    for path in sorted((shared_data / "alignment/mmlu").glob("*_test.csv")):
        for question, *options, answer in csv.reader(path.open(encoding="utf-8")):
            example = {"question": question, "options": options, "answer": answer}
            text = options["ABCD".index(answer)]
            for output in (f"The correct answer is {answer}.", answer, f"({answer})", f"{answer}. {text}"):
                assert parse_mmlu_response(example, output) == answer
            right += parse_mmlu_response(example, text) == answer
            total += 1
    assert right > 0.9 * total


@pytest.mark.parametrize(
    ("output", "number"),
    [
        ("Natalia sold 48+24 = 72 clips altogether in April and May.", "72"),
        ("#### 72", "72"),
        ("$1,234.50", "1234.50"),
        (r"\$18", "18"),
        ("-5", "-5"),
        ("it is −5 degrees", "-5"),
        ("-$5", "-5"),
        ("$-5", "-5"),
        ("= -3.", "-3"),
        ("9-2", "2"),
        ("(4)-1", "1"),
        ("72.", "72"),
        ("3.5.", "3.5"),
        (".5", ".5"),
        ("50%", "50"),
        ("1, 2", "2"),
        ("12,345,678", "12345678"),
        ("5 apples and 7", "7"),
        ("**42**", "42"),
    ],
)
def test_the_last_number_is_found(output, number):
    assert parse_gsm8k_response(output) == number


@pytest.mark.parametrize("output", ["", "none", "seventy-two", "$", "-", "...", "٣"])
def test_without_a_number_there_is_none(output):
    assert parse_gsm8k_response(output) is None


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.integers(-(10**12), 10**12),
    st.decimals(0, 1, places=3),
    st.text(alphabet=st.characters(whitelist_categories=["L", "Zs"]), max_size=20),
    st.text(),
)
def test_a_number_is_found_in_any_surroundings(number, decimals, words, anything):
    assert parse_gsm8k_response(f"{anything} {number:,} {words}") == str(number)
    assert parse_gsm8k_response(f"{anything} {number}{str(decimals)[1:]} {words}") == f"{number}{str(decimals)[1:]}"
    found = parse_gsm8k_response(anything)
    assert found is None or re.fullmatch(r"-?[0-9]*\.?[0-9]+", found)
