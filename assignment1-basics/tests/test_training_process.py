"""What training keeps of the process and the machine it runs in: random states, signals, peak FLOP/s."""

import io
import os
import random
import signal
import threading

import numpy as np
import pytest
import torch

from cs336_basics import nn_utils
from cs336_basics.model.functional import softmax
from cs336_basics.trainer import utils
from cs336_basics.trainer.interrupts import StopRequest
from cs336_basics.trainer.peak_flops import nvidia_peak_flops, peak_flops
from cs336_basics.trainer.random_state import capture_random_state, restore_random_state


def _draw():
    return random.random(), random.gauss(0, 1), np.random.standard_normal(3).tolist(), torch.randn(3).tolist()


def test_every_generator_goes_on_where_it_was():
    random.gauss(0, 1)  # leaves a second value waiting, which is part of the state
    np.random.standard_normal(1)
    file = io.BytesIO()
    torch.save(capture_random_state(), file)
    expected = _draw()
    assert _draw() != expected
    file.seek(0)
    restore_random_state(torch.load(file, weights_only=True))
    assert _draw() == expected


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_the_second_acts(number):
    received = []
    before = signal.signal(number, lambda *_: received.append("earlier handler"))
    try:
        with StopRequest() as stop:
            assert not stop.requested
            os.kill(os.getpid(), number)
            assert stop.requested
            assert received == []
            os.kill(os.getpid(), number)
            assert received == ["earlier handler"]
        with StopRequest() as stop:
            pass
        os.kill(os.getpid(), number)
        assert received == ["earlier handler"] * 2
    finally:
        signal.signal(number, before)


def test_another_thread_than_the_main_one_can_train():
    outcome = []

    def work():
        with StopRequest() as stop:
            outcome.append(stop.requested)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert outcome == [False]


@pytest.mark.parametrize(
    ("name", "dtype", "teraflops"),
    [
        ("NVIDIA H200", torch.bfloat16, 989),
        ("NVIDIA GH200 480GB", torch.bfloat16, 989),
        ("NVIDIA H100 PCIe", torch.float16, 756),
        ("NVIDIA A100-SXM4-80GB", torch.float32, 19.5),
        ("NVIDIA A10G", torch.bfloat16, 70),
        ("NVIDIA A10", torch.bfloat16, 125),
        ("NVIDIA L4", torch.bfloat16, 121),
        ("NVIDIA L40S", torch.bfloat16, 362),
        ("Tesla T4", torch.float16, 65),
        ("NVIDIA L40", torch.bfloat16, None),
        ("Some new GPU", torch.bfloat16, None),
    ],
)
def test_peaks_of_known_gpus(name, dtype, teraflops):
    assert nvidia_peak_flops(name, dtype) == (teraflops and teraflops * 1e12)


def test_the_cpu_s_peak_is_measured_once_and_leaves_the_random_state_alone():
    before = torch.get_rng_state()
    peak = peak_flops(torch.device("cpu"), torch.float32)
    assert 1e8 < peak < 1e15
    assert peak_flops(torch.device("cpu"), torch.float32) == peak
    assert torch.equal(torch.get_rng_state(), before)


def test_the_course_s_import_names():
    assert nn_utils.softmax is softmax
    assert nn_utils.cross_entropy is utils.cross_entropy
    assert nn_utils.clip_gradient is utils.clip_gradient
