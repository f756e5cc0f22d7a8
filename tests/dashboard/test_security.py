"""Who is answered: this machine's names, this page's own requests, and reading alone."""

from __future__ import annotations

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from rag_experiments.dashboard.security import HEADERS, Guard, host_name


def own_framing(request: Request) -> PlainTextResponse:
    return PlainTextResponse("page", headers={"X-Frame-Options": "SAMEORIGIN"} if "own" in request.url.path else None)


METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
application = Starlette(routes=[Route("/{page}", own_framing, methods=METHODS)])
application.add_middleware(Guard)
client = TestClient(application, base_url="http://localhost:8050")


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("localhost", "localhost"),
        ("LocalHost:8050", "localhost"),
        ("127.0.0.1:1", "127.0.0.1"),
        ("[::1]", "[::1]"),
        ("[::1]:80", "[::1]"),
        ("[FE80::1]:80", "[fe80::1]"),
        ("localhost:", "localhost"),
        ("", ""),
        ("localhost:evil.example", ""),
        ("[::1]evil", ""),
        ("evil.example:8050", "evil.example"),
    ],
)
def test_the_host_is_what_stands_before_the_port(header: str, name: str) -> None:
    assert host_name(header) == name


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "[::1]:8050"])
def test_this_machines_names_are_answered(host: str) -> None:
    assert client.get("/runs", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "evil.localhost", "0.0.0.0", "[::2]",
        "[::1]evil", "[::1].evil.example", "[::1", "::1", "",
    ],
)  # fmt: skip
def test_every_other_name_is_misdirected(host: str) -> None:
    assert client.get("/runs", headers={"host": host}).status_code == 421


def test_a_request_without_a_host_is_misdirected() -> None:
    bare = Request({"type": "http", "method": "GET", "path": "/", "headers": []})
    refused = Guard(application).refusal(bare)
    assert refused is not None
    assert refused.status_code == 421


@pytest.mark.parametrize("method", METHODS[2:])
def test_nothing_but_reading_is_allowed(method: str) -> None:
    reply = client.request(method, "/runs")
    assert reply.status_code == 405
    assert reply.headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_reading_is(method: str) -> None:
    assert client.request(method, "/runs").status_code == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
@pytest.mark.parametrize("mode", ["no-cors", "cors", "same-origin", "websocket", None])
def test_another_sites_page_reads_nothing(site: str, mode: str | None) -> None:
    """`same-site` is another port or another name of the same site: not this server."""
    sent = {"sec-fetch-site": site} | ({"sec-fetch-mode": mode} if mode else {})
    assert client.get("/runs", headers=sent).status_code == 403


@pytest.mark.parametrize(
    ("site", "mode"),
    [
        ("cross-site", "navigate"),
        ("same-site", "navigate"),
        ("same-origin", "cors"),
        ("none", "navigate"),
        (None, None),
    ],
)
def test_links_the_pages_own_requests_and_what_was_typed_are_answered(site: str | None, mode: str | None) -> None:
    sent = {"sec-fetch-site": site, "sec-fetch-mode": mode} if site and mode else {}
    assert client.get("/runs", headers=sent).status_code == 200


@pytest.mark.parametrize("sent", [{}, {"host": "evil.example"}, {"sec-fetch-site": "cross-site"}])
def test_every_answer_carries_the_policy_refusals_too(sent: dict[str, str]) -> None:
    reply = client.get("/runs", headers=sent)
    assert {name: reply.headers.get(name) for name in HEADERS} == HEADERS


def test_a_page_may_set_a_header_of_its_own() -> None:
    assert client.get("/own").headers["x-frame-options"] == "SAMEORIGIN"


def test_what_the_policy_says() -> None:
    policy = dict(part.split(" ", 1) for part in HEADERS["Content-Security-Policy"].split("; "))
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",  # no inline script, no eval, no other machine
        "style-src": "'self' 'unsafe-inline'",
        "img-src": "'self' data: blob:",
        "connect-src": "'self'",
        "font-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'self'",
        "frame-ancestors": "'none'",
    }
    assert HEADERS["X-Content-Type-Options"] == "nosniff"
    assert HEADERS["X-Frame-Options"] == "DENY"
    assert HEADERS["Referrer-Policy"] == "no-referrer"
    assert HEADERS["Cross-Origin-Opener-Policy"] == HEADERS["Cross-Origin-Resource-Policy"] == "same-origin"
