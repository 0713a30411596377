"""ONNX files to trainable modules and back, through an allow-list of operators of our own."""

from pruning.formats.onnx.read import ImportedModel, read_onnx
from pruning.formats.onnx.write import onnx_bytes, write_onnx

__all__ = ["ImportedModel", "onnx_bytes", "read_onnx", "write_onnx"]
