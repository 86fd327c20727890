"""The r1_zero and question_only rewards: format, extraction, alternatives; never an error, whatever the string."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cs336_alignment.drgrpo_grader import question_only_reward_fn, r1_zero_reward_fn
from cs336_alignment.grading.extraction import boxed_answer, has_box, tagged_answer

RIGHT = {"format_reward": 1.0, "answer_reward": 1.0, "reward": 1.0}
WRONG = {"format_reward": 1.0, "answer_reward": 0.0, "reward": 0.0}
UNFORMATTED = {"format_reward": 0.0, "answer_reward": 0.0, "reward": 0.0}


@pytest.mark.parametrize(
    ("response", "gold", "expected"),
    [
        ("I add. </think> <answer> 72 </answer>", "72", RIGHT),
        ("I add. </think> <answer>72</answer>", 72, RIGHT),
        ("I add. </think> <answer> 0.5 </answer> and more", 0.5, RIGHT),
        ("I add. </think> <answer> 71 </answer>", "72", WRONG),
        ("I add. </think> <answer> </answer>", "72", WRONG),
        (r"</think> <answer> so \boxed{\frac{1}{2}} </answer>", "0.5", RIGHT),
        (r"</think> <answer> \boxed{1}, no, \boxed{2} </answer>", "2", RIGHT),
        (r"</think> <answer> 2 = \boxed </answer>", "2", WRONG),
        (r"</think> <answer> 2 = \boxed{2 </answer>", "2", WRONG),
        (r"</think> <answer> 2 </answer>", r"\boxed{2}", RIGHT),
        ("</think> <answer> 1 </answer> <answer> 2 </answer>", "2", RIGHT),
        ("</think> <answer> 1 </answer> <answer> 2 </answer>", "1", WRONG),
        ("</think> <answer> 1/2 </answer>", ["0.25", r"\frac12"], RIGHT),
        ("</think> <answer> 1/2 </answer>", [3, 0.5], RIGHT),
        ("</think> <answer> 0.3 </answer>", 0.1 + 0.2, RIGHT),
        ("</think> <answer> 1/3 </answer>", 1 / 3, RIGHT),
        ("</think> <answer> 1/2 </answer>", [], WRONG),
        ("</think> <answer> 72", "72", UNFORMATTED),
        ("</think><answer> 72 </answer>", "72", UNFORMATTED),
        ("</think>\n<answer> 72 </answer>", "72", UNFORMATTED),
        ("<answer> 72 </answer>", "72", UNFORMATTED),
        ("72", "72", UNFORMATTED),
        ("", "", UNFORMATTED),
    ],
)
@pytest.mark.parametrize("fast", [True, False])
def test_r1_zero_rewards(response, gold, expected, fast):
    assert r1_zero_reward_fn(response, gold, fast=fast) == expected


@pytest.mark.parametrize(
    ("response", "gold", "expected"),
    [
        (r"It is \boxed{72}.", "72", RIGHT),
        (r"It is \boxed{71}, no, $\boxed{72}$.", 72, RIGHT),
        (r"It is \boxed{72}, no, $\boxed{71}$.", 72, WRONG),
        (r"It is \fbox{72}", [70, 72], RIGHT),
        (r"It is \boxed 72$", "72", RIGHT),
        (r"It is \boxed{\text{(C)}}", "C", RIGHT),
        (r"It is \boxed{}", "72", WRONG),
        (r"It is \boxed{72", "72", UNFORMATTED),
        (r"It is \boxed", "72", UNFORMATTED),
        (r"It is \boxedness{72}", "72", UNFORMATTED),
        ("It is 72", "72", UNFORMATTED),
        ("", "72", UNFORMATTED),
    ],
)
@pytest.mark.parametrize("fast", [True, False])
def test_question_only_rewards(response, gold, expected, fast):
    assert question_only_reward_fn(response, gold, fast=fast) == expected


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    st.recursive(st.just(r"a\}"), lambda inner: st.tuples(inner, inner).map(lambda two: f"{{{two[0]}}}b{{{two[1]}}}"))
)
def test_nested_braces_stay_within_the_box(content):
    assert boxed_answer(rf"\boxed{{1}} then $\boxed{{{content}}}$ }}") == content


def test_the_answer_ends_where_its_tag_is_closed():
    assert tagged_answer("<answer> 1 </answer> 2 <answer> 3 </answer> 4 </answer>") == "3"
    assert tagged_answer("1 </answer>") is None
    assert not has_box(r"\boxes{1}")


PIECES = [
    *("<think>", "</think>", "</think> <answer>", "<answer>", "</answer>", r"\boxed{", r"\boxed", r"\fbox{", "}", "{"),
    *(r"\frac", r"\frac{", r"\sqrt", r"\sqrt[", r"\left(", r"\right]", r"\text{", r"\begin{pmatrix}", r"\end{pmatrix}"),
    *(
        r"\pm",
        r"\cup",
        r"\in",
        r"\log_",
        r"\sin",
        r"\cos^",
        r"\binom",
        r"\infty",
        r"^\circ",
        r"\%",
        r"\$",
        "$",
        r"\\",
        "&",
    ),
    *(
        "(",
        ")",
        "[",
        "]",
        ",",
        ";",
        "^",
        "_",
        "!",
        "|",
        "=",
        "<",
        ">",
        "+",
        "-",
        "*",
        "/",
        ".",
        "'",
        '"',
        "%",
        "~",
        "\\",
    ),
    *(
        "0",
        "1",
        "9",
        "99999999",
        ".5",
        "1e9",
        "1e-999",
        "x",
        "y",
        "e",
        "i",
        "pi",
        "sqrt",
        "factorial",
        "apples",
        " ",
        "\n",
    ),
    *("\x00", "\ud800", "½", "²", "٣", "√", "°", "−", "，", "ﬁ", "İ"),
]
pieces = st.lists(st.sampled_from(PIECES), max_size=40).map("".join)


def check_rewards(rewards):
    assert set(rewards) == {"format_reward", "answer_reward", "reward"}
    assert rewards["reward"] == rewards["answer_reward"] <= rewards["format_reward"]
    assert set(rewards.values()) <= {0.0, 1.0}


@settings(max_examples=800, deadline=None, derandomize=True)
@given(pieces | st.text(), pieces | st.text())
def test_any_two_strings_get_rewards(answer, gold):
    check_rewards(r1_zero_reward_fn(answer, gold))
    check_rewards(question_only_reward_fn(answer, gold))
    check_rewards(r1_zero_reward_fn(f"</think> <answer>{answer}</answer>", gold))
    check_rewards(question_only_reward_fn(rf"\boxed{{{answer}}}", gold))


@settings(max_examples=300, deadline=None, derandomize=True)
@given(pieces.filter(str.strip))
def test_every_answer_without_tags_and_boxes_equals_itself(answer):
    if "answer>" in answer or "box" in answer or not any(character.isalnum() for character in answer):
        return
    assert r1_zero_reward_fn(f"</think> <answer> {answer} </answer>", answer) == RIGHT


HUGE = [
    "9" * 1_000_000, "(" * 1_000_000, "{" * 1_000_000, r"\boxed{" * 150_000, r"\frac" * 200_000, "1," * 500_000,
    " " * 1_000_000, "<answer>" * 100_000, "9^9^9^9", "10**10**10", "factorial(10**9)", "1000000000!", r"\sqrt" * 400,
    "2^" * 900 + "2", "((1,2)" + ",3)" * 300, "5" + "!" * 1_900, "+-" * 900 + "1", "x" * 2_000, "|" * 1_900,
    "[" * 1_900, "1e999999", r"\pm" * 600, "{1," * 600, "9" * 1_999, "2^{" * 30 + "9" * 900 + "}" * 30,
    "0." + "0" * 1_900 + "1",
    r"\begin{pmatrix}" * 100, r"\binom{10^9}{10^8}", r"\binom{1/3}{500}", r"\lfloor 10^{10^{10}} \rfloor",
]  # fmt: skip


@pytest.mark.parametrize("text", HUGE, ids=lambda text: f"{text[:12]}…{len(text)}")
def test_huge_and_deep_strings_get_rewards(text):
    check_rewards(r1_zero_reward_fn(f"</think> <answer> {text} </answer>", "3"))
    check_rewards(question_only_reward_fn(rf"\boxed{{{text}}}", "3"))
    check_rewards(question_only_reward_fn(text, text))
    check_rewards(r1_zero_reward_fn(f"</think> <answer> {text} 1 </answer>", text))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.data())
def test_a_real_answer_with_a_changed_digit_is_wrong(shared_data, data):
    lines = (shared_data / "alignment/math500_test.jsonl").read_text(encoding="utf-8").splitlines()
    answers = [json.loads(line)["answer"] for line in lines]
    answer = data.draw(st.sampled_from([answer for answer in answers if any(map(str.isdigit, answer))]))
    place = data.draw(st.sampled_from([index for index, character in enumerate(answer) if character.isdigit()]))
    digit = data.draw(st.sampled_from([digit for digit in "123456789" if digit != answer[place]]))
    changed = answer[:place] + digit + answer[place + 1 :]
    assert r1_zero_reward_fn(f"</think> <answer> {changed} </answer>", answer) == WRONG


def test_every_real_solution_earns_its_reward(shared_data):
    for line in (shared_data / "alignment/math500_test.jsonl").read_text(encoding="utf-8").splitlines():
        problem = json.loads(line)
        assert question_only_reward_fn(problem["solution"], problem["answer"]) == RIGHT
        for fast in (True, False):
            response = f"</think> <answer> {problem['answer']} </answer>"
            assert r1_zero_reward_fn(response, problem["answer"], fast) == RIGHT
