"""Supervised fine-tuning: packed instruction data, or prompts and responses of which only the responses count."""
