"""One resource a file; each holds an `APIRouter` called `router`."""
