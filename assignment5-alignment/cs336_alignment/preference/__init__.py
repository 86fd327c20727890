"""Learning from preferences: pairs of responses, direct preference optimization, the loss of a reward model."""
