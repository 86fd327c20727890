"""Personal data as it stands on web pages; none of it is anybody's.

Addresses are under the reserved names of RFC 2606, phone numbers in the range 555-0100 to 555-0199 that is kept for
fiction, IPv4 addresses from the documentation blocks of RFC 5737.
"""

from cs336_data.small_web.choices import Choices
from cs336_data.small_web.prose import phrase

_PHONES = ("({0}) 555-01{1}", "{0}-555-01{1}", "({0})-555-01{1}", "{0}55501{1}", "{0}.555.01{1}", "+1 {0} 555 01{1}")
_BLOCKS = ("192.0.2", "198.51.100", "203.0.113")
_SENTENCES = {
    "emails": ("Write to {0}.", "Questions go to {0} or to the editor.", "Contact: {0}"),
    "phones": ("Call {0} after six.", "The office can be reached at {0}.", "Phone: {0}"),
    "ips": ("The server at {0} keeps the old archive.", "Last edited from {0}."),
}


def email(choices: Choices) -> str:
    """An email address."""
    given, family = phrase("$given", choices).lower(), phrase("$family", choices).lower()
    local = choices.pick(("{0}.{1}", "{0}_{1}", "{0}{2}", "{0}+list", "{1}-{0}")).format(
        given, family, choices.whole(1, 99)
    )
    return f"{local}@{choices.pick(('example.com', 'example.org', 'mail.example.net', 'post.example'))}"


def phone(choices: Choices) -> str:
    """A North American phone number, in one of the usual spellings."""
    return choices.pick(_PHONES).format(choices.whole(201, 989), choices.whole(10, 99))


def ip_address(choices: Choices) -> str:
    """An IPv4 address."""
    return f"{choices.pick(_BLOCKS)}.{choices.whole(1, 254)}"


_WRITERS = {"emails": email, "phones": phone, "ips": ip_address}


def contact_paragraph(choices: Choices) -> tuple[str, dict[str, int]]:
    """A paragraph with personal data, and how much of each sort it has (emails, phones, ips)."""
    counts = {sort: choices.whole(0, 2) for sort in _WRITERS}
    if not any(counts.values()):
        counts["emails"] = 1
    sentences = [
        choices.pick(_SENTENCES[sort]).format(_WRITERS[sort](choices))
        for sort, number in counts.items()
        for _ in range(number)
    ]
    return " ".join(sentences), counts
