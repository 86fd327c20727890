"""Downloads of benchmarks from a real HTTP server in this process."""

import functools
import gzip
import hashlib
import http.server
import io
import tarfile
import threading
from dataclasses import replace

import pytest

from cs336_alignment.evaluation import downloads
from cs336_alignment.evaluation.download_command import main
from cs336_alignment.evaluation.downloads import FILES, get_file, select_files
from cs336_alignment.evaluation.tasks import find_task
from cs336_basics.command_line import UsageError, run_command
from cs336_basics.download import part_path

QUICK = {"tries": 1, "first_pause_s": 0.01, "progress": False}


@pytest.fixture
def server(tmp_path):
    """A server of `server.folder` at `server.url`."""
    folder = tmp_path / "server"
    folder.mkdir()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.folder, server.url = folder, f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def serve(server, file, content, **changes):
    """The file as the server has it."""
    name = file.url.rpartition("/")[2]
    (server.folder / name).write_bytes(content)
    return replace(file, url=f"{server.url}/{name}", **changes)


def test_a_benchmark_comes_once_and_is_checked(server, tmp_path):
    content = b'{"question": "1+1?", "answer": "#### 2"}\n'
    known = {"sha256": hashlib.sha256(content).hexdigest(), "examples": 1}
    file = serve(server, FILES["gsm8k_test"], content, **known)
    path = get_file(file, tmp_path / "data", **QUICK)
    assert path.read_bytes() == content
    (server.folder / "test.jsonl").unlink()
    assert get_file(file, tmp_path / "data", **QUICK) == path, "it is there already"
    path.write_bytes(content * 2)
    with pytest.raises(UsageError, match="another checksum"):
        get_file(file, tmp_path / "data", **QUICK)
    path.unlink()
    with pytest.raises(UsageError, match="status 404"):
        get_file(file, tmp_path / "data", **QUICK)
    wrong = serve(server, FILES["gsm8k_test"], content + b"\n", **known)
    with pytest.raises(UsageError, match=r"SHA-256 .* was thrown away"):
        get_file(wrong, tmp_path / "data", **QUICK)
    assert not path.exists()


def test_a_benchmark_of_another_size_is_refused(server, tmp_path):
    file = serve(server, FILES["math500"], b'{"problem": "1+1?", "answer": "2"}\n')
    with pytest.raises(UsageError, match=r"has 1 examples instead of 500; what came is in .*\.wrong"):
        get_file(file, tmp_path, **QUICK)
    assert not (tmp_path / file.path).exists()


def test_mmlu_is_unpacked(server, tmp_path):
    memory = io.BytesIO()
    with tarfile.open(fileobj=memory, mode="w") as packed:
        for name in ("data/test/a_test.csv", "data/dev/a_dev.csv", "data/test/._a_test.csv", "data/../../x_test.csv"):
            content = b"Q?,1,2,3,4,A\n"
            member = tarfile.TarInfo(name)
            member.size = len(content)
            packed.addfile(member, io.BytesIO(content))
    file = serve(server, FILES["mmlu"], memory.getvalue(), examples=1)
    folder = get_file(file, tmp_path / "data", **QUICK)
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*.csv")) == [
        "dev/a_dev.csv",
        "test/a_test.csv",
    ]
    assert len(find_task("mmlu").load(folder)) == 1
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["mmlu", "mmlu.tar.download.json"]
    damaged = serve(server, FILES["mmlu"], b"no archive", examples=1)
    with pytest.raises(UsageError, match="damaged and was removed"):
        get_file(damaged, tmp_path / "other", **QUICK)


def test_hugging_face_has_mirrors(server, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", server.url + "/")
    path = server.folder / "datasets/tatsu-lab/alpaca_eval/resolve/main/alpaca_eval.json"
    path.parent.mkdir(parents=True)
    path.write_text('[{"instruction": "Hi", "output": "Hello"}]')
    got = get_file(replace(FILES["alpaca_eval"], examples=1), tmp_path / "data", **QUICK)
    assert len(find_task("alpaca_eval").load(got)) == 1


def test_checksums_are_those_of_the_real_files(shared_data):
    folder = shared_data / "alignment"
    for name, local in (
        ("gsm8k_test", "gsm8k_test.jsonl"),
        ("gsm8k_train", "gsm8k_train.jsonl"),
        ("simple_safety_tests", "simple_safety_tests.csv"),
        ("hh_harmless-base_test", "hh_harmless-base_test.jsonl.gz"),
    ):
        assert hashlib.sha256((folder / local).read_bytes()).hexdigest() == FILES[name].sha256
    for name, local in (("gsm8k_test", "gsm8k_test.jsonl"), ("math500", "math500_test.jsonl")):
        assert len(find_task(FILES[name].task).load(folder / local)) == FILES[name].examples


def test_names(server):
    assert select_files([]) == []
    assert [file.name for file in select_files(["gsm8k"])] == ["gsm8k_test", "gsm8k_train"]
    assert len(select_files(["hh"])) == 8
    assert select_files(["all"]) == list(FILES.values())
    with pytest.raises(UsageError, match=r"'mmlu_pro' is unknown; allowed are all, gsm8k, hh, gsm8k_test"):
        select_files(["mmlu_pro"])


def test_the_command(server, tmp_path, monkeypatch, capsys):
    main(["--data_dir", str(tmp_path / "data")])
    listing = capsys.readouterr().out.splitlines()
    assert len(listing) == len(FILES)
    assert all("not there" in line for line in listing)
    packed = gzip.compress(b"{}\n")
    file = serve(server, FILES["hh_helpful-base_test"], packed)
    monkeypatch.setitem(downloads.FILES, file.name, file)
    run_command(main, ["hh_helpful-base_test", "--data_dir", str(tmp_path / "data")])
    assert (tmp_path / "data" / "hh" / "helpful-base_test.jsonl.gz").read_bytes() == packed
    part_path(tmp_path / "data" / "mmlu.tar").write_bytes(b"x" * 200_000)
    capsys.readouterr()
    main(["--data_dir", str(tmp_path / "data")])
    states = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert " there " in states["hh_helpful-base_test"]
    assert "0.2 MB arrived" in states["mmlu"]
    with pytest.raises(SystemExit):
        run_command(main, ["nothing"])
    assert "'nothing' is unknown" in capsys.readouterr().err
