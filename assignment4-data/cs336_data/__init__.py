"""CS336 assignment 4: data."""
