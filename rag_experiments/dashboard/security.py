"""Protection against harmful text in run directories and against requests from other web pages.

A run directory may come from anybody. Therefore every text is escaped (Jinja2's autoescape), and a content policy lets
the browser run only this package's own scripts, in case escaping fails somewhere. Any open web page may send requests
to 127.0.0.1, or point its own host name there (DNS rebinding). Therefore only requests that name this machine as host
are answered, and no requests from pages of other sites.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

HOSTS = frozenset({"127.0.0.1", "localhost", "[::1]"})
_HOST = re.compile(r"(?P<host>\[[^\[\]]*\]|[^:\[\]]*)(:[0-9]*)?")
# Inline styles are needed by Plotly and cannot run code; data: and blob: images are its PNG download.
CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": CONTENT_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def host_name(header: str) -> str:
    """The host of a `Host` header without its port: `localhost:8050` → `localhost`, `[::1]:80` → `[::1]`.

    Empty if the header has neither form, such as `[::1]evil.example`.
    """
    match = _HOST.fullmatch(header)
    return match["host"].lower() if match else ""


class Guard(BaseHTTPMiddleware):
    """Refuses other hosts, requests from other sites, and methods except GET and HEAD; adds the security headers."""

    async def dispatch(self, request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        refusal = self.refusal(request)
        response = refusal or await call_next(request)
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    def refusal(self, request: Request) -> Response | None:
        """A response that refuses the request, or None if it is allowed."""
        if host_name(request.headers.get("host", "")) not in HOSTS:
            return PlainTextResponse("This page is served for 127.0.0.1 and localhost only.\n", status_code=421)
        if request.method not in ("GET", "HEAD"):
            return PlainTextResponse("This page only reads.\n", status_code=405, headers={"Allow": "GET, HEAD"})
        # A link on another site may open a page (navigate), but a script of that site may not read one.
        site, mode = request.headers.get("sec-fetch-site"), request.headers.get("sec-fetch-mode")
        if site in ("cross-site", "same-site") and mode != "navigate":
            return PlainTextResponse("Requests from other sites are not answered.\n", status_code=403)
        return None
