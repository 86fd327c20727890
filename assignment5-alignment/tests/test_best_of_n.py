"""Best of n: the estimate against all choices, and the whole path from sampling to the table."""

import math
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cs336_alignment.evaluation.pass_at_k import pass_at_k
from cs336_alignment.reward_model.best_of_n import ScoredSamples, best_of_k, best_of_table, sample_and_score
from cs336_alignment.rollouts import SamplingParameters
from cs336_alignment.rollouts.hf_engine import HFEngine

from .online_cases import QUESTIONS, make_policy, make_tokenizer, repeats_the_answer

SAMPLES = st.lists(st.tuples(st.integers(-2, 2), st.sampled_from([0.0, 1.0])), min_size=1, max_size=7)


@settings(deadline=None, derandomize=True, max_examples=80)
@given(rows=SAMPLES, data=st.data())
def test_the_estimate_is_the_mean_over_all_choices(rows, data):
    k = data.draw(st.integers(1, len(rows)))
    best = [max(choice, key=lambda index: (rows[index][0], index)) for choice in combinations(range(len(rows)), k)]
    expected = sum(rows[index][1] for index in best) / math.comb(len(rows), k)
    samples = ScoredSamples([float(score) for score, _ in rows], [right for _, right in rows])
    assert best_of_k(samples, k) == pytest.approx(expected)


@settings(deadline=None, derandomize=True, max_examples=40)
@given(right=st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=7), data=st.data())
def test_a_perfect_scorer_reaches_pass_at_k(right, data):
    k = data.draw(st.integers(1, len(right)))
    assert best_of_k(ScoredSamples(right, right), k) == pytest.approx(pass_at_k(len(right), int(sum(right)), k))


def test_table_of_sampled_responses():
    engine = HFEngine(make_policy(), make_tokenizer())
    seen = []

    def score(prompts, responses):
        seen.extend(zip(prompts, responses, strict=True))
        return [float(response.count(prompt[1])) for prompt, response in zip(prompts, responses, strict=True)]

    parameters = SamplingParameters(max_tokens=3, num_samples=6, seed=0)
    samples = sample_and_score(engine, QUESTIONS[:8], parameters, repeats_the_answer, score)
    assert [prompt for prompt, _ in seen] == [question.prompt for question in QUESTIONS[:8] for _ in range(6)]
    for question, one in zip(QUESTIONS, samples[:8], strict=False):
        own = [response for prompt, response in seen if prompt == question.prompt]
        assert one.scores == [response.count(question.answer) for response in own]
        assert one.right == [repeats_the_answer(response, question.answer)["answer_reward"] for response in own]
    rows = best_of_table(samples).rows
    assert [row[0] for row in rows] == [1, 2, 4, 6]
    assert rows[0][1] == pytest.approx(sum(sum(one.right) for one in samples) / 48)
    assert rows[0][1] == pytest.approx(rows[0][4])
    assert [row[5] for row in rows] == pytest.approx([math.log(k) - (k - 1) / k for k in (1, 2, 4, 6)])
    for _, chosen, low, high, possible, _ in rows:
        assert low <= chosen <= high
        assert chosen <= possible + 1e-12
