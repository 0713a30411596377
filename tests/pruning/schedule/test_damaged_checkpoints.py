"""Whatever is left of a job's checkpoints, it ends with the bytes of an undisturbed run."""

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from safetensors.torch import save_file

from pruning import checkpoint, prune
from tests.pruning.schedule.jobs import TRAINED, bits, network, spec

ROUNDS = {"kind": "rounds", "rounds": 3, "curve": "linear"}
JOBS = {
    "rounds": spec(schedule=ROUNDS, recovery=TRAINED),
    "stopped": spec(
        0.95,
        schedule={"kind": "rounds", "rounds": 4, "recomputations": 2, "stop": {"drop": 0.12}},
        recovery={"kind": "none"},
    ),
    "layer by layer": spec(
        schedule=ROUNDS | {"rounds": 2},
        criterion={"kind": "layer_obs"},
        compensation={"kind": "layerwise"},
        recovery=TRAINED,
    ),
    "search": spec(schedule=ROUNDS | {"rounds": 2})
    | {"target": {"max_drop": {"drop": 0.3, "probes": 3}}},
    "curve and comparison": spec(
        schedule=ROUNDS | {"rounds": 2},
        curve={"points": [0.5, 0.7]},
        comparison={"criteria": [{"kind": "magnitude"}, {"kind": "taylor"}]},
        recovery=TRAINED,
    ),
}


@dataclass
class Done:
    """A job that is over: every checkpoint it wrote, and its bytes."""

    asked: dict[str, Any]
    files: dict[str, bytes]
    bits: Any

    def resumed(self, folder: Path) -> Any:
        module, data = network()
        return bits(prune(module, data, self.asked, checkpoints=folder))

    def fill(self, folder: Path, names: list[str]) -> None:
        folder.mkdir()
        for name in names:
            (folder / name).write_bytes(self.files[name])


@pytest.fixture(scope="module", params=JOBS)
def done(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Done:
    asked, folder = JOBS[request.param], tmp_path_factory.mktemp("done")
    files: dict[str, bytes] = {}

    def keep(event: Any) -> None:
        if event.type == "checkpoint":
            files[event.name] = (folder / event.name).read_bytes()

    module, data = network()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "PAUSE", -1.0)  # training is kept after every epoch
        outcome = prune(module, data, asked, checkpoints=folder, emit=keep)
    assert len(files) >= 3
    return Done(asked, files, bits(outcome))


def test_of_several_files_some_are_missing(done: Done, tmp_path: Path) -> None:
    chance = random.Random(0)
    for number in range(6):
        share = chance.choice([0.2, 0.5, 0.8])
        left = [name for name in sorted(done.files) if chance.random() < share]
        done.fill(tmp_path / str(number), left)
        assert done.resumed(tmp_path / str(number)) == done.bits, left


def test_a_bit_of_a_file_has_changed(done: Done, tmp_path: Path) -> None:
    """Of numbers, of names, or of what the file says of the run: it is as if it were missing."""
    chance = random.Random(1)
    for number, name in enumerate(chance.sample(sorted(done.files), min(6, len(done.files)))):
        folder = tmp_path / str(number)
        done.fill(folder, sorted(done.files))
        content = bytearray(done.files[name])
        head = 8 + int.from_bytes(content[:8], "little")
        at = chance.randrange(8, head) if number % 2 else chance.randrange(len(content))
        content[at] ^= 1 << chance.randrange(7)
        (folder / name).write_bytes(content)
        assert done.resumed(folder) == done.bits, (name, at)


def rewritten(path: Path, change: Any) -> None:
    """The file as somebody wrote it who knows the format, with other values and a digest."""
    with safe_open(path, framework="pt") as file:
        record = json.loads(file.metadata()[checkpoint.KEY])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    record = change(record)
    if isinstance(record, dict):
        record.pop("digest", None)
        record["digest"] = checkpoint._digest(tensors, checkpoint._canonical(record))
    save_file(tensors, path, {checkpoint.KEY: json.dumps(record)})


UNREADABLE = {
    "no mapping": lambda _record: [1, 2],
    "without a state": lambda record: {k: v for k, v in record.items() if k != "state"},
    "of another version": lambda record: record | {"state": {"rounds": [{"new": 1}]}},
    "without a fingerprint": lambda record: {"state": record["state"]},
}


@pytest.mark.parametrize("change", UNREADABLE.values(), ids=UNREADABLE)
def test_a_whole_file_that_can_not_be_used_is_passed_over(change: Any, tmp_path: Path) -> None:
    module, data = network()
    asked = JOBS["rounds"]
    wanted = bits(prune(module, data, asked, checkpoints=tmp_path))
    rewritten(tmp_path / "round-3.safetensors", change)
    again, data = network()
    assert bits(prune(again, data, asked, checkpoints=tmp_path)) == wanted


def test_a_number_of_the_state_has_changed(tmp_path: Path) -> None:
    """The file says so much of the run that its tensors alone don't vouch for it."""
    module, data = network()
    asked = JOBS["rounds"]
    wanted = bits(prune(module, data, asked, checkpoints=tmp_path))
    path = tmp_path / "round-3.safetensors"
    content = path.read_bytes()
    at = content.index(b"loss_pruned", content.index(b"rounds")) + len(b'loss_pruned\\": 0.')
    assert content[at : at + 1].isdigit()
    path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    again, data = network()
    assert bits(prune(again, data, asked, checkpoints=tmp_path)) == wanted
