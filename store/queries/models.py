"""Uploaded models."""

from store.queries.uploads import Uploads
from store.tables import Model

_models = Uploads(Model, "model")
create = _models.create
get = _models.get
VERSIONS = _models.versions
of_ids = _models.of_ids
not_found = _models.not_found
usable = _models.usable
list_page = _models.list_page
delete = _models.delete
