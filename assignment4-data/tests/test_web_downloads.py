"""Downloads from a real HTTP server in this process that lays files out as Common Crawl and Hugging Face do."""

import functools
import gzip
import hashlib
import http.server
import random
import threading
from dataclasses import replace

import pytest

from cs336_basics.command_line import UsageError
from cs336_basics.download import part_path
from cs336_data import download_command, downloads
from cs336_data.downloads import (
    MODELS,
    Model,
    get_crawl_files,
    get_model,
    list_crawl_files,
    parse_indices,
    select_models,
    verify_archive,
)
from cs336_data.small_web import write_small_web

CRAWL = "CC-MAIN-2024-22"
QUICK = {"tries": 2, "first_pause_s": 0.01}


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder; `server.cut` cuts the next answers after so many bytes, `server.linked` names checksums."""

    def log_message(self, *args):
        pass

    def do_GET(self):
        self.server.requests.append(self.path)
        try:
            data = open(self.translate_path(self.path), "rb").read()  # noqa: SIM115
        except OSError:
            self.send_error(404)
            return
        start = int((self.headers["Range"] or "bytes=0-")[6:-1])
        self.send_response(206 if start else 200)
        self.send_header("ETag", f'"{hashlib.md5(data).hexdigest()}"')
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        if self.server.linked:
            self.send_header("X-Linked-ETag", f'"{self.server.linked}"')
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        end = start + self.server.cut.pop(0) if self.server.cut else len(data)
        self.wfile.write(data[start:end])
        self.close_connection = True


@pytest.fixture
def server(tmp_path):
    """A server of `tmp_path`/server; `server.url` is its address."""
    folder = tmp_path / "server"
    folder.mkdir()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    server.folder, server.url = folder, f"http://127.0.0.1:{server.server_address[1]}"
    server.requests, server.cut, server.linked = [], [], ""
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def crawl(server):
    """The server with a crawl of three archives; their paths in its list."""
    folder = server.folder / "crawl-data" / CRAWL
    for path in write_small_web(folder / "segments/1/warc", num_pages=9, pages_per_file=3):
        assert path.stat().st_size
    for kind in ("warc", "wet"):
        names = sorted(
            str(path.relative_to(server.folder))
            for path in folder.rglob("*.gz")
            if path.name.endswith(".warc.gz" if kind == "warc" else ".wet.gz")
        )
        (folder / f"{kind}.paths.gz").write_bytes(gzip.compress("\n".join(names).encode()))
    return server


def fetch(server, folder, indices, kind="wet", **options):
    return get_crawl_files(CRAWL, kind, indices, folder, base_url=server.url, progress=False, **QUICK, **options)


def test_files_by_crawl_kind_and_index(crawl, tmp_path):
    paths = fetch(crawl, tmp_path / "data", [2, 0], verify=True)
    assert [path.name for path in paths] == ["small-web-00002.warc.wet.gz", "small-web-00000.warc.wet.gz"]
    listed = list_crawl_files(CRAWL, "wet", tmp_path / "data", base_url=crawl.url)
    assert len(listed) == 3
    for path, index in zip(paths, (2, 0), strict=True):
        assert path.read_bytes() == (crawl.folder / listed[index]).read_bytes()
    asked = len(crawl.requests)
    assert fetch(crawl, tmp_path / "data", [0, 2]) == paths[::-1]  # all there: nothing is asked for again
    assert len(crawl.requests) == asked


def test_a_broken_transfer_goes_on_where_it_stopped(crawl, tmp_path):
    source = next((crawl.folder / "crawl-data").rglob("*00000.warc.gz"))
    record = b"WARC/1.0\r\nWARC-Type: resource\r\nContent-Length: 3000000\r\n\r\n%s\r\n\r\n"
    source.write_bytes(source.read_bytes() + gzip.compress(record % random.Random(0).randbytes(3_000_000)))
    list_crawl_files(CRAWL, "warc", tmp_path, base_url=crawl.url)
    crawl.cut = [1_500_000, 0, 0]
    with pytest.raises(UsageError, match="cannot be fetched"):
        fetch(crawl, tmp_path, [0], "warc")
    (part,) = (tmp_path / CRAWL).glob("*.part")
    arrived = part.stat().st_size
    assert 1_000_000 < arrived <= 1_500_000
    (path,) = fetch(crawl, tmp_path, [0], "warc", verify=True)
    assert path.read_bytes() == source.read_bytes()
    assert not part.exists()


def test_damaged_archives_and_lists_are_removed(crawl, tmp_path):
    source = next((crawl.folder / "crawl-data").rglob("*00001.warc.gz"))
    data = bytearray(source.read_bytes())
    data[len(data) // 2] ^= 0xFF
    source.write_bytes(data)
    with pytest.raises(UsageError, match=r"is damaged and was removed \(1: .*download it again"):
        fetch(crawl, tmp_path, [1], "warc", verify=True)
    assert not list((tmp_path / CRAWL).glob("*00001*.gz"))
    page = tmp_path / "page.html"
    page.write_text("<html>")
    with pytest.raises(UsageError, match="is damaged"):
        verify_archive(page)
    (tmp_path / CRAWL / "wet.paths.gz").write_bytes(b"\x1f\x8b\x08 no list")
    with pytest.raises(UsageError, match="is damaged and was removed"):
        list_crawl_files(CRAWL, "wet", tmp_path, base_url=crawl.url)
    assert len(list_crawl_files(CRAWL, "wet", tmp_path, base_url=crawl.url)) == 3


def test_wrong_names_and_indices(crawl, tmp_path):
    with pytest.raises(UsageError, match="index 3 is out of range; CC-MAIN-2024-22 has wet files 0 to 2"):
        fetch(crawl, tmp_path, [0, 3])
    with pytest.raises(UsageError, match=r"crawl '\.\./etc' is no name of a crawl; they look like CC-MAIN-2024-22"):
        list_crawl_files("../etc", "wet", tmp_path)
    with pytest.raises(UsageError, match="kind 'pdf' is unknown; allowed are warc, wet, wat"):
        list_crawl_files(CRAWL, "pdf", tmp_path)
    with pytest.raises(UsageError, match="answers with status 404"):
        list_crawl_files("CC-MAIN-1999-01", "wet", tmp_path, base_url=crawl.url)


def test_lists_of_indices():
    assert parse_indices("0") == [0]
    assert parse_indices("3, 0-2,2-5") == [3, 0, 1, 2, 4, 5]
    for wrong in ("", "a", "1-", "-3", "1,,2", "1.5"):
        with pytest.raises(UsageError, match="is no list of indices; they look like 0,3,10-19"):
            parse_indices(wrong)
    with pytest.raises(UsageError, match="range '5-2' runs backwards"):
        parse_indices("5-2")


BODY = random.Random(0).randbytes(200_000)


def make_model(server, **changes):
    (server.folder / "model.bin").write_bytes(BODY)
    model = Model("m.bin", f"{server.url}/model.bin", len(BODY), hashlib.sha256(BODY).hexdigest(), "a", "b")
    return replace(model, **changes)


def test_model_with_a_known_checksum(server, tmp_path):
    server.cut = [150_000]
    model = make_model(server)
    path = get_model(model, tmp_path / "models", progress=False, **QUICK)
    assert path.read_bytes() == BODY
    assert len(server.requests) == 2
    assert get_model(model, tmp_path / "models", progress=False) == path  # checked again, not fetched
    assert len(server.requests) == 2
    path.write_bytes(b"x" + BODY[1:])
    with pytest.raises(UsageError, match="is there but is not"):
        get_model(model, tmp_path / "models", progress=False)
    with pytest.raises(UsageError, match="the download was thrown away"):
        get_model(replace(model, sha256="0" * 64), tmp_path / "other", progress=False, **QUICK)
    assert not (tmp_path / "other" / "m.bin").exists()


def test_model_whose_checksum_only_the_server_knows(server, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", server.url + "/")
    model = make_model(server, url="https://huggingface.co/model.bin", sha256=None)
    server.linked = "0" * 64
    with pytest.raises(UsageError, match="the download was thrown away"):
        get_model(model, tmp_path, progress=False, **QUICK)
    server.linked = hashlib.sha256(BODY).hexdigest()
    assert get_model(model, tmp_path, progress=False, **QUICK).read_bytes() == BODY


def test_model_names():
    assert [model.file_name for model in select_models(["all"])] == list(MODELS)
    assert select_models(["lid.176.ftz"]) == [MODELS["lid.176.ftz"]]
    with pytest.raises(UsageError, match=r"model 'gpt' is unknown; allowed are lid\.176\.bin, .* and all"):
        select_models(["gpt"])


def test_command(crawl, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = make_model(crawl)
    monkeypatch.setattr(downloads, "MODELS", {model.file_name: model})
    monkeypatch.setattr(download_command, "MODELS", {model.file_name: model})
    part_path(tmp_path / "data/models/m.bin").parent.mkdir(parents=True)
    part_path(tmp_path / "data/models/m.bin").write_bytes(b"x" * 100_000)
    download_command.main([])
    assert "50 % there" in capsys.readouterr().out
    download_command.main(["--models", "m.bin"])
    download_command.main(["--crawl", CRAWL, "--index", "0-1", "--base_url", crawl.url, "--verify"])
    printed = capsys.readouterr().out.split()
    assert printed[0] == "data/models/m.bin"
    assert [line.rpartition("/")[2] for line in printed[1:]] == [f"small-web-0000{n}.warc.wet.gz" for n in (0, 1)]
    download_command.main([])
    assert "present" in capsys.readouterr().out
