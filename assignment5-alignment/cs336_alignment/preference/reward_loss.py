"""The loss of a reward model: how surprising the human choices are under the model of Bradley and Terry.

With scores s_w and s_l of the chosen and the rejected response, the model says that the first is preferred with
probability sigmoid(s_w - s_l) (Bradley & Terry 1952; Ouyang et al. 2022, arXiv:2203.02155, equation 1):

    loss = -log sigmoid(s_w - s_l) + c (s_w + s_l)^2

Only differences of scores count in the first term. The second, of weight c, ties their level to zero (Eisenstein et al.
2023, arXiv:2312.09244, equation 2), so that scores of different prompts can be compared.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid


def bradley_terry_loss(
    chosen: Float[Tensor, " pairs"], rejected: Float[Tensor, " pairs"], centering: float = 0.0
) -> Float[Tensor, " pairs"]:
    """The loss of each pair, in nats.

    Args:
        chosen, rejected: scores of the two responses.
        centering: c, at least 0.
    """
    loss = -logsigmoid(chosen - rejected)
    return loss + centering * torch.square(chosen + rejected) if centering else loss
