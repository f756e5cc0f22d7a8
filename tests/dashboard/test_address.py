"""The address holds the view."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

from rag_experiments.dashboard.shared.address import View

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


def test_a_name_with_one_value_has_the_last_without_spaces_and_one_with_several_has_each_once() -> None:
    found = view("sort=a&sort=%20b%20&metric=x&metric=y&metric=x&metric=&page=")
    assert found.one("sort") == "b"
    assert found.many("metric") == ("x", "y")
    assert found.one("page") == ""
    assert (found.one("metric"), found.many("sort")) == ("", ())
    assert View.read("runs", {"metric": ("first",)}, [("metric", "second")]).many("metric") == ("second",)
    assert View.read("runs", {"metric": ("first",)}, []).many("metric") == ("first",)


def test_a_number_that_was_not_typed_is_the_default_within_the_bounds_and_the_least_where_that_is_none() -> None:
    assert view("").number("page", 2, 5) == 2
    assert view("page=x").number("page", 0, 5) == 1
    assert view("page=2.5").number("page", 1, 5) == 2.5
    assert view("sort=x").number("sort", 3, 5) == 3


def test_only_what_the_page_would_choose_is_forgotten() -> None:
    one = view("metric=a&sort=x")
    one.forget("metric", ("b",))
    one.forget("sort", "x")
    one.forget("page", "1")
    assert one.href == "/runs?metric=a"
    assert one.one("sort") == ""


def test_changes_take_the_place_of_what_stands_and_what_is_empty_goes() -> None:
    one = view("q=ctl&sort=name&metric=a&metric=b")
    assert one.link(sort="other", q=None) == "/runs?metric=a&metric=b&sort=other"
    assert one.link(metric=["c", 4]) == "/runs?metric=c&metric=4&sort=name&q=ctl"
    assert one.link(metric=()) == "/runs?sort=name&q=ctl"
    assert one.href == "/runs?metric=a&metric=b&sort=name&q=ctl", "it is itself still what it was"


def test_another_page_keeps_neither_choices_nor_defaults_of_this_one() -> None:
    assert view("page=2&q=x&state=failed").link("cost", page="1") == "/cost?page=1&q=x&state=failed"
    assert view("").link("cost") == "/cost"


def test_a_form_carries_no_defaults() -> None:
    assert view("page=1&sort=").hidden() == []
    assert view("page=2&sort=x").hidden("sort", "q") == [("page", "2")]
