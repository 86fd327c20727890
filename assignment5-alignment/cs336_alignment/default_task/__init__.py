"""What every program trains on unless told otherwise: a small task that can be checked, and a tiny model for it."""
