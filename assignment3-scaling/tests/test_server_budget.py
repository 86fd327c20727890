"""No budget is overspent, lost or spent twice: fifty clients at once, kills, any interleaving of a queue's life."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from sqlalchemy import select

from cs336_scaling.schemas.edition_2026 import TrainingConfig
from cs336_scaling.server.accounts import add_user, find_account
from cs336_scaling.server.leases import LeaseLost
from cs336_scaling.server.refusal import Refusal
from cs336_scaling.server.services import Services
from cs336_scaling.server.settings import ServerSettings, TrainSettings
from cs336_scaling.server.tables import ExperimentRow

from .training_configs import architecture, training_config

CLIENTS = 50
GUARD_SECONDS = 600
"""Against hanging; no measure of speed."""
PROGRAM = Path(__file__).parents[1] / "scripts" / "server.py"


class Server:
    """A real server process."""

    def __init__(self, data_dir, *flags):
        command = [sys.executable, str(PROGRAM), "serve", "--data-dir", str(data_dir), "--port", "0", *flags]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        self.key = None
        for line in self.process.stdout:
            if found := re.search(r"key.*: (\S+)$", line):
                self.key = found[1]
            if found := re.search(r"(http://\S+)/dashboard", line):
                self.url = found[1]
                return
        raise AssertionError(f"the server ended with {self.process.wait()} before it listened")

    def client(self, key):
        # Without TLS there is nothing to verify; loading the certificates takes longer than fifty requests.
        return httpx.Client(base_url=self.url, headers={"X-API-Key": key}, timeout=GUARD_SECONDS, verify=False)

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


@contextmanager
def running_server(data_dir, *flags):
    server = Server(data_dir, *flags)
    try:
        yield server
    finally:
        server.kill()


def _all_at_once(requests):
    """Send all requests at the same moment, each from a thread and over a connection of its own."""
    barrier = threading.Barrier(len(requests))

    def send(request):
        barrier.wait()
        return request()

    with ThreadPoolExecutor(len(requests)) as pool:
        return [future.result() for future in [pool.submit(send, request) for request in requests]]


@pytest.mark.slow
def test_fifty_clients_at_once_never_overspend(tmp_path):
    with running_server(tmp_path, "--speed", "1e-6", "--budget-seconds", "10500") as server:
        clients = [server.client(server.key) for _ in range(CLIENTS)]

        def submission(client, seed):
            body = training_config(max_runtime_seconds=1000, model_seed=seed)
            return lambda: client.post("/submit", json=body)

        answers = _all_at_once([submission(client, seed) for seed, client in enumerate(clients)])
        assert Counter(answer.status_code for answer in answers) == {200: 10, 400: 40}
        left = sorted(answer.json()["budget_summary"]["remaining_seconds"] for answer in answers if answer.is_success)
        assert left == [500 + 1000 * count for count in range(10)], "each one saw all those before it"
        assert clients[0].get("/budget").json()["remaining_seconds"] == 500
        assert len(clients[0].get("/experiments").json()) == 10

        def query(client, width):
            parameters = {"d_model": width, "num_layers": 4, "num_heads": 4, "batch_size": 128,
                          "learning_rate": 1e-3, "train_flops": 3 * 10**17, "api_key": server.key}  # fmt: skip
            return lambda: client.get("/loss", params=parameters)

        answers = _all_at_once([query(client, 64 + index) for index, client in enumerate(clients)])
        assert Counter(answer.status_code for answer in answers) == {200: 6, 400: 44}
        assert clients[0].get("/total_flops_used", params={"api_key": server.key}).json() == 1.8e18


@pytest.mark.slow
def test_fifty_clients_with_one_configuration_make_one_experiment_and_a_kill_loses_nothing(tmp_path):
    flags = ("--speed", "1e-6")
    with running_server(tmp_path, *flags) as server:
        key = server.key
        clients = [server.client(key) for _ in range(CLIENTS)]
        answers = _all_at_once(
            [lambda client=client: client.post("/submit", json=training_config()) for client in clients]
        )
        assert Counter(answer.status_code for answer in answers) == {200: 1, 409: 49}
        query = {"d_model": 64, "num_layers": 4, "num_heads": 4, "batch_size": 128, "learning_rate": 1e-3,
                 "train_flops": 10**18, "api_key": key}  # fmt: skip
        answers = _all_at_once([lambda client=client: client.get("/loss", params=query) for client in clients])
        assert {answer.text for answer in answers} == {answers[0].text}
        assert answers[0].json()["total_flops_used"] == 1e18
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()
    with running_server(tmp_path, *flags) as restarted:
        assert restarted.key is None, "there is a user already"
        client = restarted.client(key)
        assert client.get("/budget").json()["remaining_seconds"] == 43_200 - 600
        assert [one["status_type"] for one in client.get("/experiments").json()] == ["running"]
        assert client.post("/submit", json=training_config()).status_code == 409
        assert client.get("/loss", params=query).text == answers[0].text


BUDGET = 100.0
LEASE = 10.0
ATTEMPTS = 2


class QueueLife(RuleBasedStateMachine):
    """Clients submit, workers claim, report, finish, run out of time, come late and die, in any order.

    Beside the real books runs a plain model: for each experiment what it reserves, and once it has ended, its charge.
    """

    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.now = 1_800_000_000.0
        chosen = ServerSettings(
            data_dir=Path(self.folder.name), backend="train", budget_seconds=BUDGET,
            train=TrainSettings(tokenizer_vocab_size=300, lease_seconds=LEASE, max_attempts=ATTEMPTS),
        )  # fmt: skip
        self.services = Services.open(chosen, lambda: self.now)
        self.account = find_account(self.services.database, add_user(self.services.database, chosen, "ada"))
        self.reserved, self.charged = {}, {}
        self.submitted = set()
        self.held, self.given_up = [], []
        self.seed = 0

    def teardown(self):
        self.services.database.close()
        self.folder.cleanup()

    def _config(self, seconds, seed):
        return TrainingConfig.model_validate(
            training_config(
                architecture_config=architecture(vocab_size=300), max_runtime_seconds=seconds, model_seed=seed
            )
        )

    @rule(seconds=st.sampled_from([1.0, 10.0, 33.0, 60.0]), seed=st.integers(0, 3))
    def submit(self, seconds, seed):
        used = sum(self.reserved.values()) + sum(self.charged.values())
        known, config = (seconds, seed) in self.submitted, self._config(seconds, seed)
        if known or used + seconds > BUDGET:
            with pytest.raises(Refusal) as refusal:
                self.services.experiments.submit(self.account, config)
            assert refusal.value.status == (409 if known else 400)
            return
        answer = self.services.experiments.submit(self.account, config)
        self.reserved[answer.experiment_id] = seconds
        self.submitted.add((seconds, seed))

    @precondition(lambda self: len(self.held) < len(self.reserved))
    @rule()
    def claim(self):
        claim = self.services.leases.claim("worker")
        assert claim.experiment_id in self.reserved
        assert claim.experiment_id not in [other.experiment_id for other in self.held]
        self.held.append(claim)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), runtime=st.floats(0, 100), validations=st.integers(0, 3))
    def report(self, data, runtime, validations):
        claim = data.draw(st.sampled_from(self.held))
        self.services.leases.renew(claim, runtime, [1.0] * validations, list(range(validations)))

    @precondition(lambda self: self.held)
    @rule(
        data=st.data(), runtime=st.floats(0, 100), ending=st.sampled_from([None, "timed_out", "diverged", "error"])
    )  # fmt: skip
    def finish(self, data, runtime, ending):
        claim = data.draw(st.sampled_from(self.held))
        self.services.leases.finish(claim, runtime, [1.0] * 4, [1, 2, 3, 4], ending, "")
        self.held.remove(claim)
        self.given_up.append(claim)
        limit = self.reserved[claim.experiment_id]
        self._end(claim.experiment_id, limit if ending == "timed_out" else min(max(runtime, 1.0), limit))
        if ending == "error":
            self.submitted.discard((claim.config.max_runtime_seconds, claim.config.model_seed))

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def give_back(self, data):
        claim = data.draw(st.sampled_from(self.held))
        self.services.leases.give_back(claim, 1.0, [], [])
        self.held.remove(claim)
        self.given_up.append(claim)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), survivors_renew=st.booleans())
    def a_worker_is_killed(self, data, survivors_renew):
        """Time passes until its lease is over; the others report meanwhile, or die with it."""
        victim = data.draw(st.sampled_from(self.held))
        dead = [victim] if survivors_renew else list(self.held)
        for _ in range(3):
            self.now += LEASE / 2
            for claim in self.held:
                if claim not in dead:
                    self.services.leases.renew(claim, 1.0, [], [])
        self.held = [claim for claim in self.held if claim not in dead]
        self.given_up += dead
        self._settle()

    @precondition(lambda self: self.given_up)
    @rule(data=st.data(), ending=st.sampled_from([None, "timed_out", "error"]))
    def a_dead_worker_reports_late(self, data, ending):
        claim = data.draw(st.sampled_from(self.given_up))
        for late in (
            lambda: self.services.leases.renew(claim, 50.0, [0.5] * 9, list(range(9))),
            lambda: self.services.leases.finish(claim, 50.0, [0.5] * 9, list(range(9)), ending, ""),
            lambda: self.services.leases.give_back(claim, 50.0, [], []),
        ):
            with pytest.raises(LeaseLost):
                late()

    def _settle(self):
        """Let the books take experiments back from the dead; those that cost too many workers end here."""
        self.services.experiments.settle()
        with self.services.database.reading() as session:
            for row in session.scalars(select(ExperimentRow).where(ExperimentRow.failure_reason == "error")):
                if row.id in self.reserved:
                    self.submitted.discard((row.max_runtime_seconds, row.config["model_seed"]))
                    assert row.attempts >= ATTEMPTS
                    self._end(row.id, min(max(row.runtime_seconds, 1.0), self.reserved[row.id]))

    def _end(self, experiment_id, charge):
        del self.reserved[experiment_id]
        self.charged[experiment_id] = charge

    @invariant()
    def the_budget_holds_and_is_what_the_experiments_say(self):
        self._settle()
        budget = self.services.experiments.budget(self.account)
        expected = sum(self.reserved.values()) + sum(self.charged.values())
        assert budget.used_seconds == pytest.approx(expected)
        assert budget.used_seconds <= BUDGET + 1e-9
        assert budget.used_seconds + budget.remaining_seconds == pytest.approx(BUDGET)

    @invariant()
    def every_experiment_is_charged_once(self):
        seen = {one.experiment_id: one for one in self.services.experiments.all(self.account)}
        assert seen.keys() == self.reserved.keys() | self.charged.keys()
        for name, one in seen.items():
            finished = one.status_type in ("completed", "failed")
            assert finished == (name in self.charged)
            assert one.charged_seconds == (pytest.approx(self.charged[name]) if finished else None)
            assert one.reserved_seconds == (0 if finished else self.reserved[name])
            assert finished or (one.status_type == "running") == (
                name in [claim.experiment_id for claim in self.held]
            )  # fmt: skip


TestQueueLife = pytest.mark.slow(QueueLife.TestCase)
# Every step is several transactions on a disk: looking for a shorter failing story would take minutes.
TestQueueLife.settings = settings(
    deadline=None, derandomize=True, max_examples=12, stateful_step_count=25, phases=[Phase.explicit, Phase.generate]
)
