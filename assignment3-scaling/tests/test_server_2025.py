"""The Spring 2025 edition of the server, over HTTP: answers, status codes and messages as documented."""

import pytest
from fastapi.testclient import TestClient

from cs336_scaling.schemas.edition_2025 import LossQuery
from cs336_scaling.server.accounts import add_user
from cs336_scaling.server.app import create_app
from cs336_scaling.server.settings import ServerSettings
from cs336_scaling.simulate.world import World

QUERY = {
    "d_model": 256, "num_layers": 4, "num_heads": 4, "batch_size": 128, "learning_rate": 5e-4, "train_flops": 10**16,
}  # fmt: skip
SEED = 5


@pytest.fixture
def server(tmp_path):
    """(client, the first user's key, a second user's key)."""
    settings = ServerSettings(data_dir=tmp_path, world_seed=SEED)
    with TestClient(create_app(settings)) as client:
        database = client.app.state.services.database
        yield client, add_user(database, settings, "ada"), add_user(database, settings, "bob")


def _loss(client, key, **changes):
    return client.get("/loss", params={**QUERY, "api_key": key, **changes})


def test_a_query_answers_with_the_worlds_loss_and_all_flops_used(server):
    client, key, _ = server
    answer = _loss(client, key)
    assert answer.status_code == 200
    assert answer.json() == {
        "loss": World.from_seed(SEED).query(LossQuery(**QUERY)),
        "total_flops_used": 1e16,
    }
    assert _loss(client, key, d_model=512, train_flops=3 * 10**17).json()["total_flops_used"] == 3.1e17


def test_a_repeated_query_costs_nothing_and_says_the_same(server):
    client, key, _ = server
    first = _loss(client, key).json()
    assert _loss(client, key, train_flops="1e16", learning_rate="0.0005").json() == first
    assert client.get("/total_flops_used", params={"api_key": key}).json() == 1e16
    assert len(client.get("/previous_runs", params={"api_key": key}).json()["previous_runs"]) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"d_model": 9999}, "d_model must be in range [64, 1024], got 9999"),
        ({"num_layers": 1}, "num_layers must be in range [2, 24], got 1"),
        ({"num_heads": 32}, "num_heads must be in range [2, 16], got 32"),
        ({"learning_rate": 0.1}, "learning_rate must be in range [0.0001, 0.001], got 0.1"),
        ({"batch_size": 64}, "batch_size must be one of [128, 256], got 64"),
    ],
)
def test_values_out_of_range_are_status_404_with_a_message(server, change, message):
    client, key, _ = server
    answer = _loss(client, key, **change)
    assert (answer.status_code, answer.json()) == (404, {"message": message})
    assert client.get("/previous_runs", params={"api_key": key}).json() == {"previous_runs": []}


def test_unlisted_flops_are_status_404(server):
    client, key, _ = server
    answer = _loss(client, key, train_flops=2 * 10**16)
    assert answer.status_code == 404
    assert answer.json()["message"].startswith("train_flops must be one of [1e+13, 3e+13, ")
    assert answer.json()["message"].endswith("got 20000000000000000")


def test_what_is_no_number_is_status_422(server):
    client, key, _ = server
    assert _loss(client, key, d_model="wide").status_code == 422
    assert client.get("/loss", params={"api_key": key}).status_code == 422


@pytest.mark.parametrize("path", ["/loss", "/total_flops_used", "/previous_runs"])
def test_a_wrong_key_is_named(server, path):
    client, _, _ = server
    answer = client.get(path, params={**QUERY, "api_key": "guess"})
    assert (answer.status_code, answer.json()) == (401, {"message": "Invalid API key provided: guess"})


def test_flops_of_a_key_without_queries_are_status_422(server):
    client, key, _ = server
    answer = client.get("/total_flops_used", params={"api_key": key})
    assert answer.status_code == 422
    assert "no queries" in answer.json()["message"]


def test_previous_runs_are_this_keys_queries_in_order(server):
    client, key, other = server
    first, second = _loss(client, key).json(), _loss(client, key, d_model=128).json()
    _loss(client, other, d_model=64)
    assert client.get("/previous_runs", params={"api_key": key}).json() == {
        "previous_runs": [{**QUERY, "loss": first["loss"]}, {**QUERY, "d_model": 128, "loss": second["loss"]}]
    }


def test_the_budget_can_be_spent_to_the_last_flop_and_not_beyond(server):
    client, key, other = server
    for width in (64, 128):
        assert _loss(client, key, d_model=width, train_flops=10**18).status_code == 200
    refused = _loss(client, key, d_model=192, train_flops=10**13)
    assert refused.status_code == 400
    assert refused.json() == {"message": "the query needs 1e+13 FLOPs, but 2e+18 of the budget of 2e+18 are used"}
    assert _loss(client, key, d_model=64, train_flops=10**18).status_code == 200, "what is paid for stays free"
    assert _loss(client, other).status_code == 200, "another key has its own budget"


def test_another_server_on_the_same_database_remembers(server, tmp_path):
    client, key, _ = server
    answer = _loss(client, key).json()
    with TestClient(create_app(ServerSettings(data_dir=tmp_path, world_seed=SEED + 1))) as restarted:
        assert _loss(restarted, key).json() == answer


def test_a_server_that_really_trains_refuses_to_answer_at_once(tmp_path):
    settings = ServerSettings(data_dir=tmp_path, backend="train")
    with TestClient(create_app(settings)) as client:
        key = add_user(client.app.state.services.database, settings, "ada")
        answer = _loss(client, key)
        assert answer.status_code == 501
        assert "POST /submit" in answer.json()["message"]
        assert client.get("/previous_runs", params={"api_key": key}).json() == {"previous_runs": []}
