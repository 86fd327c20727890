"""Which URLs name the same page, as far as the URL itself says (RFC 3986, section 6.2)."""

import re
from urllib.parse import parse_qsl, quote, unquote_to_bytes, urlencode, urlsplit

_DEFAULT_PORTS = {"http": 80, "https": 443}
_TRACKING = re.compile(r"utm_\w+|fbclid|gclid|dclid|msclkid|yclid|igshid|mc_[ce]id|_ga|_gl|phpsessid|jsessionid", re.I)
_SAFE = "!$&'()*+,;=:@"
"""What RFC 3986 allows in a segment of a path besides unreserved characters."""
_INDEX = re.compile(r"/(index|default)\.(html?|php|aspx?|jsp)$", re.I)


def normalize_url(url: str) -> str:
    """The URL in the form that its duplicates share; empty for an empty one.

    Scheme (http or https), "www.", user, default port, fragment, index file, trailing slash, parameters that only
    track visitors and the order of parameters do not count; neither do letter case in the host and different
    percent-encodings. What is no web URL comes back as it is, without white space at its ends.
    """
    url = url.strip()
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return url
    if parts.scheme not in _DEFAULT_PORTS or not host:
        return url
    host = host.rstrip(".").removeprefix("www.")
    address = f"[{host}]" if ":" in host else host
    if port not in (None, _DEFAULT_PORTS[parts.scheme]):
        address += f":{port}"
    segments = (quote(unquote_to_bytes(segment), safe=_SAFE) for segment in parts.path.split("/"))
    path = _INDEX.sub("/", "/".join(segments)).rstrip("/")
    parameters = parse_qsl(parts.query, keep_blank_values=True, errors="surrogateescape")
    query = urlencode(sorted(p for p in parameters if not _TRACKING.fullmatch(p[0])), errors="surrogateescape")
    # "#!" begins the address of a page within a program that runs in the browser.
    fragment = f"#{parts.fragment}" if parts.fragment.startswith("!") else ""
    return address + path + (f"?{query}" if query else "") + fragment
