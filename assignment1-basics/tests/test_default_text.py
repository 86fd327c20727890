"""The default text: downloaded files first, else generated ones that are written once."""

import json

from cs336_basics.default_text import TINYSTORIES_TRAIN, TINYSTORIES_VALID, default_text_files, story_files
from cs336_basics.stories import END_OF_TEXT


def test_downloaded_files_win(tmp_path, capsys):
    for name in (TINYSTORIES_TRAIN, TINYSTORIES_VALID):
        (tmp_path / name).write_text("Once upon a time.")
    assert default_text_files(tmp_path) == (tmp_path / TINYSTORIES_TRAIN, tmp_path / TINYSTORIES_VALID)
    assert capsys.readouterr().err == ""
    assert len(list(tmp_path.iterdir())) == 2


def test_stories_are_written_once_and_announced(tmp_path, capsys):
    folder = tmp_path / "data"
    train, valid = default_text_files(folder, train_bytes=60_000, valid_bytes=9_000)
    assert 60_000 <= train.stat().st_size < 63_000
    assert 9_000 <= valid.stat().st_size < 12_000
    train_documents = set(train.read_text().split(END_OF_TEXT))
    assert not (train_documents - {"\n"}) & set(valid.read_text().split(END_OF_TEXT))

    capsys.readouterr()
    before = train.stat().st_mtime_ns, valid.stat().st_mtime_ns
    assert default_text_files(folder, train_bytes=60_000, valid_bytes=9_000) == (train, valid)
    assert (train.stat().st_mtime_ns, valid.stat().st_mtime_ns) == before
    assert capsys.readouterr().err == ""


def test_announcement_names_the_size_and_the_file(tmp_path, capsys):
    default_text_files(tmp_path, train_bytes=60_000, valid_bytes=9_000)
    first = capsys.readouterr().err.splitlines()[0]
    file = tmp_path / "stories-train.txt"
    assert first == f"no TinyStories in {tmp_path}: writing 0.06 MB of generated stories to {file}"


def test_where_nobody_looks_for_tinystories_nobody_misses_it(tmp_path, capsys):
    train, valid = story_files(tmp_path, train_bytes=60_000, valid_bytes=9_000)
    assert f"writing 0.06 MB of generated stories to {train}" in capsys.readouterr().err.splitlines()[0]
    assert default_text_files(tmp_path, train_bytes=60_000, valid_bytes=9_000) == (train, valid)
    assert "TinyStories" not in capsys.readouterr().err


def test_a_changed_file_another_size_or_a_broken_record_is_written_anew(tmp_path):
    train, _ = default_text_files(tmp_path, train_bytes=20_000, valid_bytes=5_000)
    right = train.read_bytes()

    train.write_bytes(right[:-100])
    default_text_files(tmp_path, train_bytes=20_000, valid_bytes=5_000)
    assert train.read_bytes() == right

    train.with_suffix(".json").write_text("{ not JSON")
    default_text_files(tmp_path, train_bytes=20_000, valid_bytes=5_000)
    assert json.loads(train.with_suffix(".json").read_text())["num_bytes"] == 20_000

    default_text_files(tmp_path, train_bytes=30_000, valid_bytes=5_000)
    assert train.stat().st_size >= 30_000
