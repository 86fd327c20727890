"""The `cs336` command: help, errors, `data` and `doctor`."""

import hashlib
import http.server
import os
import subprocess
import sys
import threading
from dataclasses import replace
from functools import partial

import pytest
from typer.testing import CliRunner

from cs336 import cli, doctor
from cs336.doctor import Finding
from cs336_basics import datasets


def call(*arguments):
    """Run the command as its entry point does; return its exit code."""
    try:
        cli.run_command(lambda argv: cli.app(argv, prog_name="cs336"), list(arguments))
    except SystemExit as ended:
        return ended.code or 0
    return 0


def test_help_lists_the_commands():
    result = CliRunner().invoke(cli.app, ["--help"])
    assert result.exit_code == 0
    assert all(name in result.output for name in ("quickstart", "doctor", "data"))
    options = CliRunner().invoke(cli.app, ["quickstart", "--help"]).output
    assert all(option in options for option in ("--out", "--minutes", "--text", "--device", "--seed"))


def test_help_imports_nothing_heavy():
    program = (
        "import sys; import cs336.cli as c\n"
        "try: c.app(['--help'])\n"
        "except SystemExit: pass\n"
        "print([name for name in ('torch', 'numba', 'numpy', 'matplotlib', 'requests') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip().endswith("[]")


def test_the_console_command_is_installed():
    command = [sys.executable, "-c", "from importlib.metadata import entry_points as e; print(e(name='cs336'))"]
    assert "cs336.cli:main" in subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data", "get", "imagenet"], "error: data set 'imagenet' is unknown; allowed are tinystories-train"),
        (["quickstart", "--minutes", "soon"], "Invalid value for '--minutes'"),
        (["quickstar"], "No such command 'quickstar'"),
        (["quickstart", "--text"], "requires an argument"),
    ],
)
def test_bad_input_ends_with_code_2(arguments, message, capsys):
    assert call(*arguments) == 2
    printed = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert message in printed
    assert "Traceback" not in printed


def test_data_get_into_a_file_is_refused(tmp_path, capsys):
    taken = tmp_path / "notes.txt"
    taken.write_text("mine")
    assert call("data", "get", "tinystories-valid", "--out", str(taken)) == 2
    assert capsys.readouterr().err == f"error: {taken}: File exists\n"
    assert taken.read_text() == "mine"


def test_data_list_says_what_is_here(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "160")
    (tmp_path / "TinyStoriesV2-GPT4-valid.txt").write_text("too short")
    (tmp_path / "owt_valid.txt.gz.part").write_bytes(bytes(2_300_000))
    assert call("data", "list", "--out", str(tmp_path)) == 0
    lines = {line.split("│")[1].strip(): line for line in capsys.readouterr().out.splitlines() if "│" in line}
    assert "wrong size" in lines["tinystories-valid"]
    assert "2 % downloaded" in lines["owt-valid"]
    assert "not there" in lines["owt-train"]
    assert "11.92 GB" in lines["owt-train"]


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """A server that stands in for the hub and has TinyStories' validation file with other content."""
    text = b"A story.\n<|endoftext|>\n"
    folder = tmp_path / "mirror" / "datasets" / "roneneldan" / "TinyStories" / "resolve" / "main"
    folder.mkdir(parents=True)
    (folder / "TinyStoriesV2-GPT4-valid.txt").write_bytes(text)
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / "mirror"))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
    yield text
    server.shutdown()
    thread.join()
    server.server_close()


def test_data_get_refuses_other_bytes(mirror, tmp_path, capfd):
    assert call("data", "get", "tinystories-valid", "--out", str(tmp_path / "data")) == 2
    error = capfd.readouterr().err
    assert f"{hashlib.sha256(mirror).hexdigest()}, but 6874bae9" in error
    assert not list((tmp_path / "data").iterdir())


def test_data_get_fetches_and_says_where(mirror, tmp_path, monkeypatch, capsys):
    name = "tinystories-valid"
    right = {"num_bytes": len(mirror), "remote_bytes": len(mirror), "sha256": hashlib.sha256(mirror).hexdigest()}
    monkeypatch.setitem(datasets.DATASETS, name, replace(datasets.DATASETS[name], **right))
    assert call("data", "get", name, name, "--out", str(tmp_path / "data")) == 0
    assert capsys.readouterr().out.count("checksum right") == 1
    assert (tmp_path / "data" / "TinyStoriesV2-GPT4-valid.txt").read_bytes() == mirror


def test_data_folder_is_that_of_assignment_1(tmp_path, monkeypatch):
    from cs336.data import data_folder

    monkeypatch.chdir(tmp_path)
    assert str(data_folder(None)) == "data"
    (tmp_path / "assignment1-basics").mkdir()
    assert str(data_folder(None)) == "assignment1-basics/data"
    assert data_folder(tmp_path) == tmp_path


@pytest.mark.slow
def test_doctor_finds_this_environment_ready(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "160")
    assert call("doctor") == 0
    printed = capsys.readouterr().out
    assert all(
        part in printed for part in ("Python", "torch", "GPU", "torch.compile", "numba", "wandb", "vllm", "Disk")
    )
    assert "Ready." in printed
    assert "could not be checked" not in printed


def test_doctor_fails_when_a_needed_part_is_broken(monkeypatch, capsys):
    broken = Finding("torch", "missing", "libcudart.so.13: cannot open shared object file", "uv sync --all-packages")
    monkeypatch.setattr(doctor, "CHECKS", (doctor._python, lambda: broken))
    assert call("doctor") == 1
    printed = capsys.readouterr().out
    assert "Not ready: torch" in printed
    assert "uv sync" in printed


def test_doctor_survives_a_check_that_fails(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "160")

    def _odd_part():
        raise RuntimeError("driver too old")

    monkeypatch.setattr(doctor, "CHECKS", (_odd_part,))
    assert call("doctor") == 0
    assert "could not be checked: RuntimeError: driver too old" in capsys.readouterr().out


def test_doctor_names_a_missing_compiler(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    finding = doctor._compiler()
    assert finding.state == "optional"
    assert "g++" in finding.advice or "xcode-select" in finding.advice


def test_doctor_sees_a_cache_folder_it_cannot_write(tmp_path):
    (tmp_path / "file").write_text("no folder can be made below this")
    program = "from cs336.doctor import _numba; found = _numba(); print(found.state, found.found, found.advice)"
    for folder, state in ((tmp_path / "file" / "below", "optional"), (tmp_path / "new", "ok")):
        environment = os.environ | {"NUMBA_CACHE_DIR": str(folder)}
        run = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
        )
        assert run.stdout.startswith(f"{state} ")
        assert str(folder) in run.stdout
        assert ("export NUMBA_CACHE_DIR" in run.stdout) == (state == "optional")
