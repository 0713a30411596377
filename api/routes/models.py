"""Models: upload, read, list, delete."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic.config import JsonDict
from sqlalchemy.orm import Session

from api.declared import WRITTEN, declared_axes
from api.dependencies import Caller, Db, ModelsPaged, Parts
from api.listing import Listing
from api.multipart import LONGEST_NAME, LONGEST_OPTION, MOST_OPTIONS
from api.schemas import Model, ModelPage, UploadState
from api.shown import UNCHANGED
from api.uploads import body, display_name, receive
from api.views import model_view
from pruning.axes import as_inputs
from pruning.formats.magic import refuse_model
from store.queries import models

router = APIRouter(prefix="/v1/models", tags=["models"])

_WRITTEN: JsonDict = {"pattern": WRITTEN}  # who writes otherwise is told more than a pattern
_BODY = body(
    "The file itself, or a form with the file as the part `file`; a model of several files has one "
    "part `file` for each.",
    samples={
        "type": "array",
        "items": {"type": "string", "maxLength": LONGEST_OPTION, "pattern": WRITTEN},
        "maxItems": MOST_OPTIONS,
        "description": "As the query parameter; one part for each.",
    },
)


@router.post(
    "",
    status_code=201,
    openapi_extra={"requestBody": _BODY},
    responses={200: {"model": Model, "description": "Bytes and name were already here."}},
)
async def create_model(
    request: Request,
    response: Response,
    parts: Parts,
    caller: Caller,
    name: Annotated[
        str | None,
        Query(max_length=LONGEST_NAME, examples=["lenet.onnx"], description="Its file name."),
    ] = None,
    samples: Annotated[
        list[Annotated[str, Query(max_length=LONGEST_OPTION, json_schema_extra=_WRITTEN)]],
        Query(
            max_length=MOST_OPTIONS,
            examples=[["x=1"]],
            description="Which axis of an input holds the samples, as INPUT=AXIS, or INPUT=shared; "
            "where names of sizes and a trial do not tell.",
        ),
    ] = [],  # noqa: B006 - FastAPI copies it
) -> Model:
    """Upload a network as the raw body, or as the part `file` of a multipart body.

    A network of several files (a Hugging Face folder, or architecture.json and its weights) comes
    as .tar, .zip or one part `file` for each file, with its filename. `sha256` is then that of the
    canonical list: compact JSON, files by name, keys bytes, path, sha256.

    The answer's state is `checking`; read the model until it is `ready` or `rejected`.
    The same bytes under the same name answer with the row they made before; under another name
    they are a new one. `Content-Digest` (RFC 9530, sha-256 and sha-512, over the body) and
    `X-Content-SHA256` (over the file, or the list) are checked if sent. Of a multipart body,
    `samples` may be parts too.
    """
    settings = parts.settings
    declared = declared_axes(samples)
    upload = await receive(
        request,
        parts.blobs,
        settings.model_bytes_limit,
        settings.upload_idle_seconds,
        refuse_model,
        several=True,
        options=("samples",),
        accept=lambda said: declared.update(declared_axes([*samples, *said["samples"]])),
    )

    def record(session: Session) -> tuple[Model, bool]:
        shown = display_name(name or upload.name, "model")
        row, created = models.create(
            session,
            caller.project_id,
            shown,
            upload.blob,
            files=upload.files,
            spec={"inputs": as_inputs(declared)} if declared else {},
        )
        return model_view(row), created

    model, created = await parts.writer.write(record)
    response.status_code = 201 if created else 200
    response.headers["Location"] = f"/v1/models/{model.id}"
    return model


@router.get("", response_model=ModelPage)
def list_models(
    database: Db, caller: Caller, page: ModelsPaged, state: UploadState | None = None
) -> Response:
    """The project's models, newest first."""
    listing = Listing(model_view)
    with database.read() as session:
        found = models.list_page(
            session,
            caller.project_id,
            state=state,
            limit=page.limit,
            cursor=page.cursor,
            takes=listing.takes,
        )
    return listing.response(found.next_cursor)


@router.get("/{model_id}", response_model=Model, responses=UNCHANGED)
async def get_model(model_id: str, request: Request, parts: Parts, caller: Caller) -> Response:
    """One model, with what intake learned of it."""
    return await parts.shown.models.answer(request, caller.project_id, model_id)


@router.delete("/{model_id}", status_code=204)
async def delete_model(model_id: str, parts: Parts, caller: Caller) -> None:
    """Delete a model that no job refers to, not even one that is over."""
    await parts.writer.write(lambda session: models.delete(session, caller.project_id, model_id))
