"""The server of the pages and of the JSON API: one process, one detector, loaded once.

`scripts/serve.py` runs `application` by `server_of`. The server fetches no address, writes nothing
of what a client sends to a disk but a questionnaire's answers, and logs none of it. It is for one
machine's users: docs/usage/pages.md says what to put before it elsewhere.
"""

from __future__ import annotations

import html
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.types import ASGIApp

from .guard import LOOPBACK, Guard, Refusal
from .quiz_answers import Answers
from .quiz_routes import BEGIN, QUIZ, add_quiz
from .scoring_queue import About, QueueFull, ScoringQueue, Wishes
from .site import STATIC, card_of, render, to_html
from .uploads import FIELD, LIST, UploadError, UploadLimits, read

SCORE, HEALTH = "/api/score", "/health"
DEMO, BOARD, DETECTOR = "/", "/leaderboard", "/api/detector"
NAMES = {DEMO: "Check pictures", QUIZ: "Test yourself", BOARD: "Leaderboard"}
POLICY_TAG = '<meta http-equiv="Content-Security-Policy" content="'
RETRY = 2  # seconds after which a client that met a full queue asks again
PATIENCE = 30  # seconds that answers in work get after SIGTERM
IDLE = 5  # seconds that a connection without a request stays open
MOST_CONNECTIONS = 1000
BODY = {
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": [FIELD],
                "properties": {
                    FIELD: {"type": "array", "items": {"type": "string", "format": "binary"}}
                },
            }
        },
        "application/json": {
            "schema": {
                "type": "object",
                "required": [LIST],
                "properties": {
                    LIST: {"type": "array", "items": {"type": "string", "format": "byte"}}
                },
            }
        },
    },
    "required": True,
}


@dataclass(frozen=True)
class ServerOptions:
    """What the server allows. `hosts`: names it is reached by, beside the loopback's; `per_minute`:
    requests for scores, and beginnings of the questionnaire, that one client may send."""

    hosts: tuple[str, ...] = ()
    per_minute: int = 120
    uploads: UploadLimits = field(default_factory=UploadLimits)


@dataclass(frozen=True)
class Parts:
    """What there is to serve, each None where it is not: the detector behind its queue, the
    questionnaire with its answers, and the HTML of a leaderboard."""

    queue: ScoringQueue | None = None
    quiz: Answers | None = None
    board: str | None = None

    def places(self) -> dict[str, str]:
        """Path -> name of each page, in the order of the navigation."""
        there = {DEMO: self.queue, QUIZ: self.quiz, BOARD: self.board}
        return {path: NAMES[path] for path, part in there.items() if part is not None}


def application(parts: Parts, options: ServerOptions) -> ASGIApp:
    """The server's application.

    Args:
        parts: what it serves; its first page is also at `/`.
        options: what is allowed.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        if parts.queue is not None:
            parts.queue.close()

    # FastAPI's pages of documentation would load scripts from another host.
    app = FastAPI(
        title="Scores of pictures", docs_url=None, redoc_url=None, lifespan=lifespan, version="1"
    )
    places = parts.places()
    if parts.queue is not None:
        _add_api(app, parts.queue, options)
        _add_demo(app, parts.queue.judge.about, places, options)
    if parts.quiz is not None:
        add_quiz(app, parts.quiz, places)
    if parts.board is not None:
        _add_board(app, parts.board)
    if DEMO not in places:
        app.add_api_route(
            DEMO, lambda: RedirectResponse(next(iter(places))), include_in_schema=False
        )
    _add_health(app, parts.queue)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    return Guard(app, {*LOOPBACK, *options.hosts}, {SCORE, BEGIN}, options.per_minute)


def _add_api(app: FastAPI, queue: ScoringQueue, options: ServerOptions) -> None:
    """The routes of the JSON API."""
    about = queue.judge.about

    @app.post(SCORE, openapi_extra={"requestBody": BODY})
    async def score(
        http: Request, explain: bool = False, stability: bool = False, credentials: bool = False
    ) -> Response:
        """An object for each picture, as `main.py --json` prints it; with `explain` also a PNG in
        base64, with `stability` the scores under re-encodings, with `credentials` what files say of
        their origin."""
        if explain and not about.explains:
            return Refusal(400, "explain: this detector has nothing to show").response()
        wishes = Wishes(explain, stability, credentials)
        try:
            with queue.place():
                records = await read(http, options.uploads)
                return JSONResponse(await queue.score(records, wishes))
        except QueueFull:
            after = {"Retry-After": str(RETRY)}
            return Refusal(429, "all places are taken: ask again later", after).response()
        except UploadError as error:
            return error.refusal.response()

    @app.get(DETECTOR)
    async def detector() -> dict[str, Any]:
        """The detector, its weights, and the rule of its verdicts."""
        named = {"detector": about.name, "weights": about.weights.name, "sha256": about.sha256}
        return named | about.rule


def _add_health(app: FastAPI, queue: ScoringQueue | None) -> None:
    """The route that says whether the server answers, for what watches over it."""

    @app.get(HEALTH)
    async def health() -> dict[str, Any]:
        """Whether the server answers, and how many places of its queue are taken."""
        places = {"taken": queue.taken, "places": queue.places} if queue else None
        return {"status": "ok", "queue": places}


def _add_demo(
    app: FastAPI, about: About, places: Mapping[str, str], options: ServerOptions
) -> None:
    """The route of the demo."""
    page = render(
        "demo.j2", title="Real or generated?", here=DEMO, places=places, about=about,
        card=to_html(card_of(about.weights)), megabytes=options.uploads.megabytes,
    )  # fmt: skip

    @app.get(DEMO, include_in_schema=False)
    async def demo() -> HTMLResponse:
        return HTMLResponse(page)


def _add_board(app: FastAPI, page: str) -> None:
    """The route of the leaderboard, whose style and script are in its page."""
    start = page.index(POLICY_TAG) + len(POLICY_TAG)
    # The page's own policy, which has the sums of both; the server's would forbid them.
    policy = html.unescape(page[start : page.index('"', start)])
    headers = {"Content-Security-Policy": f"{policy}; frame-ancestors 'none'"}

    @app.get(BOARD, include_in_schema=False)
    async def board() -> HTMLResponse:
        return HTMLResponse(page, headers=headers)


def server_of(app: ASGIApp) -> uvicorn.Server:
    """The program that answers HTTP for an application; it logs nothing of its clients."""
    return uvicorn.Server(
        uvicorn.Config(
            app, log_level="warning", access_log=False, server_header=False,
            timeout_keep_alive=IDLE, timeout_graceful_shutdown=PATIENCE,
            limit_concurrency=MOST_CONNECTIONS,
        )
    )  # fmt: skip


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises OSError where the address is taken, or none of this machine."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family)


def address_of(listener: socket.socket) -> str:
    """The address of a listening socket, as a browser takes it."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
