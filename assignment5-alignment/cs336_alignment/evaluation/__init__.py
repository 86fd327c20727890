"""How good a model is: benchmarks, judges and attacks."""
