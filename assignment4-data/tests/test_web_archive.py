"""Archives that warcio's writer makes, whole and damaged, and real ones, through both readers."""

import gzip
import io
import zlib

import pytest
import zstandard
from fastwarc.stream_io import BrotliWriter
from hypothesis import given, settings
from hypothesis import strategies as st
from warcio.archiveiterator import ArchiveIterator
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from cs336_basics.command_line import UsageError
from cs336_data.web_archive.archive_file import CUT_OFF, DAMAGED, NO_RECORD, SEVERAL, WRONG_LENGTH
from cs336_data.web_archive.http_message import HttpMessage, decode_body, parse_http
from cs336_data.web_archive.records import BAD_HTTP, READERS, ReadCounts, Record, read_records

BOTH = pytest.mark.parametrize("reader", READERS)
REAL_FILES = {
    "whirlwind.warc.gz": 4,
    "whirlwind.warc.wet.gz": 2,
    "whirlwind.warc.wat.gz": 2,
    "example-iana.org-chunked.warc": 3,
    "warcfile.warc.gz": 50,
    "example.warc.gz": 822,
}


def plain_record(number, length_error=0, body=None, end=b"\r\n\r\n"):
    """A record by hand, so that its Content-Length can be wrong."""
    body = b"payload %d " % number * 30 if body is None else body
    return (
        b"WARC/1.0\r\nWARC-Type: resource\r\nWARC-Record-ID: <urn:uuid:%d>\r\nWARC-Target-URI: http://x.org/%d\r\n"
        b"WARC-Date: 2024-05-18T01:58:10Z\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n"
        % (number, number, len(body) + length_error)
    ) + (body + end)


def read(data, reader, tmp_path, **options):
    path = tmp_path / "test.warc"
    path.write_bytes(data)
    counts = ReadCounts()
    records = list(read_records(path, reader, counts=counts, **options))
    assert counts.good == len(records)
    return records, counts


def urls(records):
    return [record.url[-1] for record in records]


def written(contents, gzipped):
    """The archive that warcio writes of (type, url, content type, body) with an HTTP header for responses."""
    buffer = io.BytesIO()
    writer = WARCWriter(buffer, gzip=gzipped)
    for record_type, url, content_type, body in contents:
        http = None
        if record_type == "response":
            http = StatusAndHeaders("200 OK", [("Content-Type", content_type), ("X-Long", "a" * 300)], "HTTP/1.1")
        record = writer.create_warc_record(
            url,
            record_type,
            io.BytesIO(body),
            len(body),
            warc_content_type="" if http else content_type,
            http_headers=http,
        )
        writer.write_record(record)
    return buffer.getvalue()


CONTENTS = st.lists(
    st.tuples(
        st.sampled_from(["response", "resource", "conversion", "metadata"]),
        st.sampled_from(["http://a.org/", "https://b.example/x?y=1&z=%20", "urn:thing"]),
        st.sampled_from(["text/html; charset=utf-8", "text/plain", "image/png"]),
        st.one_of(st.binary(max_size=400), st.sampled_from([b"", b"\r\n\r\nWARC/1.0\r\n", b"\r\n" * 9, b"x" * 70_000])),
    ),
    max_size=6,
)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(CONTENTS, st.sampled_from(["plain", "gzip by record", "gzip as a whole", "zstd"]))
def test_both_readers_give_what_was_written(tmp_path_factory, contents, form):
    data = written(contents, gzipped=form == "gzip by record")
    if form == "gzip as a whole":
        data = gzip.compress(data)
    elif form == "zstd":
        data = zstandard.compress(data)
    tmp_path = tmp_path_factory.mktemp("good")
    (fast, fast_counts), (slow, slow_counts) = (read(data, reader, tmp_path) for reader in READERS)
    assert fast == slow
    assert not fast_counts.bad
    assert not slow_counts.bad
    assert [(each.type, each.url, each.content_type, each.payload) for each in fast] == contents
    assert len({each.offset for each in fast}) == len(fast)


@settings(deadline=None, derandomize=True, max_examples=40)
@given(st.data())
def test_a_file_cut_anywhere_keeps_all_records_before_the_cut(tmp_path_factory, data):
    gzipped, reader = data.draw(st.booleans()), data.draw(st.sampled_from(list(READERS)))
    records = [plain_record(number) for number in range(4)]
    parts = [gzip.compress(each) for each in records] if gzipped else records
    whole = b"".join(parts)
    cut = data.draw(st.integers(1, len(whole) - 1))
    found, counts = read(whole[:cut], reader, tmp_path_factory.mktemp("cut"))
    ends = [sum(map(len, parts[: number + 1])) for number in range(4)]
    intact = sum(end <= cut for end in ends)
    # The record that was cut may have lost no more than the blank lines or the checksum after its block.
    assert len(found) - intact in (0, 1)
    assert [each.payload for each in found] == [b"payload %d " % number * 30 for number in range(len(found))]
    at_border = cut in ends or len(found) > intact
    assert sum(counts.bad.values()) == (0 if at_border else 1)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.data())
def test_a_flipped_byte_harms_one_record_only(tmp_path_factory, data):
    reader = data.draw(st.sampled_from(list(READERS)))
    parts = [gzip.compress(plain_record(number, body=bytes(range(256)) * 3)) for number in range(4)]
    hurt = data.draw(st.integers(1, 3))  # not the first: there a damaged magic number hides that this is gzip
    place = sum(map(len, parts[:hurt])) + data.draw(st.integers(0, len(parts[hurt]) - 1))
    whole = bytearray(b"".join(parts))
    whole[place] ^= data.draw(st.integers(1, 255))
    found, counts = read(bytes(whole), reader, tmp_path_factory.mktemp("flip"))
    others = [str(number) for number in range(4) if number != hurt]
    assert [each for each in urls(found) if each != str(hurt)] == others
    assert all(each.payload == bytes(range(256)) * 3 for each in found)  # never a garbled one
    assert sum(counts.bad.values()) == (0 if len(found) == 4 else 1)


FORMS = {
    "plain": b"".join,
    "by record": lambda records: b"".join(map(gzip.compress, records)),
    "as a whole": lambda records: gzip.compress(b"".join(records)),
    "zstd": lambda records: zstandard.compress(b"".join(records)),
    "mixed": lambda records: gzip.compress(records[0]) + gzip.compress(b"".join(records[1:])),
}


@settings(deadline=None, derandomize=True, max_examples=120)
@given(st.data())
def test_no_damage_whatever_stops_a_reader(tmp_path_factory, data):
    form, reader = data.draw(st.sampled_from(list(FORMS))), data.draw(st.sampled_from(list(READERS)))
    whole = bytearray(FORMS[form]([plain_record(number) for number in range(4)]))
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(whole) - 1))
        whole[start : start + data.draw(st.integers(0, 60))] = data.draw(st.binary(max_size=60))
        whole = whole or bytearray(b"x")
    found, _ = read(bytes(whole), reader, tmp_path_factory.mktemp("any"))
    if form == "by record":  # the checksums of gzip see to it that nothing false is handed out
        assert {each.payload for each in found} <= {b"payload %d " % number * 30 for number in range(4)}


def test_an_archive_whose_members_hold_one_record_first_and_several_later(tmp_path):
    records = [plain_record(number) for number in range(4)]
    data = FORMS["mixed"](records) + gzip.compress(plain_record(4))
    assert urls(read(data, "fastwarc", tmp_path)[0]) == ["0", "1", "2", "3", "4"]
    found, counts = read(data, "warcio", tmp_path)  # reads the first record of a member only
    assert (urls(found), counts.bad) == (["0", "1", "4"], {SEVERAL: 1})


def damaged(kind):
    """Four records of which number 1 is damaged, the records that survive, and the reason for the other."""
    records = [plain_record(number) for number in range(4)]
    if kind == "no length":
        records[1] = records[1].replace(b"Content-Length: 300\r\n", b"")
    elif kind == "no number":
        records[1] = records[1].replace(b"Content-Length: 300", b"Content-Length: many")
    elif kind == "garbage":
        records[1] = b"some garbage\r\n\r\n"
    else:
        records[1] = plain_record(1, {"short": -20, "long": 20, "very long": 5000}[kind])
    return records, NO_RECORD if kind == "garbage" else WRONG_LENGTH


@BOTH
@pytest.mark.parametrize("gzipped", [False, True])
@pytest.mark.parametrize("kind", ["short", "long", "very long", "no length", "no number", "garbage"])
def test_a_bad_record_is_counted_and_the_others_are_kept(reader, gzipped, kind, tmp_path):
    records, reason = damaged(kind)
    data = b"".join(gzip.compress(each) if gzipped else each for each in records)
    found, counts = read(data, reader, tmp_path)
    assert urls(found) == ["0", "2", "3"]
    assert counts.bad == {reason: 1}


@BOTH
def test_damage_at_the_ends_of_a_file(reader, tmp_path):
    records = [plain_record(number) for number in range(3)]
    assert read(b"", reader, tmp_path)[1] == ReadCounts()
    assert read(b"<html>no archive</html>" * 99, reader, tmp_path)[1].bad == {NO_RECORD: 1}
    assert read(gzip.compress(b"no archive"), reader, tmp_path)[1].bad == {NO_RECORD: 1}
    assert read(b"\x1f\x8b\x08" + bytes(99), reader, tmp_path)[1].bad == {DAMAGED: 1}
    found, counts = read(b"junk\n" + b"".join(records), reader, tmp_path)
    assert (urls(found), counts.bad) == (["0", "1", "2"], {NO_RECORD: 1})
    found, counts = read(b"".join(records) + b"junk", reader, tmp_path)
    assert (urls(found), counts.bad.total()) == (["0", "1", "2"], 1)
    found, counts = read(b"".join(map(gzip.compress, records)) + b"\x1f\x8b\x08\x00", reader, tmp_path)
    assert (urls(found), counts.bad) == (["0", "1", "2"], {CUT_OFF: 1})
    found, counts = read(records[0] + plain_record(1, 40), reader, tmp_path)
    assert (urls(found), counts.bad) == (["0"], {CUT_OFF: 1})
    found, counts = read(records[0] + plain_record(1, end=b""), reader, tmp_path)
    assert (urls(found), counts.bad) == (["0", "1"], {})


@BOTH
@pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress])
def test_damage_in_a_file_compressed_as_a_whole(reader, compress, tmp_path):
    texts = [plain_record(number, body=zlib.compress(bytes([number]) * 9) * 5000) for number in range(4)]
    data = compress(b"".join(texts))
    found, counts = read(data[: len(data) // 2], reader, tmp_path)
    assert urls(found) == [str(number) for number in range(len(found))]
    assert counts.bad.total() == 1
    assert read(data[:9], reader, tmp_path)[1].bad == {CUT_OFF: 1}
    # What comes after an error of length is found in such a file, too.
    records, reason = damaged("long")
    found, counts = read(compress(b"".join(records)), reader, tmp_path)
    assert (urls(found), counts.bad) == (["0", "2", "3"], {reason: 1})


def test_only_warcio_reads_lines_that_end_in_a_line_feed_alone(tmp_path):
    data = b"".join(plain_record(number).replace(b"\r\n", b"\n") for number in range(2))
    assert urls(read(data, "warcio", tmp_path)[0]) == ["0", "1"]
    assert read(data, "fastwarc", tmp_path)[0] == []


@BOTH
def test_types_and_fields(reader, tmp_path):
    contents = [
        ("response", "http://a.org/", 'text/HTML;charset="Shift_JIS"', b"<p>x"),
        ("resource", "http://a.org/b", "text/plain", b"y"),
    ]
    (record,), counts = read(written(contents, True), reader, tmp_path, types=("response",))
    assert (counts.good, counts.skipped) == (1, 1)
    assert (record.media_type, record.charset, record.http_status) == ("text/html", "Shift_JIS", 200)
    assert record.http_headers["x-long"] == "a" * 300
    assert record.headers["warc-type"] == "response"
    assert record.date.endswith("Z")
    assert Record("warcinfo", "", "", "", {}, b"", 0).charset is None


@BOTH
def test_revisit_request_and_response_without_http(reader, tmp_path):
    buffer = io.BytesIO()
    writer = WARCWriter(buffer, gzip=True)
    http = StatusAndHeaders("304 Not Modified", [("Server", "s")], "HTTP/1.1")
    get = StatusAndHeaders("GET / HTTP/1.1", [("Host", "a.org")], is_http_request=True)
    writer.write_record(writer.create_warc_record("http://a.org/", "revisit", http_headers=http))
    writer.write_record(writer.create_warc_record("http://a.org/", "request", http_headers=get))
    no_http = plain_record(0).replace(b": resource", b": response")
    data = buffer.getvalue() + gzip.compress(no_http.replace(b"text/plain", b"application/http; msgtype=response"))
    found, counts = read(data + gzip.compress(no_http.replace(b"text/plain", b"text/dns")), reader, tmp_path)
    assert [(each.type, each.http_status, each.payload) for each in found] == [
        ("revisit", 304, b""),
        ("request", None, b""),
        ("response", None, b"payload 0 " * 30),
    ]
    assert found[1].http_headers == {"host": "a.org"}
    assert counts.bad == {BAD_HTTP: 1}


def brotli(data):
    buffer = io.BytesIO()
    writer = BrotliWriter(buffer)
    writer.write(data)
    writer.close()
    return buffer.getvalue()


TEXT = b"some text that is encoded, " * 400


def raw_deflate(data):
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(data) + compressor.flush()


def decoded(body, **headers):
    return decode_body(HttpMessage(200, {name.replace("_", "-"): value for name, value in headers.items()}, body))


@pytest.mark.parametrize(
    ("coding", "encode"),
    [("gzip", gzip.compress), ("deflate", zlib.compress), ("deflate", raw_deflate), ("br", brotli)],
)
def test_content_encodings(coding, encode):
    assert decoded(encode(TEXT), content_encoding=coding) == TEXT
    assert decoded(encode(b""), content_encoding=coding) == b""
    assert decoded(TEXT, content_encoding=coding) == TEXT  # stored decoded, whatever the header says
    cut = decoded(encode(TEXT)[:-12], content_encoding=coding.upper())
    assert TEXT.startswith(cut) or cut == encode(TEXT)[:-12]  # what can be read, or else the bytes as they are
    assert decoded(gzip.compress(encode(TEXT)), content_encoding=f"{coding}, gzip") == TEXT


def test_chunks():
    body = b"".join(b"%x;ext=1\r\n%s\r\n" % (len(part), part) for part in (TEXT[:70], TEXT[70:])) + b"0\r\n\r\n"
    assert decoded(body, transfer_encoding="chunked") == TEXT
    assert decoded(TEXT, transfer_encoding="chunked") == TEXT  # stored without chunks
    assert (
        decoded(body[:300], transfer_encoding="Chunked")
        == TEXT[: len(decoded(body[:300], transfer_encoding="chunked"))]
    )
    zipped = gzip.compress(TEXT)
    chunked = b"%x\r\n%s\r\n0\r\n\r\n" % (len(zipped), zipped)
    assert decoded(chunked, transfer_encoding="chunked", content_encoding="gzip") == TEXT


def test_http_headers_with_line_feeds_alone_and_none_at_all():
    message = parse_http(b"HTTP/1.1 200 OK\nContent-Type: text/html\nX: y\n\nbody\r\n\r\nmore")
    assert message == HttpMessage(200, {"content-type": "text/html", "x": "y"}, b"body\r\n\r\nmore")
    assert parse_http(b"HTTP/1.0 404\r\n\r\n") == HttpMessage(404, {}, b"")
    long = b"HTTP/1.1 200 OK\r\nX: %s\r\nY: z\r\n\r\nbody" % (b"x" * 100_000)
    assert parse_http(long) == HttpMessage(200, {"x": "x" * 100_000, "y": "z"}, b"body")
    for block in (b"", b"no http", b"HTTP/1.1 abc\r\n\r\n", b"\x00" * 40):
        assert parse_http(block) is None


@settings(deadline=None, derandomize=True, max_examples=200)
@given(st.binary(max_size=200), st.sampled_from(["gzip", "deflate", "br", "identity", "gzip, br"]))
def test_any_bytes_make_a_message_or_none(block, coding):
    message = parse_http(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Encoding: %s\r\n" % coding.encode() + block
    )
    if message is not None:
        assert isinstance(decode_body(message), bytes)


def test_unknown_reader_and_missing_file(tmp_path):
    with pytest.raises(UsageError, match="reader 'fast' is unknown; allowed are fastwarc and warcio"):
        list(read_records(tmp_path, "fast"))
    with pytest.raises(UsageError, match="is not a file"):
        list(read_records(tmp_path / "none.warc"))
    with pytest.raises(UsageError, match="is not a file"):
        list(read_records(tmp_path))


@pytest.mark.parametrize("name", REAL_FILES)
def test_real_files_through_both_readers(shared_data, name):
    path = shared_data / "warc" / name
    counts = ReadCounts()
    records = list(read_records(path, counts=counts))
    assert records == list(read_records(path, "warcio"))
    assert (counts.good, counts.bad) == (REAL_FILES[name], {})
    # warcio's own decoding of the bodies is the reference.
    with open(path, "rb") as file:
        payloads = [each.content_stream().read() for each in ArchiveIterator(file)]
    assert [each.payload for each in records] == payloads


def test_real_file_without_its_end(shared_data, tmp_path):
    data = (shared_data / "warc" / "warcfile.warc.gz").read_bytes()
    for reader in READERS:
        found, counts = read(data[:100_000], reader, tmp_path)
        assert 20 < len(found) < 50
        assert counts.bad == {CUT_OFF: 1}
