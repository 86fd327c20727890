"""CS336 assignment 1: tokenizer, Transformer, training and generation, from scratch."""
