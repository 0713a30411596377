"""How large an upload may be, before and after unpacking. Torch-free."""

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
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model_bytes: int = Field(512 * MIB, ge=1)
    data_bytes: int = Field(2048 * MIB, ge=1)
    unpacked_bytes: int = Field(4096 * MIB, ge=1)
    arrays: int = Field(256, ge=1)
    array_dims: int = Field(16, ge=1)
    compression_ratio: float = Field(200.0, gt=1)
    parameters: int = Field(200_000_000, ge=1)
    tensors: int = Field(20_000, ge=1)
    nodes: int = Field(50_000, ge=1)
    activation_bytes: int = Field(2048 * MIB, ge=1)
