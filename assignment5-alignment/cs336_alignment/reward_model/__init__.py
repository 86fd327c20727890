"""A reward model: a language model's backbone with one score per text, learned from preferences."""
