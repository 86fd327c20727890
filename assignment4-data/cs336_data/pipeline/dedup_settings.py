"""How documents are deduplicated."""

from dataclasses import asdict, dataclass
from typing import Any

from cs336_basics.command_line import UsageError
from cs336_data.dedup.lsh import check_bands

METHODS = ("none", "url", "exact", "minhash", "both")
URLS, NEAR, LINES = "url_duplicates", "near_duplicates", "exact_lines"
"""The stages, by the names under which they count and report."""
_STAGES = {
    "none": (),
    "url": (URLS,),
    "exact": (URLS, LINES),
    "minhash": (URLS, NEAR),
    "both": (URLS, NEAR, LINES),
}


@dataclass(frozen=True)
class DedupSettings:
    """How documents are deduplicated.

    Attributes:
        method: one of `METHODS`; all but "none" begin with URL duplicates.
        num_hashes: length of a MinHash signature.
        num_bands: bands of LSH; 20 bands of 5 find 80 % alike pairs with 99.96 %, 50 % alike ones with 47 %.
        ngrams: words of a shingle.
        jaccard_threshold: documents at least so similar are near-duplicates.
        seed: of the hash functions.
        min_words: a document that loses repeated lines goes if it keeps fewer words than this.

    Raises:
        UsageError: a value is out of range.
    """

    method: str = "both"
    num_hashes: int = 100
    num_bands: int = 20
    ngrams: int = 5
    jaccard_threshold: float = 0.8
    seed: int = 0
    min_words: int = 50

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UsageError(f"dedup method {self.method!r} is unknown; allowed are {', '.join(METHODS)}")
        for name, least in (("num_hashes", 1), ("num_bands", 1), ("ngrams", 1), ("seed", 0), ("min_words", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise UsageError(f"dedup {name} is {value!r}: a whole number of at least {least} is needed")
        if not isinstance(self.jaccard_threshold, int | float) or not 0 < self.jaccard_threshold <= 1:
            raise UsageError(f"dedup jaccard_threshold is {self.jaccard_threshold!r}: it must be above 0 and at most 1")
        check_bands(self.num_hashes, self.num_bands)

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages that run, in order."""
        return _STAGES[self.method]

    def as_json(self) -> dict[str, Any]:
        """The settings as an object of JSON."""
        return asdict(self)
