"""Tokenizers that make much of little, sent to a running service: a code, and soon."""

import json
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from secateur import Client, SecateurError
from secateur.resources import Dataset, Model
from tests.e2e.conftest import Service
from tests.security.samples import huggingface

GIB = 1 << 30
SECONDS = 60
"""Three of them on a machine that does nothing else."""


def spoilt(folder: Path, content: str, times: int) -> Path:
    huggingface(folder)
    path = folder / "tokenizer.json"
    step = {"type": "Replace", "pattern": {"String": "a"}, "content": content}
    normalizer = {"type": "Sequence", "normalizers": [step] * times}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"normalizer": normalizer}))
    return folder


def watched(service: Service, answer: Any) -> int:
    """The most memory of any one process until the answer is there."""
    most, until = 0, time.monotonic() + SECONDS
    while not answer():
        assert time.monotonic() < until
        for process in service.descendants():
            with suppress(psutil.Error):
                most = max(most, process.memory_info().rss)
        time.sleep(0.2)
    return most


def test_a_tokenizer_that_doubles_letters_is_refused_at_the_door(
    service: Service, client: Client, tmp_path: Path
) -> None:
    model = client.upload_model(spoilt(tmp_path / "bert", "aa", 20))
    most = watched(service, lambda: client.model(model.id).state != "checking")
    with pytest.raises(SecateurError) as caught:
        client.wait_ready(model)
    assert (caught.value.code, caught.value.where) == ("model_unreadable", "tokenizer.json")
    assert most < 1.5 * GIB


def test_texts_that_a_tokenizer_makes_too_much_of_fail_their_job_alone(
    service: Service, client: Client, model: Model, dataset: Dataset, tmp_path: Path
) -> None:
    hostile = client.wait_ready(client.upload_model(spoilt(tmp_path / "bert", "b " * 128, 1)))
    lines = [{"text": "a b c " * 3}] * 60 + [{"text": "a" * 900_000}]
    texts = tmp_path / "texts.jsonl"
    texts.write_text("".join(json.dumps(line) + "\n" for line in lines))
    data = client.wait_ready(client.upload_dataset(texts))
    spec = {"criterion": {"kind": "magnitude"}, "objective": {"loss": "match_dense"}}
    job = client.submit(hostile, data, spec)
    behind = client.submit(model, dataset, {"criterion": {"kind": "magnitude"}})
    most = watched(service, lambda: client.job(job.id).finished)
    failed = client.job(job.id)
    assert failed.state == "failed"
    assert failed.error is not None
    assert failed.error["code"] == "data_too_large"
    assert failed.attempt == 1
    assert most < 1.5 * GIB
    watched(service, lambda: client.job(behind.id).finished)
    assert client.job(behind.id).state == "succeeded"
