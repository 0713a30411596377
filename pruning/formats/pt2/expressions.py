"""Sizes that are formulas of symbols, as torch.export writes them: checked, and written anew.

torch gives such a text to sympy's parser, which evaluates it as Python. Here it is parsed with
`ast`, and only calls of the functions below on integers and symbols pass; what goes on is a text
made from the checked tree. No formula's value is ever computed from an unbounded power.
"""

import ast
import re
from collections.abc import Callable

from pruning.errors import SecateurError

MOST_CHARACTERS = 2_000
MOST_NODES = 200
MOST_BITS = 1_024
LARGEST = 2**63 - 1

_SYMBOL = re.compile(r"s\d{1,9}")
_ASSUMPTIONS = ("commutative", "finite", "integer", "nonnegative", "positive", "real")
_ANY = range(1, 33)
_FUNCTIONS: dict[str, range] = {
    "Add": _ANY,
    "Mul": _ANY,
    "Max": _ANY,
    "Min": _ANY,
    "FloorDiv": range(2, 3),
    "CeilDiv": range(2, 3),
    "CleanDiv": range(2, 3),
    "Mod": range(2, 3),
    "PythonMod": range(2, 3),
    "ModularIndexing": range(3, 4),
    "Pow": range(2, 3),
    "PowByNatural": range(2, 3),
    "Identity": range(1, 2),
}
_INFIX: dict[type[ast.operator], str] = {
    ast.Add: "Add",
    ast.Mult: "Mul",
    ast.FloorDiv: "FloorDiv",
    ast.Mod: "Mod",
}


def rewritten(text: str, where: str) -> str:
    """The formula as a text of our own, in the form `sympy.srepr` gives.

    Args:
        text: As it stands in the file.
        where: Named in errors.

    Raises:
        SecateurError: `model_invalid` for anything but bounded integer arithmetic of symbols.
    """
    if len(text) > MOST_CHARACTERS:
        raise _refuse("it is too long", where)
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise _refuse("it can't be parsed", where) from None
    return _Rewriter(where).text(tree.body)[0]


def symbol(text: str) -> str | None:
    """The symbol's name where a rewritten formula is one symbol alone."""
    found = re.fullmatch(r"Symbol\('(s\d+)'(, \w+=True)*\)", text)
    return found[1] if found else None


def is_symbol(name: str) -> bool:
    """Whether a text is a symbol's name."""
    return _SYMBOL.fullmatch(name) is not None


class _Rewriter:
    """Gives each part as a text, and how many bits its value has if symbols have 64."""

    def __init__(self, where: str) -> None:
        self.where, self.nodes = where, 0

    def text(self, node: ast.expr) -> tuple[str, int]:
        self.nodes += 1
        if self.nodes > MOST_NODES:
            raise _refuse("it has too many parts", self.where)
        kinds: dict[type, Callable[..., tuple[str, int]]] = {
            ast.Call: self._call,
            ast.BinOp: self._infix,
            ast.UnaryOp: self._negated,
            ast.Constant: self._constant,
            ast.Name: self._name,
        }
        if type(node) not in kinds:
            raise _refuse(f"it holds a {type(node).__name__}", self.where)
        return kinds[type(node)](node)

    def _call(self, node: ast.Call) -> tuple[str, int]:
        name = node.func.id if isinstance(node.func, ast.Name) else type(node.func).__name__
        if name == "Symbol":
            return self._symbol(node)
        if name == "Integer" and len(node.args) == 1 and not node.keywords:
            return self._integer(node.args[0])
        if name not in _FUNCTIONS:
            raise _refuse(f"it calls {name[:40]}", self.where)
        if node.keywords or len(node.args) not in _FUNCTIONS[name]:
            raise _refuse(f"{name} has other arguments than it takes", self.where)
        return self._function(name, node.args)

    def _function(self, name: str, args: list[ast.expr]) -> tuple[str, int]:
        if name in ("Pow", "PowByNatural"):
            exponent = _number(args[1])
            if exponent is None or not 0 <= exponent <= 4:
                raise _refuse("an exponent is not one of 0 to 4", self.where)
            base, bits = self.text(args[0])
            return f"{name}({base}, Integer({exponent}))", self._bounded(bits * max(exponent, 1))
        parts = [self.text(arg) for arg in args]
        sizes = [bits for _, bits in parts]
        total = sum(sizes) if name == "Mul" else max(sizes) + len(sizes)
        return f"{name}({', '.join(text for text, _ in parts)})", self._bounded(total)

    def _infix(self, node: ast.BinOp) -> tuple[str, int]:
        if isinstance(node.op, ast.Sub):
            left, right = self.text(node.left), self.text(node.right)
            bits = self._bounded(max(left[1], right[1]) + 2)
            return f"Add({left[0]}, Mul(Integer(-1), {right[0]}))", bits
        if isinstance(node.op, ast.Pow):
            return self._function("Pow", [node.left, node.right])
        if type(node.op) not in _INFIX:
            raise _refuse(f"it holds a {type(node.op).__name__}", self.where)
        return self._function(_INFIX[type(node.op)], [node.left, node.right])

    def _negated(self, node: ast.UnaryOp) -> tuple[str, int]:
        if not isinstance(node.op, ast.USub):
            raise _refuse(f"it holds a {type(node.op).__name__}", self.where)
        text, bits = self.text(node.operand)
        return f"Mul(Integer(-1), {text})", bits

    def _constant(self, node: ast.Constant) -> tuple[str, int]:
        return self._integer(node)

    def _integer(self, node: ast.expr) -> tuple[str, int]:
        value = _number(node)
        if value is None or abs(value) > LARGEST:
            raise _refuse("it holds a constant that is no 64-bit integer", self.where)
        return f"Integer({value})", max(1, value.bit_length())

    def _name(self, node: ast.Name) -> tuple[str, int]:
        return self._symbol_text(node.id, ("positive", "integer"))

    def _symbol(self, node: ast.Call) -> tuple[str, int]:
        first = node.args[0] if len(node.args) == 1 else None
        if not isinstance(first, ast.Constant) or not isinstance(first.value, str):
            raise _refuse("a symbol has no name", self.where)
        given: list[str] = []
        for keyword in node.keywords:
            true = isinstance(keyword.value, ast.Constant) and keyword.value.value is True
            if keyword.arg not in _ASSUMPTIONS or not true or keyword.arg in given:
                raise _refuse("a symbol has unknown assumptions", self.where)
            given.append(keyword.arg)
        return self._symbol_text(first.value, given)

    def _symbol_text(self, name: str, assumptions: list[str] | tuple[str, ...]) -> tuple[str, int]:
        if not is_symbol(name):
            raise _refuse(
                "it holds a name other than s0, s1 ..."
                + (" (u0 is a size that depends on data)" if name[:1] == "u" else ""),
                self.where,
            )
        said = "".join(f", {word}=True" for word in assumptions)
        return f"Symbol('{name}'{said})", 64

    def _bounded(self, bits: int) -> int:
        if bits > MOST_BITS:
            raise _refuse("its value could be too large", self.where)
        return bits


def _number(node: ast.expr) -> int | None:
    """The value of an integer constant, also a negated one or one inside Integer()."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Integer":
        return _number(node.args[0]) if len(node.args) == 1 and not node.keywords else None
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        inner = _number(node.operand) if isinstance(node.operand, ast.Constant) else None
        return None if inner is None else -inner
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return node.value
    return None


def _refuse(reason: str, where: str) -> SecateurError:
    return SecateurError(
        "model_invalid",
        f"A size is given by a formula that is not read: {reason}.",
        where=where,
        hint="Export with fixed sizes, or with sizes that are plain torch.export.Dim symbols.",
    )
