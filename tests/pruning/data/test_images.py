import io
import json
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from pruning.data.image_bytes import orientation
from pruning.data.kinds import check_dataset, load_dataset
from pruning.errors import SecateurError
from pruning.facts import ImagesFact, TargetFact
from pruning.formats.contract import Preprocessing
from pruning.formats.limits import Limits
from tests.pruning.data.models import model

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (8, 8, 3), dtype=np.uint8)
COLOUR = {"x": ("float32", ["n", 3, 8, 8])}


def packed(pixels, form="PNG", **options):
    file = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(file, form, **options)
    return file.getvalue()


@pytest.fixture
def write(tmp_path):
    def write(members, kind="zip"):
        path = tmp_path / "data"
        if kind == "zip":
            with zipfile.ZipFile(path, "w") as archive:
                for name, data in members.items():
                    archive.writestr(name, data)
        else:
            with tarfile.open(path, "w") as archive:
                for name, data in members.items():
                    info = tarfile.TarInfo(name)
                    info.size = len(data)
                    archive.addfile(info, io.BytesIO(data))
        return path

    return write


def refused(call, code, text=""):
    with pytest.raises(SecateurError) as caught:
        call()
    assert caught.value.code == code, caught.value
    assert text in str(caught.value)


def loaded(path, one=None):
    return load_dataset(path, one or model(COLOUR)).inputs["x"].numpy()


def near(a, b, atol=1e-6):
    np.testing.assert_allclose(a, b, atol=atol)


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize("top", ["", "photos/"])
def test_folders_are_classes_in_sorted_order(write, kind, top):
    members = {
        "dog/2.png": packed(RGB),
        "cat/9.BMP": packed(RGB[:, ::-1], "BMP"),
        "dog/1.webp": packed(RGB[::-1], "WEBP", lossless=True),
        "emu/1.png": packed(RNG.integers(0, 256, (20, 10, 3), dtype=np.uint8)),
    }
    path = write({top + name: data for name, data in members.items()}, kind)
    found = check_dataset(path)
    assert (found.format, found.samples, found.arrays) == ("images", 4, [])
    assert found.target == TargetFact(
        dtype="int64", shape=[4], classes=3, names=["cat", "dog", "emu"]
    )
    assert found.images == ImagesFact(smallest=[8, 8], largest=[20, 10])
    data = load_dataset(path, model(COLOUR))
    assert data.target.tolist() == [0, 1, 1, 2]
    x = data.inputs["x"].numpy()
    for row, pixels in enumerate((RGB[:, ::-1], RGB[::-1], RGB)):
        near(x[row], pixels.transpose(2, 0, 1) / 255)


def test_folders_named_by_numbers_are_these_classes(write):
    path = write({"10/a.png": packed(RGB), "3/a.png": packed(RGB)})
    assert check_dataset(path).target == TargetFact(dtype="int64", shape=[2], classes=11)
    assert load_dataset(path, model(COLOUR)).target.tolist() == [10, 3]


def test_images_without_folders_have_no_labels(write):
    path = write({"a.png": packed(RGB), "b.jpg": packed(RGB, "JPEG")})
    assert check_dataset(path).target is None
    assert load_dataset(path, model(COLOUR)).target is None


def test_the_preprocessing_of_the_model_applies(write):
    path = write({"a.png": packed(RGB)})
    how = Preprocessing(1 / 255, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    wanted = (RGB / 255 - [0.5, 0.4, 0.3]) / [0.2, 0.3, 0.4]
    near(loaded(path, model(COLOUR, preprocessing=how))[0], wanted.transpose(2, 0, 1), 1e-5)


def test_channels_stand_where_the_input_has_them(write):
    path = write({"a.png": packed(RGB)})
    near(loaded(path, model({"x": ("float32", ["n", 8, 8, 3])}))[0], RGB / 255)
    grey = np.asarray(Image.fromarray(RGB).convert("L"))
    near(loaded(path, model({"x": ("float32", ["n", 1, 8, 8])}))[0, 0], grey / 255)
    near(loaded(path, model({"x": ("float32", ["n", 8, 8, 1])}))[0, :, :, 0], grey / 255)


def test_what_the_archive_says_comes_first(write):
    def told(**recipe):
        return write({"a.png": packed(RGB), "preprocessing.json": json.dumps(recipe).encode()})

    path = told(scale=1, mean=[128], std=[2.0], order="BGR")
    assert check_dataset(path).samples == 1
    how = Preprocessing(mean=(9.0, 9.0, 9.0))
    near(
        loaded(path, model(COLOUR, preprocessing=how))[0],
        (RGB[:, :, ::-1].transpose(2, 0, 1) - 128.0) / 2,
    )
    free = model({"x": ("float32", ["n", "c", "h", "w"])})
    refused(lambda: loaded(told(), free), "data_shape", "layout")
    refused(lambda: loaded(told(layout="NCHW"), free), "data_shape", "size")
    assert loaded(told(layout="NHWC", size=[4, 6]), free).shape == (1, 4, 6, 3)
    refused(lambda: loaded(told(size=[4, 6])), "data_shape", "[4, 6]")
    refused(lambda: loaded(told(mean=[1, 2])), "data_shape", "2 numbers for mean")


@pytest.mark.parametrize(
    "wrong",
    [{"meen": [1]}, {"std": [0]}, {"size": [4]}, {"scale": "1"}, {"order": "RGBA"}, {"mean": []}],
)
def test_a_preprocessing_that_is_not_read_is_refused_by_field(write, wrong):
    members = {"a.png": packed(RGB), "preprocessing.json": json.dumps(wrong).encode()}
    refused(lambda: check_dataset(write(members)), "data_unreadable", next(iter(wrong)))


def test_images_are_scaled_with_their_middle_kept_or_stretched(write):
    wide = np.zeros((8, 24, 3), np.uint8)
    wide[:, 8:16] = 200  # the middle square alone is bright
    path = write({"a.png": packed(wide)})
    near(loaded(path), np.full((1, 3, 8, 8), 200 / 255))

    stretched = write({"a.png": packed(wide), "preprocessing.json": b'{"resize": "stretch"}'})
    x = loaded(stretched)
    assert x[0, 0, 4, 0] == 0
    assert x[0, 0, 4, 4] == pytest.approx(200 / 255)
    # The shorter side 16 of which 8 are kept: half of it, enlarged.
    square = np.zeros((8, 8, 3), np.uint8)
    square[2:6, 2:6] = 100
    inner = write({"a.png": packed(square), "preprocessing.json": b'{"shorter": 16}'})
    near(loaded(inner)[0, :, 2:6, 2:6], np.full((3, 4, 4), 100 / 255))
    assert loaded(inner).min() > 0
    assert loaded(write({"a.png": packed(square)})).min() == 0


def test_shrinking_averages(write):
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 200
    near(loaded(write({"a.png": packed(stripes)}))[0, :, 1:-1, 1:-1], 100 / 255, 0.02)


@pytest.mark.parametrize("turned", range(1, 9))
@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_images_are_brought_upright(write, turned, form):
    from PIL import ImageOps

    blocks = np.kron(RNG.integers(0, 2, (2, 3, 1), dtype=np.uint8) * 200, np.ones((16, 16, 3)))
    exif = Image.Exif()
    exif[0x0112] = turned
    data = packed(blocks.astype(np.uint8), form, exif=exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    path = write({"a." + form.lower(): data})
    assert check_dataset(path).images.largest == [upright.height, upright.width]
    h, w = upright.height, upright.width
    x = loaded(path, model({"x": ("float32", ["n", h, w, 3])}))[0]
    near(x, np.asarray(upright.convert("RGB")) / 255)


def test_noise_has_no_orientation():
    for data in (b"", b"II*\0", b"II*\0\xff\xff\xff\xff", b"MM\0*" + bytes(40), RGB.tobytes()):
        assert orientation(data) == 1


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16", "CMYK"])
def test_every_mode_becomes_colour(write, mode):
    grey = Image.fromarray(RGB[:, :, 0])
    if mode == "I;16":
        image = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    else:
        image = (grey if mode == "P" else grey.convert("RGB")).convert(mode)
    form = "JPEG" if mode == "CMYK" else "PNG"
    x = loaded(write({"a." + form.lower(): packed(image, form)}))[0]
    near(x[0], x[1], 0.05)
    if mode not in ("1", "CMYK"):
        near(x[0], RGB[:, :, 0] / 255, 0.01)


def test_models_that_take_no_images(write):
    path = write({"a.png": packed(RGB)})
    two = model({"x": ("float32", ["n", 3, 8, 8]), "y": ("float32", ["n", 3, 8, 8])})
    refused(lambda: loaded(path, two), "data_names", "'y'")
    refused(lambda: loaded(path, model({"x": ("float32", ["n", 9])})), "data_names")
    refused(lambda: loaded(path, model({"x": ("uint8", ["n", 3, 8, 8])})), "data_dtype", "uint8")
    refused(lambda: loaded(path, model({"x": ("float32", ["n", 4, 8, 8])})), "data_shape")


def test_limits(write):
    path = write({f"{i}.png": packed(RGB) for i in range(3)})
    size = len(packed(RGB))
    refused(lambda: check_dataset(path, Limits(image_files=2)), "data_too_large")
    refused(lambda: check_dataset(path, Limits(image_bytes=size - 1)), "data_too_large", "0.png")
    refused(lambda: check_dataset(path, Limits(image_pixels=63)), "data_too_large", "8 x 8")
    refused(lambda: check_dataset(path, Limits(data_bytes=99)), "data_too_large")
    assert check_dataset(path, Limits(image_files=3, image_bytes=size, image_pixels=64))
    three = model(COLOUR)
    price = 3 * 3 * 8 * 8 * 4
    refused(
        lambda: load_dataset(path, three, Limits(unpacked_bytes=price - 1)),
        "data_too_large", f"images take {price}",
    )  # fmt: skip
    assert load_dataset(path, three, Limits(unpacked_bytes=price))
