"""Whether onnxruntime computes a graph that we can't: then the graph is not at fault."""

from collections.abc import Sequence

import torch
from onnx import ModelProto
from torch import Tensor

from pruning.formats.failures import Referee
from pruning.formats.onnx.facts import tensor_fact
from pruning.formats.onnx.graph import Graph
from pruning.formats.onnx.write import inference_copy
from pruning.memory_errors import out_of_memory


def runs_elsewhere(proto: ModelProto) -> Referee:
    """Asks onnxruntime; only where a step has failed, since it reads the graph for it."""

    def runs(inputs: Sequence[Tensor]) -> bool:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        held = {tensor.name for tensor in proto.graph.initializer}
        declared = [value for value in proto.graph.input if value.name not in held]
        try:
            session = onnxruntime.InferenceSession(
                inference_copy(proto).SerializeToString(), options, ["CPUExecutionProvider"]
            )
            session.run(None, {
                value.name: x.cpu().numpy().astype(tensor_fact(value).dtype)
                for value, x in zip(declared, inputs, strict=True)
            })  # fmt: skip
        except Exception as error:  # onnxruntime has a dozen exception types without a common base
            if out_of_memory(error):
                raise
            return False
        return True

    return runs


def trial_inputs(graph: Graph) -> list[Tensor]:
    """Numbers of the sizes that a graph declares, a sample where it leaves their number open."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for value in graph.inputs:
        fact = tensor_fact(value)
        shape = [size if isinstance(size, int) else 1 for size in fact.shape]
        dtype = getattr(torch, fact.dtype)
        real = torch.randn(shape, generator=generator).to(dtype)
        found.append(real if dtype.is_floating_point else torch.zeros(shape, dtype=dtype))
    return found
