"""CS336 assignment 5: alignment."""
