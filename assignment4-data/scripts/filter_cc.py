"""Filter Common Crawl: `uv run python scripts/filter_cc.py 'crawl/*.warc.wet.gz' --out data/filtered`."""

from cs336_basics.command_line import run_command
from cs336_data.pipeline.command import main

if __name__ == "__main__":
    run_command(main)
