"""The application: settings in, ASGI app out.

Served by `python -m api` (`api.server`). From the outside in: request ids and metrics,
authentication, bounded bodies, places among those at work, routes.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version

from fastapi import Depends, FastAPI
from prometheus_client import CollectorRegistry

from api import openapi, problems
from api.admission import Admission
from api.auth import Authentication
from api.bodies import BoundedBodies
from api.context import RequestContext
from api.dependencies import Service
from api.feed import Feed
from api.gates import Gates
from api.http.connections import Connections
from api.methods import HeadRequests
from api.metrics import ConnectionMetrics, JobMetrics, RequestMetrics
from api.parameters import known_parameters
from api.reading import BatchReader
from api.routes import (
    artifacts,
    criteria,
    datasets,
    docs,
    events,
    health,
    jobs,
    keys,
    limits,
    metrics,
    models,
    plans,
)
from api.shown import Shown
from api.storage_metrics import StorageMetrics
from api.writing import GroupWriter
from store.blobs import LocalBlobs
from store.db import Database
from store.queries.keys import Principal, digest, principals
from store.scrub import progress_file
from store.settings import Settings, get_settings

_ROUTES = (
    models,
    datasets,
    jobs,
    events,
    artifacts,
    plans,
    criteria,
    limits,
    keys,
)
_OPERATIONS = (health, metrics, docs)


def create_app(settings: Settings | None = None) -> FastAPI:
    """The app for these settings; the database must have been migrated."""
    settings = settings or get_settings()
    database = Database(settings)
    reader = BatchReader(database)
    parts = Service(
        settings,
        database,
        LocalBlobs(settings.blob_dir, settings.storage_reserve_bytes),
        reader,
        GroupWriter(database),
        Shown(reader, database),
        Feed(database),
        Gates(settings),
    )
    registry = CollectorRegistry()
    registry.register(JobMetrics(parts.database))
    registry.register(StorageMetrics(parts.blobs, progress_file(settings)))
    connections = Connections(settings)
    registry.register(ConnectionMetrics(connections))

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        app.openapi()  # takes half a second, which no request shall wait for
        yield
        parts.feed.close()
        parts.writer.close()
        reader.close()
        parts.database.dispose()

    app = FastAPI(
        title="Secateur",
        summary="Pruning as a service.",
        description="Upload a trained network and data, say what to remove, get the same network "
        "back, smaller, with a report of what it cost. Errors are problem+json (RFC 9457).",
        version=_version(),
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
        lifespan=lifespan,
    )
    app.state.service = parts
    app.state.registry = registry
    app.state.connections = connections
    problems.install(app)
    openapi.install(app)
    for module in _ROUTES:
        app.include_router(module.router, dependencies=[Depends(known_parameters)])
    for module in _OPERATIONS:  # probes may carry what they like
        app.include_router(module.router)

    async def owner_of(secret: str) -> Principal | None:
        return await reader.look_up(principals, digest(secret))

    # The last one added is the outermost.
    app.add_middleware(Admission, gates=parts.gates)
    app.add_middleware(BoundedBodies, seconds=settings.body_seconds, budget=parts.gates.bodies)
    app.add_middleware(HeadRequests)
    app.add_middleware(Authentication, authenticate=owner_of, settings=settings)
    app.add_middleware(RequestContext, metrics=RequestMetrics(registry))
    return app


def _version() -> str:
    try:
        return version("secateur")
    except PackageNotFoundError:
        return "0+source"
