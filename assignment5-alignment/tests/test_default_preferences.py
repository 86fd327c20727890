"""Preference pairs of the default task: the chosen response is right, the rejected one has the fault it names."""

import re
from collections import Counter

import pytest

from cs336_alignment.default_task.arithmetic import GREATEST
from cs336_alignment.default_task.preferences import FAULTS, make_preferences
from cs336_alignment.default_task.tasks import make_examples, split_of
from cs336_alignment.drgrpo_grader import r1_zero_reward_fn
from cs336_basics.command_line import UsageError

PAIRS = make_preferences("train", 150)
ANSWERS = {example["prompt"]: example["answer"] for example in make_examples("train", 150)}


def _grade(response, pair):
    rewards = r1_zero_reward_fn(response, ANSWERS[pair.prompt])
    return rewards["format_reward"], rewards["answer_reward"]


def test_chosen_is_right_and_rejected_is_not():
    assert {_grade(pair.chosen, pair) for pair in PAIRS} == {(1.0, 1.0)}
    for pair in PAIRS:
        well_formed = 0.0 if pair.source == "format" else 1.0
        assert _grade(pair.rejected, pair) == (well_formed, 0.0)


def test_a_carry_is_one_wrong_number_to_go_on_from():
    for pair in (pair for pair in PAIRS if pair.source == "carry"):
        steps = [tuple(map(int, step)) for step in re.findall(r"(\d+)([+-]\d+)=(\d+)", pair.rejected)]
        assert all(before + term == after for before, term, after in steps)
        assert all(0 <= after <= GREATEST for _, _, after in steps)
        assert sum(steps[place][2] != steps[place + 1][0] for place in range(len(steps) - 1)) == 1
        assert f"<answer> {steps[-1][2]} </answer>" in pair.rejected


def test_faults_are_equally_frequent_and_questions_distinct():
    counts = Counter(pair.source for pair in PAIRS)
    assert set(counts) == set(FAULTS)
    assert min(counts.values()) > 30
    assert len({pair.prompt for pair in PAIRS}) == len(PAIRS)


def test_splits_are_apart_and_seeds_repeat():
    assert make_preferences("train", 20, seed=1) == make_preferences("train", 20, seed=1)
    assert make_preferences("train", 20, seed=1) != make_preferences("train", 20, seed=2)
    question = make_preferences("validation", 1)[0].prompt.split("\n")[0].removeprefix("Q: ")
    assert split_of(question) == "validation"
    with pytest.raises(UsageError, match="'held-out'"):
        make_preferences("held-out", 1)
