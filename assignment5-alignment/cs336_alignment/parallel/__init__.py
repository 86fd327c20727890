"""Training a policy in several processes: assignment 2's data parallelism and FSDP behind the one-process interface."""
