"""The dashboard in headless Chromium, against the real server; and what it shows, worked out without a browser."""

import json
import math

import httpx
import pytest
from playwright.sync_api import expect

from cs336_scaling.client.flops import ScalingClient2025
from cs336_scaling.client.wall_clock import ScalingClient2026
from cs336_scaling.dashboard.view import RunView, profiles
from cs336_scaling.schemas.edition_2025 import LossQuery

from .api_server import running_server, small_config

PATIENCE_MS = 300_000
"""A guard against hanging, not a measure: pages are slow on a busy machine."""
WIDTHS = (128, 192, 256, 384, 512)


expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server with a user who has five completed runs, one that diverged, a final submission and 2025 queries."""
    with running_server(tmp_path_factory.mktemp("server")) as server:
        with ScalingClient2026(server.url, server.key, cache_dir=None) as client:
            client.run_all([small_config(width, 4, 3e15) for width in WIDTHS])
            client.run_all([small_config(lr=9.0)])
            client.submit_final(small_config(512, 8, 1e17), 3.25)
        with ScalingClient2025(server.url, server.key, cache_dir=None) as client:
            for width in (64, 128, 256):
                client.loss(LossQuery(d_model=width, num_layers=4, num_heads=2, batch_size=128,
                                      learning_rate=1e-3, train_flops=10**15))  # fmt: skip
        yield server


@pytest.fixture
def page(browser, server):
    """A page that must not complain, nor ask anybody else, nor put the key into an address."""
    context = browser.new_context(viewport={"width": 1300, "height": 1200})
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    complaints, addresses = [], []
    page.on(
        "console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None
    )
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: addresses.append(request.url))
    page.complaints = complaints
    yield page
    context.close()
    outside = [address for address in addresses if not address.startswith((server.url, "data:", "blob:"))]
    assert addresses
    assert not outside
    assert not [address for address in addresses if server.key in address]
    assert complaints == []


def sign_in(page, server, key=None):
    page.goto(f"{server.url}/dashboard")
    page.fill("#key", key or server.key)
    page.click("#sign-in button")


def test_shows_budget_runs_curves_and_submission(page, server):
    sign_in(page, server)
    page.wait_for_selector("#iso-plot .points path")
    budget = httpx.get(f"{server.url}/budget", headers={"X-API-Key": server.key}).json()
    assert f"({budget['used_seconds']:,.0f} s)" in page.inner_text("#budget-used")
    assert f"({budget['remaining_seconds']:,.0f} s)" in page.inner_text("#budget-left")
    assert page.locator("#experiments tbody tr").count() == len(WIDTHS) + 1
    assert page.inner_text("#counts") == "5 completed, 1 failed"
    experiments = httpx.get(f"{server.url}/experiments", headers={"X-API-Key": server.key}).json()
    best = min(one["final_val_loss"] for one in experiments if one["final_val_loss"] is not None)
    assert f"{best:.4f}" in page.inner_text("#best")
    assert "3.2500" in page.inner_text("#final")
    assert "NaN" in page.inner_text("#experiments")  # the diverged run's message
    assert page.locator("#iso-plot .scatterlayer .points path").count() >= len(WIDTHS)
    assert page.locator("#curves-plot .scatterlayer .js-line").count() >= len(WIDTHS)


def test_the_key_is_kept_for_the_tab_only(page, server):
    sign_in(page, server)
    page.wait_for_selector("#board:not([hidden])")
    assert page.evaluate("[localStorage.length, document.cookie]") == [0, ""]
    page.reload()
    page.wait_for_selector("#board:not([hidden])")
    page.click("#leave")
    page.wait_for_selector("#sign-in:not([hidden])")
    assert page.evaluate("sessionStorage.getItem('cs336-api-key')") is None


def test_a_wrong_key_is_refused_in_words(page, server):
    sign_in(page, server, "wrong")
    expect(page.locator("#refusal")).to_contain_text("does not know this key")
    assert not page.is_visible("#board")
    page.complaints[:] = [text for text in page.complaints if "401" not in text]  # the browser logs each refusal


def test_the_other_edition(page, server):
    sign_in(page, server)
    page.click('[data-edition="2025"]')
    expect(page.locator("#experiments tbody tr")).to_have_count(3)
    assert page.inner_text("#budget-used") == "3.00e15 FLOPs"
    assert "takes none" in page.inner_text("#final")
    page.click('[data-edition="2026"]')
    expect(page.locator("#experiments tbody tr")).to_have_count(6)


def test_it_follows_what_happens(page, server):
    key = server.add_user("follower")
    sign_in(page, server, key)
    page.wait_for_selector("#board:not([hidden])")
    assert "No run is completed" in page.inner_text("#best")
    with ScalingClient2026(server.url, key, cache_dir=None) as client:
        client.submit(small_config())
    expect(page.locator("#experiments tbody tr")).to_have_count(1)  # without a reload


def test_sorting(page, server):
    sign_in(page, server)
    page.wait_for_selector("#experiments tbody tr")
    heading = page.locator("#experiments th", has_text="parameters").locator("button")

    def parameters():
        cells = page.locator("#experiments tbody td:nth-child(3)").all_inner_texts()
        return [int(text.replace(",", "")) for text in cells]

    heading.click()
    rising = parameters()
    assert rising == sorted(rising)
    assert len(set(rising)) > 2
    heading.click()
    assert parameters() == rising[::-1]


def test_what_the_server_says_is_never_markup(page, server):
    evil = "<img src=x onerror='document.title=1'>"

    def answer(route):
        data = route.fetch().json()
        for run in data["runs"]:
            run["name"] = run["message"] = run["shape"] = run["status"] = evil
        for profile in data["profiles"]:
            profile["label"] = evil
        route.fulfill(body=json.dumps(data), content_type="application/json")

    page.route("**/dashboard/data*", answer)
    sign_in(page, server)
    page.wait_for_selector("#iso-plot .points path")
    assert evil in page.inner_text("#experiments")
    assert page.locator("img").count() == 0
    assert page.title() != "1"


def test_dark_mode_has_its_own_colors(page, server):
    sign_in(page, server)
    page.wait_for_selector("#iso-plot .points path")
    tick = page.locator("#iso-plot .xtick text").first
    body, ink = page.locator("body"), tick.evaluate("element => getComputedStyle(element).fill")
    expect(body).to_have_css("background-color", "rgb(243, 245, 248)")
    page.emulate_media(color_scheme="dark")
    expect(body).to_have_css("background-color", "rgb(16, 21, 27)")
    expect(page.locator("#iso-plot .xtick text").first).not_to_have_css("fill", ink)


def test_page_headers_and_unknown_files(server):
    page = httpx.get(f"{server.url}/dashboard")
    assert "default-src 'self'" in page.headers["Content-Security-Policy"]
    assert server.key not in page.text
    assert httpx.get(f"{server.url}/dashboard/static/plotly.min.js").text.count("\n") > 0
    for name in ("other.js", "..%2f..%2frouter.py", "../view.py"):
        assert httpx.get(f"{server.url}/dashboard/static/{name}").status_code == 404
    assert httpx.get(f"{server.url}/dashboard/data").status_code == 401
    assert httpx.get(f"{server.url}/dashboard/data", headers={"X-API-Key": "wrong"}).status_code == 401


def _run(number, parameters, compute, loss):
    return RunView(
        number=number, name=f"#{number}", status="completed", parameters=parameters, shape="", batch_size=1,
        learning_rate=1e-3, tokens=compute / (6 * parameters), compute=compute, loss=loss, cost=1.0,
    )  # fmt: skip


def test_profiles_group_by_compute_and_find_the_minimum():
    best = {1e15: 2e6, 1e16: 8e6}
    runs = [
        _run(10 * row + column, round(size), compute * (1 + 0.01 * column), 3 + 0.2 * math.log(size / minimum) ** 2)
        for row, (compute, minimum) in enumerate(best.items())
        for column, size in enumerate((1e6, 2e6, 4e6, 8e6, 16e6))
    ]
    found = profiles([*runs, _run(99, 10**6, 1e17, None)])
    assert [profile.label for profile in found] == ["1e15 FLOPs", "1e16 FLOPs"]
    for profile, minimum in zip(found, best.values(), strict=True):
        assert profile.optimum[0] == pytest.approx(minimum, rel=1e-3)
        assert profile.optimum[1] == pytest.approx(3, abs=1e-4)
        assert min(profile.curve_losses) == pytest.approx(3, abs=1e-3)
    assert profiles([]) == []
