"""Where in the module each stored tensor goes: layers at their weights' paths, ties kept."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pruning.formats.pt2.layers import Layer
from pruning.formats.pt2.module import HALVES
from pruning.formats.pt2.payloads import Stored

_TAKEN = frozenset(dir(nn.Module())) | {"input_names", "outputs", "steps", "copied"}


class Placing:
    """Collects layers, then builds the tree of modules.

    Args:
        values: Stored tensors by name, on the CPU.
        stored: Where they lie; tensors of one place are one.

    Attributes:
        transposed: Names of tensors held with their two axes exchanged.
        statistics: Names of buffers that belong to a batch normalisation.
        moved: Once built, the path given to each layer to the one it has.
    """

    def __init__(self, values: Mapping[str, Tensor], stored: Mapping[str, Stored]) -> None:
        self._values, self._stored = values, stored
        self._groups: dict[object, list[str]] = {}
        for name in values:
            self._groups.setdefault(self._place(name), []).append(name)
        self._layers: dict[str, tuple[nn.Module, dict[str, str]]] = {}
        self._known: dict[object, str] = {}
        self.transposed: set[str] = set()
        self.statistics: set[str] = set()
        self.moved: dict[str, str] = {}
        self._made: dict[object, Tensor] = {}

    def aliases(self, name: str) -> list[str]:
        """The names of the tensors that are this one, in the file's order."""
        return self._groups[self._place(name)]

    def place(self, layer: Layer, state: dict[str, str], node: str) -> str | None:
        """Takes a layer.

        Args:
            layer: What to make.
            state: Name in the layer to name in the file.
            node: The call's name in the graph.

        Returns:
            The layer's path; None where it can't be made of these tensors.
        """
        key = (layer.key, *((leaf, self._place(name)) for leaf, name in sorted(state.items())))
        if state and key in self._known:
            return self._known[key]
        made = layer.make()
        for leaf, name in state.items():
            found = tuple(getattr(made, leaf).shape)
            here = tuple(self._values[name].shape)
            if found != (here[::-1] if layer.transposed and leaf == "weight" else here):
                return None
        path, names = self._free(state) if state else (self._unused(f"layers.{node}"), {})
        self._layers[path] = (made, names)
        if layer.transposed:
            self.transposed.add(names["weight"])
        if state:
            self._known[key] = path
        self.statistics.update(n for leaf, n in names.items() if leaf.startswith("running_"))
        counter = f"{path}.num_batches_tracked"
        if "running_mean" in state and counter in self._values:
            names["num_batches_tracked"] = counter
        return path

    def build(self, root: nn.Module) -> dict[str, list[str]]:
        """Makes the tree below `root`; gives the paths of each stored tensor."""
        for path in sorted(self._layers, key=lambda p: p.count(".")):
            owner, leaf = _owner(root, path)
            owner.add_module(_free_name(owner, leaf), self._layers[path][0])
        places = {id(module): path for path, module in root.named_modules()}
        self.moved = {path: places[id(layer)] for path, (layer, _) in self._layers.items()}
        paths: dict[str, list[str]] = {}
        for path, (layer, names) in self._layers.items():
            for leaf, name in names.items():
                self._set(layer, leaf, name)
                paths.setdefault(name, []).append(f"{self.moved[path]}.{leaf}")
        for name in self._values:
            if name in paths:
                continue
            owner, leaf = _owner(root, _safe(name))
            leaf = _free_name(owner, leaf)
            self._set(owner, leaf, name)
            path = next((p for p, m in root.named_modules() if m is owner), "")
            paths[name] = [f"{path}.{leaf}" if path else leaf]
        return paths

    def _place(self, name: str) -> object:
        return self._stored[name].place

    def _free(self, state: dict[str, str]) -> tuple[str, dict[str, str]]:
        """A path that no layer has, by the first of the tied names that leads to one."""
        first, name = next(iter(state.items()))
        for alias in self.aliases(name):
            prefix = _prefix(alias, first)
            path = _safe(prefix)
            if path not in self._layers:
                names = {leaf: self._near(n, prefix, leaf) for leaf, n in state.items()}
                return path, {**names, first: alias}
        return self._unused(_safe(_prefix(name, first))), dict(state)

    def _near(self, name: str, prefix: str, leaf: str) -> str:
        """Of a tensor's names the one that lies beside the layer's weight."""
        return next((n for n in self.aliases(name) if _prefix(n, leaf) == prefix), name)

    def _unused(self, path: str) -> str:
        count, found = 1, path
        while found in self._layers:
            count += 1
            found = f"{path}_{count}"
        return found

    def _set(self, owner: nn.Module, leaf: str, name: str) -> None:
        value = self._tensor(name)
        if isinstance(value, nn.Parameter):
            owner._parameters.pop(leaf, None)
            owner.register_parameter(leaf, value)
            if isinstance(owner, nn.RNNBase):
                setattr(owner, leaf, value)
        else:
            if leaf in owner.__dict__:
                delattr(owner, leaf)
            owner._buffers.pop(leaf, None)
            owner.register_buffer(leaf, value)

    def _tensor(self, name: str) -> Tensor:
        """The one tensor of a place, a parameter where the file has one of floating point."""
        place = self._place(name)
        if place not in self._made:
            value = self._values[name].detach()
            value = value.float() if value.dtype in HALVES else value
            if name in self.transposed:
                value = value.t()
            value = value.clone(memory_format=torch.contiguous_format)
            parameter = self._stored[name].parameter and value.is_floating_point()
            self._made[place] = nn.Parameter(value) if parameter else value
        return self._made[place]


def _prefix(name: str, leaf: str) -> str:
    """The path of the layer whose `leaf` a stored tensor is called after, or its own."""
    for joint in (".", "_"):
        if name.endswith(joint + leaf) and len(name) > len(leaf) + 1:
            return name[: -len(leaf) - 1]
    return name


def _safe(path: str) -> str:
    """The path with parts renamed that a module has a meaning for."""
    return ".".join(part + "_" if part in _TAKEN else part for part in path.split("."))


def _free_name(owner: nn.Module, name: str) -> str:
    """The name, or one like it, that means nothing to the module yet."""
    while hasattr(owner, name):
        name += "_"
    return name


def _owner(root: nn.Module, path: str) -> tuple[nn.Module, str]:
    """The module above a path, made where it is not there, and the path's last part."""
    owner = root
    *above, leaf = path.split(".")
    for part in above:
        if part not in owner._modules:
            part = _free_name(owner, part)
            owner.add_module(part, nn.Module())
        owner = owner._modules[part]  # type: ignore[assignment]
    return owner, leaf
