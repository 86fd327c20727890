"""Scaling-law fits: from a table of runs to compute-optimal sizes and predicted losses."""
