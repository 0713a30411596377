import numpy as np
import pytest

from secateur import Client, SecateurError
from secateur.resources import Dataset, Model
from tests.e2e.conftest import MODEL_LIMIT, Service
from tests.e2e.files import network, npz, samples


def test_a_raw_upload_is_checked_and_becomes_ready(model: Model) -> None:
    assert model.state == "ready"
    assert model.typed_facts is not None
    assert [layer.name for layer in model.typed_facts.layers] == ["fc1", "fc2"]
    assert model.typed_facts.prunable_parameters == 8 * 16 + 16 * 3


def test_the_same_bytes_as_multipart_are_the_same_model(service: Service, model: Model) -> None:
    with service.http() as http:
        answer = http.post("/v1/models", files={"file": ("again.onnx", network())})
    assert answer.status_code == 200
    assert answer.json()["id"] == model.id


def test_a_new_upload_answers_checking_with_its_location(service: Service) -> None:
    with service.http() as http:
        answer = http.post("/v1/models?name=new.onnx", content=network(seed=41))
        assert answer.status_code == 201
        assert answer.json()["state"] == "checking"
        assert http.get(answer.headers["location"]).json()["name"] == "new.onnx"


def test_dataset_facts_tell_arrays_and_labels(dataset: Dataset) -> None:
    facts = dataset.typed_facts
    assert facts is not None
    assert (facts.samples, [a.name for a in facts.arrays]) == (240, ["x"])
    assert facts.target is not None
    assert facts.target.classes == 3


BAD_MODELS = {
    "not ONNX": (b"this is a text, not a network" * 10, {"unsupported_format", "model_unreadable"}),
    "truncated": (
        network()[:-300],
        {"model_truncated", "model_unreadable", "model_invalid", "unsupported_format"},
    ),
    "unsupported operator": (network(activation="Det"), {"operator_unsupported", "model_invalid"}),
    "external data": (network(external=True), {"external_data"}),
    "NaN weight": (network(poison=float("nan")), {"weights_non_finite"}),
    "infinite weight": (network(poison=float("inf")), {"weights_non_finite"}),
    "old opset": (network(opset=9), {"opset_unsupported"}),
}


@pytest.mark.parametrize("case", BAD_MODELS)
def test_a_bad_model_is_rejected_with_a_code_and_advice(client: Client, case: str) -> None:
    content, codes = BAD_MODELS[case]
    uploaded = client.upload_model(content, f"{case}.onnx")
    with pytest.raises(SecateurError) as caught:
        client.wait_ready(uploaded)
    assert caught.value.code in codes
    assert caught.value.message
    assert caught.value.hint
    assert client.model(uploaded.id).state == "rejected"


BAD_DATA = {
    "not an archive": (b"x,target\n1,2\n", {"unsupported_format", "data_unreadable"}),
    "truncated archive": (npz(samples())[:-40], {"data_unreadable", "unsupported_format"}),
    "NaN": (npz({"x": np.full((4, 8), np.nan, np.float32)}), {"data_non_finite"}),
    "pickled objects": (npz({"x": np.array([{}, []], dtype=object)}), {"data_pickled"}),
}


@pytest.mark.parametrize("case", BAD_DATA)
def test_bad_data_are_rejected_with_a_code(client: Client, case: str) -> None:
    content, codes = BAD_DATA[case]
    with pytest.raises(SecateurError) as caught:
        client.wait_ready(client.upload_dataset(content, f"{case}.npz"))
    assert caught.value.code in codes


def test_a_body_over_the_limit_is_refused_with_413(client: Client) -> None:
    with pytest.raises(SecateurError) as caught:
        client.upload_model(b"\0" * (MODEL_LIMIT + 1), "big.onnx")
    assert caught.value.code == "too_large"
    assert caught.value.status == 413


def test_without_a_key_nothing_is_read(service: Service) -> None:
    with service.http(key="sct_wrong") as http:
        answer = http.post("/v1/models", content=network())
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "unauthenticated"


def test_deleting_a_model_in_use_is_refused_and_an_unused_one_goes(client: Client) -> None:
    spare = client.wait_ready(client.upload_model(network(seed=17), "spare.onnx"))
    client.delete_model(spare)
    with pytest.raises(SecateurError) as caught:
        client.model(spare.id)
    assert caught.value.code == "not_found"


def test_lists_go_through_all_pages(client: Client, dataset: Dataset) -> None:
    from secateur._calls import Calls

    made = {client.upload_dataset(npz(samples(seed)), f"{seed}.npz").id for seed in (1, 2, 3)}
    paged = list(client._iterate(Calls(client.url).pages(Dataset, page=2)))
    assert len(paged) == len({item.id for item in paged})
    assert made | {dataset.id} <= {item.id for item in paged}
