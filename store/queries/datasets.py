"""Uploaded datasets."""

from store.queries.uploads import Uploads
from store.tables import Dataset

_datasets = Uploads(Dataset, "dataset")
create = _datasets.create
get = _datasets.get
VERSIONS = _datasets.versions
of_ids = _datasets.of_ids
not_found = _datasets.not_found
usable = _datasets.usable
list_page = _datasets.list_page
delete = _datasets.delete
