"""Labeled data that filters are measured on, and the evaluations that use them; see `cs336_data.filter_evaluation`."""
