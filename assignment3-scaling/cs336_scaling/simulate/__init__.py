"""Simulated worlds to train in: a loss surface and a runtime model with hidden parameters, for the training API."""
