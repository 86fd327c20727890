"""Group relative policy optimization and its variants."""
