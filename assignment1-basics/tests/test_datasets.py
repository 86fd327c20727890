"""Downloads against a real HTTP server in this process, one that can also misbehave."""

import fcntl
import gzip
import hashlib
import http.server
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest

from cs336_basics import datasets
from cs336_basics.command_line import UsageError
from cs336_basics.datasets import DATASETS, Dataset, dataset_state, get_dataset, select
from cs336_basics.download import check_disk_space, download

BODY = random.Random(0).randbytes(3_000_000)
SHA256 = hashlib.sha256(BODY).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves `body` under every path, with ranges and an ETag; the attributes switch faults on."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.body, self.etag, self.linked = BODY, '"v1"', None
        self.break_after = []  # for each coming answer the bytes after which the connection is cut
        self.statuses = []  # for each coming request a status to answer with
        self.ranges, self.pause_s = True, 0.0
        self.requests = []  # (path, Range header) of every request

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *args):
        pass

    def do_GET(self):
        server = self.server
        server.requests.append((self.path, self.headers["Range"]))
        if server.statuses and (status := server.statuses.pop(0)):
            self.send_error(status)
            return
        if server.linked and not self.path.startswith("/storage"):
            self.send_response(302)
            self.send_header("Location", f"{server.url}/storage{self.path}")
            self.send_header("X-Linked-ETag", f'"{server.linked}"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = 0
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
        if wanted and server.ranges and self.headers["If-Range"] in (None, server.etag):
            start = int(wanted[1])
            if start >= len(server.body):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(server.body)}")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(server.body) - 1}/{len(server.body)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(server.body) - start))
        if server.etag:
            self.send_header("ETag", server.etag)
        self.end_headers()
        end = start + server.break_after.pop(0) if server.break_after else len(server.body)
        for position in range(start, min(end, len(server.body)), 1 << 16):
            self.wfile.write(server.body[position : min(position + (1 << 16), end)])
            time.sleep(server.pause_s)
        self.close_connection = True


@pytest.fixture
def server():
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def fetch(server, path, **options):
    return download(f"{server.url}/file", path, progress=False, first_pause_s=0.01, **options)


def test_whole_file_with_its_record(server, tmp_path):
    result = fetch(server, tmp_path / "new" / "file.txt", sha256=SHA256)
    assert (tmp_path / "new" / "file.txt").read_bytes() == BODY
    record = json.loads((tmp_path / "new" / "file.txt.download.json").read_text())
    assert record == {
        "url": f"{server.url}/file",
        "num_bytes": len(BODY),
        "sha256": SHA256,
        "checked_against": "the published checksum",
    }
    assert result.sha256 == SHA256
    assert sorted(file.name for file in (tmp_path / "new").iterdir()) == ["file.txt", "file.txt.download.json"]


def test_broken_connections_go_on_where_they_stopped(server, tmp_path):
    server.break_after = [1_200_000, 700_000, 0]
    fetch(server, tmp_path / "file", sha256=SHA256)
    assert (tmp_path / "file").read_bytes() == BODY
    starts = [int(re.search(r"\d+", given)[0]) if given else 0 for _, given in server.requests]
    assert starts[0] == 0
    assert starts == sorted(starts)
    assert starts[-1] > 1_000_000


def test_a_later_call_resumes_what_an_earlier_one_gave_up(server, tmp_path):
    server.break_after = [1_500_000]
    server.statuses = [None, 503, 503]
    with pytest.raises(UsageError, match=r"status 503, 2 tries.*file\.part"):
        fetch(server, tmp_path / "file", sha256=SHA256, tries=2)
    kept = (tmp_path / "file.part").stat().st_size
    assert 1_000_000 <= kept <= 1_500_000
    server.requests.clear()
    fetch(server, tmp_path / "file", sha256=SHA256)
    assert server.requests == [("/file", f"bytes={kept}-")]
    assert (tmp_path / "file").read_bytes() == BODY


def test_a_killed_process_resumes(server, tmp_path):
    server.pause_s = 0.02
    program = "import sys; from cs336_basics.download import download; download(sys.argv[1], sys.argv[2])"
    command = [sys.executable, "-c", program, f"{server.url}/file", str(tmp_path / "file")]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, env=os.environ) as process:
        part = tmp_path / "file.part"
        while not (part.exists() and part.stat().st_size > 1_000_000):
            assert process.poll() is None, "ended before it could be killed"
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    kept = part.stat().st_size
    assert not (tmp_path / "file").exists()
    server.pause_s = 0.0
    server.requests.clear()
    fetch(server, tmp_path / "file", sha256=SHA256)
    assert server.requests == [("/file", f"bytes={kept}-")]
    assert (tmp_path / "file").read_bytes() == BODY


def test_complete_but_unnamed_part_is_only_checked(server, tmp_path):
    (tmp_path / "file.part").write_bytes(BODY)
    (tmp_path / "file.part.json").write_text(json.dumps({"url": f"{server.url}/file", "etag": '"v1"'}))
    fetch(server, tmp_path / "file", sha256=SHA256)
    assert server.requests == [("/file", f"bytes={len(BODY)}-")]
    assert (tmp_path / "file").read_bytes() == BODY


def test_server_without_ranges_sends_all_again(server, tmp_path):
    server.ranges = False
    server.break_after = [2_000_000]
    fetch(server, tmp_path / "file", sha256=SHA256)
    assert (tmp_path / "file").read_bytes() == BODY


@pytest.mark.parametrize("etag", ['W/"v1"', None])
def test_without_a_strong_version_nothing_is_resumed(server, tmp_path, etag):
    server.etag = etag
    server.break_after = [2_000_000]
    fetch(server, tmp_path / "file", sha256=SHA256)
    assert [given for _, given in server.requests] == [None, None]
    assert (tmp_path / "file").read_bytes() == BODY


def test_a_file_that_changed_between_the_calls_is_fetched_whole(server, tmp_path):
    server.break_after = [1_500_000]
    server.statuses = [None, 503]
    with pytest.raises(UsageError):
        fetch(server, tmp_path / "file", tries=1)
    server.body, server.etag = BODY[::-1], '"v2"'
    fetch(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == BODY[::-1]


def test_a_part_of_another_address_is_not_continued(server, tmp_path):
    (tmp_path / "file.part").write_bytes(b"something else")
    (tmp_path / "file.part.json").write_text(json.dumps({"url": "http://elsewhere/file", "etag": '"v1"'}))
    fetch(server, tmp_path / "file", sha256=SHA256)
    assert (tmp_path / "file").read_bytes() == BODY


def test_wrong_checksum_leaves_nothing(server, tmp_path):
    with pytest.raises(UsageError, match=f"{SHA256}, but {'0' * 64} is right"):
        fetch(server, tmp_path / "file", sha256="0" * 64)
    assert not list(tmp_path.iterdir())


def test_the_servers_own_checksum_counts_where_none_is_published(server, tmp_path):
    server.linked = SHA256
    server.break_after = [1_500_000]  # and it survives a resumption through the redirection
    assert fetch(server, tmp_path / "file").checked_against == "the server's checksum"
    assert server.requests[-1][0] == "/storage/file"
    assert server.requests[-1][1] is not None
    server.linked = "1" * 64
    with pytest.raises(UsageError, match="1" * 64):
        fetch(server, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_not_found_is_final_and_named(server, tmp_path):
    server.statuses = [404]
    with pytest.raises(UsageError, match=r"/file answers with status 404"):
        fetch(server, tmp_path / "file")
    assert len(server.requests) == 1
    assert not list(tmp_path.iterdir())


def test_busy_server_is_asked_again(server, tmp_path):
    server.statuses = [503, 429]
    fetch(server, tmp_path / "file", sha256=SHA256)
    assert len(server.requests) == 3


def test_nobody_listening(tmp_path):
    with pytest.raises(UsageError, match=r"cannot be fetched .ConnectionError, 2 tries"):
        download("http://127.0.0.1:1/file", tmp_path / "file", progress=False, tries=2, first_pause_s=0.01)


def test_bad_address(tmp_path):
    with pytest.raises(UsageError, match="gopher"):
        download("gopher://x/file", tmp_path / "file", progress=False)


def test_two_downloads_of_one_file_do_not_mix(server, tmp_path):
    server.pause_s = 0.02
    first = threading.Thread(target=fetch, args=(server, tmp_path / "file"))
    first.start()
    while not (tmp_path / "file.part").exists():
        time.sleep(0.005)
    while not server.requests:
        time.sleep(0.005)
    with pytest.raises(UsageError, match="another process"):
        fetch(server, tmp_path / "file")
    first.join()
    assert (tmp_path / "file").read_bytes() == BODY


@pytest.mark.parametrize("end", ["renamed", "removed", "replaced"])
def test_a_download_that_another_process_ends_just_before_the_lock_is_left_alone(server, tmp_path, monkeypatch, end):
    """The other process has the lock while this one opens the file, and lets it go before this one asks for it."""
    part = tmp_path / "file.part"
    lock = fcntl.flock

    def end_and_lock(file, how):
        if end == "removed":
            part.unlink()
        else:
            part.rename(tmp_path / "file")
        if end == "replaced":
            part.write_bytes(b"a third process is at it")
        lock(file, how)

    part.write_bytes(BODY)
    monkeypatch.setattr(fcntl, "flock", end_and_lock)
    with pytest.raises(UsageError, match=r"file\.part was just finished by another process"):
        fetch(server, tmp_path / "file", sha256=SHA256)
    assert not server.requests
    if end != "removed":
        assert (tmp_path / "file").read_bytes() == BODY
    if end == "replaced":
        assert part.read_bytes() == b"a third process is at it"


def test_disk_space_is_checked_first(tmp_path):
    check_disk_space(tmp_path, 1, "a byte")
    with pytest.raises(UsageError, match=r"a giant needs 1000000000\.00 GB, but only"):
        check_disk_space(tmp_path, 10**18, "a giant")
    giant = replace(DATASETS["owt-train"], num_bytes=10**18)
    with pytest.raises(UsageError, match="owt-train needs"):
        get_dataset(giant, tmp_path, progress=False)


# ---------------------------------------------------------------- the data sets


TEXT = b"A story.\n<|endoftext|>\n" * 20_000


def packed_dataset(monkeypatch, server, **changes):
    server.body = gzip.compress(TEXT)
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    dataset = Dataset(
        "small", "small.txt", len(TEXT), hashlib.sha256(TEXT).hexdigest(), "a/b", "small.txt.gz", len(server.body), "-"
    )
    return replace(dataset, **changes)


def test_packed_data_set_is_unpacked_and_checked(server, tmp_path, monkeypatch):
    dataset = packed_dataset(monkeypatch, server)
    assert dataset_state(dataset, tmp_path) == "not there"
    assert get_dataset(dataset, tmp_path, progress=False).read_bytes() == TEXT
    assert server.requests[0][0] == "/datasets/a/b/resolve/main/small.txt.gz"
    assert dataset_state(dataset, tmp_path) == "present"
    assert "small.txt.gz" not in {file.name for file in tmp_path.iterdir()}
    count = len(server.requests)
    get_dataset(dataset, tmp_path, progress=False)
    assert len(server.requests) == count


def test_half_an_archive_is_shown_and_continued(server, tmp_path, monkeypatch):
    dataset = packed_dataset(monkeypatch, server)
    (tmp_path / "small.txt.gz.part").write_bytes(server.body[: len(server.body) // 2])
    (tmp_path / "small.txt.gz.part.json").write_text(json.dumps({"url": dataset.url, "etag": '"v1"'}))
    assert dataset_state(dataset, tmp_path) == "50 % downloaded"
    get_dataset(dataset, tmp_path, progress=False)
    assert server.requests[0][1] == f"bytes={len(server.body) // 2}-"


@pytest.mark.parametrize("damage", ["cut short", "bits flipped", "not gzip", "another text"])
def test_damaged_archive_is_removed(server, tmp_path, monkeypatch, damage):
    dataset = packed_dataset(monkeypatch, server)
    body = server.body
    server.body = {
        "cut short": body[:-20],
        "bits flipped": body[:200] + bytes([body[200] ^ 255]) + body[201:],
        "not gzip": b"<html>sign in</html>",
        "another text": gzip.compress(b"another text"),
    }[damage]
    with pytest.raises(UsageError, match=r"small\.txt\.gz is damaged and was removed"):
        get_dataset(dataset, tmp_path, progress=False)
    assert {file.name for file in tmp_path.iterdir()} <= {"small.txt.gz.download.json"}


def test_a_foreign_file_is_not_overwritten(server, tmp_path, monkeypatch):
    dataset = packed_dataset(monkeypatch, server)
    (tmp_path / "small.txt").write_bytes(b"mine")
    assert dataset_state(dataset, tmp_path) == "wrong size"
    with pytest.raises(UsageError, match="move it away"):
        get_dataset(dataset, tmp_path, progress=False)
    assert (tmp_path / "small.txt").read_bytes() == b"mine"
    assert not server.requests


def test_plain_data_set(server, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", server.url + "/")
    dataset = replace(DATASETS["tinystories-valid"], num_bytes=len(BODY), sha256=SHA256, remote_bytes=len(BODY))
    assert get_dataset(dataset, tmp_path, progress=False) == tmp_path / "TinyStoriesV2-GPT4-valid.txt"
    assert server.requests[0][0] == "/datasets/roneneldan/TinyStories/resolve/main/TinyStoriesV2-GPT4-valid.txt"


@pytest.mark.parametrize("endpoint", [None, ""])
def test_names_and_families(monkeypatch, endpoint):
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    if endpoint is not None:
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
    assert [dataset.name for dataset in select("owt")] == ["owt-train", "owt-valid"]
    assert [dataset.name for dataset in select("tinystories-valid")] == ["tinystories-valid"]
    assert len(select("all")) == len(DATASETS) == 4
    with pytest.raises(UsageError, match="'imagenet' is unknown; allowed are tinystories-train"):
        select("imagenet")
    assert all(re.fullmatch("[0-9a-f]{64}", dataset.sha256) for dataset in datasets.DATASETS.values())
    assert DATASETS["owt-train"].url.startswith("https://huggingface.co/datasets/stanford-cs336/owt-sample/resolve/")
