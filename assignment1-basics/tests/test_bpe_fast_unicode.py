"""The committed table of character classes against the installed `regex` package."""

from cs336_basics.bpe import unicode_classes
from cs336_basics.bpe.unicode_classes import (
    LETTER,
    NUMBER,
    OTHER,
    UNICODE_VERSION,
    WHITE_SPACE,
    class_table,
    regex_class_table,
    regex_unicode_version,
)


def test_every_code_point_has_the_class_that_regex_gives_it():
    assert (class_table() == regex_class_table()).all()


def test_the_declared_version_is_that_of_regex():
    assert regex_unicode_version() == UNICODE_VERSION


def test_some_classes():
    table = class_table()
    for characters, expected in (
        ("aÉ中ʰ", LETTER),
        ("0½٣Ⅷ", NUMBER),
        (" \t\x85\u3000", WHITE_SPACE),
        ("_'\u0301\0", OTHER),
    ):
        assert [table[ord(character)] for character in characters] == [expected] * len(characters)


def test_the_command_writes_the_committed_file(tmp_path, monkeypatch):
    committed = unicode_classes._TABLE_FILE.read_bytes()
    monkeypatch.setattr(unicode_classes, "_TABLE_FILE", tmp_path / "table.txt")
    unicode_classes.main()
    assert (tmp_path / "table.txt").read_bytes() == committed
