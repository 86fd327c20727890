"""Training on the policy's own rollouts: what GRPO and expert iteration share."""
