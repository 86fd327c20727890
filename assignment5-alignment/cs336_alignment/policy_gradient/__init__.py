"""Policy gradients from group-relative rewards: GRPO and its variants, each step of the computation a file."""
