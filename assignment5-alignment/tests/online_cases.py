"""A policy of two layers that writes letters, its tokenizer, and questions: what the tests of online training share."""

import json
from dataclasses import replace

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen2Config

from cs336_alignment.online.collection import Collector
from cs336_alignment.online.questions import Question
from cs336_alignment.rollouts.hf_engine import HFEngine
from cs336_alignment.training.replica import Replica

LETTERS = "abcdefgh"
END = "<end>"
QUESTIONS = [Question(prompt=first + second, answer=second) for first in LETTERS for second in LETTERS[:4]]


def make_tokenizer():
    vocabulary = {token: number for number, token in enumerate([END, *LETTERS])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token=END))
    core.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    core.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token=END, pad_token=END)


def make_policy(seed=0, dtype=torch.float64, **changes):
    """Tied embeddings and biases, as Qwen2.5 has them."""
    torch.manual_seed(seed)
    settings = {
        "vocab_size": len(LETTERS) + 1, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64, "eos_token_id": 0,
        "bos_token_id": None, "pad_token_id": 0, "tie_word_embeddings": True, "initializer_range": 0.2, **changes,
    }  # fmt: skip
    return AutoModelForCausalLM.from_config(Qwen2Config(**settings), dtype=dtype).eval()


def repeats_the_answer(response, answer):
    """The share of the right letter in a response."""
    share = response.count(answer) / max(1, len(response))
    return {"reward": share, "format_reward": float(len(response) > 2), "answer_reward": float(share > 0.5)}


def begins_with_the_answer(response, answer):
    """0 or 1."""
    right = float(response.startswith(answer))
    return {"reward": right, "format_reward": 1.0, "answer_reward": right}


def make_trainer(trainer_class, config, policy=None, reward_fn=repeats_the_answer, held_out=(), **more):
    """A trainer in this process, of a policy that need not lie in a file."""
    policy = make_policy() if policy is None else policy
    tokenizer, replica = make_tokenizer(), Replica(policy, config)
    collector = Collector(HFEngine(policy, tokenizer), replica, reward_fn, shared=True)
    return trainer_class(config, replica, tokenizer, collector, QUESTIONS, list(held_out), **more)


def take_steps(trainer, number):
    """Steps without the loop around them; returns each step's metrics and rollouts."""
    metrics, rollouts = [], []
    trainer.record = lambda batch, **columns: rollouts.append(batch)
    for _ in range(number):
        metrics.append(trainer.train_step())
        trainer.step += 1
    return metrics, rollouts


def save_model_and_questions(folder):
    """The policy and questions as files; returns the flags that name them."""
    model, data = folder / "policy", folder / "questions.jsonl"
    make_policy(dtype=torch.float32).save_pretrained(model)
    make_tokenizer().save_pretrained(model)
    data.write_text("".join(json.dumps({"prompt": q.prompt, "answer": q.answer}) + "\n" for q in QUESTIONS))
    return {"model": str(model), "data": str(data), "val_data": str(data)}


def differently(config, **changes):
    return replace(config, **changes)


def token_log_probs(model, prompt_ids, response_ids):
    """One response at a time, by torch's log-softmax."""
    ids = torch.tensor([[*prompt_ids, *response_ids]])
    log_p = torch.log_softmax(model(ids).logits[0], dim=-1)
    at = torch.arange(len(prompt_ids) - 1, len(prompt_ids) + len(response_ids) - 1)
    return log_p[at, torch.tensor(response_ids)]


def expect_same_weights(policy, other, **tolerance):
    for name, value in policy.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], value, **tolerance)
