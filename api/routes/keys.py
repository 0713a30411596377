"""API keys: list, create, revoke."""

from fastapi import APIRouter
from sqlalchemy.orm import Session

from api.dependencies import Caller, Db, KeysPaged, Parts
from api.json_bodies import JsonRoute
from api.schemas import KeyPage, KeyRequest, NewKey
from api.views import key_view
from pruning.errors import SecateurError
from store.queries import keys

router = APIRouter(prefix="/v1/keys", tags=["keys"], route_class=JsonRoute)


@router.get("")
def list_keys(database: Db, caller: Caller, page: KeysPaged) -> KeyPage:
    """The project's keys; secrets are never shown again."""
    with database.read() as session:
        found = keys.list_page(session, caller.project_id, limit=page.limit, cursor=page.cursor)
        data = [key_view(row, caller.key_id) for row in found.items]
        return KeyPage(data=data, next_cursor=found.next_cursor)


@router.post("", status_code=201)
async def create_key(body: KeyRequest, parts: Parts, caller: Caller) -> NewKey:
    """Make a key; its secret is in this answer and nowhere else."""
    limit = parts.settings.keys_limit

    def make(session: Session) -> NewKey:
        row, secret = keys.create_key(session, caller.project_id, body.name, limit=limit)
        return NewKey(**key_view(row, caller.key_id).model_dump(), secret=secret)

    return await parts.writer.write(make)


@router.delete("/{key_id}", status_code=204)
async def delete_key(key_id: str, parts: Parts, caller: Caller) -> None:
    """Revoke a key at once; not the one this request was made with."""
    if key_id == caller.key_id:
        raise SecateurError(
            "conflict",
            "This request was made with that key.",
            where="key_id",
            hint="Make another key and delete this one with it.",
        )
    await parts.writer.write(lambda session: keys.delete(session, caller.project_id, key_id))
