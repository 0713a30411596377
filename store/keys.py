"""`python -m store.keys --project NAME`: make an API key, and the project if there is none."""

import argparse

from store.db import Database
from store.queries import keys
from store.settings import get_settings


def main(arguments: list[str] | None = None) -> int:
    """Print one new key; it is stored as a digest and can't be shown again."""
    parser = argparse.ArgumentParser(prog="python -m store.keys", description=__doc__)
    parser.add_argument("--project", default="default", help="made if it does not exist")
    parser.add_argument("--name", default="made by store.keys", help="what the key is for")
    options = parser.parse_args(arguments)
    database = Database(get_settings())
    with database.write() as session:
        project = keys.project_named(session, options.project)
        _, secret = keys.create_key(session, project.id, options.name)
    print(secret)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
