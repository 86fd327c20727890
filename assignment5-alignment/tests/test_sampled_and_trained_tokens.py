"""Training reads prompts and responses as the tokens that rollout engines read and draw, from the first to the last."""

import numpy as np
import torch

from cs336_alignment.log_probs import get_response_log_probs
from cs336_alignment.online.batches import batch_of
from cs336_alignment.online.collection import ScoredRollout
from cs336_alignment.preference.pairs import PreferencePair, encode_pair
from cs336_alignment.rollouts import SamplingParameters
from cs336_alignment.rollouts.hf_engine import HFEngine
from cs336_alignment.rollouts.interface import check_prompts
from cs336_alignment.sft.examples import PromptMaskedExamples

from .rollout_models import make_model
from .tiny_models import tiny_tokenizer

PROMPTS = ["the answer", "a", "Question: what is 12 + 34?"]


def sampled_rollouts(model, **settings):
    """Of a model that likes to end its responses."""
    tokenizer = tiny_tokenizer()
    with torch.no_grad():
        model.get_output_embeddings().weight[tokenizer.eos_token_id] *= 3
    parameters = SamplingParameters(max_tokens=24, num_samples=6, seed=0, log_probs=True, **settings)
    return [one for group in HFEngine(model, tokenizer).generate(PROMPTS, parameters) for one in group]


def scored(rollout):
    return ScoredRollout(rollout.prompt, rollout.text, rollout.token_ids, "", 1.0, 1.0, 1.0, rollout.finish_reason)


def test_the_loss_counts_each_token_that_was_drawn_with_the_probability_it_was_drawn_with():
    model, tokenizer = make_model("qwen2"), tiny_tokenizer()
    for stop in ((), ("e",)):
        rollouts = sampled_rollouts(model, stop=stop)
        ended = [rollout.token_ids[-1] == tokenizer.eos_token_id for rollout in rollouts]
        assert any(ended)
        assert not all(ended)
        batch = batch_of([scored(rollout) for rollout in rollouts], torch.ones(len(rollouts)), tokenizer)
        log_probs = get_response_log_probs(model, batch.input_ids, batch.labels)["log_probs"]
        for row, rollout in enumerate(rollouts):
            mask = batch.response_mask[row]
            assert batch.labels[row][mask].tolist() == rollout.token_ids
            torch.testing.assert_close(log_probs[row][mask], torch.tensor(rollout.log_probs), rtol=0, atol=1e-4)


def test_all_programs_read_a_prompt_as_the_engines_do():
    tokenizer = tiny_tokenizer()
    asked = check_prompts(PROMPTS, tokenizer, None)
    assert all(ids[0] == tokenizer.bos_token_id for ids in asked)
    responses = [" forty", " more words", " 46"]
    written = [tokenizer(text, add_special_tokens=False).input_ids for text in responses]
    ends = [tokenizer.eos_token_id]

    rollouts = [
        ScoredRollout(*texts, ids, "", 1.0, 1.0, 1.0, "stop")
        for *texts, ids in zip(PROMPTS, responses, written, strict=True)
    ]
    online = batch_of(rollouts, torch.ones(len(rollouts)), tokenizer)
    supervised = PromptMaskedExamples(tokenizer, PROMPTS, responses, max_length=100).batch(np.arange(len(PROMPTS)))
    for row, (prompt, response) in enumerate(zip(asked, written, strict=True)):
        assert online.input_ids[row, : len(prompt)].tolist() == prompt
        assert supervised.input_ids[row, : len(prompt)].tolist() == prompt
        assert online.labels[row][online.response_mask[row]].tolist() == response
        assert supervised.labels[row][supervised.response_mask[row]].tolist() == response + ends
        pair = encode_pair(tokenizer, PreferencePair(PROMPTS[row], responses[row], responses[row]))
        assert pair.chosen == prompt + response + ends
