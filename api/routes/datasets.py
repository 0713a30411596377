"""Datasets: upload, read, list, delete."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy.orm import Session

from api.dependencies import Caller, DatasetsPaged, Db, Parts
from api.listing import Listing
from api.multipart import LONGEST_NAME
from api.schemas import Dataset, DatasetPage, UploadState
from api.shown import UNCHANGED
from api.uploads import body, display_name, receive
from api.views import dataset_view
from pruning.formats.magic import refuse_data
from store.queries import datasets

router = APIRouter(prefix="/v1/datasets", tags=["datasets"])


@router.post(
    "",
    status_code=201,
    openapi_extra={"requestBody": body("The file itself, or a form with it as `file`.")},
    responses={200: {"model": Dataset, "description": "Bytes and name were already here."}},
)
async def create_dataset(
    request: Request,
    response: Response,
    parts: Parts,
    caller: Caller,
    name: Annotated[
        str | None,
        Query(max_length=LONGEST_NAME, examples=["digits.npz"], description="Its file name."),
    ] = None,
) -> Dataset:
    """Upload arrays (.npz) as the raw body, or as the part `file` of a multipart body.

    The answer's state is `checking`; read the dataset until it is `ready` or `rejected`.
    The same bytes under the same name answer with the row they made before; under another name
    they are a new one. `Content-Digest` (RFC 9530, sha-256 and sha-512, over the body) and
    `X-Content-SHA256` (over the file) are checked if sent.
    """
    settings = parts.settings
    upload = await receive(
        request,
        parts.blobs,
        settings.dataset_bytes_limit,
        settings.upload_idle_seconds,
        refuse_data,
    )

    def record(session: Session) -> tuple[Dataset, bool]:
        shown = display_name(name or upload.name, "dataset")
        row, created = datasets.create(session, caller.project_id, shown, upload.blob)
        return dataset_view(row), created

    dataset, created = await parts.writer.write(record)
    response.status_code = 201 if created else 200
    response.headers["Location"] = f"/v1/datasets/{dataset.id}"
    return dataset


@router.get("", response_model=DatasetPage)
def list_datasets(
    database: Db, caller: Caller, page: DatasetsPaged, state: UploadState | None = None
) -> Response:
    """The project's datasets, newest first."""
    listing = Listing(dataset_view)
    with database.read() as session:
        found = datasets.list_page(
            session,
            caller.project_id,
            state=state,
            limit=page.limit,
            cursor=page.cursor,
            takes=listing.takes,
        )
    return listing.response(found.next_cursor)


@router.get("/{dataset_id}", response_model=Dataset, responses=UNCHANGED)
async def get_dataset(dataset_id: str, request: Request, parts: Parts, caller: Caller) -> Response:
    """One dataset, with what intake learned of it."""
    return await parts.shown.datasets.answer(request, caller.project_id, dataset_id)


@router.delete("/{dataset_id}", status_code=204)
async def delete_dataset(dataset_id: str, parts: Parts, caller: Caller) -> None:
    """Delete a dataset that no job refers to, not even one that is over."""
    await parts.writer.write(
        lambda session: datasets.delete(session, caller.project_id, dataset_id)
    )
