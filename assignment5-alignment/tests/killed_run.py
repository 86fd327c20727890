"""A program that ends itself by SIGKILL in the middle of a step: after so many graded responses.

python killed_run.py PROGRAM GRADED FLAG...
"""

import os
import signal
import sys

import torch

from cs336_alignment.expert_iteration import train as expert_iteration
from cs336_alignment.grpo import train as grpo
from cs336_alignment.online import build

PROGRAMS = {"grpo": grpo.main, "expert_iteration": expert_iteration.main}


def share_of_the_answer(response: str, answer: str) -> dict[str, float]:
    share = response.count(answer) / max(1, len(response))
    return {"reward": share, "format_reward": 1.0, "answer_reward": float(share > 0)}


if __name__ == "__main__":
    torch.set_num_threads(1)
    program, limit, *flags = sys.argv[1:]
    graded = 0

    def reward(response: str, answer: str) -> dict[str, float]:
        global graded
        graded += 1
        if graded > int(limit):
            os.kill(os.getpid(), signal.SIGKILL)
        return share_of_the_answer(response, answer)

    build.reward_function = lambda config: reward
    PROGRAMS[program](flags)
