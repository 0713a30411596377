"""A stored file that is not what it was, or not there any more."""

from pruning.errors import SecateurError


class DamagedBlobError(SecateurError):
    """The bytes of a blob do not have its digest; `file_damaged` to whoever asked for them.

    Args:
        sha256: The blob.
        reason: What was found, as the end of a sentence: "it is missing".
        missing: Whether there is no file at all.
    """

    def __init__(self, sha256: str, reason: str, *, missing: bool = False) -> None:
        super().__init__(
            "file_damaged",
            f"The stored file with the SHA-256 {sha256} is damaged: {reason}.",
            hint="Upload or make the same bytes again: that puts a sound file in its place.",
        )
        self.sha256 = sha256
        self.reason = reason
        self.missing = missing
