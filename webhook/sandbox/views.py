"""What people and tests look at and turn: the page, the ledger, the control, samples of sound."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiohttp import web

from . import audio
from .config import ConfigError
from .ledger import SOUGHT, task_details
from .magic import MAGIC, mark

if TYPE_CHECKING:
    from .control import Control
    from .ledger import Ledger
    from .tasks import TaskBook

PAGE = """\
A stand-in for the voice moderation platform. Nothing here is real, nothing costs anything.

  endpoint    {url}
  AccessKey   {key_id} / {secret}
  account UID {uid}

Look at it, and change it while it runs:
  {url}/sandbox/ledger        what was accepted (and so charged) and answered, how many random faults there were
  {url}/sandbox/tasks         every task, its answers, its callbacks and their attempts
      ?source= &data_id= &live_id= &state=   only these; &slices=true   with their slices
  {url}/sandbox/tasks/ID      one, with its slices
  {url}/sandbox/faults        every random fault
  {url}/sandbox/control       the settings; PATCH {{"account_code": 408}} changes one, null ends it
  {url}/samples/high.mp3      a tiny sound; any name will do

{magic}
"""


class Views:
    """Answers those who look.

    Args:
        control: the settings.
        book: where tasks are kept.
        ledger: what was counted.
        url: base URL of this sandbox.
    """

    def __init__(self, control: Control, *, book: TaskBook, ledger: Ledger, url: str) -> None:
        self._control = control
        self._book = book
        self._ledger = ledger
        self._url = url

    def routes(self) -> list[web.RouteDef]:
        """Return its routes."""
        return [
            web.get("/", self._page),
            web.get("/sandbox/ledger", self._totals),
            web.get("/sandbox/tasks", self._tasks),
            web.get("/sandbox/tasks/{task_id}", self._task),
            web.get("/sandbox/faults", self._faults),
            web.get("/sandbox/control", self._shown),
            web.patch("/sandbox/control", self._change),
            web.get("/samples/{name}", self._sample),
        ]

    async def _page(self, _request: web.Request) -> web.Response:
        """Say what this is and list the magic inputs."""
        config = self._control.config
        return web.Response(
            text=PAGE.format(
                url=self._url,
                key_id=config.access_key_id,
                secret=config.access_key_secret,
                uid=config.uid,
                magic=MAGIC,
            )
        )

    async def _totals(self, _request: web.Request) -> web.Response:
        return web.json_response(self._ledger.totals())

    async def _faults(self, _request: web.Request) -> web.Response:
        return web.json_response(self._ledger.faults())

    async def _tasks(self, request: web.Request) -> web.Response:
        wanted: dict[str, Any] = dict(request.query)
        slices = wanted.pop("slices", "false")
        unknown = sorted(wanted.keys() - set(SOUGHT))
        if unknown or slices not in {"true", "false"}:
            return web.json_response({"error": f"known are {', '.join(SOUGHT)}, and slices=true"}, status=422)
        return web.json_response(self._ledger.tasks(wanted, slices=slices == "true"))

    async def _task(self, request: web.Request) -> web.Response:
        task = self._book.find(request.match_info["task_id"])
        if task is None:
            raise web.HTTPNotFound
        return web.json_response(task_details(task))

    async def _shown(self, _request: web.Request) -> web.Response:
        return web.json_response(self._control.shown())

    async def _change(self, request: web.Request) -> web.Response:
        try:
            self._control.change(await request.read())
        except ConfigError as error:
            return web.json_response({"error": str(error)}, status=422)
        return web.json_response(self._control.shown())

    async def _sample(self, request: web.Request) -> web.Response:
        """Serve a sound that keeps its magic when it is uploaded under another name."""
        source = request.raw_path.removeprefix("/samples/")
        return web.Response(body=audio.wav(mark(source)), content_type="audio/wav")
