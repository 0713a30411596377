"""Texts from a file in messages."""


def shown(name: str, length: int = 120) -> str:
    """A text from the file as it may appear in a message: printable and short."""
    if len(name) <= length and name.isprintable():
        return name
    clean = "".join(c if c.isprintable() else "?" for c in name)
    return clean if len(clean) <= length else clean[: length - 3] + "..."
