"""A page for looking at what the pipeline has kept and rejected, and why."""
