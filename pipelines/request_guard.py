"""Which requests the servers of `gan-foundry ui` answer: those of their own pages and of programs.

Pure ASGI, around any app. Nothing about Dagster or MLflow is here but the paths that are given.
"""

import re
from dataclasses import dataclass

from starlette.datastructures import Headers, QueryParams
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

OWN_HOSTS = ("127.0.0.1", "localhost")
READING_METHODS = ("GET", "HEAD", "OPTIONS")
OWN_SITES = ("same-origin", "none")  # `none`: the address bar or a bookmark
NOTHING = re.compile("(?!)")


@dataclass(frozen=True)
class RequestRules:
    """What differs between the two servers.

    Attributes:
        closed: Paths that nobody reaches.
        programmatic: Paths that are for programs and for the server's own pages; a link from
            another site must not lead there.
        read_only: Whether requests that may change something are refused.
        reading_posts: Paths whose POST only reads, which stay open when `read_only`.
    """

    programmatic: re.Pattern[str]
    closed: re.Pattern[str] = NOTHING
    read_only: bool = False
    reading_posts: re.Pattern[str] = NOTHING


def guard(app: ASGIApp, rules: RequestRules) -> ASGIApp:
    """The app, closed to foreign hosts, foreign pages and, if read-only, to changes."""
    return TrustedHostMiddleware(
        RequestGuard(app, rules), allowed_hosts=OWN_HOSTS, www_redirect=False
    )


class RequestGuard:
    """Refuses what a page of another site makes a browser send; programs send no such headers.

    A browser names the page that asks in `Origin` and, for GETs too, its relation to us in
    `Sec-Fetch-Site`. Another port of this machine is another origin, but the same site.
    """

    def __init__(self, app: ASGIApp, rules: RequestRules) -> None:
        self.app = app
        self.rules = rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with 403 and a sentence, or pass the request on."""
        if scope["type"] in ("http", "websocket") and (reason := self._refusal(scope)):
            await PlainTextResponse(reason, status_code=403)(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def _refusal(self, scope: Scope) -> str | None:
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        # The host is trusted by now, so a page at it is ours, also through a forwarded port.
        if origin is not None and origin != f"http://{headers.get('host', '')}":
            return f"Refused: the page {origin} is another origin than this server."
        if scope["type"] == "websocket":
            return None
        # Flask takes //x for /x.
        method, path = scope["method"], re.sub("/+", "/", scope["path"])
        site = headers.get("sec-fetch-site", "none")
        if site not in OWN_SITES and not self._is_link(method, path, headers):
            return "Refused: a page of another origin may link to pages here, and nothing else."
        # Not every browser sends Sec-Fetch-Site, and a GET carries no Origin. Dagster takes the
        # query of a POST from the address, too, if its content type is none that it knows.
        if path == "/graphql" and "query" in QueryParams(scope["query_string"]):
            return "Refused: send GraphQL queries in the body of a POST."
        if self.rules.closed.match(path):
            return "Refused: this part of the server is closed."
        if self.rules.read_only and not (
            method in READING_METHODS
            or (method == "POST" and self.rules.reading_posts.fullmatch(path))
        ):
            return "Refused: this server is read-only; start it without --read-only."
        return None

    def _is_link(self, method: str, path: str, headers: Headers) -> bool:
        return (
            method == "GET"
            and headers.get("sec-fetch-mode") == "navigate"
            and headers.get("sec-fetch-dest") == "document"
            and not self.rules.programmatic.match(path)
        )
