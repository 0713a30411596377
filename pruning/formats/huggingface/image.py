"""preprocessor_config.json: how pixels become the network's input."""

from typing import Any

from pruning.errors import SecateurError
from pruning.formats.bundle import Bundle
from pruning.formats.contract import Preprocessing
from pruning.formats.huggingface.keys import positive, real
from pruning.formats.huggingface.texts import read_object
from pruning.formats.limits import Limits

FILE = "preprocessor_config.json"


def preprocessing(bundle: Bundle, size: int, channels: int, limits: Limits) -> Preprocessing | None:
    """What the folder says of its images, None where it says nothing.

    Args:
        bundle: The folder.
        size: Height and width of the network's input.
        channels: Of the network's input.
        limits: `text_bytes`.

    Raises:
        SecateurError: `model_invalid` for values that are none.
    """
    if FILE not in bundle.sizes:
        return None
    config = read_object(bundle, FILE, limits.text_bytes)
    scale = _number(config, "rescale_factor", 1 / 255) if _on(config, "do_rescale") else 1.0
    if not _on(config, "do_normalize"):
        return Preprocessing(scale, (0.0,) * channels, (1.0,) * channels, (size, size))
    mean = _channels(config, "image_mean", 0.5, channels)
    std = _channels(config, "image_std", 0.5, channels)
    return Preprocessing(scale, mean, std, (size, size))


def _on(config: dict[str, Any], key: str) -> bool:
    return config.get(key, True) is not False


def _number(config: dict[str, Any], key: str, otherwise: float) -> float:
    value = config.get(key, otherwise)
    if not positive(1e6)(value):
        raise _refuse(key)
    return float(value)


def _channels(
    config: dict[str, Any], key: str, otherwise: float, channels: int
) -> tuple[float, ...]:
    value = config.get(key)
    values = [otherwise] * channels if value is None else value
    check = positive(1e6) if key == "image_std" else real(-1e6, 1e6)
    if not isinstance(values, list) or len(values) != channels or not all(map(check, values)):
        raise _refuse(key)
    return tuple(float(v) for v in values)


def _refuse(key: str) -> SecateurError:
    return SecateurError(
        "model_invalid", f"{key} of {FILE} has no valid value.", where=key,
        hint="Save it again with the image processor's save_pretrained.",
    )  # fmt: skip
