"""Log-probabilities and entropies of tokens, with at most one tensor as large as the logits.

For one position's logits z, label y, p = softmax(z) and L = logsumexp(z):

    log p[y] = z[y] - L               d log p[y] / dz = onehot(y) - p
    H = L - sum_j p_j z_j             d H / dz        = -p (log p + H)

Autograd would keep the log-softmax beside the logits and make more copies for the gradients. Here a custom function
keeps the logits and L; its backward pass works block by block of positions. Logits that came out of an output head, a
linear layer which does not need them again, are overwritten by their own gradient.
"""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from cs336_basics.command_line import UsageError

# Logits worked on at once: few enough for a CPU's cache, enough to keep a GPU busy.
_BLOCK_ELEMENTS_CPU = 2**20
_BLOCK_ELEMENTS_ACCELERATOR = 2**26

PLAIN_HEADS = frozenset(
    {"gpt2", "gpt_neox", "llama", "mistral", "olmo", "olmo2", "olmo3", "phi3", "qwen2", "qwen3", "smollm3"}
)
"""Model types whose logits are their output head of their last hidden state, with nothing done before or after."""


def _blocks(logits: Float[Tensor, "rows vocab"]) -> Iterator[slice]:
    elements = _BLOCK_ELEMENTS_CPU if logits.device.type == "cpu" else _BLOCK_ELEMENTS_ACCELERATOR
    rows = max(1, elements // logits.shape[1])
    return (slice(start, start + rows) for start in range(0, len(logits), rows))


def _wide(tensor: Tensor) -> Tensor:
    """In a type in which sums over the vocabulary are accurate: fp32 for half types, else unchanged."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


class _LogProbsAndEntropy(torch.autograd.Function):
    """log p[label] and the entropy of each row of (rows, vocab); see the module's formulas."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, labels: Tensor, with_entropy: bool, overwrite: bool
    ) -> tuple[Tensor, Tensor | None]:
        log_sum_exp = torch.empty(
            len(logits), dtype=torch.promote_types(logits.dtype, torch.float32), device=logits.device
        )
        entropy = torch.empty_like(log_sum_exp) if with_entropy else None
        for rows in _blocks(logits):
            block = _wide(logits[rows])
            if entropy is None:
                log_sum_exp[rows] = torch.logsumexp(block, dim=-1)
                continue
            # Logits less their row's maximum: no overflow, however large they are; -inf, a token that cannot come, is
            # kept from making 0 · inf.
            maximum = block.amax(dim=-1, keepdim=True)
            shifted = (block - maximum).clamp_(min=torch.finfo(block.dtype).min)
            weights = shifted.exp()
            total = weights.sum(dim=-1)
            log_sum_exp[rows] = total.log() + maximum.squeeze(-1)
            entropy[rows] = total.log() - weights.mul_(shifted).sum(dim=-1) / total
        log_probs = logits.gather(-1, labels.unsqueeze(-1)).squeeze(-1).to(log_sum_exp.dtype) - log_sum_exp
        ctx.save_for_backward(logits, labels, log_sum_exp, entropy)
        ctx.overwrite = overwrite
        ctx.set_materialize_grads(False)
        return log_probs, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_log_probs: Tensor | None, grad_entropy: Tensor | None) -> tuple[Tensor | None, ...]:
        logits, labels, log_sum_exp, entropy = ctx.saved_tensors
        if grad_log_probs is None and grad_entropy is None:
            return None, None, None, None
        # In place, autograd notices a second backward pass by the changed version of the saved tensor, and refuses it.
        gradient = logits if ctx.overwrite else torch.empty_like(logits)
        if grad_log_probs is None:
            grad_log_probs = torch.zeros_like(log_sum_exp)
        for rows in _blocks(logits):
            log_p = _wide(logits[rows]) - log_sum_exp[rows, None]
            towards_label = grad_log_probs[rows, None]
            if grad_entropy is None:
                block = log_p.exp_().mul_(-towards_label)
            else:
                p = log_p.exp()
                factor = (log_p.clamp_(min=torch.finfo(p.dtype).min) + entropy[rows, None]).mul_(
                    grad_entropy[rows, None]
                )
                block = p.mul_(-(factor + towards_label))
            block.scatter_add_(-1, labels[rows, None], towards_label)
            gradient[rows] = block
        return gradient, None, None, None


def compute_entropy(logits: Float[Tensor, "... vocab"]) -> Float[Tensor, "..."]:
    """The entropy of softmax(logits) over the vocabulary, in nats.

    Args:
        logits: of any size; -inf stands for a token that cannot come.

    Returns:
        The entropy at each position, in fp32 for half types; it can be differentiated once.
    """
    rows = logits.reshape(-1, logits.shape[-1])
    labels = torch.zeros(len(rows), dtype=torch.long, device=logits.device)
    return _LogProbsAndEntropy.apply(rows, labels, True, False)[1].view(logits.shape[:-1])


def body_and_head(model: torch.nn.Module) -> tuple[torch.nn.Module, torch.nn.Module] | None:
    """A language model's part up to the last hidden states, and its output head; None if it is not known to be just
    these two (`PLAIN_HEADS`)."""
    if isinstance(model, PreTrainedModel) and model.config.model_type in PLAIN_HEADS:
        head = model.get_output_embeddings()
        if head is not None and model.base_model is not model:
            return model.base_model, head
    return None


def log_probs_of_hidden_states(
    hidden: Float[Tensor, "tokens d_model"],
    head: torch.nn.Module,
    labels: Int[Tensor, " tokens"],
    with_entropy: bool,
    chunk_tokens: int | None,
) -> tuple[Float[Tensor, " tokens"], Float[Tensor, " tokens"] | None]:
    """The head and what follows, `chunk_tokens` at a time; each chunk's logits are made again in its backward pass.

    For callers that read more than log-probabilities off the hidden states; the others call `get_response_log_probs`.
    """

    def of_chunk(hidden: Tensor, labels: Tensor) -> tuple[Tensor, Tensor | None]:
        return _LogProbsAndEntropy.apply(head(hidden), labels, with_entropy, True)

    if chunk_tokens is None or not len(hidden):
        return of_chunk(hidden, labels)
    chunks = [
        checkpoint(of_chunk, *pair, use_reentrant=False, preserve_rng_state=False)
        for pair in zip(hidden.split(chunk_tokens), labels.split(chunk_tokens), strict=True)
    ]
    log_probs, entropies = zip(*chunks, strict=True)
    return torch.cat(log_probs), torch.cat(entropies) if with_entropy else None


def get_response_log_probs(
    model: torch.nn.Module,
    input_ids: Int[Tensor, "batch seq"],
    labels: Int[Tensor, "batch seq"],
    return_token_entropy: bool = False,
    *,
    response_mask: Bool[Tensor, "batch seq"] | None = None,
    chunk_tokens: int | None = None,
    entropy_gradient: bool = False,
) -> dict[str, Float[Tensor, "batch seq"]]:
    """log p(label | the inputs up to it) at each position, under a causal language model.

    Args:
        model: called with `input_ids`, it returns an object with `logits`. It stays in the mode (training or
            evaluation) in which it comes; autocast around this call holds.
        input_ids: padded on the right.
        labels: the token to score at each position.
        return_token_entropy: compute the entropy of the prediction at each position too, in nats.
        response_mask: score only where it is True, elsewhere both results are 0. For the models of `PLAIN_HEADS` the
            output head is then computed there alone.
        chunk_tokens: for those models, compute the head for so many tokens at a time, and again in the backward pass,
            so that all logits never exist at once: for a third more work in the head; None computes all at once.
        entropy_gradient: let the entropy be differentiated; else it is a constant.

    Returns:
        "log_probs" and, if asked for, "token_entropy", both (batch, seq), in fp32 for half types. They can be
        differentiated once.

    Raises:
        UsageError: shapes do not fit, `chunk_tokens` is below 1, or the model's head cannot be computed in chunks.
    """
    if chunk_tokens is not None and chunk_tokens < 1:
        raise UsageError(f"chunk_tokens is {chunk_tokens}; allowed is any whole number above 0")
    if input_ids.shape != labels.shape or (response_mask is not None and response_mask.shape != labels.shape):
        mask_shape = None if response_mask is None else tuple(response_mask.shape)
        raise UsageError(
            f"input_ids {tuple(input_ids.shape)}, labels {tuple(labels.shape)} and response_mask {mask_shape} must "
            "have one shape (batch, seq)"
        )
    if response_mask is not None:
        response_mask = response_mask.bool()  # a mask of numbers would select by index
    parts = body_and_head(model)
    if chunk_tokens is not None and parts is None:
        raise UsageError(
            f"chunk_tokens is {chunk_tokens}, but {type(model).__name__} is not known to compute its logits by a plain "
            f"output head; leave chunk_tokens out, or use a model of type {', '.join(sorted(PLAIN_HEADS))}"
        )

    def select(tensor: Tensor) -> Tensor:
        return tensor.flatten(0, 1) if response_mask is None else tensor[response_mask]

    if parts is None:
        # What a mask selects is a copy, which nobody else reads.
        own = response_mask is not None
        logits = select(model(input_ids).logits)
        results = _LogProbsAndEntropy.apply(logits, select(labels), return_token_entropy, own)
    else:
        body, head = parts
        hidden = select(body(input_ids, use_cache=False).last_hidden_state)
        results = log_probs_of_hidden_states(hidden, head, select(labels), return_token_entropy, chunk_tokens)
    if response_mask is None:
        log_probs, entropy = (None if result is None else result.view(labels.shape) for result in results)
    else:
        log_probs, entropy = (
            None if result is None else result.new_zeros(labels.shape).masked_scatter(response_mask, result)
            for result in results
        )
    scored = {"log_probs": log_probs}
    if entropy is not None:
        scored["token_entropy"] = entropy if entropy_gradient else entropy.detach()
    return scored
