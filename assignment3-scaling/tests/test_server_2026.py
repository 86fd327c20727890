"""The Spring 2026 edition of the server, over HTTP: answers, status codes, reservations and final submissions."""

import sqlite3
from hashlib import sha256

import pytest
from fastapi.testclient import TestClient

from cs336_basics.command_line import UsageError
from cs336_scaling.schemas.edition_2026 import Experiment, TrainingConfig
from cs336_scaling.server.accounts import add_user, list_users
from cs336_scaling.server.app import create_app
from cs336_scaling.server.database import Database
from cs336_scaling.server.settings import ServerSettings, TrainSettings
from cs336_scaling.simulate.world import World

from .training_configs import adamw, architecture, schedule, training_config

SEED, BUDGET = 7, 43_200.0
EXPECTED = World.from_seed(SEED).simulate(TrainingConfig.model_validate(training_config()))


class Clock:
    """Time that passes when the test says so."""

    def __init__(self):
        self.now = 1_800_000_000.0

    def __call__(self):
        return self.now


class Api:
    """A server and one user's view of it."""

    def __init__(self, tmp_path, **settings):
        self.clock = Clock()
        self.settings = ServerSettings(data_dir=tmp_path, world_seed=SEED, **settings)
        self.client = TestClient(create_app(self.settings, self.clock))
        self.database = self.client.app.state.services.database
        self.headers = {"X-API-Key": add_user(self.database, self.settings, "ada")}

    def get(self, path):
        return self.client.get(path, headers=self.headers)

    def submit(self, **changes):
        return self.client.post("/submit", json=training_config(**changes), headers=self.headers)

    def remaining(self):
        return self.get("/budget").json()["remaining_seconds"]


@pytest.fixture
def api(tmp_path):
    """Results at once."""
    return Api(tmp_path)


@pytest.fixture
def slow(tmp_path):
    """Simulated seconds pass as fast as the clock, one experiment at a time."""
    return Api(tmp_path, speed=1.0, slots=1)


def test_a_submission_reserves_and_its_end_charges_the_real_runtime(api):
    answer = api.submit()
    assert answer.status_code == 200
    assert answer.json().keys() == {"experiment_id", "budget_summary"}
    assert answer.json()["budget_summary"] == {
        "used_seconds": 600.0, "remaining_seconds": BUDGET - 600, "total_budget_seconds": BUDGET,
    }  # fmt: skip
    seen = api.get(f"/experiment/{answer.json()['experiment_id']}").json()
    assert seen["status_type"] == "completed"
    assert seen["val_losses"] == EXPECTED.val_losses
    assert seen["val_steps"] == EXPECTED.val_steps
    assert seen["final_val_loss"] == EXPECTED.val_losses[-1]
    assert seen["charged_seconds"] == EXPECTED.runtime_seconds
    assert seen["reserved_seconds"] == 0
    assert seen["training_config"]["train_batch_size"] == 64
    assert api.get("/budget").json() == {
        "used_seconds": pytest.approx(EXPECTED.runtime_seconds),
        "remaining_seconds": pytest.approx(BUDGET - EXPECTED.runtime_seconds),
        "total_budget_seconds": BUDGET,
    }


def test_the_answers_are_the_published_models(api):
    api.submit()
    assert [Experiment.model_validate(one).status_type for one in api.get("/experiments").json()] == ["completed"]
    assert TrainingConfig.model_validate(api.get("/experiments").json()[0]["training_config"])


@pytest.mark.parametrize("headers", [{}, {"X-API-Key": ""}, {"X-API-Key": "guess"}])
def test_no_key_and_wrong_keys_are_status_401(api, headers):
    for path in ("/budget", "/experiments", "/experiment/x", "/final_submission"):
        assert api.client.get(path, headers=headers).status_code == 401
    assert api.client.post("/submit", json=training_config(), headers=headers).status_code == 401
    assert list_users(api.database)[0].name == "ada"


def test_the_same_configuration_twice_is_status_409_and_reserves_nothing(api):
    first = api.submit().json()["experiment_id"]
    before = api.remaining()
    again = api.submit()
    assert again.status_code == 409
    assert first in again.json()["detail"]
    assert api.remaining() == before
    assert len(api.get("/experiments").json()) == 1
    assert api.submit(model_seed=1).status_code == 200


def test_over_budget_is_status_400_and_reserves_nothing(api):
    assert api.submit(max_runtime_seconds=43_200).status_code == 200
    before = api.remaining()
    answer = api.submit(max_runtime_seconds=43_200)
    assert answer.status_code == 409
    answer = api.submit(max_runtime_seconds=43_200, model_seed=1)
    assert answer.status_code == 400
    assert "max_runtime_seconds is 43200" in answer.json()["detail"]
    assert api.remaining() == before


@pytest.mark.parametrize(
    ("change", "place", "sentence"),
    [
        ({"n_evals": 7}, [], "must be divisible by n_evals, got 7"),
        ({"extra": 1}, ["extra"], "Extra inputs are not permitted"),
        ({"max_runtime_seconds": 1e6}, ["max_runtime_seconds"], "less than or equal to 43200"),
        ({"architecture_config": architecture(head_dim=32)}, ["architecture_config"], "8 * 32 = 256, got 512"),
        ({"optimizer_config": adamw(lr_scheduler=schedule(peak_value=-1))},
         ["optimizer_config", "adamw", "lr_scheduler", "peak_value"], "greater than or equal to"),
    ],
)  # fmt: skip
def test_invalid_submissions_are_status_422_and_say_where(api, change, place, sentence):
    answer = api.submit(**change)
    assert answer.status_code == 422
    (problem,) = answer.json()["detail"]
    assert problem["loc"] == ["body", *place]
    assert sentence in problem["msg"]
    assert api.remaining() == BUDGET


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"n_evals": NaN}', '{"model_seed": 1e999}', "\ud800"])
def test_bodies_that_are_no_submission_are_status_422(api, text):
    body = text.encode("utf-8", "surrogatepass")
    answer = api.client.post("/submit", content=body, headers={**api.headers, "content-type": "application/json"})
    assert answer.status_code in (400, 422)


def test_numbers_json_does_not_know_are_refused_in_every_place(api):
    import json

    body = json.dumps(training_config(optimizer_config=adamw(weight_decay=float("nan"))))
    answer = api.client.post("/submit", content=body, headers={**api.headers, "content-type": "application/json"})
    assert answer.status_code == 422
    assert "finite" in answer.json()["detail"][0]["msg"]


def test_experiments_queue_run_and_complete_as_time_passes(slow):
    ids = [slow.submit(model_seed=seed).json()["experiment_id"] for seed in range(3)]

    def look():
        return [(one["status_type"], one["queue_position"]) for one in slow.get("/experiments").json()]

    assert look() == [("running", None), ("queued", 1), ("queued", 2)]
    assert slow.remaining() == BUDGET - 1800
    slow.clock.now += EXPECTED.val_seconds[2] + 0.01
    running = slow.get(f"/experiment/{ids[0]}").json()
    assert running["val_losses"] == EXPECTED.val_losses[:3], "what lies in the future is hidden"
    assert running["final_val_loss"] is None
    assert running["reserved_seconds"] == 600
    assert running["charged_seconds"] is None
    slow.clock.now += EXPECTED.runtime_seconds - EXPECTED.val_seconds[2]
    assert look() == [("completed", None), ("running", None), ("queued", 1)]
    assert slow.remaining() == pytest.approx(BUDGET - 1200 - EXPECTED.runtime_seconds)
    slow.clock.now += 10_000
    assert look() == [("completed", None)] * 3
    experiments = slow.get("/experiments").json()
    assert [one["experiment_id"] for one in experiments] == ids
    ends = [one["finished_at"] for one in experiments]
    assert ends == sorted(ends)
    assert slow.remaining() == pytest.approx(BUDGET - sum(one["charged_seconds"] for one in experiments))


def test_a_time_out_is_charged_in_full_and_keeps_its_partial_losses(api):
    limit = EXPECTED.val_seconds[4] + 0.5
    experiment_id = api.submit(max_runtime_seconds=limit).json()["experiment_id"]
    seen = api.get(f"/experiment/{experiment_id}").json()
    assert (seen["status_type"], seen["failure_reason"]) == ("failed", "timed_out")
    assert seen["val_losses"] == EXPECTED.val_losses[:5]
    assert seen["final_val_loss"] is None
    assert seen["charged_seconds"] == limit
    assert f"max_runtime_seconds = {limit:g}" in seen["message"]


def test_a_diverged_experiment_fails_and_is_charged_until_it_did(api):
    optimizer = adamw(lr_scheduler=schedule(peak_value=1.0))
    experiment_id = api.submit(optimizer_config=optimizer).json()["experiment_id"]
    seen = api.get(f"/experiment/{experiment_id}").json()
    assert (seen["status_type"], seen["failure_reason"]) == ("failed", "diverged")
    assert 1 <= seen["charged_seconds"] < EXPECTED.runtime_seconds
    assert len(seen["val_losses"]) < 10


def test_users_see_and_spend_only_their_own(api):
    mine = api.submit().json()["experiment_id"]
    other = {"X-API-Key": add_user(api.database, api.settings, "bob")}
    assert api.client.get(f"/experiment/{mine}", headers=other).status_code == 404
    assert api.client.get("/experiments", headers=other).json() == []
    assert api.client.get("/budget", headers=other).json()["remaining_seconds"] == BUDGET
    assert api.client.post("/submit", json=training_config(), headers=other).status_code == 200
    assert api.get("/experiment/nothing").status_code == 404


def test_the_last_final_submission_counts(api):
    assert api.get("/final_submission").status_code == 404
    target = training_config(max_runtime_seconds=172_800)
    for loss in (2.5, 2.25):
        answer = api.client.post(
            "/final_submission", json={"training_config": target, "predicted_final_loss": loss}, headers=api.headers
        )
        assert answer.status_code == 200
    assert answer.json().keys() == {"training_config", "predicted_final_loss", "submitted_at"}
    assert answer.json()["predicted_final_loss"] == 2.25
    assert api.get("/final_submission").json() == answer.json()
    assert api.remaining() == BUDGET, "a prediction costs nothing"


@pytest.mark.parametrize("loss", [0, -1, "2.5", None])
def test_a_final_submission_needs_a_positive_loss(api, loss):
    body = {"training_config": training_config(), "predicted_final_loss": loss}
    assert api.client.post("/final_submission", json=body, headers=api.headers).status_code == 422
    assert api.get("/final_submission").status_code == 404


def test_the_documentation_lists_every_route_of_both_editions(api):
    assert api.client.get("/docs").status_code == 200
    assert set(api.client.get("/openapi.json").json()["paths"]) >= {
        "/loss", "/total_flops_used", "/previous_runs", "/submit", "/budget", "/experiments",
        "/experiment/{experiment_id}", "/final_submission",
    }  # fmt: skip


def test_keys_are_not_in_the_database(api, tmp_path):
    key = api.headers["X-API-Key"]
    api.submit()
    api.client.app.state.services.database.close()
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.is_file())
    assert sha256(key.encode()).hexdigest().encode() in stored
    assert key.encode() not in stored
    assert key.removeprefix("cs336-").encode() not in stored


def test_user_names_are_taken_once(api):
    with pytest.raises(UsageError, match="there is a user 'ada' already"):
        add_user(api.database, api.settings, "ada")
    with pytest.raises(UsageError, match="1 to 100 characters"):
        add_user(api.database, api.settings, " ")


@pytest.mark.parametrize("url", ["nonsense", "sqlite://", "sqlite:///:memory:", "nodriver://host/name"])
def test_databases_that_cannot_serve_are_refused(url):
    with pytest.raises(UsageError, match=r"database"):
        Database(url)


def test_a_file_that_is_no_database_is_refused(tmp_path):
    (tmp_path / "training_api.sqlite").write_bytes(b"This is a letter, not a database. " * 100)
    with pytest.raises(UsageError, match="cannot be used"):
        create_app(ServerSettings(data_dir=tmp_path))


@pytest.mark.parametrize(
    "settings",
    [{"backend": "guess"}, {"speed": 0.0}, {"slots": 0}, {"budget_seconds": -1.0}, {"world_seed": -1}],
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(UsageError, match=next(iter(settings))):
        ServerSettings(**settings)
    with pytest.raises(UsageError, match="sequence_length is 100; allowed are the divisors of 512"):
        TrainSettings(sequence_length=100)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"architecture_config": architecture(vocab_size=1000)}, "vocab_size is 1000"),
        ({"architecture_config": architecture(attention_bias=True)}, "attention_bias is true"),
        ({"optimizer_config": adamw(eps_root=1e-8)}, "eps_root is 1e-08"),
        ({"optimizer_config": adamw(lr_scheduler=schedule(init_value=1e-5))}, "init_value is 1e-05"),
    ],
)
def test_the_train_backend_refuses_what_its_trainer_does_not_do(tmp_path, change, sentence):
    api = Api(tmp_path, backend="train")
    answer = api.submit(**change)
    assert answer.status_code == 422
    assert sentence in answer.json()["detail"]
    assert api.remaining() == BUDGET


def test_the_database_is_readable_by_other_tools(api, tmp_path):
    api.submit()
    connection = sqlite3.connect(tmp_path / "training_api.sqlite")
    assert connection.execute("SELECT status FROM experiments").fetchall() == [("queued",)]
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()
