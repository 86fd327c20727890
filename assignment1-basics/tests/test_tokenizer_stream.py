"""`encode_iterable`: the ids of the whole text, wherever its pieces break, lazily and in a megabyte."""

import subprocess
import sys
from itertools import count, islice
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cs336_basics import tokenizer as tokenizer_module
from cs336_basics.bpe import train_bpe
from cs336_basics.stories import write_stories
from cs336_basics.tokenizer import Tokenizer

END = "<|endoftext|>"
SPECIALS = [END, END + END, " of the ", "\n\n", "'s a"]
TEXT = (
    "It's a tale  of the   cat,\r\n\n\nthat didn't\u3000sleep… 12½ \x00 中文。字，x<|endof\n"
    f"{END}{END}{END}text|> of the 's a 'll they'll e\u0301 \U0001f469\u200d\U0001f4bb \ud800 \ud83d\ude00   \n \t "
    "end  "
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Tokenizer:
    path = tmp_path_factory.mktemp("stream") / "text"
    path.write_text((TEXT * 4).encode("utf-16", "surrogatepass").decode("utf-16", "replace") + "the tale that " * 9)
    return Tokenizer(*train_bpe(path, 330, SPECIALS), SPECIALS)


def cut(text: str, places: list[int]) -> list[str]:
    ends = sorted(place % (len(text) + 1) for place in places)
    return [text[start:end] for start, end in zip([0, *ends], [*ends, len(text)], strict=True)]


@pytest.mark.parametrize("block_size", [1, 5, 40, 1 << 13])
def test_every_single_break(tokenizer, monkeypatch, block_size):
    monkeypatch.setattr(tokenizer_module, "STREAM_BLOCK_SIZE", block_size)
    ids = tokenizer.encode(TEXT)
    for place in range(len(TEXT) + 1):
        assert list(tokenizer.encode_iterable([TEXT[:place], TEXT[place:]])) == ids
    assert list(tokenizer.encode_iterable(TEXT)) == ids, "character by character"
    assert list(tokenizer.encode_iterable(TEXT.splitlines(keepends=True))) == ids


@settings(deadline=None, derandomize=True, max_examples=300)
@given(
    text=st.lists(
        st.sampled_from([*SPECIALS, "a", " ", "\n", "'", "s", "ll", "1", "é", "。", "<|", "\ud83d", "\ude00"])
    )
    .map("".join)
    .flatmap(lambda text: st.text(max_size=5).map(lambda more: text + more)),
    places=st.lists(st.integers(0, 200), max_size=10),
)
def test_random_texts_and_breaks(tokenizer, text, places):
    assert list(tokenizer.encode_iterable(cut(text, places))) == tokenizer.encode(text)


@pytest.mark.parametrize("text", ["", "x" * 100_000, " " * 50_000, "\n" * 50_000 + "x", "中" * 30_000, "字。" * 20_000])
def test_texts_without_a_place_to_cut(tokenizer, text):
    ids = tokenizer.encode(text)
    assert list(tokenizer.encode_iterable([text])) == ids
    assert list(tokenizer.encode_iterable(text)) == ids
    assert tokenizer.decode(ids) == text


def test_empty_pieces_change_nothing(tokenizer):
    assert list(tokenizer.encode_iterable(["", "a", "", "", " b", ""])) == tokenizer.encode("a b")
    assert list(tokenizer.encode_iterable([])) == []


SURROGATE_SPECIALS = ["\U0001f600 a", "x \U0001f600", "b \ufffd"]


@settings(deadline=None, derandomize=True, max_examples=300)
@given(
    text=st.lists(st.sampled_from(["x ", "b ", " a", "\n", "\ufffd", "\ud83d", "\ude00", "\ud83d\ude00"])).map("".join),
    places=st.lists(st.integers(0, 30), max_size=5),
    block_size=st.sampled_from([1, 4, 1 << 13]),
)
def test_surrogates_in_special_tokens_and_across_breaks(text, places, block_size):
    tokenizer = Tokenizer({byte: bytes([byte]) for byte in range(256)}, [], SURROGATE_SPECIALS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenizer_module, "STREAM_BLOCK_SIZE", block_size)
        assert list(tokenizer.encode_iterable(cut(text, places))) == tokenizer.encode(text)


@pytest.mark.parametrize("line", ["once upon a time, there was a cat. ", "слово\n", "단어\n"])
def test_it_is_lazy(tokenizer, line):
    taken = count()

    def endless():
        while True:
            next(taken)
            yield line

    ids = list(islice(tokenizer.encode_iterable(endless()), 50))
    assert ids == tokenizer.encode(line * 50)[:50]
    assert next(taken) < 2000


def test_reading_a_real_file_by_lines(tokenizer, shared_data):
    path = shared_data / "text" / "tinystories_val_cased.txt"
    with open(path, encoding="utf-8", newline="") as lines:
        ids = list(tokenizer.encode_iterable(lines))
    assert ids == tokenizer.encode(path.read_bytes().decode())


# Run in a process of its own: limits and peaks are those of the whole process. `mode` is what is measured.
PROGRAM = """
import resource, sys
import psutil
from cs336_basics.tokenizer import Tokenizer

directory, path, mode = sys.argv[1:]
tokenizer = Tokenizer.from_directory(directory)
list(tokenizer.encode_iterable(["Warm up, with a café."]))
process = psutil.Process()
lines = open(path, encoding="utf-8", newline="")
before = process.memory_info()
if mode == "limit":
    resource.setrlimit(resource.RLIMIT_AS, (before.vms + 1_000_000, -1))
num_ids, highest = 0, before.rss
for token_id in tokenizer.encode_iterable(lines):
    num_ids += 1
    if num_ids % 10_000 == 0:
        highest = max(highest, process.memory_info().rss)
print(num_ids, highest - before.rss)
"""


@pytest.fixture(scope="module")
def five_megabytes(tmp_path_factory) -> tuple[Path, Path]:
    """A tokenizer's folder and a text of 5 MB with more distinct words than any cache holds."""
    folder = tmp_path_factory.mktemp("five")
    write_stories(folder / "stories", 4_000_000, seed=1)
    words = [f"wörd{n} “{n * n % 9973}”" for n in range(55_000)]
    text = (folder / "stories").read_text(encoding="utf-8") + END + "\n".join(words)
    (folder / "text").write_text(text, encoding="utf-8")
    assert (folder / "text").stat().st_size > 5_000_000
    Tokenizer(*train_bpe(folder / "stories", 1000, [END], method="plain"), [END]).save(folder)
    return folder, folder / "text"


def measure(folder: Path, text: Path, mode: str) -> tuple[int, int]:
    command = [sys.executable, "-c", PROGRAM, str(folder), str(text), mode]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    num_ids, growth = map(int, done.stdout.split())
    return num_ids, growth


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux: macOS does not enforce RLIMIT_AS")
def test_five_megabytes_pass_through_one_megabyte_of_address_space(five_megabytes):
    folder, text = five_megabytes
    num_ids, _ = measure(folder, text, "limit")
    assert num_ids == len(Tokenizer.from_directory(folder).encode(text.read_text(encoding="utf-8")))


@pytest.mark.slow
def test_five_megabytes_add_less_than_a_megabyte_of_memory(five_megabytes):
    _, growth = measure(*five_megabytes, "rss")
    assert growth < 1_000_000
