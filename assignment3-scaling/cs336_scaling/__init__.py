"""CS336 assignment 3: scaling."""
