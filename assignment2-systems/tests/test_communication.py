"""The communication benchmark: it measures real groups, checks what they compute, and goes on where it stopped."""

import csv
import dataclasses
import json

import pytest
import torch
import torch.distributed as dist

from cs336_basics.command_line import UsageError
from cs336_systems.communication.collectives import COLLECTIVES, collective
from cs336_systems.communication.command import main
from cs336_systems.communication.measure import Case, available_memory
from cs336_systems.communication.report import Measurement, make_table

CPU = torch.device("cpu")


@pytest.fixture
def group_of_one():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def _rows(folder):
    with open(folder / "communication.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_every_collective_is_measured_once_and_what_is_missing_is_measured_later(tmp_path, capsys):
    """The whole program, with real processes. Each case's result is checked on every rank before it is timed."""
    arguments = ["--collectives", *COLLECTIVES, "--sizes", "0.05", "1", "1e9", "--processes", "3", "--device", "cpu"]
    arguments += ["--warm_up", "1", "--repeats", "3", "--out_dir", str(tmp_path)]
    main(arguments)
    rows = _rows(tmp_path)
    assert [(row["collective"], float(row["size (MB)"])) for row in rows] == [
        (name, size) for name in COLLECTIVES for size in (0.05, 1, 1e9)
    ]
    log = tmp_path / "results.jsonl"
    first = log.read_text()
    results = {
        (e["case"]["collective"], e["case"]["size"]): e["result"]["seconds"]
        for e in map(json.loads, first.splitlines())
    }
    for row in rows:
        size = float(row["size (MB)"])
        if size == 1e9:  # a petabyte
            assert row["note"].startswith("does not fit: needs ")
            assert row["median time (ms)"] == ""
            continue
        seconds = sorted(results[row["collective"], int(size * 1e6)])
        assert len(seconds) == 3
        assert float(row["median time (ms)"]) == pytest.approx(1e3 * seconds[1])
        assert float(row["algorithm GB/s"]) == pytest.approx(size / 1e3 / seconds[1])
        factor = {"all-reduce": 4 / 3, "broadcast": 1}.get(row["collective"], 2 / 3)
        assert float(row["bus GB/s"]) == pytest.approx(factor * float(row["algorithm GB/s"]))
    assert "| all-reduce " in (tmp_path / "communication.md").read_text()
    assert (tmp_path / "communication.png").read_bytes().startswith(b"\x89PNG")
    assert "| all-reduce " in capsys.readouterr().out

    kept = first.splitlines(keepends=True)
    log.write_text("".join(kept[:4] + kept[5:]) + '{"case": {"colle')  # one is missing, one was cut off by a kill
    main(arguments)
    second = log.read_text().splitlines(keepends=True)
    assert second[:-1] == kept[:4] + kept[5:]
    assert json.loads(second[-1])["case"] == json.loads(kept[4])["case"]


def test_a_wrong_result_is_no_measurement(group_of_one):
    for kind in COLLECTIVES.values():
        buffers = kind.buffers(400, torch.float32, CPU)
        kind.check(buffers)
        # On one rank, an all-reduce that does nothing would be right: let it spoil the values.
        broken = dataclasses.replace(kind, run=lambda b: b.got.fill_(7))
        with pytest.raises(ArithmeticError, match=rf"{kind.name} on rank 0 gave \(7, 7\) instead of \(1, 1\)"):
            broken.check(buffers)


@pytest.mark.parametrize("name", COLLECTIVES)
def test_memory_covers_the_buffers(name, group_of_one):
    buffers = collective(name).buffers(4000, torch.float32, CPU)
    tensors = {id(tensor): tensor.numel() * tensor.element_size() for tensor in (buffers.given, buffers.got)}
    assert sum(tensors.values()) == collective(name).memory(4000, 1, "nccl") <= collective(name).memory(4000, 1, "gloo")


def test_more_processes_leave_less_memory_to_each():
    assert available_memory(CPU, 1) > available_memory(CPU, 4) > available_memory(CPU, 10**6)


def test_a_case_out_of_memory_is_a_row():
    case = Case("all-reduce", 10**6, 2, "nccl", "float32", 1, 1)
    table = make_table([Measurement(case, [], "out of memory")])
    assert table.rows == [["all-reduce", 2, 1.0, None, None, None, "out of memory"]]
    assert "out of memory" in table.markdown()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--processes", "1"], "processes is 1; allowed is any finite number of at least 2"),
        (["--sizes", "0"], r"sizes is 0.0; allowed is any finite number"),
        (["--sizes", "inf"], r"sizes is inf"),
        (["--repeats", "0"], "repeats is 0"),
        (["--device", "cuda:x"], "device 'cuda:x' is unknown"),
    ],
)
def test_bad_values_are_named_before_anything_is_written(arguments, named, tmp_path):
    with pytest.raises(UsageError, match=named):
        main(
            [*arguments, "--out_dir", str(tmp_path / "out")]
            + (["--device", "cpu"] if "--device" not in arguments else [])
        )
    assert not (tmp_path / "out").exists()


def test_an_unknown_collective_is_refused():
    with pytest.raises(UsageError, match="'gossip' is unknown; allowed are all-reduce, all-gather"):
        collective("gossip")
