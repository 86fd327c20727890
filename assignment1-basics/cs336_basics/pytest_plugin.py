"""The pytest plugin all five suites load (`-p cs336_basics.pytest_plugin`).

- `shared_data`: the folder of real data named by the environment variable CS336_DATA; a test that asks for it is
  skipped where there is none.
- `browser`: headless Chromium, driven by playwright, for the pages that commands write or serve.
- Under CI (`CI=true`), a skip is an error unless its reason starts with one of `ALLOWED_SKIPS`: a test must not
  vanish from CI because a package or a tool was missing there.
"""

import os
import shutil
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

ALLOWED_SKIPS = ("needs CUDA", "needs MPS", "needs Linux", "needs macOS", "needs several GPUs")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data (`CS336_DATA`)."""
    folder = os.environ.get("CS336_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("needs CS336_DATA: the folder of real texts is not here")
    return Path(folder)


@pytest.fixture(scope="module")
def browser() -> Generator["Browser", None, None]:
    """Headless Chromium: the system's, or the one that `playwright install chromium` fetched.

    It is closed after each module: while playwright runs, `asyncio.run` does not work in this thread.
    """
    api = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
    names = ("chromium", "chromium-browser", "google-chrome")
    installed = next(filter(None, map(shutil.which, names)), None)
    # Without a sandbox it also starts as root in a container; it only opens our own pages. The rest keeps it offline.
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    with api.sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=installed, args=flags)
        except api.Error as error:
            pytest.skip(f"needs Chromium: install it, or run `playwright install chromium` ({error})")
        yield browser
        browser.close()


def _allowed(reason: str) -> bool:
    allowed = ALLOWED_SKIPS
    if not os.environ.get("CS336_DATA"):
        allowed += ("needs CS336_DATA",)
    return reason.removeprefix("Skipped: ").startswith(allowed)


def _fail_if_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    if os.environ.get("CI") and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not _allowed(reason):
            report.outcome = "failed"
            report.longrepr = f"skipped under CI, where everything it needs should be installed: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _fail_if_skipped(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _fail_if_skipped(report)
    return report
