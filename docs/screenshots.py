"""Screenshots of the dashboard for the README, taken in a real browser: light and dark, laptop and phone.

python docs/screenshots.py outputs multirun_sweeps [--into docs/images] [--chromium /usr/bin/chromium]

Wants the `test` extra (Playwright) and Debian's Chromium (`apt-get install chromium`).
"""

from __future__ import annotations

import argparse
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from rag_experiments.dashboard.__main__ import warm_up
from rag_experiments.dashboard.app import create_app
from rag_experiments.dashboard.predictions import stages_of
from rag_experiments.dashboard.watch import Run, Watch

LAPTOP, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
DRAWN = "[...document.querySelectorAll('.plot')].every((figure) => figure.dataset.drawn)"


def main() -> None:
    """Take them all."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("dirs", nargs="+", type=Path)
    parser.add_argument("--into", type=Path, default=Path("docs/images"))
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    given = parser.parse_args()
    watch = Watch(given.dirs)
    warm_up()
    views = addresses(list(watch.look().values()))
    given.into.mkdir(parents=True, exist_ok=True)
    with serving(watch) as url, browsing(given.chromium) as browser:
        for name, address in views.items():
            for look, scheme, size in (("light", "light", LAPTOP), ("dark", "dark", LAPTOP), ("phone", "light", PHONE)):
                take(browser, url + address, given.into / f"dashboard-{name}-{look}.png", scheme, size)


def addresses(runs: list[Run]) -> dict[str, str]:
    """A telling view of every page: the best and the worst completed run compared, with their questions."""
    done = [run for run in runs if run.completed and stages_of(run)]
    done.sort(key=lambda run: run.metrics.get("test/recall@1", 0.0))
    views = {page: f"/{page}" for page in ("runs", "curves", "sweep", "questions", "cost", "repeat")}
    alike = [run for run in done if run.comparable_key("test") == done[-1].comparable_key("test")] if done else []
    if len(alike) > 1:
        worst, best = alike[0].key, alike[-1].key
        views["compare"] = f"/runs?sel={worst}&sel={best}&noise=1"
        views["questions"] = f"/questions?a={worst}&b={best}&order=gain"
    if done:
        views["repeat"] = f"/repeat?run={done[-1].key}"
    return views


@contextmanager
def serving(watch: Watch) -> Iterator[str]:
    """The dashboard on a free port."""
    with socket.create_server(("127.0.0.1", 0)) as bound:
        server = uvicorn.Server(uvicorn.Config(create_app(watch), log_level="warning", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"
        server.should_exit = True
        thread.join(timeout=10)


@contextmanager
def browsing(chromium: str) -> Iterator:
    """The browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
        yield browser
        browser.close()


def take(browser, address: str, file: Path, scheme: str, size: dict[str, int]) -> None:
    """One picture, once every figure is drawn; a page with an error in its console is no picture to show."""
    context = browser.new_context(viewport=size, color_scheme=scheme)
    page = context.new_page()
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.goto(address, timeout=600_000)
    ends = time.monotonic() + 300
    while not page.evaluate(DRAWN) and time.monotonic() < ends:
        page.wait_for_timeout(50)
    page.wait_for_timeout(300)
    page.screenshot(path=str(file))
    context.close()
    if errors:
        raise SystemExit(f"{re.sub(r':[0-9]+/', '/', address)}: {errors[0]}")
    print(file)


if __name__ == "__main__":
    main()
