"""`python -m api`: see `api.server`."""

from api.server import main

if __name__ == "__main__":
    raise SystemExit(main())
