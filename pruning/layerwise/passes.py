"""One forward pass that can wait before any of its calls.

The module's Python code runs in a thread of its own; every torch function that it calls is handed
to the thread that owns the pass, which runs it, or lets the pass wait. So going through a network
layer by layer costs one forward pass, whatever the module's control flow; views and in-place
functions mean what they always mean. Only one of the threads runs at any time, and all arithmetic
happens in the owner's, with its thread pool.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self
from weakref import ref

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pruning.curvature.layers.matrix import EXPANDED
from pruning.layerwise.residence import Originals, Residence, tensors
from pruning.layerwise.shelf import Parcel, Shelf

_DEVICE = torch.Tensor.device.__get__  # type: ignore[attr-defined]
_OWN = {torch._C._set_grad_enabled}
"""What acts on the calling thread alone."""


class _Left(BaseException):
    """Unwinds the module's code when its pass is given up."""


@dataclass
class Call:
    """A torch function that a forward pass is about to call.

    Args:
        number: How many calls came before it.
        path: A digest of the names of the functions called before it.
        autocast: The dtype of automatic mixed precision where the module switched it on.
    """

    func: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    number: int
    path: int
    autocast: torch.dtype | None = None


@dataclass
class _Made:
    """The results of a pass: which live, and by which call they were made."""

    results: list["ref[Tensor]"] = field(default_factory=list)
    numbered: dict[tuple[int, int], "ref[Tensor]"] = field(default_factory=dict)


class Pass:
    """A forward pass of `module(*inputs)`, in evaluation mode and without gradients.

    Args:
        module: The network.
        inputs: Copied, so that a module that changes its input changes the copy.
        residence: Runs the calls.
        shelf: Takes the activations while the pass waits.
        originals: Dense weights to be used in place of the module's present ones.
        after: Called with every call that was run, and its result.

    Attributes:
        call: The call that is next; None before the first and after the last.
        output: What the module returned.
    """

    def __init__(
        self,
        module: nn.Module,
        inputs: tuple[Tensor, ...],
        residence: Residence,
        shelf: Shelf | None = None,
        originals: Originals | None = None,
        after: Callable[[Call, Any], None] | None = None,
    ) -> None:
        self.module, self.residence, self.originals = module, residence, originals
        self.shelf, self.after = shelf or Shelf(), after
        self.inputs = inputs
        self.call: Call | None = None
        self.output: Any = None
        self.done = False
        self._made = _Made()
        self._number, self._path = 0, 0
        self._answer: Any = None
        self._raise: BaseException | None = None
        self._error: BaseException | None = None
        self._leaving = False
        self._parcels: list[Parcel] = []
        self._asked, self._answered = threading.Semaphore(0), threading.Semaphore(0)
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    @torch.no_grad()
    def advance(self, stop: Callable[[Call], bool]) -> Call | None:
        """Run calls until `stop` says of the next one that it shall wait; None after the last.

        Raises:
            BaseException: Whatever the module raises.
        """
        self.resume()
        if self._thread is None:
            self.inputs = tuple(x.to(self.residence.device, copy=True) for x in self.inputs)
            self._note(-1, self.inputs)
            self._thread = threading.Thread(target=self._forward, daemon=True)
            self._thread.start()
            self._asked.acquire()
        while self.call is not None and not stop(self.call):
            call, self.call = self.call, None
            try:
                self._answer = self._run(call)
            except Exception as error:
                self._raise = error
            else:
                # Not within reach of a module that catches errors.
                if self.after is not None:
                    self.after(call, self._answer)
            del call
            self._answered.release()
            self._asked.acquire()
        if self._error is not None:
            raised, self._error = self._error, None
            raise raised
        return self.call

    def wait(self) -> None:
        """Give the device's memory back until the pass goes on."""
        if self._parcels or self.done:
            return
        alive = [t for r in self._made.results if (t := r()) is not None]
        self._made.results = [ref(t) for t in alive]
        storages = {}
        for tensor in alive:
            if not self.residence.owns(tensor):
                storage = tensor.untyped_storage()
                storages[storage.data_ptr()] = storage
        self._parcels = self.shelf.take(list(storages.values()))

    def resume(self) -> None:
        """Bring back what `wait` gave away."""
        parcels, self._parcels = self._parcels, []
        for parcel in parcels:
            parcel.back()

    def arguments(self, call: Call) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """A call's arguments where it will run."""
        placed: tuple[tuple[Any, ...], dict[str, Any]] = self.residence.arguments(
            (call.args, call.kwargs), self.originals
        )
        return placed

    def made(self, number: int, position: int) -> Tensor | None:
        """The tensor that a call made, or (number -1) an input, while it lives."""
        found = self._made.numbered.get((number, position))
        return None if found is None else found()

    def close(self) -> None:
        """Give the pass up, wherever it is."""
        if self._thread is not None and not self.done:
            self._leaving = True
            self.call = None
            self._answered.release()
            self._thread.join()
        for parcel in self._parcels:
            parcel.contents = None
            parcel.back()
        self._parcels = []
        self._made = _Made()
        self.inputs, self._answer, self.output = (), None, None

    def _run(self, call: Call) -> Any:
        device = self.residence.device.type
        if call.autocast is None:
            result = self.residence.run(call.func, call.args, call.kwargs, self.originals)
        else:
            with torch.autocast(device, call.autocast):
                result = self.residence.run(call.func, call.args, call.kwargs, self.originals)
        self._path = hash((self._path, getattr(call.func, "__name__", "")))
        self._note(call.number, result)
        return result

    def _note(self, number: int, result: Any) -> None:
        for position, tensor in enumerate(tensors(result)):
            found = ref(tensor)
            self._made.results.append(found)
            self._made.numbered[number, position] = found

    def _forward(self) -> None:
        try:
            with torch.no_grad(), _Tap(self):
                self.output = self.module(*self.inputs)
        except _Left:
            pass
        except BaseException as error:
            self._error = error
        finally:
            self.call, self.done = None, True
            self._asked.release()

    def ask(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """From the module's thread: have a function called."""
        if self._leaving:
            raise _Left
        device = self.residence.device.type
        autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        self.call = Call(func, args, kwargs, self._number, self._path, autocast)
        self._number += 1
        del args, kwargs
        self._asked.release()
        self._answered.acquire()
        if self._leaving:
            raise _Left
        if self._raise is not None:
            error, self._raise = self._raise, None
            raise error
        answer, self._answer = self._answer, None
        return answer

    def glance(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """From the module's thread: a property of a tensor, which costs nothing."""
        if func == _DEVICE:
            return self.residence.device
        result = func(*args, **kwargs)
        for tensor in tensors(result):
            self._made.results.append(ref(tensor))
        return result


class _Tap(TorchFunctionMode):
    """Passes the module's calls on to its pass."""

    def __init__(self, owner: Pass) -> None:
        super().__init__()
        self.owner = owner

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in _OWN or getattr(func, "__name__", "") == "__get__":
            return self.owner.glance(func, args, kwargs)
        if func in EXPANDED:
            with self:
                return EXPANDED[func](*args, **kwargs)
        return self.owner.ask(func, args, kwargs)
