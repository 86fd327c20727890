"""The pipeline: from web archives to sharded JSONL of filtered, deduplicated documents."""
