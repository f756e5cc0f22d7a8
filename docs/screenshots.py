"""Screenshots of the dashboard for the README and its page, taken in a real browser: light and dark, laptop and phone.

python docs/screenshots.py outputs multirun_sweeps [--all] [--into docs/images] [--chromium /usr/bin/chromium]

`--all` takes every page in every look instead of the README's pictures. Wants the `test` extra (Playwright) and
Debian's Chromium (`apt-get install chromium`).
"""

from __future__ import annotations

import argparse
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from rag_experiments.comparison.analysis.table_columns import group_key
from rag_experiments.dashboard.__main__ import warm_up
from rag_experiments.dashboard.app import create_app
from rag_experiments.dashboard.shared.predictions import stages_of
from rag_experiments.dashboard.shared.watch import Run, Watch

LAPTOP, PHONE = {"width": 1280, "height": 720}, {"width": 390, "height": 844}
LOOKS = {"light": ("light", LAPTOP), "dark": ("dark", LAPTOP), "phone": ("light", PHONE)}
README = ("runs-light", "compare-light", "curves-dark", "sweep-dark", "questions-light", "runs-phone")
DRAWN = "[...document.querySelectorAll('.plot')].every((figure) => figure.dataset.drawn)"


def main() -> None:
    """Take them all."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("dirs", nargs="+", type=Path)
    parser.add_argument("--all", action="store_true", help="every page in every look")
    parser.add_argument("--into", type=Path, default=Path("docs/images"))
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    given = parser.parse_args()
    watch = Watch(given.dirs)
    warm_up()
    views = addresses(list(watch.look().values()))
    given.into.mkdir(parents=True, exist_ok=True)
    wanted = [f"{name}-{look}" for name in views for look in LOOKS] if given.all else README
    with serving(watch) as url, browsing(given.chromium) as browser:
        for picture in wanted:
            name, look = picture.rsplit("-", 1)
            take(browser, url + views[name], given.into / f"dashboard-{picture}.png", *LOOKS[look])


def addresses(runs: list[Run]) -> dict[str, str]:
    """A telling view of every page: of the largest set of runs that compare, the best and the worst configuration.

    Questions are of two runs that answer, where there are two.
    """
    views = {page: f"/{page}" for page in ("runs", "curves", "sweep", "questions", "cost", "repeat")}
    views["compare"] = views["runs"]
    done = [run for run in runs if run.completed and stages_of(run) and run.stages.get("test")]
    if not done:
        return views
    largest = Counter(run.comparable_key("test") for run in done).most_common(1)[0][0]
    alike = sorted((run for run in done if run.comparable_key("test") == largest), key=figure)
    folder = Counter(run.folder for run in alike).most_common(1)[0][0].rpartition("/")[2]
    views |= {page: f"/{page}?q={folder}" for page in ("curves", "sweep")}
    views["repeat"] = f"/repeat?run={alike[-1].key}"
    swept = [run for run in alike if run.folder.endswith(folder)]
    seeds = [run for end in (swept[0], swept[-1]) for run in swept if group_key(run) == group_key(end)]
    ticked = list(dict.fromkeys(run.key for run in seeds))
    if len(ticked) > 1:
        views["compare"] = f"/runs?q={folder}&noise=1&sel=" + "&sel=".join(ticked)
    readers = [run for run in done if "test/exact_match" in run.metrics]
    sides = [r for r in readers if r.comparable_key("test") == readers[0].comparable_key("test")] if readers else alike
    if len(sides) > 1:
        views["questions"] = f"/questions?a={sides[0].key}&b={sides[-1].key}&order=gain"
    return views


def figure(run: Run) -> float:
    """What the best run is best by."""
    return run.metrics.get("test/recall@1", 0.0)


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
