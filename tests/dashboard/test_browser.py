"""Every page in a real browser: what it shows, what can be done with it, and that nothing goes wrong in its console."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.dashboard import synthetic
from tests.dashboard.conftest import Served

PAGES = ("runs", "curves", "sweep", "questions", "cost", "repeat")
DRAWN = "[...document.querySelectorAll('.plot')].every((figure) => figure.dataset.drawn)"


@pytest.fixture
def page(browser, dashboard: Served) -> Iterator:
    """A laptop's page; the test fails on any error in its console."""
    yield from opened(browser, dashboard, width=1280, height=800)


@pytest.fixture
def phone(browser, dashboard: Served) -> Iterator:
    """A phone's page."""
    yield from opened(browser, dashboard, width=375, height=720, has_touch=True)


def opened(browser, served: Served, width: int, height: int, **options) -> Iterator:
    context = browser.new_context(viewport={"width": width, "height": height}, base_url=served.url, **options)
    context.set_default_timeout(180_000)  # a busy machine must not fail a test
    page = context.new_page()
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda r: errors.append(f"asked {r.url}") if urlsplit(r.url).port != served.port else None)
    yield page
    context.close()
    assert errors == []


def until(page, expression: str, seconds: float = 180.0) -> None:
    """Wait for JavaScript to be true. Playwright's own wait evaluates text in the page, which its policy forbids."""
    ends = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < ends, f"not true within {seconds} s: {expression}"
        page.wait_for_timeout(50)


def rows(page) -> list[str]:
    return page.locator("#runs tbody th a").all_inner_texts()


def query(page) -> dict[str, list[str]]:
    return parse_qs(urlsplit(page.url).query)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_on_a_laptop(page, name: str) -> None:
    page.goto(f"/{name}")
    until(page, DRAWN)
    assert page.locator(f"#nav-{name}").get_attribute("aria-current") == "page"
    if name in ("curves", "sweep", "cost"):
        assert page.locator(".plot .main-svg").count() >= 1
        assert page.locator(".plot text").count() > 3


@pytest.mark.parametrize("name", PAGES)
def test_a_page_on_a_phone_does_not_scroll_sideways(phone, name: str) -> None:
    phone.goto(f"/{name}")
    until(phone, DRAWN)
    width = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert phone.evaluate(width) <= 0
    for box in phone.locator("nav a, button:visible, select:visible, input[type=search]").all():
        found = box.bounding_box()
        assert found is None or found["height"] >= 24  # a finger's


def test_filter_narrows_the_table_and_stays_in_the_address(page) -> None:
    page.goto("/runs")
    assert len(rows(page)) == 25
    page.fill("#q", "algorithm=rpg and learning_rate<1e-4")
    until(page, "document.querySelectorAll('#runs tbody tr').length === 8")
    assert all(name.startswith("rpg") for name in rows(page))
    assert query(page)["q"] == ["algorithm=rpg and learning_rate<1e-4"]
    assert page.evaluate("document.activeElement.id") == "q"  # typing goes on
    page.reload()
    assert len(rows(page)) == 8
    page.go_back()
    until(page, "document.querySelectorAll('#runs tbody tr').length === 25")
    assert page.input_value("#q") == ""


def test_chips_and_sorting(page) -> None:
    page.goto("/runs")
    page.locator("label.chip:has(#state-failed)").click()
    until(page, "document.querySelectorAll('#runs tbody tr').length === 1")
    assert query(page) == {"state": ["failed"]}
    page.locator("label.chip:has(#state-failed)").click()
    until(page, "document.querySelectorAll('#runs tbody tr').length === 25")
    page.locator("#runs thead a", has_text="seed").click()
    page.wait_for_url("**sort=-seed**")
    assert rows(page)[0] == "live"  # seed 7
    assert page.locator("#runs th[aria-sort=descending]").inner_text().startswith("seed")


def test_ticked_runs_are_compared_and_carried_to_other_pages(page) -> None:
    page.goto("/runs?algorithm=ctl")
    boxes = page.locator("#runs tbody input[type=checkbox]")
    boxes.nth(0).check()
    page.wait_for_url("**sel=**")
    boxes.nth(2).check()
    page.wait_for_selector("#diff-settings")
    assert len(query(page)["sel"]) == 2
    assert page.locator("#diff-figures tbody tr").count() >= 3
    page.locator("#nav-curves").click()
    page.wait_for_url("**/curves?**")
    assert len(query(page)["sel"]) == 2
    until(page, DRAWN)
    assert "2 ticked" in page.inner_text(".which")
    page.go_back()
    page.wait_for_selector("#diff-settings")
    assert boxes.nth(0).is_checked()
    page.locator("#untick").click()
    page.wait_for_selector("#diff-settings", state="detached")
    assert not boxes.nth(0).is_checked()  # what was ticked by hand follows the address, too


def test_the_verdict_is_a_click_away(page, dashboard: Served) -> None:
    keys = [dashboard.key(f"{a},lr=2e-05,batch=16,seed={s}") for a in ("ctl", "rpg") for s in (0, 1)]
    page.goto("/runs?" + "&".join(f"sel={key}" for key in keys))
    page.locator("#ask-noise").click()
    page.wait_for_selector("#noise .verdict")
    assert "recall@1" in page.inner_text("#noise .verdict")


def test_columns_are_chosen(page) -> None:
    page.goto("/runs")
    page.locator("#columns summary").click()
    page.locator("#columns label", has_text="peak_memory_mb").locator("input").check()
    page.wait_for_selector("#runs thead a[title=peak_memory_mb]")
    assert "peak_memory_mb" in query(page)["metric"]


def test_a_live_runs_curve_grows(browser, serve: Callable[..., Served], sweep: Path, tmp_path: Path) -> None:
    shutil.copytree(sweep / "runs" / "live", tmp_path / "runs" / "live")
    served = serve(tmp_path / "runs", cache=tmp_path / "cache")
    for page in opened(browser, served, width=1280, height=800):
        page.goto("/curves?metric=train/loss")
        until(page, DRAWN)
        points = "document.querySelector('.canvas').data.at(-1).x.length"
        assert page.evaluate(points) == 4
        best = 0.6
        synthetic.append_metrics(tmp_path / "runs" / "live", [synthetic.curve_line(n, 10, best) for n in (5, 6)])
        until(page, f"{points} === 6")
        assert query(page) == {"metric": ["train/loss"]}  # looking again is no new address
        page.evaluate("document.querySelector('.canvas').layout.xaxis.range = [0, 30]")
        metrics = tmp_path / "runs" / "live" / "metrics.jsonl"
        synthetic.append_metrics(metrics.parent, [synthetic.curve_line(7, 10, best)])
        until(page, f"{points} === 7")


def test_a_run_that_starts_and_ends_shows_by_itself(browser, serve: Callable[..., Served], tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    served = serve(tmp_path / "runs", cache=tmp_path / "cache")
    for page in opened(browser, served, width=1280, height=800):
        page.goto("/runs")
        assert "No runs yet" in page.inner_text("main")
        synthetic.write_run(tmp_path / "runs" / "new", synthetic.config(), state="running")
        page.wait_for_selector(".state.running")
        status = tmp_path / "runs" / "new" / "status.json"
        status.write_text(json.dumps(json.loads(status.read_text()) | {"state": "completed"}))
        page.wait_for_selector(".state.completed")


def test_questions_side_by_side(page, dashboard: Served) -> None:
    a, b = (dashboard.key(f"{name},lr=2e-05,batch=16,seed=0") for name in ("ctl", "rpg"))
    page.goto(f"/questions?a={a}&b={b}")
    assert page.locator("ol.questions > li").count() == 10
    first = page.locator("ol.questions > li").first
    assert first.locator(".two > section").count() == 2
    assert first.locator(".hits > li.gold .tag").first.inner_text() == "gold"
    assert first.locator("mark").first.inner_text() == "river"
    page.locator("[data-next]").click()
    page.wait_for_url("**page=2**")
    page.fill("#find", "number 17")
    until(page, "document.querySelectorAll('ol.questions > li').length === 1")
    assert "number 17" in page.inner_text("ol.questions h2")
    assert "page" not in query(page)
    page.fill("#find", "")
    until(page, "document.querySelectorAll('ol.questions > li').length === 10")
    better = page.locator(".tally a.better")
    count = int(better.locator("b").inner_text())
    better.click()
    page.wait_for_url("**show=better**")
    assert page.locator("ol.questions > li").count() == min(count, 10)


def test_script_in_a_passage_shows_as_text(page, dashboard: Served) -> None:
    page.goto(f"/questions?a={dashboard.key('ctl,lr=2e-05,batch=16,seed=0')}&find=q0&depth=20")
    passage = page.locator(".hits > li.gold").first
    passage.locator("summary").click()
    shown = passage.locator(".whole").inner_text()
    assert "<script>document.title = 'broken in'</script><img src=x onerror=alert(1)>" in shown
    assert "broken in" not in page.title()
    assert page.locator("main img, main script").count() == 0


def test_a_script_that_got_in_would_not_run(browser, dashboard: Served) -> None:
    context = browser.new_context(base_url=dashboard.url)
    page = context.new_page()
    page.goto("/runs")
    page.evaluate("""() => {
        const script = document.createElement("script");
        script.textContent = "window.broken = true";
        document.body.append(script);
        document.body.insertAdjacentHTML("beforeend", "<img src=x onerror='window.broken = true'>");
    }""")
    page.wait_for_timeout(300)
    assert page.evaluate("window.broken") is None
    context.close()


def test_by_keyboard_alone(page) -> None:
    page.goto("/runs")
    page.keyboard.press("j")
    page.keyboard.press("j")
    second = rows(page)[1]
    assert page.locator("tr.at th a").inner_text() == second
    page.keyboard.press("x")
    page.wait_for_url("**sel=**")
    assert page.locator("tr.ticked th a").inner_text() == second
    page.keyboard.press("/")
    page.keyboard.type("rpg")
    until(page, "document.querySelectorAll('#runs tbody tr').length === 12")
    page.keyboard.press("Escape")
    page.keyboard.press("3")
    page.wait_for_url("**/sweep?**")
    page.keyboard.press("?")
    assert page.locator("#help").is_visible()
    page.keyboard.press("Escape")
    assert not page.locator("#help").is_visible()
    page.keyboard.press("1")
    page.wait_for_url("**/runs?**")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_url("**/repeat?**")
    assert "python -m rag_experiments.train" in page.inner_text("#command-again")


def test_dark_light_and_as_the_system_says(browser, dashboard: Served) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    context = browser.new_context(base_url=dashboard.url, color_scheme="dark")
    page = context.new_page()
    page.goto("/cost")
    until(page, DRAWN)
    dark = page.evaluate(ground)
    page.emulate_media(color_scheme="light")
    light = page.evaluate(ground)
    assert dark != light
    page.locator("#theme").click()
    page.locator("#theme").click()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert page.evaluate(ground) == dark
    ink = page.evaluate("document.querySelector('.canvas').layout.font.color")
    assert re.fullmatch(r"#e8e9eb", ink)  # the figure follows
    page.reload()
    assert page.evaluate(ground) == dark
    page.locator("#theme").click()
    assert page.evaluate(ground) == light
    context.close()


def test_without_scripts_the_forms_still_work(browser, dashboard: Served) -> None:
    context = browser.new_context(base_url=dashboard.url, java_script_enabled=False)
    page = context.new_page()
    page.goto("/runs")
    page.fill("#q", "rpg")
    page.locator("button.go").click()
    assert len(rows(page)) == 12
    context.close()


def test_the_columns_menu_is_as_wide_as_what_it_holds(page) -> None:
    page.goto("/runs")
    page.click("#columns summary")
    box = page.evaluate(
        "(({ clientWidth, scrollWidth }) => [clientWidth, scrollWidth])(document.querySelector('.menu-body'))"
    )
    assert box[0] == box[1]  # nothing has to be scrolled sideways
    assert box[0] > page.evaluate("document.querySelector('#columns').clientWidth")


def test_no_button_of_a_figure_shares_it(page) -> None:
    page.goto("/sweep")
    page.wait_for_function(DRAWN)
    titles = page.evaluate("[...document.querySelectorAll('.modebar-btn')].map((one) => one.dataset.title)")
    assert "Download plot as a PNG" in titles
    assert not [title for title in titles if "hare" in title or "loud" in title or "tudio" in title]
