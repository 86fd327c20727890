"""Our extraction against WET text: the measures against brute force, the command on small and real archives."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cs336_basics.command_line import UsageError
from cs336_data.compare_wet_command import main
from cs336_data.small_web import write_small_web
from cs336_data.wet_comparison import compare_archives, compare_texts, wet_path_of

WORDS = st.lists(st.sampled_from(["apple", "bee", "cat", "dog", "é", "12"]), max_size=14)


@settings(deadline=None, derandomize=True, max_examples=200)
@given(WORDS, WORDS)
def test_measures_against_their_definitions(ours, wet):
    page = compare_texts("u", " ".join(ours), " ".join(wet))
    left = Counter(wet)
    found = 0
    for word in ours:
        if left[word]:
            left[word] -= 1
            found += 1
    assert page.precision == (found / len(ours) if ours else not wet)
    assert page.recall == (found / len(wet) if wet else not ours)
    assert page.f1 == pytest.approx(2 * found / (len(ours) + len(wet)) if ours or wet else 1.0)
    first, second = (
        {tuple(words[i : i + 5]) for i in range(max(len(words) - 4, 0))} or {tuple(words)} for words in (ours, wet)
    )
    assert page.order == len(first & second) / len(first | second)
    assert (page.our_words, page.wet_words) == (len(ours), len(wet))


def test_order_of_words_counts_only_in_one_measure():
    page = compare_texts("u", "one two three four five six", "six five four three two one")
    assert (page.f1, page.order) == (1, 0)
    assert compare_texts("u", "One, TWO: three?", "one two three").f1 == 1


def test_scripts_without_spaces_are_compared_by_character():
    page = compare_texts("u", "今天天气很好", "今天天气不好")
    assert page.our_words == 6
    assert page.recall == pytest.approx(5 / 6)
    assert compare_texts("u", "版本2 für Größe", "版本2 für Größe").our_words == 5


def test_lines_that_one_side_lacks():
    page = compare_texts("u", "Same line\nours only\n• an item", "Title\nsame line\nan item\n---")
    assert page.only_ours == ("ours only",)
    assert page.only_wet == ("Title",)


def test_small_web_pages_find_their_wet_text(tmp_path):
    warc = write_small_web(tmp_path, num_pages=80, pages_per_file=40)
    comparison = compare_archives(warc, map(wet_path_of, warc))
    assert not comparison.only_warc
    assert not comparison.only_wet
    assert len(comparison.pages) > 70
    assert comparison.mean("precision") > 0.99
    assert comparison.mean("recall") > 0.93  # a WET text begins with the window's title, ours does not
    assert all(page.recall > 0.95 for page in comparison.pages if page.wet_words > 500)
    missing = compare_archives(warc[:1], [wet_path_of(warc[1])])
    assert (len(missing.pages), len(missing.only_warc) + len(missing.only_wet)) == (0, len(comparison.pages))


def test_command(tmp_path, capsys):
    main(["--smoke", "--out", str(tmp_path)])
    assert "mean recall" in capsys.readouterr().out
    html = (tmp_path / "report.html").read_text()
    assert "Most different pages" in html
    assert "Only in the WET text:" in html
    archives = sorted((tmp_path / "small_web").glob("*.warc.gz"))
    with pytest.raises(UsageError, match="have no page in common"):
        main(["--warc", str(archives[0]), "--wet", str(archives[0]), "--out", str(tmp_path)])
    with pytest.raises(UsageError, match="--worst is -1"):
        main(["--worst", "-1"])


def test_real_page(shared_data):
    warc = shared_data / "warc" / "whirlwind.warc.gz"
    comparison = compare_archives([warc], [wet_path_of(warc)])
    (page,) = comparison.pages
    assert page.url == "https://an.wikipedia.org/wiki/Escopete"
    assert page.precision > 0.95
    assert page.recall > 0.9
    assert "mover a la barra lateral" in page.only_wet
