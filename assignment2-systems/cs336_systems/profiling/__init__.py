"""Measuring training steps: time, memory, and which part of the model they go to."""
