"""The `secateur` command.

Exit codes: 0 succeeded, 1 failed, 2 usage, 3 rejected by a gate, 130 cancelled.
"""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from secateur.errors import SecateurError

__all__ = ["main"]


def main() -> None:
    """Runs the command; every error is one block on stderr, never a traceback without --debug."""
    from secateur.cli.app import app
    from secateur.cli.options import FAILED, USAGE, state
    from secateur.errors import SecateurError

    try:
        app(prog_name="secateur")
    except SecateurError as error:
        if state.debug:
            raise
        _print(error)
        sys.exit(USAGE if error.code == "usage" else FAILED)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # Whoever read our output has seen enough.
        sys.stderr.close()
        sys.exit(1)
    except Exception as error:
        if state.debug:
            raise
        _print(
            SecateurError(
                "internal_error",
                f"{type(error).__name__}: {error}",
                hint="This is a bug in Secateur; `secateur --debug ...` shows where.",
            )
        )
        sys.exit(FAILED)


def _print(error: "SecateurError") -> None:
    from secateur.cli.output import print_error

    print_error(error)
