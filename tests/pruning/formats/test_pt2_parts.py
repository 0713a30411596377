"""Formulas and trees of torch.export documents: written anew where they pass, else refused."""

import json

import pytest
import sympy
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils import _pytree

from pruning.errors import SecateurError
from pruning.formats.pt2 import expressions, trees

LEAF = {"type": None, "context": None, "children_spec": []}
S0 = "Symbol('s0', positive=True, integer=True)"


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        (S0, "s0"),
        ("s0", "s0"),
        (f"Add(Mul(Integer(2), {S0}), Integer(-1))", "2*s0 - 1"),
        ("2*s0 - 1", "2*s0 - 1"),
        ("-s0 + s1", "s1 - s0"),
        ("s0**2", "s0**2"),
        (f"Pow({S0}, Integer(2))", "s0**2"),
        (f"Max(Integer(1), {S0})", "Max(1, s0)"),
    ],
)
def test_a_formula_means_the_same_once_written_anew(text: str, meaning: str) -> None:
    made = sympy.sympify(expressions.rewritten(text, "x"))
    names = {name: sympy.Symbol(name, positive=True, integer=True) for name in ("s0", "s1")}
    assert sympy.simplify(made - sympy.sympify(meaning, locals=names)) == 0
    assert expressions.rewritten(expressions.rewritten(text, "x"), "x") == (
        expressions.rewritten(text, "x")
    )


def test_only_a_symbol_alone_is_a_symbol() -> None:
    assert expressions.symbol(expressions.rewritten("s7", "x")) == "s7"
    assert expressions.symbol(expressions.rewritten("s7 + 1", "x")) is None


@given(
    st.text(st.sampled_from("s01(),'\"+-*/%.=_ ainPowAddMulSymbolIntegr[]{}:#\\\n"), max_size=40)
)
def test_any_text_is_refused_or_becomes_calls_of_the_allowed_functions(text: str) -> None:
    try:
        made = expressions.rewritten(text, "x")
    except SecateurError:
        return
    allowed = ("Add", "Mul", "Max", "Min", "Mod", "FloorDiv", "Pow", "Integer", "Symbol")
    words = made.replace("(", " ").replace(")", " ").replace(",", " ").split()
    assert all(
        word.startswith((*allowed, "'s")) or word.endswith("=True") or word.lstrip("-").isdigit()
        for word in words
    )


def _dumped(value: object) -> str:
    return _pytree.treespec_dumps(_pytree.tree_structure(value))


@pytest.mark.parametrize(
    "value", [(1, 2), ([1], {"a": 2, "b": (3,)}), ((), {}), ((1, None), {"x": [2]})]
)
def test_trees_of_tuples_lists_and_dictionaries_stay_what_they_are(value: object) -> None:
    tree = _pytree.tree_structure(value)
    for made in trees.rewritten(_dumped(value), "tree", tree.num_leaves):
        assert _pytree.treespec_loads(made) == tree


def test_output_classes_stay_in_the_file_and_are_dictionaries_here() -> None:
    kind = "transformers.modeling_outputs.CausalLMOutputWithPast"
    node = {"type": kind, "context": '["logits"]', "children_spec": [LEAF]}
    own, plain = trees.rewritten(json.dumps([1, node]), "tree", 1)
    assert json.loads(own)[1] == node
    assert _pytree.tree_unflatten([7], _pytree.treespec_loads(plain)) == {"logits": 7}


@pytest.mark.parametrize(
    "node",
    [
        {"type": "collections.defaultdict", "context": "{}", "children_spec": [LEAF]},
        {"type": "os.system", "context": "[]", "children_spec": []},
        {"type": "transformers.x", "context": '{"a": 1}', "children_spec": [LEAF]},
        {"type": "builtins.dict", "context": '["a", "a"]', "children_spec": [LEAF, LEAF]},
        {"type": "builtins.tuple", "context": '"x"', "children_spec": [LEAF]},
        {"type": None, "context": "x", "children_spec": []},
        {"type": ["builtins.tuple"], "context": "null", "children_spec": [LEAF]},
    ],
)
def test_other_trees_are_refused(node: object) -> None:
    with pytest.raises(SecateurError) as caught:
        trees.rewritten(json.dumps([1, node]), "tree", 1)
    assert caught.value.code == "model_invalid"


def test_a_deep_tree_is_refused() -> None:
    value: object = 1
    for _ in range(40):
        value = (value,)
    with pytest.raises(SecateurError):
        trees.rewritten(_dumped(value), "tree", 1)


def test_every_operator_on_the_list_is_one_of_torch_and_none_is_out_of_reach() -> None:
    from pruning.formats.pt2.operators import ATEN, overload

    for name in ATEN:
        packet = getattr(torch.ops.aten, name)
        kinds = [overload(f"torch.ops.aten.{name}.{kind}") for kind in packet.overloads()]
        assert any(kinds), name
