"""Clients of the training API, one per edition: typed, patient with a bad network, and never paying twice."""
