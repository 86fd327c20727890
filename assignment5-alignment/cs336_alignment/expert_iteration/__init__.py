"""Expert iteration: supervised learning on the policy's own right answers."""
