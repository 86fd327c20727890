"""A filter by the page's address: hosts and words that are not wanted (as in RefinedWeb, Penedo et al. 2023, app. G.1).

Lists come from the user, for instance the categories of the UT1 blocklist (dsi.ut-capitole.fr/blacklists).
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar
from urllib.parse import unquote, urlsplit

from cs336_data.document import Decision, Document

_WORD = re.compile(r"[a-z0-9]+")
_HOSTS_FILE_ADDRESS = re.compile(r"^(?:0\.0\.0\.0|127\.0\.0\.1)\s+")

Names = Iterable[str] | str | os.PathLike


class UrlFilter:
    """Rejects documents whose address is on a list; without lists it keeps all.

    Args:
        hosts: host names, or a file of them (one per line, "#" begins a comment; a hosts file's leading address is
            skipped). A name stands for its subdomains too.
        words: words, or a file of them, that reject an address holding one of them between other than letters and
            digits: "casino" rejects "/best-casino/" but not "/casinoroyale/".

    Raises:
        OSError: a file cannot be read.
    """

    name: ClassVar[str] = "url"

    def __init__(self, hosts: Names = (), words: Names = ()) -> None:
        self.hosts = frozenset(_listed(hosts))
        self.words = frozenset(_listed(words))

    def __call__(self, document: Document) -> Decision:
        """Keep the document unless its address is listed."""
        url = document.url
        host = host_of(url)
        labels = host.split(".")
        for first in range(len(labels)):
            if (name := ".".join(labels[first:])) in self.hosts:
                return Decision(False, f"host {host} is listed as {name}")
        found = self.words.intersection(_WORD.findall(unquote(url).lower()))
        if found:
            return Decision(False, f"the address holds {', '.join(map(repr, sorted(found)))}")
        return Decision(True)


def host_of(url: str) -> str:
    """The host name of an address, lower-cased; empty where there is none."""
    try:
        return (urlsplit(url).hostname or "").rstrip(".")
    except ValueError:  # brackets that hold no IPv6 address
        return ""


def _listed(names: Names) -> list[str]:
    if isinstance(names, str | os.PathLike):
        names = Path(names).read_text(encoding="utf-8").splitlines()
    cleaned = (_HOSTS_FILE_ADDRESS.sub("", name.partition("#")[0].strip()).strip().lower() for name in names)
    return [name for name in cleaned if name]
