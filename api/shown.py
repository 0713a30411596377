"""Jobs, models and datasets as bytes of JSON, kept for as long as their rows stay as they are.

Who waits for a job asks for it again and again. Each time its row is looked at, for what changes
with any change of what is shown; only if it differs, the whole is read and written anew.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import BaseModel
from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import Response

from api.ranges import matches
from api.reading import BatchReader
from api.views import dataset_view, job_view, model_view
from pruning.errors import SecateurError
from store.db import Database
from store.lookups import Lookup, Lookups
from store.queries import datasets, jobs, models
from store.tables import Dataset, Job, Model

KEPT_BYTES = 16 << 20
"""Of each kind, in a process."""

UNCHANGED: dict[int | str, dict[str, Any]] = {
    304: {"description": "It has the ETag of If-None-Match."}
}

Row = TypeVar("Row", Job, Model, Dataset)
Key = tuple[str, str]
"""Project and id."""


@dataclass(frozen=True, slots=True)
class _Shown:
    """A resource as it is answered with."""

    version: tuple[Any, ...]
    body: bytes
    etag: str


class ShownRows(Generic[Row]):
    """The resources of one kind, those that were asked for lately as their bytes.

    Args:
        reader: Who looks for them.
        database: Where they are.
        versions: Project, id, and what differs whenever the resource is shown otherwise.
        rows: The rows of these ids.
        view: What is shown of a row.
        missing: What is raised for an id that is nobody's or somebody else's.
    """

    def __init__(
        self,
        reader: BatchReader,
        database: Database,
        versions: Lookup,
        rows: Callable[[Session, Sequence[str]], Iterable[Row]],
        view: Callable[[Row], BaseModel],
        missing: Callable[[str], SecateurError],
    ) -> None:
        self._reader, self._database, self._missing = reader, database, missing
        self._versions = versions
        self._rows: Callable[[Session, Sequence[str]], Iterable[Row]] = rows
        self._view: Callable[[Row], BaseModel] = view
        self._kept: OrderedDict[Key, _Shown] = OrderedDict()
        self._bytes = 0

    async def answer(self, request: Request, project_id: str, row_id: str) -> Response:
        """The resource as JSON, or 304 where the request names its ETag.

        Raises:
            SecateurError: `not_found`.
        """
        key = (project_id, row_id)
        version = await self._reader.look_up(self._current, key)
        shown = self._kept.get(key)
        if version is not None and (shown is None or shown.version != version):
            shown = await self._reader.ask(self._load, key)
            if shown is not None:
                self._keep(key, shown)
        if version is None or shown is None:
            raise self._missing(row_id)
        return _response(request, shown)

    def _current(self, lookups: Lookups, keys: Sequence[Key]) -> dict[Key, tuple[Any, ...]]:
        """The versions of those that there are."""
        asked = set(keys)
        rows = lookups.rows(self._versions, [row_id for _, row_id in keys])
        return {row[:2]: row[2:] for row in rows if row[:2] in asked}

    def _load(self, lookups: Lookups, keys: Sequence[Key]) -> dict[Key, _Shown]:
        """Those that there are, read and written anew."""
        versions = self._current(lookups, keys)
        loaded: dict[Key, _Shown] = {}
        with self._database.read() as session:
            for row in self._rows(session, [row_id for _, row_id in versions]):
                # What changed since its version was read is read again the next time.
                key = (row.project_id, row.id)
                body = self._view(row).model_dump_json().encode()
                etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
                loaded[key] = _Shown(versions[key], body, etag)
        return loaded

    def _keep(self, key: Key, shown: _Shown) -> None:
        before = self._kept.pop(key, None)
        self._bytes += len(shown.body) - (len(before.body) if before else 0)
        self._kept[key] = shown
        while self._bytes > KEPT_BYTES:
            self._bytes -= len(self._kept.popitem(last=False)[1].body)


def _response(request: Request, found: _Shown) -> Response:
    headers = {"etag": found.etag, "cache-control": "private, no-cache"}
    if matches(request.headers.get("if-none-match"), found.etag):
        return Response(status_code=304, headers=headers)
    return Response(found.body, media_type="application/json", headers=headers)


class Shown:
    """The single resources that GET answers with.

    Args:
        reader: Who looks for them.
        database: Where they are.
    """

    def __init__(self, reader: BatchReader, database: Database) -> None:
        self.jobs = ShownRows[Job](
            reader, database, jobs.VERSIONS, jobs.of_ids, job_view, jobs.not_found
        )
        self.models = ShownRows[Model](
            reader, database, models.VERSIONS, models.of_ids, model_view, models.not_found
        )
        self.datasets = ShownRows[Dataset](
            reader, database, datasets.VERSIONS, datasets.of_ids, dataset_view, datasets.not_found
        )
