"""A served dashboard over made-up runs, and a browser to look at it with."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest
import uvicorn

from rag_experiments.dashboard.__main__ import warm_up
from rag_experiments.dashboard.app import create_app
from rag_experiments.dashboard.shared.watch import Watch
from tests.dashboard import synthetic

CHROMIUM = Path("/usr/bin/chromium")


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    text: str


@dataclass
class Served:
    """A dashboard that answers on 127.0.0.1."""

    port: int
    watch: Watch

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str, method: str = "GET", **headers: str) -> Reply:
        """One request; `host` and other headers as given (`_` for `-`)."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, quote(path, safe="/?&=%,:@+-.<>"), headers=sent)
        answer = connection.getresponse()
        body = answer.read().decode("utf-8")
        connection.close()
        return Reply(answer.status, {name.lower(): value for name, value in answer.getheaders()}, body)

    def key(self, ending: str) -> str:
        """The key of the one run whose name ends so."""
        (key,) = (run.key for run in self.watch.look().values() if run.name.endswith(ending))
        return key


@pytest.fixture(scope="session")
def serve() -> Iterator[Callable[..., Served]]:
    """Serve directories; every server ends with the session."""
    running: list[tuple[uvicorn.Server, threading.Thread, socket.socket]] = []

    warm_up()

    def start(*roots: Path, cache: Path) -> Served:
        watch = Watch(roots, cache)
        bound = socket.create_server(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(create_app(watch), log_level="warning", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
        thread.start()
        running.append((server, thread, bound))
        return Served(bound.getsockname()[1], watch)

    yield start
    for server, thread, bound in running:
        server.should_exit = True
        thread.join(timeout=10)
        bound.close()


@pytest.fixture(scope="session")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 runs over two algorithms, three learning rates, two batch sizes and two seeds; one failed, one running."""
    root = tmp_path_factory.mktemp("runs")
    corpus = synthetic.write_corpus(root / "cache")
    for algorithm in ("ctl", "rpg"):
        for rate in (5e-6, 2e-5, 1e-4):
            for batch in (16, 32):
                for seed in (0, 1):
                    resolved = synthetic.config(
                        algorithm,
                        seed,
                        trainer__learning_rate=rate,
                        trainer__per_device_train_batch_size=batch,
                        paths__cache=str(root / "cache"),
                    )
                    name = f"{algorithm},lr={rate:g},batch={batch},seed={seed}"
                    failed = (algorithm, rate, batch, seed) == ("rpg", 1e-4, 32, 1)
                    state = "failed" if failed else "completed"
                    questions = 30 if batch == 16 and rate == 2e-5 else 0
                    path = root / "runs" / "sweep" / name
                    synthetic.write_run(path, resolved, state=state, questions=questions, corpus_hash=corpus)
    live = synthetic.config("ctl", 7, trainer__learning_rate=3e-5)
    synthetic.write_run(root / "runs" / "live", live, state="running", steps=4, corpus_hash=corpus)
    return root


@pytest.fixture(scope="session")
def dashboard(serve: Callable[..., Served], sweep: Path) -> Served:
    """The dashboard over `sweep`."""
    return serve(sweep / "runs", cache=sweep / "cache")


@pytest.fixture(scope="session")
def browser():
    """Debian's Chromium, driven by Playwright; the test is skipped where either is missing."""
    api = pytest.importorskip("playwright.sync_api", reason="the playwright package is not installed")
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is not installed: apt-get install chromium")
    with api.sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        chromium = playwright.chromium.launch(executable_path=str(CHROMIUM), args=arguments)
        yield chromium
        chromium.close()
