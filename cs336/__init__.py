"""Command line over the five assignments; holds no algorithm of its own."""
