"""Proximal policy optimization with a learned value function."""
