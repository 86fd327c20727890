"""When two configurations are the same: their canonical JSON, defaults filled in, has the same hash."""

import json
from hashlib import sha256

from pydantic import BaseModel


def canonical_hash(config: BaseModel) -> str:
    """SHA-256, as hexadecimal digits, of a validated configuration as JSON with sorted keys and no white space.

    Keys that were left out count as their defaults, and 1 equals 1.0 where a number may be fractional, so two spellings
    of one configuration have one hash.
    """
    values = config.model_dump(mode="json")
    return sha256(json.dumps(values, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
