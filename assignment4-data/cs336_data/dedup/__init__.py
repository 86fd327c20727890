"""Deduplication: repeated lines (exact or by Bloom filter), near-duplicate documents (MinHash + LSH), repeated URLs."""
