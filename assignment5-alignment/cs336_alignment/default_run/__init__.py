"""The whole chain of alignment on the default task: base model, fine-tuning, and what reinforcement makes of it."""
