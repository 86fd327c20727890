"""Byte-level byte-pair encoding: training, in plain Python and fast, and its file forms."""

from cs336_basics.bpe.train import train_bpe

__all__ = ["train_bpe"]
