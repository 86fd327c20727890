"""A reward model: the body of a language model, and a head that reads one score off a text's last token.

On disk it is Hugging Face's sequence classifier with one label, which transformers opens too.
"""

import copy
import math
import os
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase

from cs336_alignment.lora import merged_state_dict
from cs336_alignment.policy import save_policy
from cs336_basics.command_line import UsageError
from cs336_basics.device import resolve_device
from cs336_basics.model.modules import Linear

_ARCHITECTURE = "ForSequenceClassification"


class RewardModel(nn.Module):
    """score = w · h, with h the last hidden state of a text's last token.

    The head starts from N(0, 1 / (d + 1)) (Stiennon et al. 2020, arXiv:2009.01325, appendix B.1), in fp32 whatever the
    type of the body.

    Args:
        backbone: a language model without its output head.
    """

    def __init__(self, backbone: PreTrainedModel) -> None:
        super().__init__()
        self.backbone = backbone
        d_model = backbone.get_input_embeddings().weight.shape[1]
        self.score = Linear(d_model, 1, device=backbone.device, dtype=torch.float32)
        nn.init.normal_(self.score.weight, std=1 / math.sqrt(d_model + 1))

    def forward(
        self, input_ids: Int[Tensor, "texts tokens"], lengths: Int[Tensor, " texts"]
    ) -> Float[Tensor, " texts"]:
        """The score of each text.

        Args:
            input_ids: padded on the right.
            lengths: tokens of each text before the padding.
        """
        hidden = self.backbone(input_ids, use_cache=False).last_hidden_state
        last = hidden[torch.arange(len(lengths), device=hidden.device), lengths - 1]
        with torch.autocast(hidden.device.type, enabled=False):
            return self.score(last.to(self.score.weight.dtype)).squeeze(-1)


def save_reward_model(
    model: RewardModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: str | os.PathLike,
    weights: dict[str, Tensor] | None = None,
) -> Path:
    """Write a reward model and its tokenizer as a Hugging Face folder, whole or not at all; adapters are merged in.

    A folder of that name is replaced.

    Args:
        model: the reward model.
        tokenizer: its own.
        folder: where to.
        weights: as for `save_policy`.

    Returns:
        The folder.
    """
    classifier = _classifier_around(model.backbone, tokenizer)
    prefix = classifier.base_model_prefix
    state = {
        f"{prefix}.{name.removeprefix('backbone.')}" if name.startswith("backbone.") else name: value
        for name, value in (weights or merged_state_dict(model)).items()
    }
    classifier.load_state_dict(state, assign=True)
    return save_policy(classifier, tokenizer, folder)


def _classifier_around(backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """transformers' classifier of the backbone's kind, without weights.

    Raises:
        UsageError: transformers has none for such models.
    """
    config = copy.deepcopy(backbone.config)
    config.num_labels = 1
    # transformers takes the last token that is no padding for the last one of a text. Where EOS is what pads, that
    # would be the token before the EOS; without a pad token it takes texts one by one, and rightly.
    shared = tokenizer.pad_token_id == tokenizer.eos_token_id
    config.pad_token_id = None if shared else tokenizer.pad_token_id
    try:
        with torch.device("meta"):
            return AutoModelForSequenceClassification.from_config(config)
    except ValueError:
        raise UsageError(
            f"a reward model cannot be made of a {config.model_type}: transformers has no sequence classifier of it"
        ) from None


def load_reward_model(
    folder: str | os.PathLike, device: str | torch.device = "auto", dtype: str | torch.dtype = torch.float32
) -> RewardModel:
    """Load a reward model, in evaluation mode.

    Args:
        folder: one of `save_reward_model`, or any sequence classifier of transformers with one label and a head
            without a bias.
        device: as for `resolve_device`.
        dtype: of the body's weights, "float32", "bfloat16" or a torch type.

    Raises:
        UsageError: it is none, or the device is not there.
    """
    device = device if isinstance(device, torch.device) else resolve_device(device)
    dtype = dtype if isinstance(dtype, torch.dtype) else getattr(torch, dtype)
    try:
        config = AutoConfig.from_pretrained(folder)
        architecture = (config.architectures or ["nothing"])[0]
        if not architecture.endswith(_ARCHITECTURE) or config.num_labels != 1:
            raise UsageError(
                f"{folder} holds a {architecture} of {config.num_labels} labels; a reward model is a "
                f"…{_ARCHITECTURE} of one, as scripts/reward_model.py writes it"
            )
        classifier = AutoModelForSequenceClassification.from_pretrained(folder, dtype=dtype)
    except (OSError, ValueError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"reward model {folder} cannot be loaded: {str(error).strip().splitlines()[0]}") from None
    model = RewardModel(classifier.base_model)
    with torch.no_grad():
        model.score.weight.copy_(classifier.score.weight)
    return model.to(device).eval()
