"""Direct preference optimization: losses on the log-probabilities of a preferred and a rejected response.

With policy p, frozen reference r, prompt x, chosen response w, rejected response l, and the log-ratios

    rho_w = log p(w|x) - log r(w|x),   rho_l = log p(l|x) - log r(l|x),   h = rho_w - rho_l

    DPO                          -log sigmoid(beta h)
    DPO, label smoothing e       -(1 - e) log sigmoid(beta h) - e log sigmoid(-beta h)
    IPO                          (h - 1 / (2 beta))^2

The first is equation 7 of Rafailov et al. 2023 (arXiv:2305.18290). The second, conservative DPO, is from Mitchell 2023,
"A note on DPO with noisy preferences & relationship to IPO". The third is equation 17 of Azar et al. 2023
(arXiv:2310.12036), whose tau is beta.

DPO's implicit reward of a response is beta * rho (equation 5, up to a term of the prompt alone). A log-probability of a
response is a sum over its tokens; that of the prompt cancels in h, so sums over prompt and response give the same loss.
"""

from typing import Literal, NamedTuple, get_args

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid
from transformers import PreTrainedTokenizerBase

from cs336_alignment.log_probs import get_response_log_probs
from cs336_alignment.preference.pairs import PreferencePair, alpaca_pair, encode_pair
from cs336_basics.command_line import UsageError

PreferenceLoss = Literal["dpo", "ipo"]


class PreferenceOutcome(NamedTuple):
    """What a batch of pairs gives; the rewards carry no gradient.

    Attributes:
        loss: of each pair.
        chosen_reward, rejected_reward: DPO's implicit rewards, beta times the log-ratio of policy and reference.
    """

    loss: Float[Tensor, " pairs"]
    chosen_reward: Float[Tensor, " pairs"]
    rejected_reward: Float[Tensor, " pairs"]


def preference_loss(
    policy_chosen: Float[Tensor, " pairs"],
    policy_rejected: Float[Tensor, " pairs"],
    reference_chosen: Float[Tensor, " pairs"],
    reference_rejected: Float[Tensor, " pairs"],
    beta: float,
    kind: PreferenceLoss = "dpo",
    label_smoothing: float = 0.0,
) -> PreferenceOutcome:
    """The losses of the module's formulas, pair by pair.

    Args:
        policy_chosen, policy_rejected: log-probabilities of whole responses under the policy, in nats.
        reference_chosen, reference_rejected: those under the reference, on the same device.
        beta: strength of the tie to the reference (IPO's tau), above 0.
        kind: "dpo" or "ipo".
        label_smoothing: e, the probability that a pair's label is wrong, in [0, 0.5); for DPO only.

    Raises:
        UsageError: a setting is out of its range.
    """
    check_loss_settings(beta, kind, label_smoothing)
    chosen_ratio = policy_chosen - reference_chosen
    rejected_ratio = policy_rejected - reference_rejected
    difference = chosen_ratio - rejected_ratio
    if kind == "ipo":
        loss = (difference - 1 / (2 * beta)) ** 2
    else:
        loss = -(1 - label_smoothing) * logsigmoid(beta * difference)
        if label_smoothing:
            loss = loss - label_smoothing * logsigmoid(-beta * difference)
    return PreferenceOutcome(loss, beta * chosen_ratio.detach(), beta * rejected_ratio.detach())


def check_loss_settings(beta: float, kind: str, label_smoothing: float) -> None:
    """Refuse settings that no loss is defined for.

    Raises:
        UsageError: naming the setting and what is allowed.
    """
    if not 0 < beta < float("inf"):
        raise UsageError(f"beta is {beta}; allowed is any finite number above 0")
    if kind not in get_args(PreferenceLoss):
        raise UsageError(f"the preference loss {kind!r} is unknown; allowed are {', '.join(get_args(PreferenceLoss))}")
    if not 0 <= label_smoothing < 0.5:
        raise UsageError(f"label_smoothing is {label_smoothing}; allowed is any number of at least 0 and below 0.5")
    if label_smoothing and kind != "dpo":
        raise UsageError(f"label_smoothing is {label_smoothing}; it belongs to the dpo loss, the {kind} loss has none")


def per_instance_dpo_loss(
    lm: torch.nn.Module,
    lm_ref: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    beta: float,
    prompt: str,
    response_chosen: str,
    response_rejected: str,
) -> Float[Tensor, ""]:
    """The DPO loss of one pair of responses to an instruction, in the Alpaca template, each ended by EOS.

    Args:
        lm: the policy; gradients flow into it.
        lm_ref: the reference; it may live on another device, and gets no gradient.
        tokenizer: of both models.
        beta: strength of the tie to the reference, above 0.
        prompt: the bare instruction.
        response_chosen, response_rejected: the bare responses.

    Returns:
        A scalar on the policy's device.
    """
    pair = encode_pair(tokenizer, alpaca_pair(PreferencePair(prompt, response_chosen, response_rejected)))
    device = next(lm.parameters()).device
    policy = [_sequence_log_prob(lm, ids) for ids in (pair.chosen, pair.rejected)]
    with torch.no_grad():
        reference = [_sequence_log_prob(lm_ref, ids).to(device) for ids in (pair.chosen, pair.rejected)]
    return preference_loss(*policy, *reference, beta=beta).loss


def _sequence_log_prob(model: torch.nn.Module, ids: list[int]) -> Float[Tensor, ""]:
    """The log-probability of a token sequence after its first token."""
    tokens = torch.tensor([ids], device=next(model.parameters()).device)
    return get_response_log_probs(model, tokens[:, :-1], tokens[:, 1:])["log_probs"].sum()
