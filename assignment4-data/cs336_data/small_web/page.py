"""What a page of the small web is: what it shows, and the truth about it."""

from dataclasses import dataclass, field

from jinja2 import Environment, PackageLoader, StrictUndefined

from cs336_data.small_web.choices import Choices
from cs336_data.small_web.prose import phrase


@dataclass(frozen=True)
class Block:
    """A part of a page: paragraphs ("p"), headings ("h2"), list items ("ul") or one preformatted text ("pre")."""

    tag: str
    items: tuple[str, ...]
    linked: bool = False


@dataclass(frozen=True)
class Site:
    """What all pages of a site share; its lines repeat on every page, as they do on the real web."""

    number: int
    host: str
    name: str
    style: str
    menu: tuple[str, ...]
    footer: tuple[str, ...]


@dataclass(frozen=True)
class Page:
    """A page and the truth about it.

    Attributes:
        url: its address.
        kind: article, short, menu, list, code, spam, nsfw, toxic, empty or long_line.
        language: ISO 639-1 code.
        title: its headline.
        blocks: its content, in order.
        site: where it stands.
        pii: what personal data it shows: numbers of emails, phones and ips.
        duplicate: "exact" (same content elsewhere), "near" (few words differ) or "url" (same page, other spelling of
            its address); empty for an original.
        duplicate_of: the address of the original.
        encoding: what it is written in (a Python codec).
        meta_charset: what the page declares, if anything.
        http_charset: what the server declares, if anything.
        broken_bytes: whether some bytes are wrong in that encoding.
    """

    url: str
    kind: str
    language: str
    title: str
    blocks: tuple[Block, ...]
    site: Site
    pii: dict[str, int] = field(default_factory=dict)
    duplicate: str = ""
    duplicate_of: str = ""
    encoding: str = "utf-8"
    meta_charset: str = ""
    http_charset: str = ""
    broken_bytes: bool = False

    @property
    def should_keep(self) -> bool:
        """Whether a good pipeline for English text keeps it: an English article that is no copy of another page."""
        return self.kind == "article" and self.language == "en" and not self.duplicate

    def lines(self) -> list[str]:
        """All visible text, one block a line, as a WET file has it."""
        menu = () if self.site.style == "plain" else (self.site.name, *self.site.menu)
        content = [line for block in self.blocks for item in block.items for line in item.split("\n")]
        return [f"{self.title} - {self.site.name}", *menu, self.title, *content, *self.site.footer]

    def html(self) -> bytes:
        """The page as a server sends it: characters that its encoding lacks are written as references."""
        if self.kind == "empty":
            return b""
        html = _ENVIRONMENT.get_template("page.html").render(page=self, site=self.site)
        data = html.encode(self.encoding, "xmlcharrefreplace")
        if self.broken_bytes:
            middle = data.index(b"</h1>")
            data = data[:middle] + b" \xff\xfe\xc3" + data[middle:]
        return data


_ENVIRONMENT = Environment(
    loader=PackageLoader("cs336_data.small_web", "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)

_MENU = (
    "Home", "About us", "Contact", "Archive", "News", "Photos", "Events", "Shop", "Blog", "Links", "FAQ", "Newsletter",
    "Guestbook", "Sitemap", "Imprint", "Search", "Login", "Map", "Downloads", "Press",
)  # fmt: skip
_FOOTERS = (
    "Copyright {year} {name}. All rights reserved.",
    "We use cookies to improve your experience. By using this site you agree to our privacy policy.",
    "Powered by a small content system.",
    "Terms of use",
    "Subscribe to our newsletter",
    "Share this page",
    "Back to top",
)


def make_site(seed: int, number: int) -> Site:
    """The site of that number in the small web of that seed."""
    choices = Choices(f"{seed}/site/{number}")
    name = phrase("{$stem$ending} {Gazette|Garden Club|Journal|Notes|Online|Review|Workshop|Diary|Almanac}", choices)
    host = name.lower().replace(" ", "-")
    footer = tuple(
        line.format(year=choices.whole(2001, 2024), name=name) for line in choices.some(_FOOTERS, choices.whole(1, 4))
    )
    return Site(
        number=number,
        host=f"www.{host}-{number}.example",
        name=name,
        style=choices.pick(("blog", "news", "plain")),
        menu=tuple(choices.some(_MENU, choices.whole(3, 9))),
        footer=footer,
    )
