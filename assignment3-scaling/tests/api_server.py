"""The real server on a free port of this machine, for tests of what talks to it."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from cs336_scaling.compute import training_flops_per_token
from cs336_scaling.schemas.edition_2026 import AdamWConfig, ArchitectureConfig, LRScheduler, TrainingConfig
from cs336_scaling.server.accounts import add_user
from cs336_scaling.server.app import create_app
from cs336_scaling.server.settings import ServerSettings


@dataclass(frozen=True)
class RunningServer:
    """Where it listens, a user's key, and a way to make more users."""

    url: str
    key: str
    add_user: Callable[[str], str]


@contextmanager
def running_server(
    folder: Path, wrap: Callable = lambda app: app, clock: Callable[[], float] = time.time, **settings
) -> Iterator[RunningServer]:
    """Serve `create_app` by uvicorn in a thread; `wrap` may put an ASGI application around it."""
    settings = ServerSettings(data_dir=folder, **settings)
    app = create_app(settings, clock)
    services = app.state.services

    def new_user(name: str) -> str:
        return add_user(services.database, settings, name)

    with serving(wrap(app)) as url:
        yield RunningServer(url, new_user("learner"), new_user)


@contextmanager
def serving(app: Callable) -> Iterator[str]:
    """Serve an ASGI application by uvicorn in a thread; gives its address."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", access_log=False))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            time.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def small_config(
    width: int = 128, layers: int = 2, flops: float = 1e15, lr: float = 2e-3, max_runtime_seconds: float = 600.0
) -> TrainingConfig:
    """A valid configuration that trains for about so many FLOPs."""
    architecture = ArchitectureConfig(
        head_dim=64, hidden_size=width, intermediate_size=3 * width, num_attention_heads=width // 64,
        num_key_value_heads=width // 64, num_hidden_layers=layers, vocab_size=32_000,
    )  # fmt: skip
    round_tokens = 512 * 16 * 10
    rounds = max(1, round(flops / training_flops_per_token(architecture) / round_tokens))
    return TrainingConfig(
        architecture_config=architecture,
        optimizer_config=AdamWConfig(lr_scheduler=LRScheduler(peak_value=lr)),
        train_batch_size=16,
        total_train_tokens=rounds * round_tokens,
        max_runtime_seconds=max_runtime_seconds,
    )
