"""What each kind of layer does to per-sample gradients, one kind a file.

A layer's weight W meets every sample as a matrix problem: with unfolded inputs U_n [g, d, T] and
output gradients B_n [g, o, T] (g groups, T positions) the gradient of one sample is
G_n = B_n U_n' [g, o, d], in the order of the entries of W. The module of a kind holds `FUNCTIONS`,
the torch functions that it describes, and

- `bind(function, args, kwargs)`: their input, weight, and whatever else `unfold` needs;
- `unfold(call, inputs)` and `fold(call, gradients)`: inputs and output gradients as U and B.
"""

from pruning.curvature.layers.capture import Capture
from pruning.curvature.layers.squares import Problem, add_squares

__all__ = ["Capture", "Problem", "add_squares"]
