"""A small web that the project makes itself, so that everything runs without a download.

    from cs336_data.small_web import write_small_web

It has articles, menus, lists, code, spam, pages in several languages and encodings, duplicates, personal data and
damage, written as the archives that Common Crawl publishes, with the truth about every page beside them.
"""

from cs336_data.small_web.writer import write_small_web

__all__ = ["write_small_web"]
