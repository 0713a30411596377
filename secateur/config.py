"""Which service to talk to and with which key: arguments, then environment, then credentials file.

The credentials file is `credentials.json` in `SECATEUR_CONFIG_DIR`, or else in
`$XDG_CONFIG_HOME/secateur` (`~/.config/secateur`): one JSON object {url: key}, readable by its
owner alone. The entry written last is the default service.
"""

import contextlib
import json
import math
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from secateur.errors import SecateurError

DEFAULT_URL = "http://127.0.0.1:8080"

FIRST_CONNECT_SECONDS = 0.4
"""For a first connection to a service: a command shall say within a second that nobody is there."""


@dataclass(frozen=True)
class Connection:
    """Where the service is, and the key it knows the caller by."""

    url: str
    api_key: str | None


def config_dir() -> Path:
    """The folder of the credentials file."""
    own = os.environ.get("SECATEUR_CONFIG_DIR")
    if own:
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "secateur"


def credentials_path() -> Path:
    """The credentials file."""
    return config_dir() / "credentials.json"


def read_credentials() -> dict[str, str]:
    """All known services and keys; empty when there is no file.

    Raises:
        SecateurError: `usage` for a file that is not a JSON object of strings.
    """
    path = credentials_path()
    try:
        values = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise _unreadable(path, str(error)) from None
    if not isinstance(values, dict) or not all(isinstance(v, str) for v in values.values()):
        raise _unreadable(path, "it is not an object of {url: key}")
    return values


def _unreadable(path: Path, why: str) -> SecateurError:
    return SecateurError(
        "usage",
        f"The credentials file can't be read: {why}.",
        where=str(path),
        hint="Correct or remove it; `secateur up` writes a new one.",
    )


def write_credentials(url: str, api_key: str) -> Path:
    """Records the key as that of the default service; other services keep theirs."""
    path = credentials_path()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    url = normalise(url)
    known = {k: v for k, v in read_credentials().items() if k != url}
    # mkstemp makes the file readable by its owner alone from the first byte on.
    handle, aside = tempfile.mkstemp(dir=path.parent, prefix=".credentials-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump({**known, url: api_key}, file, indent=2)
            file.write("\n")
        os.replace(aside, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(aside)
        raise
    return path


def normalise(url: str) -> str:
    """The URL as it is compared and stored: scheme, host, port, no trailing slash.

    Raises:
        SecateurError: `usage` for anything but http and https.
    """
    parts = urlsplit(url.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SecateurError(
            "usage",
            f"{url!r} is not the URL of a service.",
            where="SECATEUR_URL",
            hint=f"It looks like {DEFAULT_URL}.",
        )
    return url.strip().rstrip("/")


def first_connect_seconds() -> float:
    """Seconds that a first connection may take; SECATEUR_CONNECT_SECONDS says otherwise.

    Raises:
        SecateurError: `usage` where the variable is no positive number.
    """
    given = os.environ.get("SECATEUR_CONNECT_SECONDS", "").strip()
    try:
        seconds = float(given) if given else FIRST_CONNECT_SECONDS
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < math.inf:
        raise SecateurError(
            "usage",
            f"SECATEUR_CONNECT_SECONDS is {given!r}, which is no number of seconds.",
            where="SECATEUR_CONNECT_SECONDS",
            hint=f"Unset it for {FIRST_CONNECT_SECONDS:g} s, or set it to 5, say.",
        )
    return seconds


def resolve(url: str | None = None, api_key: str | None = None) -> Connection:
    """The service and key to use.

    The key of the credentials file only ever goes to the URL that it was stored for.
    """
    known: dict[str, str] = {}
    url = url or os.environ.get("SECATEUR_URL")
    api_key = api_key or os.environ.get("SECATEUR_API_KEY")
    if not url or not api_key:
        known = read_credentials()
    url = normalise(url or next(reversed(known), DEFAULT_URL))
    return Connection(url, api_key or known.get(url))
