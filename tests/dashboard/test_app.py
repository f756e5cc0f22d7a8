"""The served pages: content, address, what is refused, what is escaped."""

from __future__ import annotations

import html
import json
import re
import shlex
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

import rag_experiments
from rag_experiments.config.overrides import prepare
from rag_experiments.dashboard.shared.watch import Watch
from tests.comparison.conftest import ranked_row, write_run
from tests.dashboard import synthetic
from tests.dashboard.conftest import Served

PAGES = ("runs", "curves", "sweep", "questions", "cost", "repeat")


@pytest.mark.parametrize("page", PAGES)
def test_every_page_answers_with_its_policy(dashboard: Served, page: str) -> None:
    reply = dashboard.get(f"/{page}")
    assert reply.status == 200
    policy = reply.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert not re.search(r"<script(?![^>]*\bsrc=)", reply.text)  # no script but the package's own files
    assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", reply.text)  # nothing of another machine
    assert " onclick=" not in reply.text


def test_the_first_address_leads_to_the_runs(dashboard: Served) -> None:
    reply = dashboard.get("/")
    assert (reply.status, reply.headers["location"]) == (307, "/runs")


def test_what_is_not_there(dashboard: Served) -> None:
    for path in ("/nothing", "/static/nothing.js", "/static/../app.py", "/static/%2e%2e/app.py"):
        assert dashboard.get(path).status == 404


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8050", "127.0.0.1.evil.example", "localhost.evil", ""])
def test_other_host_names_are_refused(dashboard: Served, host: str) -> None:
    assert dashboard.get("/runs", host=host).status in (400, 421)  # 400: the server itself wants a host


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9999", "127.0.0.1:1", "[::1]:8050"])
def test_this_machines_names_are_answered(dashboard: Served, host: str) -> None:
    assert dashboard.get("/runs", host=host).status == 200


def test_other_sites_may_link_but_not_read(dashboard: Served) -> None:
    assert dashboard.get("/runs", sec_fetch_site="cross-site", sec_fetch_mode="no-cors").status == 403
    assert dashboard.get("/runs", sec_fetch_site="cross-site", sec_fetch_mode="navigate").status == 200
    assert dashboard.get("/runs", sec_fetch_site="same-origin", sec_fetch_mode="cors").status == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_it_only_reads(dashboard: Served, method: str) -> None:
    assert dashboard.get("/runs", method=method).status == 405


def test_plotly_is_the_installed_packages(dashboard: Served) -> None:
    reply = dashboard.get("/static/plotly.min.js")
    assert reply.status == 200
    assert "plotly.js v" in reply.text[:100]


def labels(text: str) -> list[str]:
    return re.findall(r'data-open title="(?:[^"]*/)?([^"/]*)">', text)


def test_the_table_is_sorted_as_asked(dashboard: Served) -> None:
    best = dashboard.get("/runs?sort=-test/recall@1").text
    worst = dashboard.get("/runs?sort=test/recall@1").text
    assert labels(best)[0].startswith("ctl,lr=2e-05,batch=32")
    done = [label for label in labels(worst) if label != "live"][:23]
    assert done == [label for label in labels(best) if label != "live"][:23][::-1]
    assert set(labels(best)[-2:]) == {"live", "rpg,lr=0.0001,batch=32,seed=1"}  # without the figure: last either way
    assert labels(worst)[-2:] == labels(best)[-2:]


def test_filter_state_and_algorithm(dashboard: Served) -> None:
    assert labels(dashboard.get("/runs?state=failed").text) == ["rpg,lr=0.0001,batch=32,seed=1"]
    assert len(labels(dashboard.get("/runs?algorithm=rpg").text)) == 12
    assert labels(dashboard.get("/runs?q=learning_rate=3e-5").text) == ["live"]
    broken = dashboard.get("/runs?q=learning_rat<1").text
    assert 'role="alert"' in broken
    assert "learning_rate" in broken
    assert "No run matches" in dashboard.get("/runs?q=zebra").text


def test_columns_that_nobody_chose_follow_the_runs(dashboard: Served) -> None:
    """A form sends the columns it shows; only those that were chosen stay in the address."""
    first = dashboard.get("/runs").text
    sent = re.findall(r'name="usual" value="([^"]*)"', first)
    assert "key:algorithm.name" in sent
    shown = [f"{item.partition(':')[0]}={item.partition(':')[2]}" for item in sent]
    usual = [f"usual={item}" for item in sent]
    reply = dashboard.get("/runs?q=algorithm=rpg&" + "&".join([*shown, *usual]), hx_request="true")
    assert reply.headers["hx-push-url"] == "/runs?q=algorithm%3Drpg"
    assert "key:algorithm.name" not in re.findall(r'name="usual" value="([^"]*)"', reply.text)
    reply = dashboard.get("/runs?" + "&".join([*shown[:-1], *usual]), hx_request="true")
    assert "metric=" in reply.headers["hx-push-url"]
    assert "key=" not in reply.headers["hx-push-url"]


def test_ticked_runs_are_compared(dashboard: Served) -> None:
    a = dashboard.key("ctl,lr=2e-05,batch=16,seed=0")
    b = dashboard.key("ctl,lr=0.0001,batch=16,seed=0")
    text = dashboard.get(f"/runs?sel={a}&sel={b}").text
    settings = text[text.index('id="diff-settings"') : text.index('id="diff-figures"')]
    assert re.findall(r'<th scope="row">([^<]*)</th>', settings) == ["trainer.learning_rate"]
    figures = text[text.index('id="diff-figures"') : text.index('class="links"')]
    one, other = (dashboard.watch.look()[key].metrics["test/recall@1"] for key in (a, b))
    row = figures[figures.index("test/recall@1") :][:400]
    assert f"{one:.3f}" in row
    assert f"{other:.3f}" in row
    assert f"{abs(other - one):.3f}" in row
    assert "different data" not in text


def test_runs_on_different_data_are_not_compared_silently(serve: Callable[..., Served], tmp_path: Path) -> None:
    for number, corpus in enumerate(("one", "two", "two")):
        synthetic.write_run(tmp_path / "runs" / f"{corpus}{number}", synthetic.config(seed=number), corpus_hash=corpus)
    served = serve(tmp_path / "runs", cache=tmp_path / "cache")
    one, two, same = (f"sel={key}" for key in served.watch.look())
    unlike, alike = served.get(f"/runs?{one}&{two}").text, served.get(f"/runs?{two}&{same}").text
    assert "These runs were measured on different corpora (2 of them): their figures do not compare." in unlike
    assert "do not compare" not in alike
    # Nor does a verdict hold one against the other.
    assert 'class="verdict"' not in served.get(f"/runs?noise=1&metric=test/recall@1&{one}&{two}").text


def test_whether_it_is_noise(dashboard: Served) -> None:
    names = [f"{algorithm},lr=2e-05,batch=16,seed={seed}" for algorithm in ("ctl", "rpg") for seed in (0, 1)]
    keys = "&".join(f"sel={dashboard.key(name)}" for name in names)
    text = dashboard.get(f"/runs?noise=1&{keys}").text
    assert "Is it noise?" in text
    assert re.search(r'class="verdict">rpg[^<]* on recall@1: [+-]0\.\d{3} \[', text)
    alone = dashboard.get(f"/runs?noise=1&{keys.split('&sel=')[0]}&sel={dashboard.key(names[1])}").text
    assert "seeds of one configuration" in alone


def test_the_address_is_canonical_and_pushed(dashboard: Served) -> None:
    messy = "/runs?page=1&q=+rpg+&evil=1&state=completed&state=completed"
    assert dashboard.get(messy, hx_request="true").headers["hx-push-url"] == "/runs?q=rpg&state=completed"
    chosen = "/runs?metric=test/recall@1&metric=test/recall@4&metric=test/ndcg@10"  # what it shows anyway
    assert dashboard.get(chosen, hx_request="true").headers["hx-push-url"] == "/runs"
    assert "hx-push-url" not in dashboard.get("/runs").headers


def test_a_page_that_asks_for_news_gets_none_where_there_is_none(dashboard: Served) -> None:
    version = dashboard.watch.version
    assert dashboard.get(f"/runs?since={version}", hx_request="true").status == 204
    fresh = dashboard.get("/runs?since=older", hx_request="true")
    assert fresh.status == 200
    assert "hx-push-url" not in fresh.headers


@pytest.mark.parametrize("page", PAGES)
def test_any_address_is_answered(dashboard: Served, page: str) -> None:
    for query in (
        "sel=gone&run=gone&a=gone&b=gone&page=x&smooth=x&x=x&y=x&metric=x&cost=x&stage=x&depth=-4&seeds=x&order=x",
        "page=999999&smooth=99&metric=&sel=&q=%00%ff",
        "q=" + "(" * 500,
    ):
        assert dashboard.get(f"/{page}?{query}").status == 200


def figures_of(text: str) -> dict[str, dict]:
    found = re.findall(r'<figure class="plot" id="([^"]*)" data-figure="([^"]*)"', text)
    return {name: json.loads(html.unescape(figure)) for name, figure in found}


def test_the_sweep_finds_what_matters(dashboard: Served) -> None:
    found = figures_of(dashboard.get("/sweep?metric=test/recall@1&algorithm=ctl").text)
    assert set(found) >= {"parallel", "importance", "contour", "slice-1"}
    bars = found["importance"]["data"][0]
    assert bars["y"][-1] == "learning rate"  # drawn from below: the last is on top
    assert bars["x"][-1] > 0.5
    ends = found["parallel"]["data"][-1]
    assert len(ends["x"]) == 6  # a point a configuration, of two seeds each


def test_curves_band_seeds_and_smooth(dashboard: Served) -> None:
    plain = figures_of(dashboard.get("/curves?q=ctl&metric=train/loss").text)["curve-1"]
    names = [trace["name"] for trace in plain["data"] if trace.get("name")]
    assert sum(name.endswith("(2 seeds)") for name in names) == 6
    apart = figures_of(dashboard.get("/curves?q=ctl&metric=train/loss&seeds=lines").text)["curve-1"]
    assert len([trace for trace in apart["data"] if trace.get("showlegend") is not False]) == 13
    logarithmic = figures_of(dashboard.get("/curves?log=1&x=seconds").text)["curve-1"]
    assert logarithmic["layout"]["yaxis"]["type"] == "log"
    assert logarithmic["layout"]["xaxis"]["title"]["text"] == "minutes"


def test_cost_lists_the_front(dashboard: Served) -> None:
    text = dashboard.get("/cost?metric=test/recall@1").text
    assert "in all" in text
    assert text.count(">front<") >= 1
    assert figures_of(text)["cost"]["layout"]["xaxis"]["title"]["text"] == "seconds/train"
    rows = re.findall(r"<tr>(<th scope=\"row\">.*?)</tr>", text.partition('id="costs"')[2], re.DOTALL)
    quality = [float(re.findall(r'<td class="num">([^<]*)</td>', row)[1]) for row in rows]
    assert len(set(quality)) > 1
    assert quality == sorted(quality, reverse=True), "the best first"


def typed(shown: str) -> dict[str, str]:
    """What a run is told by a command line as a page shows it, typed into a shell."""
    words = shlex.split(html.unescape(shown))[3:]
    overrides = OverridesParser.create().parse_overrides(prepare(word for word in words if "=" in word))
    return {override.key_or_group: override.value() for override in overrides}


def test_repeat_gives_the_command_and_the_end(dashboard: Served) -> None:
    text = dashboard.get("/repeat?q=state=failed").text
    assert "cd /home/somebody/project &amp;&amp; python -m rag_experiments.train algorithm=rpg seed=1" in text
    assert "ZeroDivisionError: division by zero" in text
    (failed,) = (run for run in dashboard.watch.look().values() if run.state == "failed")
    (shown,) = re.findall(r"python -m rag_experiments.train (?:&#39;)?resume=[^<]*", text)
    assert typed(shown) == {"resume": str(failed.path)}  # commas in its path
    assert "rag_experiments.evaluate" not in text, "it has not ended well"
    done = dashboard.get(f"/repeat?run={dashboard.key('ctl,lr=2e-05,batch=16,seed=0')}").text
    completed = dashboard.watch.look()[dashboard.key("ctl,lr=2e-05,batch=16,seed=0")]
    for command in ("evaluate", "ask"):
        (shown,) = re.findall(rf"python -m rag_experiments.{command} [^<]*", done)
        assert typed(shown)["run"] == str(completed.path)
    assert "resume=" not in done
    assert "learning_rate: 2.0e-05" in done


EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&"


def test_everybodys_text_is_text(serve: Callable[..., Served], tmp_path: Path) -> None:
    resolved = synthetic.config("ctl", 0, model__path=EVIL, name=EVIL)
    other = synthetic.config("ctl", 0, model__path="plain")
    for name, config in (("a<b onx='1'>&\"c", resolved), ("b", other), ("c", synthetic.config("ctl", 1))):
        path = synthetic.write_run(tmp_path / "runs" / name, config, questions=3)
        status = json.loads((path / "status.json").read_text())
        status |= {"host": EVIL, "command": EVIL, "error": {"type": EVIL, "message": EVIL}, "state": "failed"}
        if name == "b":
            (path / "status.json").write_text(json.dumps(status))
        metrics = json.loads((path / "metrics.json").read_text()) | {f"test/{EVIL}": 0.5}
        (path / "metrics.json").write_text(json.dumps(metrics))
        file = path / "predictions" / "test.jsonl"
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        for row in rows:
            row |= {"question": EVIL, "answer": EVIL, "references": [EVIL], "id": EVIL + row["id"]}
            row["retrieved_ids"][0] = EVIL
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    served = serve(tmp_path / "runs", cache=tmp_path / "cache")
    keys = "&".join(f"sel={key}" for key in served.watch.look())
    for path in ("/runs", f"/runs?{keys}", "/curves", "/sweep", "/questions", "/cost", "/repeat", "/runs?q=<script>"):
        reply = served.get(path)
        assert reply.status == 200, path
        for piece in ("<script>alert", "<img", "<b onx"):
            assert piece not in reply.text.lower(), path
        for figure in figures_of(reply.text).values():  # Plotly reads tags in text: escaped once more in there
            assert "<script" not in json.dumps(figure), path


def test_nothing_there_yet(serve: Callable[..., Served], tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    served = serve(tmp_path / "runs", cache=tmp_path / "cache")
    for page in PAGES:
        reply = served.get(f"/{page}")
        assert reply.status == 200
        assert 'class="empty"' in reply.text


def test_two_thousand_runs(serve: Callable[..., Served], tmp_path: Path) -> None:
    """A page under 3 seconds, and a table that holds one page of rows.

    Seconds of this process, which serves and asks: a busy machine must not fail it.
    """
    synthetic.write_many(tmp_path / "runs", 2000, steps=3)
    served = serve(tmp_path / "runs", cache=tmp_path / "cache")
    assert len(Watch.look(served.watch)) == 2000
    for page in ("/runs", "/runs?q=algorithm=ctl%20and%20learning_rate<1e-4", "/curves", "/sweep", "/cost"):
        seconds = []
        for _ in range(2):
            started = time.process_time()
            reply = served.get(page)
            seconds.append(time.process_time() - started)
        assert reply.status == 200
        assert min(seconds) < 3.0, (page, seconds)
    assert served.get("/runs").text.count("data-row ") == 50
    assert "page 1 of 40" in served.get("/runs").text


def test_the_best_is_marked_within_a_set_of_questions(serve: Callable[..., Served], tmp_path: Path) -> None:
    """Figures of other questions or passages are in one table, and are never held against each other."""
    for corpus in ("one", "two"):
        for seed in (0, 1):
            resolved = synthetic.config("ctl", seed, trainer__learning_rate=2e-5 if corpus == "one" else 1e-6)
            synthetic.write_run(tmp_path / "runs" / f"{corpus}{seed}", resolved, corpus_hash=corpus)
    text = serve(tmp_path / "runs", cache=tmp_path / "cache").get("/runs?metric=test/recall@1").text
    assert "2 sets of questions or passages" in text
    best = [row.partition("</tr>")[0] for row in text.split("<tr data-row")[1:] if " best" in row.partition("</tr>")[0]]
    assert {name[:3] for row in best for name in labels(row)} == {"one", "two"}


@pytest.mark.parametrize("page", ["dashboard", "report"])
def test_no_control_of_a_figure_sends_it_anywhere(page: str) -> None:
    """Plotly's own default shows a button that sends the figure to a company's server."""
    files = {"dashboard": "dashboard/static/app.js", "report": "comparison/output/templates/report.html"}
    script = (Path(rag_experiments.__file__).parent / files[page]).read_text(encoding="utf-8")
    settings = re.search(r"const NOTHING_LEAVES = \{(.*?)\};", script, re.S)
    assert settings
    assert "showSendToCloud: false" in settings[1]
    assert 'plotlyServerURL: ""' in settings[1]
    assert '"sendChartToCloud"' in settings[1]
    drawn = re.findall(r"Plotly\.(?:newPlot|react)\(.*?\);", script, re.S)
    assert drawn
    assert all("...NOTHING_LEAVES" in call for call in drawn)


def test_the_sweep_ranks_configurations_on_dev_and_shows_test(serve: Callable[..., Served], tmp_path: Path) -> None:
    """The best on test, and the best single seed, are other configurations than the best by its seeds' mean on dev."""
    figures = {1e-5: ((0.9, 0.1), 0.9), 1e-4: ((0.6, 0.7), 0.2), 3e-3: ((0.5, 0.51), 0.8)}
    for rate, (dev, test) in figures.items():
        for seed in (0, 1):
            run = tmp_path / "runs" / f"rate{rate}-{seed}"
            synthetic.write_run(run, synthetic.config("ctl", seed, trainer__learning_rate=rate))
            found = {"dev/recall@4": dev[seed], "test/recall@4": test}
            (run / "metrics.json").write_text(json.dumps(found), encoding="utf-8")
    served = serve(tmp_path / "runs", cache=tmp_path / "cache")
    text = served.get("/sweep").text
    best = text.partition('id="best"')[2].partition("</table>")[0]
    cells = re.findall(r"0[.][1-9][0-9]{2}(?=</)", best)
    assert cells == ["0.650", "0.200", "0.505", "0.800", "0.500", "0.900"]
    assert best.count("2 seeds") == 3
    assert 'id="on-test"' not in text
    assert 'id="on-test"' in served.get("/sweep?metric=test/recall@4").text
    drawn = json.dumps(figures_of(text))
    assert len(figures_of(text)["slice-1"]["data"][0]["x"]) == 3  # a point a configuration
    assert "learning rate" in drawn
    assert '"seed"' not in drawn  # no setting that one could choose
    for metric in ("dev/recall@4", "test/recall@4"):
        rows = served.get(f"/runs?metric={metric}").text.split("<tr data-row")[1:]
        marked = [name for row in rows for name in labels(row) if " best" in row.partition("</tr>")[0]]
        assert set(marked) == {"rate0.0001-0", "rate0.0001-1"}


def test_the_change_of_a_run_is_over_the_same_questions(serve: Callable[..., Served], tmp_path: Path) -> None:
    """Zero shot over the four easy questions of eight: the two figures differ downwards, every question upwards."""
    before = [ranked_row(f"q{i}", 1 if i < 3 else 0, gold=[f"g{i}"]) for i in range(4)]
    after = [ranked_row(f"q{i}", 1 if i < 4 else 0, gold=[f"g{i}"]) for i in range(8)]
    figures = {"zero_shot/test/recall@1": 0.75, "test/recall@1": 0.5}
    write_run(tmp_path / "runs" / "one", {"zero_shot/test": before, "test": after}, figures=figures)
    text = serve(tmp_path / "runs", cache=tmp_path / "cache").get("/repeat").text
    row = text.partition(">test/recall@1<")[2].partition("</tr>")[0]
    assert "+0.250" in row
    assert "over the 4 questions asked both times" in row
