"""Supervised fine-tuning: its loss, its data, and the program as a whole."""

import functools
import json
import math

import numpy as np
import pytest
import torch

from cs336_alignment.log_probs import get_response_log_probs
from cs336_alignment.policy import load_policy, load_tokenizer, save_policy
from cs336_alignment.policy_gradient.microbatch import sft_microbatch_train_step
from cs336_alignment.sft.config import SFTConfig
from cs336_alignment.sft.documents import document_text, tokenize_documents
from cs336_alignment.sft.examples import PackedExamples, PromptMaskedExamples
from cs336_alignment.sft.packed import PackedDocuments
from cs336_alignment.sft.sources import training_examples, validation_examples
from cs336_alignment.sft.train import main, make_trainer
from cs336_alignment.sft.trainer import SFTTrainer
from cs336_alignment.training.loop import train
from cs336_alignment.training.replica import Replica
from cs336_basics.command_line import UsageError
from cs336_basics.run_log import read_metrics

from .tiny_models import tiny_model, tiny_tokenizer

PAIRS = [
    ("Question: what is 12 + 34?\n<think>", " Some words. </think> <answer> 46 </answer>"),
    ("Question: 1?\n<think>", " one </think> <answer> 1 </answer>"),
    ("Question: is it? <think>", " </think> <answer> no </answer>"),
    ("Question: more words, so that the lengths differ? <think>", " a b </think> <answer> 7 </answer>"),
]


@pytest.fixture
def model_folder(tmp_path):
    """A tiny model of random weights, too small to know anything."""
    return str(save_policy(tiny_model(dtype=torch.float32), tiny_tokenizer(), tmp_path / "tiny"))


def write_jsonl(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return str(path)


def masked_examples(max_length=1000):
    return PromptMaskedExamples(tiny_tokenizer(), *zip(*PAIRS, strict=True), max_length)


def packed_examples():
    documents = tokenize_documents(tiny_tokenizer(), [document_text(*pair) for pair in PAIRS])
    return PackedExamples(PackedDocuments(documents, 40))


def gradients_of(model):
    return [parameter.grad.clone() for parameter in model.parameters()]


class Gradients(Replica):
    """A replica that keeps the gradients of its last update."""

    def clip_gradient(self, max_norm):
        self.seen = gradients_of(self.module)
        return super().clip_gradient(max_norm)


def trainer_of(examples, **settings):
    config = SFTConfig(**{"batch_size": 4, "max_grad_norm": 0.0, **settings})
    return SFTTrainer(config, Gradients(tiny_model(), config), tiny_tokenizer(), examples)


def test_what_counts_of_a_prompt_and_its_response():
    tokenizer, examples = tiny_tokenizer(), masked_examples()
    batch = examples.batch(np.array([2, 0]))
    for row, index in enumerate((2, 0)):
        prompt, response = PAIRS[index]
        # As the rollout engines read a prompt: with the tokenizer's beginning-of-sequence token.
        prompt_ids = [0, *tokenizer(prompt, add_special_tokens=False)["input_ids"]]
        response_ids = [*tokenizer(response, add_special_tokens=False)["input_ids"], 1]
        ids = [*prompt_ids, *response_ids]
        assert batch.input_ids[row, : len(ids) - 1].tolist() == ids[: len(ids) - 1]
        assert batch.labels[row][batch.response_mask[row]].tolist() == response_ids
    assert examples.num_targets(np.array([2, 0])) == batch.response_mask.sum()
    assert examples.lengths(np.array([0])).tolist() == [int((batch.input_ids[1] != 2).sum()) + 1]


@pytest.mark.parametrize("make", [masked_examples, packed_examples])
@pytest.mark.parametrize("parts", [1, 2, 4])
def test_the_step_is_that_of_hugging_faces_loss(make, parts):
    """The mean over all tokens that count, however the batch is cut: `labels=` of transformers in one piece."""
    examples = make()
    trainer = trainer_of(examples, gradient_accumulation_steps=parts, lr=0.01, warmup_steps=0, schedule="constant")
    reference = tiny_model()
    rows = np.arange(4)
    batch = examples.batch(rows % len(examples))
    labels = torch.where(batch.response_mask, batch.labels, -100)
    # transformers shifts by itself: predictions at a place are compared with the label of the next one.
    shifted = torch.cat([torch.full((4, 1), -100), labels], dim=1)
    inputs = torch.cat([batch.input_ids, torch.zeros(4, 1, dtype=torch.long)], dim=1)
    output = reference(inputs, labels=shifted)
    loss = torch.nn.functional.cross_entropy(output.logits[:, :-1].flatten(0, 1), labels.flatten())
    loss.backward()
    metrics = step_on(trainer, rows % len(examples))
    assert metrics["loss"] == pytest.approx(output.loss.item(), rel=1e-6)  # transformers computes it in fp32
    assert metrics["loss"] == pytest.approx(loss.item(), rel=1e-12)
    assert metrics["token_nll"] == pytest.approx(loss.item(), rel=1e-10)
    assert metrics["target_tokens"] == batch.response_mask.sum()
    for ours, theirs in zip(trainer.replica.seen, gradients_of(reference), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-11)


def step_on(trainer, rows):
    """A step whose batch holds these examples."""
    import cs336_alignment.sft.trainer as module

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "batch_indices", lambda *arguments: rows)
        return trainer.train_step()


@pytest.mark.parametrize("parts", [1, 2])
def test_constant_normalization_is_the_handouts_microbatch_step(parts):
    trainer = trainer_of(
        masked_examples(), gradient_accumulation_steps=parts, loss_normalization="constant", normalize_constant=50.0
    )
    rows = np.array([3, 0, 2, 1])  # the longest first, as the trainer takes them
    rows = rows[np.argsort(-trainer.train.lengths(rows), kind="stable")]
    reference, losses = tiny_model(), []
    for part in np.split(rows, parts):
        batch = trainer.train.batch(part)
        log_probs = get_response_log_probs(reference, batch.input_ids, batch.labels)["log_probs"]
        losses.append(sft_microbatch_train_step(log_probs, batch.response_mask, parts, 50.0)[0].item())
    metrics = step_on(trainer, rows)
    assert metrics["loss"] == pytest.approx(sum(losses), rel=1e-12)
    for ours, theirs in zip(trainer.replica.seen, gradients_of(reference), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_validation_loss_and_entropy_are_means_over_tokens():
    config = SFTConfig(batch_size=2)
    model = tiny_model()
    trainer = SFTTrainer(config, Replica(model, config), tiny_tokenizer(), masked_examples(), masked_examples())
    metrics = trainer.evaluate()
    losses, entropies = [], []
    for index in range(4):
        batch = trainer.valid.batch(np.array([index]))
        log_p = torch.log_softmax(model(batch.input_ids).logits, dim=-1)[batch.response_mask]
        labels = batch.labels[batch.response_mask]
        losses.extend((-log_p[torch.arange(len(labels)), labels]).tolist())
        entropies.extend((-(log_p.exp() * log_p).sum(-1)).tolist())
    assert metrics["val_loss"] == pytest.approx(np.mean(losses), rel=1e-10)
    assert metrics["val_token_entropy"] == pytest.approx(np.mean(entropies), rel=1e-10)


@pytest.mark.parametrize(
    "extra",
    [
        {},
        # The head too: of a narrow model's normalized states a frozen random one makes no sure predictions.
        {"lora_rank": 16, "lora_targets": "q_proj,v_proj,up_proj,down_proj,lm_head"},
    ],
)
def test_it_learns_a_few_examples_by_heart(tmp_path, model_folder, extra):
    """Answering by greedy decoding, every answer is right in the end."""
    data = write_jsonl(tmp_path / "data.jsonl", [{"prompt": p, "response": r} for p, r in PAIRS])
    answers = ("46", "1", "no", "7")
    questions = write_jsonl(
        tmp_path / "questions.jsonl",
        [{"prompt": p, "answer": a} for (p, _), a in zip(PAIRS, answers, strict=True)],
    )
    config = SFTConfig(
        model=model_folder, data=data, val_data=data, eval_data=questions, out=str(tmp_path / "run"), device="cpu",
        num_steps=100, batch_size=4, eval_every=0, lr=0.01, **extra,
    )  # fmt: skip
    result = train(make_trainer(config), progress=False)
    assert result.ending == "finished"
    first, last = (entry for entry in read_metrics(tmp_path / "run" / "metrics.jsonl") if "val_loss" in entry)
    assert first["val_loss"] > 3
    assert last["val_loss"] < 0.05
    assert first["eval_answer_reward"] == 0
    assert last["eval_answer_reward"] == last["eval_format_reward"] == 1
    assert last["eval_response_length_wrong"] is None  # there is none
    assert last["eval_token_entropy"] < first["eval_token_entropy"]

    records = read_metrics(tmp_path / "run" / "rollouts.jsonl")
    assert [record["step"] for record in records] == [0] * 4 + [config.num_steps] * 4
    assert [record["answer"] for record in records[4:]] == list(answers)
    assert all(record["response"].endswith("</answer>") for record in records[4:])
    assert {"prompt", "reward", "format_reward", "answer_reward", "token_entropy", "length", "finish_reason"} <= set(
        records[0]
    )
    # The saved model is the trained one, adapters merged.
    policy, tokenizer = load_policy(result.model, "cpu"), load_tokenizer(result.model)
    again = SFTTrainer(config, Replica(policy, config), tokenizer, *(validation_examples(config, tokenizer),) * 2)
    assert again.evaluate()["val_loss"] == pytest.approx(last["val_loss"], rel=1e-3)


def test_packed_training_learns_and_asks_in_the_template(tmp_path, model_folder):
    data = write_jsonl(tmp_path / "data.jsonl", [{"prompt": p, "response": r} for p, r in PAIRS])
    questions = write_jsonl(tmp_path / "questions.jsonl", [{"prompt": "What?", "answer": "1"}])
    config = SFTConfig(
        model=model_folder, data=data, val_data=data, eval_data=questions, out=str(tmp_path / "run"), device="cpu",
        num_steps=60, batch_size=4, eval_every=0, lr=0.01, token_cache=str(tmp_path / "cache"), packed=True,
        seq_length=32, max_tokens=4,
    )  # fmt: skip
    train(make_trainer(config), progress=False)
    entries = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert entries[-1]["loss"] < 0.2
    assert entries[0]["val_loss"] > 3 > 1 > entries[-1]["val_loss"]
    (prompt,) = {record["prompt"] for record in read_metrics(tmp_path / "run" / "rollouts.jsonl")}
    assert prompt.endswith("\n\n### Instruction:\nWhat?\n\n### Response:\n")


def test_subsets_correct_examples_and_long_ones(tmp_path):
    records = [
        {"prompt": f"Question {n}", "response": f" x </think> <answer> {n if n % 3 else 0} </answer>",
         ("answer" if n % 2 else "ground_truth"): str(n)}
        for n in range(1, 13)
    ]  # fmt: skip
    data = write_jsonl(tmp_path / "data.jsonl", records)
    said = []

    def examples(**settings):
        return training_examples(SFTConfig(data=data, **settings), tiny_tokenizer(), said.append)

    assert len(examples()) == 12
    subset = examples(num_examples=5)
    assert len(subset) == 5
    assert subset.prompts == examples(num_examples=5).prompts != examples(num_examples=5, seed=1).prompts
    assert len(examples(only_correct=True)) == 8
    assert said.pop() == "8 of 12 responses are right; the others are left out"
    longest = int(max(examples().lengths(np.arange(12))))
    assert len(examples(max_length=longest - 1)) < 12
    assert "longer than" in said.pop()
    with pytest.raises(UsageError, match="max_length 2"):
        examples(max_length=2)
    unanswered = write_jsonl(tmp_path / "unanswered.jsonl", [{"prompt": "a", "response": "b"}])
    with pytest.raises(UsageError, match="only_correct needs a field 'answer'"):
        training_examples(SFTConfig(data=unanswered, only_correct=True), tiny_tokenizer(), said.append)
    wrong = write_jsonl(tmp_path / "wrong.jsonl", [{"prompt": "a", "response": "b", "answer": "1"}])
    with pytest.raises(UsageError, match="none of 1 responses is right"):
        training_examples(SFTConfig(data=wrong, only_correct=True), tiny_tokenizer(), said.append)


@pytest.mark.slow
def test_a_compiled_forward_pass_is_the_same_training(monkeypatch):
    """What torch.compile captures, run as it was captured; generating code for it takes minutes."""
    plain = trainer_of(masked_examples())
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    compiled = trainer_of(masked_examples(), compile=True)
    assert compiled.replica.forward is not compiled.replica.module
    for _ in range(2):
        assert compiled.train_step() == pytest.approx(plain.train_step(), rel=1e-9)
    assert list(compiled.replica.trained_state()) == list(plain.replica.trained_state())


def test_epochs_set_the_number_of_steps():
    examples = masked_examples()
    for epochs, batch_size, steps in ((1.0, 4, 1), (1.0, 3, 2), (2.5, 1, 10), (0.01, 4, 1)):
        assert trainer_of(examples, epochs=epochs, batch_size=batch_size).num_steps == steps
    assert trainer_of(examples, num_steps=7).num_steps == 7


def test_what_is_left_open_fits_the_data():
    given = SFTConfig(data="file.jsonl")
    assert (given.lr, given.epochs, given.num_examples) == (2e-5, 1.0, None)
    default = SFTConfig(epochs=3)
    assert (default.lr, default.epochs, default.num_examples) == (2e-3, 3.0, 128)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 6, "gradient_accumulation_steps": 4}, "batch_size is 6"),
        ({"epochs": 0.0}, "epochs is 0.0"),
        ({"normalize_constant": math.inf}, "normalize_constant is inf"),
        ({"packed": True, "only_correct": True}, "does not go with packed"),
        ({"num_examples": 0}, "num_examples is 0"),
        ({"lr": -1.0}, "lr is -1.0"),
        ({"schedule": "step"}, "schedule is 'step'; allowed are constant, cosine, linear"),
        ({"lora_dropout": 1.0}, "lora_dropout is 1.0"),
        ({"min_lr": 1.0}, "min_lr 1.0 is above lr"),
    ],
)
def test_settings_out_of_range_are_said(settings, message):
    with pytest.raises(UsageError, match=message):
        SFTConfig(**settings)


@pytest.fixture(scope="module")
def where_models_are(tmp_path_factory):
    """The current directory of all smoke runs: there the default model is made, once."""
    return tmp_path_factory.mktemp("smoke")


@pytest.mark.slow
@pytest.mark.parametrize("flags", [[], ["--packed", "--lora_rank", "4"]])
def test_the_program_runs_without_data(where_models_are, tmp_path, monkeypatch, capsys, flags):
    monkeypatch.chdir(where_models_are)
    out = tmp_path / "run"
    main(["--smoke", "--out", str(out), "--device", "cpu", "--num_steps", "2", "--max_tokens", "16", *flags])
    output = capsys.readouterr().out
    assert "2 steps" in output
    assert load_policy(out / "model", "cpu").config.vocab_size == 268
    assert (tmp_path / "run" / "rollouts.jsonl").exists()


def test_help_names_every_flag(capsys):
    with pytest.raises(SystemExit) as ending:
        main(["--help"])
    assert ending.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for flag in ("--model", "--data", "--packed", "--lora_rank", "--resume_ckp", "--parallel", "--no_answers"):
        assert f"{flag} " in text
    assert "default: 2e-05; 0.002 for the default task" in text
