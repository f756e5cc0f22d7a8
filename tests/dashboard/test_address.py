"""The address holds the view."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

from rag_experiments.dashboard.address import View

DEFAULTS = {"sort": "", "page": "1", "metric": ()}


def view(query: str) -> View:
    return View.read("runs", DEFAULTS, parse_qsl(query, keep_blank_values=True))


def test_an_address_read_and_written_again_is_itself() -> None:
    href = "/runs?metric=test/recall@1&page=3&sort=-test/recall@1&q=a%20b%20%26%20%22c%22&sel=aa&sel=bb"
    assert view(urlsplit(href).query).href == href


def test_defaults_empty_and_unknown_names_are_left_out() -> None:
    assert view("page=1&sort=&q=&sel=&evil=1").href == "/runs"


def test_text_cannot_leave_the_query() -> None:
    href = view("").link(q='"><script>&sel=x#y')
    assert set('"<>#').isdisjoint(href)
    assert view(urlsplit(href).query).one("q") == '"><script>&sel=x#y'
    assert view(urlsplit(href).query).many("sel") == ()


def test_another_page_looks_at_the_same_runs() -> None:
    assert view("q=ctl&sel=aa&sort=name&page=2").link("curves") == "/curves?q=ctl&sel=aa"
    assert view("sel=aa").link("repeat", run="aa") == "/repeat?run=aa&sel=aa"


def test_another_page_of_rows_is_no_other_page() -> None:
    assert view("q=ctl").link(page=2) == "/runs?page=2&q=ctl"


def test_numbers_stay_within_their_bounds() -> None:
    assert [view(f"page={text}").number("page", 1, 5) for text in ("3", "99", "-4", "x", "nan", "inf")] == [
        3, 5, 1, 1, 1, 5,
    ]  # fmt: skip


def test_what_the_page_would_choose_by_itself_is_forgotten() -> None:
    one = view("metric=a&metric=b")
    one.forget("metric", ("a", "b"))
    assert one.href == "/runs"


def test_a_form_carries_what_it_does_not_show() -> None:
    assert view("q=ctl&sort=name&sel=aa&sel=bb").hidden("q") == [("sort", "name"), ("sel", "aa"), ("sel", "bb")]
