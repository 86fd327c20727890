"""The clients against the real server, through a network that loses requests and answers."""

import json
import socket
from collections import deque

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import given, settings
from hypothesis import strategies as st

from cs336_basics.command_line import UsageError
from cs336_scaling.client.answers import best
from cs336_scaling.client.cache import AnswerCache
from cs336_scaling.client.flops import ScalingClient2025
from cs336_scaling.client.transport import ApiError, Connection, Unreachable
from cs336_scaling.client.wall_clock import ScalingClient2026
from cs336_scaling.schemas.edition_2025 import LossQuery
from cs336_scaling.schemas.edition_2026 import TargetConfig

from .api_server import running_server, serving, small_config

QUERY = LossQuery(d_model=256, num_layers=4, num_heads=4, batch_size=128, learning_rate=1e-3, train_flops=10**16)


class BadNetwork:
    """An ASGI application around a server; each fault in `plan` befalls one request, in order, the first `after`.

    Faults: "lose request" (the server never sees it), "lose answer" (the server acts, the answer breaks off), or a
    status, which a gateway answers without asking the server.
    """

    def __init__(self):
        self.app, self.plan, self.requests = None, deque(), []

    def around(self, app):
        self.app = app
        return self

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        self.requests.append((scope["method"], scope["path"]))
        fault = self.plan.popleft() if self.plan else None
        if fault is None:
            return await self.app(scope, receive, send)
        if isinstance(fault, int):
            await send({"type": "http.response.start", "status": fault, "headers": [(b"retry-after", b"0")]})
            return await send({"type": "http.response.body", "body": b"gateway"})
        if fault == "lose answer":

            async def swallow(message):
                pass

            await self.app(scope, receive, swallow)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1000")]})
        return await send({"type": "http.response.body", "body": b"{", "more_body": False})

    def count(self, method, path):
        return self.requests.count((method, path))


@pytest.fixture
def network():
    return BadNetwork()


@pytest.fixture
def server(tmp_path, network):
    with running_server(tmp_path / "server", network.around) as server:
        yield server


@pytest.fixture
def client(server):
    with ScalingClient2026(server.url, server.key, cache_dir=None, first_wait=0.01) as client:
        yield client


def test_a_whole_experiment(client):
    before = client.budget()
    assert before.used_seconds == 0
    submission = client.submit(small_config())
    assert not submission.known
    [experiment] = client.wait([submission.experiment_id], poll_seconds=0.01)
    assert experiment == client.experiment(submission.experiment_id) == client.experiments()[0]
    assert experiment.status_type == "completed"
    assert experiment.training_config == small_config()
    assert experiment.loss == experiment.val_losses[-1]
    assert client.budget().used_seconds == pytest.approx(experiment.charged_seconds)
    assert best(client.experiments()) == experiment


def test_final_submission_the_last_counts(client):
    assert client.final_submission() is None
    client.submit_final(small_config(), 3.5)
    two_days = TargetConfig.model_validate(small_config(256).model_dump() | {"max_runtime_seconds": 172_800.0})
    client.submit_final(two_days, 3.25)
    final = client.final_submission()
    assert (final.training_config, final.predicted_final_loss) == (two_days, 3.25)


@pytest.mark.parametrize(
    "faults",
    [
        ["lose answer"],
        ["lose request"],
        ["lose answer", 502],
        ["lose answer", "lose request", "lose answer"],
        [503, 503, "lose answer"],
        [429, 504, "lose request"],
    ],
)
def test_a_lost_answer_never_costs_twice(client, network, faults):
    network.plan.extend(faults)
    submission = client.submit(small_config())
    network.plan.clear()
    experiments = client.experiments()
    assert [one.experiment_id for one in experiments] == [submission.experiment_id]
    [finished] = client.wait([submission.experiment_id], poll_seconds=0.01)
    assert client.budget().used_seconds == pytest.approx(finished.charged_seconds)


def test_the_same_configuration_again_costs_nothing(client, network):
    first = client.submit(small_config())
    used = client.wait([first.experiment_id], 0.01)[0].charged_seconds
    again = client.submit(small_config())
    assert again.known
    assert again.experiment_id == first.experiment_id
    assert client.budget().used_seconds == pytest.approx(used)


def test_refusals_are_not_tried_again(client, network):
    with pytest.raises(ApiError, match="of the budget") as refusal:
        client.submit(small_config(max_runtime_seconds=43_200.0))
        client.submit(small_config(256, max_runtime_seconds=43_200.0))
    assert refusal.value.status == 400
    assert network.count("POST", "/submit") == 2
    with pytest.raises(ApiError, match="no experiment nothing") as refusal:
        client.experiment("nothing")
    assert refusal.value.status == 404
    with pytest.raises(UsageError, match="knows no experiment 'nothing'"):
        client.wait(["nothing"])


def test_gives_up_after_as_many_tries_as_it_may(server, network):
    network.plan.extend([503] * 10)
    with (
        ScalingClient2026(server.url, server.key, cache_dir=None, tries=3, first_wait=0.01) as client,
        pytest.raises(Unreachable, match="/budget failed 3 times: status 503"),
    ):
        client.budget()
    assert network.count("GET", "/budget") == 3


def test_no_server_at_all():
    with socket.socket() as unused:  # bound, so nobody else takes the port; not listening, so nobody answers
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with (
            ScalingClient2026(url, "key", cache_dir=None, tries=2, first_wait=0.01) as client,
            pytest.raises(Unreachable, match="2 times: no connection"),
        ):
            client.budget()


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://127.0.0.1", "http://", "http://[::1", ""])
def test_addresses_that_are_none(url):
    with pytest.raises(UsageError, match="server address is"):
        Connection(url)


def test_run_all_waits_for_reserved_seconds_to_come_back(tmp_path):
    configs = [small_config(width, flops=3e14, max_runtime_seconds=500.0) for width in (64, 128, 192, 256, 320)]
    now, lengths = [0.0], []

    def look(experiments):
        """Time passes only when somebody looks."""
        lengths.append(len(experiments))
        now[0] += 10.0

    with (
        running_server(tmp_path, clock=lambda: now[0], budget_seconds=1100.0, speed=1.0) as server,  # room for two
        ScalingClient2026(server.url, server.key, cache_dir=None) as client,
    ):
        results = client.run_all(configs, 0.0, look)
        assert lengths[0] == 2
        assert [one.training_config for one in results] == configs
        assert all(one.status_type == "completed" for one in results)
        assert client.budget().used_seconds == pytest.approx(sum(one.charged_seconds for one in results))
        assert client.run_all(configs, 0.0) == results  # again: nothing is paid
        with pytest.raises(ApiError, match="of the budget"):
            client.run_all([small_config(max_runtime_seconds=2000.0)], 0.0)


def test_dry_runs_submit_nothing(client, network):
    client.run_all([small_config(64)], 0.01)
    network.requests.clear()
    cost = client.plan_cost([small_config(64), small_config(128), small_config(128), small_config(192)])
    assert [config for config, _ in cost.new] == [small_config(128), small_config(192)]
    assert cost.free == (small_config(64), small_config(128))
    assert (cost.cost, cost.affordable) == (1200.0, 2)
    assert "2 new runs would take 1,200 s; 2 are free" in cost.sentences()
    assert client.plan_cost([small_config(64 * n) for n in range(2, 90)]).affordable < 88
    assert {method for method, _ in network.requests} == {"GET"}


def test_finished_experiments_need_no_server(tmp_path):
    cache = tmp_path / "cache"
    with running_server(tmp_path / "server") as server:
        with ScalingClient2026(server.url, server.key, cache_dir=cache) as client:
            [experiment] = client.run_all([small_config()], 0.01)
        with ScalingClient2025(server.url, server.key, cache_dir=cache) as client:
            answer = client.loss(QUERY)
    assert server.key not in "".join(path.read_text() for path in cache.rglob("*.json"))
    with ScalingClient2026(server.url, server.key, cache_dir=cache, tries=1) as client:
        assert client.experiment(experiment.experiment_id) == experiment
    with ScalingClient2025(server.url, server.key, cache_dir=cache, tries=1) as client:
        assert client.loss(QUERY) == answer
    with ScalingClient2025(server.url, "another key", cache_dir=cache, tries=1) as client, pytest.raises(Unreachable):
        client.loss(QUERY)
    for path in cache.rglob("*.json"):
        path.write_text("{")  # damaged: asked for again
    with ScalingClient2025(server.url, server.key, cache_dir=cache, tries=1) as client, pytest.raises(Unreachable):
        client.loss(QUERY)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(question=JSON, other=JSON, answer=JSON)
def test_the_cache_gives_back_what_was_put_in(tmp_path_factory, question, other, answer):
    cache = AnswerCache(tmp_path_factory.getbasetemp() / "cache", "http://server", "key")
    cache.put(question, answer)
    assert cache.get(question) == answer
    assert cache.get(["never asked", other]) is None
    assert AnswerCache(tmp_path_factory.getbasetemp() / "cache", "http://server", "other").get(question) is None
    assert AnswerCache(None, "http://server", "key").get(question) is None


def test_2025_repeated_and_lost_queries_cost_once(server, network):
    with ScalingClient2025(server.url, server.key, cache_dir=None, first_wait=0.01) as client:
        assert client.total_flops_used() == 0.0
        assert client.plan_cost([QUERY, QUERY]).cost == 1e16
        network.plan.extend([503, "lose answer", "lose request"])
        answer = client.loss(QUERY)
        assert answer == client.loss(QUERY)
        assert answer.total_flops_used == client.total_flops_used() == 1e16
        [run] = client.previous_runs()
        assert (run.loss, run.d_model, run.train_flops) == (answer.loss, 256, 10**16)
        assert client.plan_cost([QUERY]).cost == 0
        sent = network.count("GET", "/loss")
        with pytest.raises(ValueError, match=r"d_model must be in range \[64, 1024\], got 9999"):
            client.loss(QUERY.model_copy(update={"d_model": 9999}))
        assert network.count("GET", "/loss") == sent


def test_2025_budget_and_key(server, tmp_path):
    with ScalingClient2025(server.url, "wrong", cache_dir=None) as client:
        for ask in (client.total_flops_used, client.previous_runs, lambda: client.loss(QUERY)):
            with pytest.raises(ApiError, match="Invalid API key"):
                ask()
    with (
        running_server(tmp_path / "poor", budget_flops=1e15) as poor,
        ScalingClient2025(poor.url, poor.key, cache_dir=None) as client,
        pytest.raises(ApiError, match="budget"),
    ):
        client.loss(QUERY)


def test_a_server_that_says_less_or_more_than_ours():
    """A 2025 server that refuses by a message with status 200, and a 2026 server with other keys in its answers."""
    app = FastAPI()
    config = small_config().model_dump(mode="json")

    @app.get("/total_flops_used")
    def total_flops_used():
        return {"message": "Invalid API key provided: x"}

    @app.get("/previous_runs")
    def previous_runs():
        return {"previous_runs": [{**QUERY.model_dump(), "loss": 3.0, "time": "today"}]}

    @app.get("/budget")
    def budget():
        return {"used_seconds": 1, "remaining_seconds": 2, "total_budget_seconds": 3, "currency": "s"}

    @app.get("/experiments")
    def experiments():
        return {"experiments": [
            {"experiment_id": 7, "status_type": "completed", "training_config": config, "val_losses": [4.0, 3.5]},
            {"experiment_id": 8, "status_type": "running", "training_config": {"unlike": "ours"}, "gpu": "H100"},
        ]}  # fmt: skip

    @app.get("/experiment/{name}")
    def experiment(name: str):
        return {"status": "no id"}

    with serving(app) as url:
        with ScalingClient2025(url, "x", cache_dir=None) as client:
            with pytest.raises(ApiError, match="Invalid API key provided: x"):
                client.total_flops_used()
            assert client.previous_runs()[0].loss == 3.0
        with ScalingClient2026(url, "x", cache_dir=None) as client:
            assert client.budget().remaining_seconds == 2
            first, second = client.experiments()
            assert (first.experiment_id, first.loss, first.finished) == ("7", 3.5, True)
            assert (second.training_config, second.loss, second.finished) == (None, None, False)
            with pytest.raises(UsageError, match="does not speak the training API: experiment_id"):
                client.experiment("7")


def test_a_web_page_is_not_the_api(server):
    with pytest.raises(UsageError, match="does not speak the training API"):
        Connection(server.url).get("/dashboard")


def test_what_the_client_sends_is_what_the_api_lists(client, server):
    """The optimizer's kind shows in its keys; the API lists no key `type`."""
    seen = []
    client._connection._http.event_hooks["request"].append(
        lambda request: seen.append(json.loads(request.read() or b"{}"))
    )
    client.submit(small_config())
    assert set(seen[0]["optimizer_config"]) == {
        "lr_scheduler", "weight_decay", "beta1", "beta2", "eps", "eps_root", "grad_clip_norm",
    }  # fmt: skip
    headers = {"X-API-Key": server.key}
    again = httpx.post(f"{server.url}/submit", headers=headers, json=small_config().model_dump(mode="json"))
    assert again.status_code == 409  # with or without `type`, it is the same configuration
