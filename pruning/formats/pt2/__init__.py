"""torch.export archives: checked part by part, rebuilt, loaded, and written back."""

from pruning.formats.pt2.read import Pt2Model, read

__all__ = ["Pt2Model", "read"]
