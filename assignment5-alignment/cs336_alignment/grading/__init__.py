"""Grading of answers: extraction from responses, reading of mathematics, equivalence within time limits."""
