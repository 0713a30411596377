"""The masks file: packed bits that come back as they were."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pruning.errors import SecateurError
from pruning.formats import containers, sparse
from pruning.formats.masks import read_masks, write_masks

masks = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=9))


@settings(max_examples=60, deadline=None)
@given(given_masks=st.dictionaries(st.sampled_from(["b.weight", "a.weight", "0"]), masks))
def test_round_trip(given_masks, tmp_path_factory):
    path = tmp_path_factory.mktemp("masks") / "m.safetensors"
    write_masks(given_masks, path)
    restored = read_masks(path)
    assert list(restored) == sorted(given_masks)
    for name, mask in given_masks.items():
        assert restored[name].dtype == bool
        np.testing.assert_array_equal(restored[name], mask)


def test_tensors_and_arrays_give_the_same_bytes_at_one_bit_a_weight(tmp_path):
    keep = np.random.default_rng(0).random((100, 80)) < 0.3
    write_masks({"w": keep}, tmp_path / "a")
    write_masks({"w": torch.from_numpy(keep)}, tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a").stat().st_size < 8000 / 8 + 200


def test_masks_must_be_boolean(tmp_path):
    with pytest.raises(TypeError, match="'w' is float64"):
        write_masks({"w": np.ones(3)}, tmp_path / "a")


def test_other_files_are_refused(tmp_path):
    sparse.pack([], {"x": np.ones(3)}, tmp_path / "sparse")
    bits = np.zeros(1, np.uint8)
    form = {"format": "masks", "version": 1}
    containers.write(tmp_path / "names", {"x": bits}, {**form, "shapes": {"y": [3]}})
    containers.write(tmp_path / "size", {"x": bits}, {**form, "shapes": {"x": [9]}})
    containers.write(tmp_path / "shape", {"x": bits}, {**form, "shapes": {"x": "3"}})
    for path in tmp_path.iterdir():
        with pytest.raises(SecateurError) as refused:
            read_masks(path)
        assert refused.value.code == "unsupported_format", path.name
