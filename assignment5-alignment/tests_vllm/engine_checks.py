"""What both vLLM engines are held to: the Hugging Face engine's answers."""

import torch

from cs336_alignment.log_probs import get_response_log_probs
from cs336_alignment.rollouts import SamplingParameters
from cs336_alignment.rollouts.hf_engine import HFEngine
from cs336_basics.optimizer import AdamW

PROMPTS = ["the answer is", "so on. we add 1+2", "a", "that is all. </think> and so on, and so on", "3+4=7"]
# Long enough to fill several blocks of vLLM's prefix cache.
LONG = "the answer is 42, so on. we add 1+2=3; and then 3+4=7, that is all. " * 4


def same(found, expected):
    """Equal texts, tokens and reasons; log-probabilities within float32's rounding."""
    assert len(found) == len(expected)
    for group, expected_group in zip(found, expected, strict=True):
        for one, other in zip(group, expected_group, strict=True):
            assert (one.prompt, one.text, one.token_ids) == (other.prompt, other.text, other.token_ids)
            assert one.finish_reason == other.finish_reason
            if other.log_probs is not None:
                torch.testing.assert_close(
                    torch.tensor(one.log_probs), torch.tensor(other.log_probs), rtol=1e-3, atol=1e-3
                )


def greedy(**others):
    return SamplingParameters(temperature=0.0, log_probs=True, **{"max_tokens": 24, **others})


def train_a_step(policy):
    """One step of our AdamW towards other text: large, so that the answers change."""
    optimizer = AdamW(policy.parameters(), lr=0.05)
    ids = torch.randint(1, policy.config.vocab_size, (4, 16), generator=torch.Generator().manual_seed(0))
    policy(ids, labels=ids).loss.backward()
    optimizer.step()
    policy.zero_grad()


class EngineChecks:
    """Of the fixture `engine`, which has the weights of the fixture `policy`."""

    def test_greedy_answers_are_the_hf_engine_s(self, engine, policy):
        """Text, tokens, log-probabilities."""
        hf = HFEngine(policy, engine.tokenizer)
        expected = hf.generate(PROMPTS, greedy())
        same(engine.generate(PROMPTS, greedy()), expected)

    def test_stop_strings_end_responses_alike(self, engine, policy):
        """Strings that occur in the answers, kept and cut off, and not looked for before `min_tokens`."""
        hf = HFEngine(policy, engine.tokenizer)
        free = [group[0] for group in hf.generate(PROMPTS, greedy())]
        stop = tuple(dict.fromkeys(one.text[3:5] for one in free if len(one.text) > 5))[:3]
        assert stop
        for others in ({"include_stop": True}, {"include_stop": False}, {"min_tokens": 9}):
            expected = hf.generate(PROMPTS, greedy(stop=stop, **others))
            same(engine.generate(PROMPTS, greedy(stop=stop, **others)), expected)
            assert any(group[0].finish_reason == "stop" for group in expected)

    def test_samples_are_seeded_and_their_log_probs_are_the_policy_s(self, engine, policy):
        """Number, seeds, and log-probabilities under the policy itself."""
        parameters = SamplingParameters(
            max_tokens=12, temperature=0.8, num_samples=4, seed=5, log_probs=True, min_tokens=12
        )
        groups = engine.generate(PROMPTS, parameters)
        same(engine.generate(PROMPTS, parameters), groups)
        texts = [[one.text for one in group] for group in groups]
        assert all(len(set(group)) == 4 for group in texts)
        other = SamplingParameters(max_tokens=12, temperature=0.8, num_samples=4, seed=6)
        assert [[one.text for one in group] for group in engine.generate(PROMPTS, other)] != texts
        again = engine.generate([PROMPTS[0]] * 2, SamplingParameters(max_tokens=12, num_samples=2, seed=5))
        assert len({one.text for group in again for one in group}) == 4
        for one in (one for group in groups for one in group):
            assert len(one.token_ids) == 12
            assert 0 not in one.token_ids
            ids = torch.tensor([engine.tokenizer(one.prompt).input_ids + one.token_ids])
            with torch.no_grad():
                expected = get_response_log_probs(policy, ids[:, :-1], ids[:, 1:], False)["log_probs"][0, -12:]
            torch.testing.assert_close(torch.tensor(one.log_probs), expected, rtol=1e-3, atol=1e-3)

    def test_new_weights_answer_after_an_optimizer_step(self, engine, policy):
        """After an optimizer step the new weights answer, also where a prompt is still in the prefix cache."""
        prompts = [LONG, LONG + "so", *PROMPTS]
        engine.load_weights(policy)
        old = engine.generate(prompts, greedy())  # fills the prefix cache
        same(old, HFEngine(policy, engine.tokenizer).generate(prompts, greedy()))
        train_a_step(policy)
        engine.load_weights(policy)
        new = HFEngine(policy, engine.tokenizer).generate(prompts, greedy())
        assert [group[0].token_ids for group in new] != [group[0].token_ids for group in old]
        same(engine.generate(prompts, greedy()), new)

    def test_without_the_reset_old_keys_and_values_would_answer(self, engine, policy, monkeypatch):
        """Without the reset the same check fails: keys and values of the old weights would be used."""
        engine.load_weights(policy)
        engine.generate([LONG], greedy())
        train_a_step(policy)
        with monkeypatch.context() as patched:
            patched.setattr(engine, "reset_caches", lambda: None)
            engine.load_weights(policy)
        stale = engine.generate([LONG], greedy())[0][0].log_probs
        engine.load_weights(policy)
        fresh = engine.generate([LONG], greedy())[0][0].log_probs
        expected = HFEngine(policy, engine.tokenizer).generate([LONG], greedy())[0][0].log_probs
        torch.testing.assert_close(torch.tensor(fresh), torch.tensor(expected), rtol=1e-3, atol=1e-3)
        assert abs(stale[0] - expected[0]) > 0.01
