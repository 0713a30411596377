"""Uploaded models."""

from store.queries.uploads import Uploads
from store.tables import Model

_models = Uploads(Model, "model")
create = _models.create
get = _models.get
usable = _models.usable
list_page = _models.list_page
delete = _models.delete
