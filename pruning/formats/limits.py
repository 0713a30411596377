"""How large an upload may be, before and after unpacking. Torch-free."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

MIB = 1024 * 1024


class Limits(BaseModel):
    """Limits that a reader checks before it allocates; every one of them can be raised by settings.

    Attributes:
        model_bytes: Size of a model's file. Protocol buffers end at 2 GiB whatever this says.
        data_bytes: Size of a dataset's file as uploaded.
        unpacked_bytes: All arrays of a dataset together, priced from their headers.
        arrays: Members of a dataset's archive.
        array_dims: Dimensions of one array.
        compression_ratio: Unpacked over packed size of one archive member over 16 MiB; deflate
            reaches about 1000 on zeros, real data stay far below 100.
        parameters: Numbers in all constants of a model together.
        tensors: Constant tensors of a model.
        nodes: Nodes of a model's graph.
        activation_bytes: Results that one sample may leave behind in one pass, all layers together.
        operations: Multiplications of one sample in one pass; what pooling does counts as that
            many as take the same time.
        members: Files of an archive or a folder that hold a model.
        image_files: Members of an archive of images.
        image_bytes: One image file.
        image_pixels: Width times height of one image, from its header.
        lines: Lines of a JSONL file, rows of a Parquet file.
        line_bytes: One line of a JSONL file, one text of a Parquet file.
        classes: Different names among the labels of a dataset.
        header_bytes: The JSON header of a safetensors file.
        stored_tensors: Tensors of one safetensors file.
        text_bytes: One JSON file beside the weights: configuration, index, architecture.
        tokenizer_bytes: tokenizer.json.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model_bytes: Annotated[int, Field(ge=1)] = 512 * MIB
    data_bytes: Annotated[int, Field(ge=1)] = 2048 * MIB
    unpacked_bytes: Annotated[int, Field(ge=1)] = 4096 * MIB
    arrays: Annotated[int, Field(ge=1)] = 256
    array_dims: Annotated[int, Field(ge=1)] = 16
    compression_ratio: Annotated[float, Field(gt=1)] = 200.0
    parameters: Annotated[int, Field(ge=1)] = 200_000_000
    tensors: Annotated[int, Field(ge=1)] = 20_000
    nodes: Annotated[int, Field(ge=1)] = 50_000
    activation_bytes: Annotated[int, Field(ge=1)] = 2048 * MIB
    operations: Annotated[int, Field(ge=1)] = 2_000_000_000_000
    members: Annotated[int, Field(ge=1)] = 1_000
    image_files: Annotated[int, Field(ge=1)] = 200_000
    image_bytes: Annotated[int, Field(ge=1)] = 16 * MIB
    image_pixels: Annotated[int, Field(ge=1)] = 12_500_000
    lines: Annotated[int, Field(ge=1)] = 10_000_000
    line_bytes: Annotated[int, Field(ge=1)] = MIB
    classes: Annotated[int, Field(ge=1)] = 10_000
    header_bytes: Annotated[int, Field(ge=1)] = 1_000_000
    stored_tensors: Annotated[int, Field(ge=1)] = 10_000
    text_bytes: Annotated[int, Field(ge=1)] = 4 * MIB
    tokenizer_bytes: Annotated[int, Field(ge=1)] = 64 * MIB
