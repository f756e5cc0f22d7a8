"""The web application: one route per page, the files that pages need, and how requests are answered."""

from __future__ import annotations

import importlib
import importlib.resources
import json
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from rag_experiments import __version__
from rag_experiments.core.errors import RequestError
from rag_experiments.dashboard.pages import cost, curves, questions, repeat, runs, sweep
from rag_experiments.dashboard.security import Guard
from rag_experiments.dashboard.shared import wording
from rag_experiments.dashboard.shared.address import COMMON, View
from rag_experiments.dashboard.shared.watch import Watch

HERE = Path(__file__).parent
PAGES: dict[str, Any] = {
    "runs": runs,
    "curves": curves,
    "sweep": sweep,
    "questions": questions,
    "cost": cost,
    "repeat": repeat,
}


def create_app(watch: Watch) -> Starlette:
    """The application over the runs that `watch` sees."""
    templates = make_templates()
    routes = [Route(f"/{name}", answer(watch, templates, name)) for name in PAGES]
    return Starlette(
        routes=[
            Route("/", lambda request: RedirectResponse("/runs")),
            *routes,
            Route("/static/plotly.min.js", plotly_script),
            Mount("/static", StaticFiles(directory=HERE / "static")),
        ],
        middleware=[Middleware(Guard), Middleware(GZipMiddleware, minimum_size=2000, compresslevel=4)],
        exception_handlers={
            404: lambda request, error: apology(templates, watch, 404, "There is no such page."),
            500: lambda request, error: apology(
                templates, watch, 500, "This page failed; the terminal of the dashboard shows the traceback."
            ),
        },
    )


def make_templates() -> jinja2.Environment:
    """A Jinja2 environment that escapes everything and fails on an unknown name."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "value": wording.value,
        "number": wording.number,
        "duration": wording.duration,
        "moment": wording.moment,
        "as_json": figure_json,
        "identity": id,
    }
    environment.globals |= {
        "metric_text": wording.metric,
        "difference_text": wording.difference,
        "setting_text": wording.setting,
        "pages_there": list(PAGES),
        "version": __version__,
    }
    return environment


def figure_json(figure: Any) -> str:
    """A Plotly figure, or its plain values, as JSON."""
    if hasattr(figure, "to_json"):
        return figure.to_json()
    return json.dumps(figure, ensure_ascii=False, separators=(",", ":"))


def answer(watch: Watch, templates: jinja2.Environment, name: str) -> Callable[[Request], Response]:
    """The endpoint of a page. It is a plain function, which Starlette runs in a thread: a slow page blocks no other."""
    page = PAGES[name]
    template = templates.get_template(f"{name}.html")

    def endpoint(request: Request) -> Response:
        view = View.read(name, page.DEFAULTS, request.query_params.multi_items())
        watch.look()
        headers = {"Cache-Control": "no-store"}
        if request.query_params.get("since") == watch.version:  # the page asks whether anything has changed
            return Response(status_code=204, headers=headers)
        status, shared = 200, {"view": view, "watch": watch, "stamp": watch.version, "problem": None}
        try:
            body = template.render(shared | page.context(watch, view))
        except RequestError as error:
            status = 404
            body = templates.get_template("problem.html").render(shared | {"problem": str(error)})
        asked_by_script = "hx-request" in request.headers and "hx-history-restore-request" not in request.headers
        if asked_by_script and "since" not in request.query_params:
            headers["HX-Push-Url"] = view.href
        return HTMLResponse(_sendable(body), status_code=status, headers=headers)

    return endpoint


def _sendable(page: str) -> bytes:
    """The page as bytes; the name of a folder may be invalid Unicode."""
    return page.encode("utf-8", "backslashreplace")


def apology(templates: jinja2.Environment, watch: Watch, status: int, sentence: str) -> Response:
    """The page for an unknown address or an error."""
    view = View("runs", {**COMMON, **runs.DEFAULTS})
    shared = {"view": view, "watch": watch, "stamp": watch.version, "problem": sentence}
    return HTMLResponse(templates.get_template("problem.html").render(shared), status_code=status)


@lru_cache(maxsize=1)
def _plotly() -> bytes:
    return (importlib.resources.files("plotly") / "package_data" / "plotly.min.js").read_bytes()


def plotly_script(request: Request) -> Response:
    """The script from the installed plotly package (4.8 MB, so the browser caches it)."""
    headers = {"Cache-Control": "public, max-age=86400"}
    return Response(_plotly(), media_type="text/javascript", headers=headers)
