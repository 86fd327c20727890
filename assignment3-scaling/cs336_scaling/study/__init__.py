"""A small isoFLOP study that really trains, on the CPU at hand, through the training API."""
