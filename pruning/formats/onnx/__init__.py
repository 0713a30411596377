"""ONNX files to trainable modules and back, through an allow-list of operators of our own."""

from pruning.formats.onnx.read import ImportedModel, read, read_onnx
from pruning.formats.onnx.write import inference_copy, onnx_bytes, write_onnx

__all__ = ["ImportedModel", "inference_copy", "onnx_bytes", "read", "read_onnx", "write_onnx"]
