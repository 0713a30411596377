"""The functions that architecture.json can name, and the torch calls each of them stands for.

`FUNCTIONS` maps a name to a callable of our choice and its declared arguments; nothing is ever
looked up in torch by a name of the file.
"""

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pruning.formats.architecture.arguments import Parameter, signature

_LARGEST = 2**63
_SPACES: dict[str, Any] = {
    "torch": torch, "Tensor": torch.Tensor, "F": F, "operator": operator, "nn": torch._C._nn,
    "special": torch.special, "linalg": torch.linalg,
}  # fmt: skip


@dataclass(frozen=True)
class Function:
    """One function.

    Attributes:
        name: Its key in the file.
        call: Takes the arguments by position, in the order of `parameters`.
        parameters: What it takes.
        placed: Whether `call` takes the device first, since no argument tells it.
    """

    name: str
    call: Callable[..., Any]
    parameters: tuple[Parameter, ...]
    placed: bool = False


FUNCTIONS: dict[str, Function] = {}
CALLABLES: dict[Any, tuple[str, tuple[str, ...]]] = {}
"""A torch callable to the function that it is, and the names of its positional arguments."""


def declare(
    name: str,
    call: Callable[..., Any],
    parameters: str = "input:tensor",
    aliases: str | None = None,
    placed: bool = False,
) -> None:
    """Declares a function.

    Args:
        name: Its key.
        call: Its callable.
        parameters: Its signature.
        aliases: Which torch callables are this function: `name`, also as a method or in
            torch.nn.functional, or `space.name(argument ...)` where the order of the arguments is
            another. The function's own name where left out.
        placed: As in `Function`.
    """
    declared = signature(parameters)
    FUNCTIONS[name] = Function(name, call, declared, placed)
    own = tuple(p.name for p in declared)
    for alias in (name if aliases is None else aliases).split(";"):
        dotted, _, order = alias.strip().removesuffix(")").partition("(")
        spaces, _, leaf = dotted.rpartition(".")
        for space in (spaces,) if spaces else ("torch", "Tensor", "F", "special"):
            found = getattr(_SPACES[space], leaf, None)
            if found is not None:
                CALLABLES.setdefault(found, (name, tuple(order.split()) or own))


def _number(call: Callable[..., Any]) -> Callable[..., Any]:
    """Arithmetic on sizes too: results have to stay sizes."""

    def bounded(*args: Any) -> Any:
        result = call(*args)
        if isinstance(result, int) and not -_LARGEST <= result < _LARGEST:
            raise OverflowError(f"a size of {result.bit_length()} bits")
        return result

    return bounded


def _power(base: Any, exponent: Any) -> Any:
    if isinstance(base, int) and isinstance(exponent, int) and not 0 <= exponent <= 64:
        raise OverflowError("a size to a power that is negative or over 64")
    return base**exponent


def _divided(a: Any, b: Any, rounding_mode: str | None) -> Any:
    if rounding_mode is None:
        return a / b
    if not isinstance(a, Tensor):
        raise TypeError("rounding needs a tensor")
    return torch.div(a, b, rounding_mode=rounding_mode)


def _shaped(sizes: Any) -> tuple[int, ...]:
    return (sizes,) if isinstance(sizes, int) else tuple(sizes)


_TWO = "input:number other:number"
_IN_PLACE = "{0};Tensor.{0}_"
for _name, _call in {
    "add": lambda a, b, alpha: a + b if alpha == 1 else a + alpha * b,
    "sub": lambda a, b, alpha: a - b if alpha == 1 else a - alpha * b,
}.items():
    declare(_name, _number(_call), _TWO + " alpha:number=1", _IN_PLACE.format(_name))
declare("mul", _number(operator.mul), _TWO, "mul;multiply;Tensor.mul_")
declare(
    "div",
    _divided,
    _TWO + " rounding_mode:{trunc,floor}?",
    "div;divide;true_divide;Tensor.__div__;Tensor.__truediv__;Tensor.div_",
)
declare("floor_divide", _number(operator.floordiv), _TWO, "floor_divide;Tensor.__floordiv__")
declare("remainder", _number(operator.mod), _TWO, "remainder;Tensor.__mod__")
declare("pow", _number(_power), "input:number exponent:number", "pow;Tensor.__pow__;Tensor.pow_")
declare("neg", _number(operator.neg), "input:number", "neg;negative")
for _name in ("eq", "ne", "lt", "le", "gt", "ge"):
    declare(_name, getattr(operator, _name), _TWO, f"{_name};Tensor.__{_name}__")
for _name, _both in (("and", operator.and_), ("or", operator.or_), ("xor", operator.xor)):
    declare(f"bitwise_{_name}", _both, _TWO, f"bitwise_{_name};Tensor.__{_name}__")
    declare(f"logical_{_name}", getattr(torch, f"logical_{_name}"), "input:tensor other:tensor")
declare("bitwise_not", torch.bitwise_not, aliases="bitwise_not;Tensor.__invert__")
declare("logical_not", torch.logical_not)
declare("maximum", torch.maximum, "input:tensor other:tensor", "maximum")
declare("minimum", torch.minimum, "input:tensor other:tensor", "minimum")
declare("matmul", torch.matmul, "input:tensor other:tensor", "matmul;Tensor.__matmul__")
declare("bmm", torch.bmm, "input:tensor mat2:tensor", "bmm")
declare("mm", torch.mm, "input:tensor mat2:tensor", "mm")
declare("mv", torch.mv, "input:tensor vec:tensor", "mv")
declare("dot", torch.dot, "input:tensor tensor:tensor", "dot;vdot")
declare("outer", torch.outer, "input:tensor vec2:tensor", "outer")
for _name in ("addmm", "baddbmm"):
    _two = ("mat1", "mat2") if _name == "addmm" else ("batch1", "batch2")
    declare(
        _name,
        lambda a, b, c, beta, alpha, call=getattr(torch, _name): call(
            a, b, c, beta=beta, alpha=alpha
        ),
        f"input:tensor {_two[0]}:tensor {_two[1]}:tensor beta:float=1 alpha:float=1",
    )

for _name in ("abs", "exp", "log", "log2", "log10", "log1p", "expm1", "sqrt", "rsqrt", "square",
              "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "erf", "reciprocal",
              "floor", "ceil", "round", "sign", "trunc", "isnan", "isinf"):  # fmt: skip
    declare(_name, getattr(torch, _name), aliases=_IN_PLACE.format(_name))
declare("sigmoid", torch.sigmoid, aliases="sigmoid;special.expit;Tensor.sigmoid_")
declare("tanh", torch.tanh, aliases="tanh;Tensor.tanh_")
declare("clamp", torch.clamp, "input:tensor min:number? max:number?", "clamp;clip;Tensor.clamp_")
declare("relu", torch.relu, aliases="relu;Tensor.relu_;F.relu_")
for _name in ("relu6", "silu", "mish", "hardswish", "hardsigmoid", "selu", "logsigmoid",
              "softsign", "tanhshrink"):  # fmt: skip
    declare(_name, getattr(F, _name), aliases=_name)
declare(
    "gelu",
    lambda x, approximate: F.gelu(x, approximate=approximate),
    'input:tensor approximate:{none,tanh}="none"',
)
declare("elu", F.elu, "input:tensor alpha:float=1.0")
declare("celu", F.celu, "input:tensor alpha:float=1.0")
declare("leaky_relu", F.leaky_relu, "input:tensor negative_slope:float=0.01")
declare("hardtanh", F.hardtanh, "input:tensor min_val:float=-1.0 max_val:float=1.0")
declare("softplus", F.softplus, "input:tensor beta:float=1 threshold:float=20")
declare("prelu", F.prelu, "input:tensor weight:tensor")
declare("glu", F.glu, "input:tensor dim:int=-1")
_STACKED = (
    "{0};torch.{0}(input dim dtype);Tensor.{0}(input dim dtype);F.{0}(input dim _stacklevel dtype)"
)
for _name in ("softmax", "log_softmax"):
    declare(
        _name,
        lambda x, dim, dtype, call=getattr(torch, _name): call(x, dim, dtype=dtype),
        "input:tensor dim:int dtype:dtype?",
        _STACKED.format(_name).partition(";")[2],
    )

for _name in ("sum", "mean", "prod"):
    _dim = "dim:int?" if _name == "prod" else "dim:ints?"
    declare(
        _name,
        lambda x, dim, keepdim, dtype, call=getattr(torch, _name): (
            call(x, dtype=dtype) if dim is None else call(x, dim, keepdim, dtype=dtype)
        ),
        f"input:tensor {_dim} keepdim:bool=false dtype:dtype?",
    )
for _name in ("amax", "amin"):
    declare(
        _name,
        lambda x, dim, keepdim, call=getattr(torch, _name): call(x, dim, keepdim),
        "input:tensor dim:ints=[] keepdim:bool=false",
    )
for _name in ("max", "min"):
    declare(f"{_name}_all", getattr(torch, _name), aliases="")
    declare(f"{_name}_dim", getattr(torch, _name), "input:tensor dim:int keepdim:bool=false", "")
for _name in ("argmax", "argmin", "any", "all"):
    declare(
        _name,
        lambda x, dim, keepdim, call=getattr(torch, _name): (
            call(x) if dim is None else call(x, dim, keepdim)
        ),
        "input:tensor dim:int? keepdim:bool=false",
    )
for _name in ("var", "std"):
    declare(
        _name,
        lambda x, dim, correction, keepdim, call=getattr(torch, _name): call(
            x, dim, correction=correction, keepdim=keepdim
        ),
        "input:tensor dim:ints? correction:int=1 keepdim:bool=false",
        "",
    )
declare(
    "norm",
    lambda x, p, dim, keepdim: torch.linalg.vector_norm(x, p, dim, keepdim),
    "input:tensor p:float=2 dim:ints? keepdim:bool=false",
    "norm;linalg.vector_norm;linalg.norm",
)
declare("logsumexp", torch.logsumexp, "input:tensor dim:ints keepdim:bool=false")
declare("cumsum", torch.cumsum, "input:tensor dim:int")
declare("topk", torch.topk, "input:tensor k:int dim:int=-1 largest:bool=true sorted:bool=true")

declare("shape", lambda x, dim: x.shape[dim], "input:tensor dim:int", "")
declare("element", lambda values, index: values[index], "input:tuple index:int", "")
declare(
    "getitem",
    lambda x, index: x[tuple(index) if isinstance(index, list) else index],
    "input:tensor index:index",
    "",
)
declare("reshape", lambda x, shape: x.reshape(_shaped(shape)), "input:tensor shape:ints", "")
declare("expand", lambda x, size: x.expand(_shaped(size)), "input:tensor size:ints", "")
declare("repeat", lambda x, size: x.repeat(_shaped(size)), "input:tensor size:ints", "")
declare("permute", lambda x, dims: x.permute(_shaped(dims)), "input:tensor dims:ints", "")
declare("flip", lambda x, dims: x.flip(_shaped(dims)), "input:tensor dims:ints", "")
declare(
    "transpose", torch.transpose, "input:tensor dim0:int dim1:int", "transpose;swapaxes;swapdims"
)
declare("movedim", torch.movedim, "input:tensor source:ints destination:ints", "movedim;moveaxis")
declare("flatten", torch.flatten, "input:tensor start_dim:int=0 end_dim:int=-1")
declare("unflatten", torch.unflatten, "input:tensor dim:int sizes:ints")
declare(
    "squeeze",
    lambda x, dim: x.squeeze() if dim is None else x.squeeze(dim),
    "input:tensor dim:ints?",
)
declare("unsqueeze", torch.unsqueeze, "input:tensor dim:int")
declare("cat", torch.cat, "tensors:tensors dim:int=0", "cat;concat;concatenate")
declare("stack", torch.stack, "tensors:tensors dim:int=0", "stack")
declare("chunk", torch.chunk, "input:tensor chunks:int dim:int=0")
declare(
    "split",
    torch.split,
    "input:tensor split_size_or_sections:ints dim:int=0",
    "torch.split(input split_size_or_sections dim);Tensor.split(input split_size dim)",
)
declare("unbind", torch.unbind, "input:tensor dim:int=0")
declare("select", torch.select, "input:tensor dim:int index:int")
declare("narrow", torch.narrow, "input:tensor dim:int start:int length:int")
declare("index_select", torch.index_select, "input:tensor dim:int index:tensor")
declare("gather", torch.gather, "input:tensor dim:int index:tensor")
declare("roll", torch.roll, "input:tensor shifts:ints dims:ints=[]", "roll")
declare(
    "repeat_interleave",
    lambda x, repeats, dim: torch.repeat_interleave(x, repeats, dim),
    "input:tensor repeats:int dim:int?",
)
declare("tril", torch.tril, "input:tensor diagonal:int=0")
declare("triu", torch.triu, "input:tensor diagonal:int=0")
declare(
    "identity",
    lambda x: x,
    aliases="contiguous;clone;detach;Tensor.cpu;Tensor.cuda;Tensor.requires_grad_",
)
declare("to", lambda x, dtype: x.to(dtype), "input:tensor dtype:dtype", "")
declare(
    "masked_fill",
    torch.masked_fill,
    "input:tensor mask:tensor value:number",
    "masked_fill;Tensor.masked_fill_",
)
declare(
    "where",
    torch.where,
    "condition:tensor input:number other:number",
    "torch.where(condition input other);Tensor.where(input condition other)",
)
declare("one_hot", F.one_hot, "tensor:tensor num_classes:size", "F.one_hot")
declare(
    "einsum",
    lambda equation, operands: torch.einsum(equation, list(operands)),
    "equation:equation operands:tensors",
    "",
)


def _placed(call: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda device, *args: call(*args, device)


declare(
    "arange",
    _placed(lambda a, b, s, t, d: torch.arange(a, b, s, dtype=t, device=d)),
    "start:number=0 end:number step:number=1 dtype:dtype?",
    "",
    True,
)
declare(
    "linspace",
    _placed(lambda a, b, n, t, d: torch.linspace(a, b, n, dtype=t, device=d)),
    "start:float end:float steps:int dtype:dtype?",
    "torch.linspace",
    True,
)
declare(
    "full",
    _placed(lambda size, v, t, d: torch.full(_shaped(size), v, dtype=t, device=d)),
    "size:ints fill_value:number dtype:dtype?",
    "",
    True,
)
declare(
    "eye",
    _placed(lambda n, m, t, d: torch.eye(n, n if m is None else m, dtype=t, device=d)),
    "n:int m:int? dtype:dtype?",
    "torch.eye",
    True,
)
