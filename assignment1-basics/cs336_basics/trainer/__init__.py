"""Training from scratch: loss, optimizer, schedule, clipping, batches and the loop that ties them together."""
