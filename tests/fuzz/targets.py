"""What is fuzzed: every file that a reader parses, each the seed of one target.

A target is a sample of `tests.security.samples` and, where the upload is a folder, one of its
files. Bytes from a fuzzer take that file's place; the rest of the upload stays valid, so that
they get as deep as they can.
"""

from dataclasses import dataclass
from pathlib import Path

from pruning.errors import SecateurError
from pruning.formats.limits import MIB, Limits
from tests.security.samples import SAMPLES

LIMITS = Limits(
    model_bytes=8 * MIB,
    data_bytes=8 * MIB,
    unpacked_bytes=32 * MIB,
    parameters=2_000_000,
    activation_bytes=32 * MIB,
)
"""Small, so that what is accepted is cheap."""

_FOLDERS = {
    "huggingface": ("config.json", "model.safetensors", "tokenizer.json"),
    "tokenizer": ("tokenizer.json",),
    "architecture": ("architecture.json", "model.safetensors"),
    "state_dict": ("model.pt",),
}


@dataclass(frozen=True)
class Target:
    """One file of one sample."""

    sample: str
    member: str | None = None

    @property
    def name(self) -> str:
        """As the command line has it."""
        return f"{self.sample}:{self.member}" if self.member else self.sample

    def prepare(self, folder: Path) -> bytes:
        """Writes the valid upload below a folder and gives the seed."""
        made = SAMPLES[self.sample].make(folder / "sample")
        return (made / self.member if self.member else made).read_bytes()

    def read(self, folder: Path, data: bytes) -> str | None:
        """Reads the upload with `data` in the file's place.

        Returns:
            The code it was refused with, or None. Anything else that is raised is a crash.
        """
        from pruning.formats.intake import check_dataset, check_model

        path = folder / "sample"
        (path / self.member if self.member else path).write_bytes(data)
        try:
            if SAMPLES[self.sample].kind == "model":
                check_model(path, LIMITS)
            else:
                check_dataset(path, LIMITS)
        except SecateurError as error:
            return error.code
        return None


TARGETS = {
    target.name: target
    for sample in SAMPLES
    for target in (
        [Target(sample, member) for member in _FOLDERS[sample]]
        if sample in _FOLDERS
        else [Target(sample)]
    )
}
