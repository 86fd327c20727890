"""The handout's studies: each is a list of named training runs, run by one engine (`engine.py`)."""
