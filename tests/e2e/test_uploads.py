import pytest

from secateur import Client, SecateurError
from secateur._calls import Calls
from secateur.resources import Dataset, Model
from tests.e2e.cases import BAD_DATA, BAD_MODELS
from tests.e2e.conftest import MODEL_LIMIT, Sent, Service
from tests.e2e.files import network


def test_a_raw_upload_is_checked_and_becomes_ready(model: Model) -> None:
    assert model.state == "ready"
    assert model.typed_facts is not None
    assert [layer.name for layer in model.typed_facts.layers] == ["fc1", "fc2"]
    assert model.typed_facts.prunable_parameters == 8 * 16 + 16 * 3


def test_the_same_bytes_as_multipart_are_the_same_model(service: Service, model: Model) -> None:
    with service.http() as http:
        answer = http.post("/v1/models", files={"file": (model.name, network())})
    assert answer.status_code == 200
    assert answer.json()["id"] == model.id


def test_a_new_upload_answers_checking_and_an_unused_model_can_be_deleted(
    service: Service, client: Client
) -> None:
    with service.http() as http:
        answer = http.post("/v1/models?name=new.onnx", content=network(seed=41))
        assert answer.status_code == 201
        assert answer.json()["state"] == "checking"
        assert http.get(answer.headers["location"]).json()["name"] == "new.onnx"
    spare = client.wait_ready(client.model(answer.json()["id"]))
    client.delete_model(spare)
    with pytest.raises(SecateurError) as caught:
        client.model(spare.id)
    assert caught.value.code == "not_found"


def test_dataset_facts_tell_arrays_and_labels(dataset: Dataset) -> None:
    facts = dataset.typed_facts
    assert facts is not None
    assert (facts.samples, [a.name for a in facts.arrays]) == (240, ["x"])
    assert facts.target is not None
    assert facts.target.classes == 3


@pytest.mark.parametrize("case", BAD_MODELS)
def test_a_bad_model_is_rejected_with_a_code_and_advice(
    client: Client, sent: Sent, case: str
) -> None:
    content, code = BAD_MODELS[case]
    uploaded = sent[case]
    assert isinstance(uploaded, Model)
    assert uploaded.bytes == len(content)
    with pytest.raises(SecateurError) as caught:
        client.wait_ready(uploaded)
    assert caught.value.code == code
    assert caught.value.message
    assert caught.value.hint
    assert client.model(uploaded.id).state == "rejected"


@pytest.mark.parametrize("case", BAD_DATA)
def test_bad_data_are_rejected_with_a_code(client: Client, sent: Sent, case: str) -> None:
    content, code = BAD_DATA[case]
    uploaded = sent[case]
    assert uploaded.bytes == len(content)
    with pytest.raises(SecateurError) as caught:
        client.wait_ready(uploaded)
    assert caught.value.code == code


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


def test_lists_go_through_all_pages(client: Client, sent: Sent) -> None:
    paged = list(client._iterate(Calls(client.url).pages(Dataset, page=2)))
    ids = [item.id for item in paged]
    assert len(ids) == len(set(ids))
    assert {item.id for item in sent.values() if isinstance(item, Dataset)} <= set(ids)
    assert ids == [item.id for item in client.datasets()]
