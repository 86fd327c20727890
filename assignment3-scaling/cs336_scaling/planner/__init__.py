"""A planner that spends a budget of small runs by itself, and foretells the best configuration for a larger one."""
