"""A pretended GPU, so that a forgotten `.to(device)` is a red test on every machine.

Its tensors are ordinary tensors on the CPU, whose storage is noted as being "on cuda": `Tensor.device` says so, and an operation that mixes devices
raises where CUDA would. Numbers are real, so that `.item()`, shapes that depend on data, autograd and whole training runs work, which torch's fake
tensors cannot do, and must equal those of a run on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, UntypedStorage
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
_ANY = {"aten::copy_", "aten::_to_copy", "aten::set_"}  # operations between devices
_INDEXED = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_", "aten::_unsafe_index"}


class MixedDevices(RuntimeError):
    """An operation got tensors of two devices."""


@contextmanager
def pretended_gpu() -> Iterator[None]:
    """Inside, `cuda` is a device that tensors and models can be moved to."""
    places = _Places()
    with _Operations(places), _Python(places):
        yield


class _Places:
    """Which storages are pretended to be on the GPU; all others are on the CPU."""

    def __init__(self) -> None:
        self._cuda: WeakKeyDictionary[UntypedStorage, None] = WeakKeyDictionary()
        self.around = CPU  # the device of the function that is running, for what it makes inside

    def of(self, tensor: Tensor) -> torch.device:
        if tensor.device.type != "cpu":
            return tensor.device  # meta
        return CUDA if tensor.untyped_storage() in self._cuda else CPU

    def put(self, tensor: Tensor, device: torch.device) -> None:
        if device.type == "cuda":
            self._cuda[tensor.untyped_storage()] = None
        else:
            self._cuda.pop(tensor.untyped_storage(), None)

    def common(self, name: str, tensors: Sequence[Tensor]) -> torch.device:
        """The one device of an operation's tensors; a single number on the CPU goes with any. Raises MixedDevices for two."""
        places = {self.of(tensor) for tensor in tensors if tensor.dim() or self.of(tensor) == CUDA}
        if len(places - {torch.device("meta")}) > 1:
            given = ", ".join(f"{list(tensor.shape)} on {self.of(tensor)}" for tensor in tensors)
            raise MixedDevices(f"{name} got tensors on two devices: {given}.")
        return CUDA if CUDA in places else CPU


class _Moved(torch.autograd.Function):
    """A copy on another device; its gradient goes back to the first."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, places: _Places, device: torch.device) -> Tensor:
        ctx.places, ctx.back = places, places.of(tensor)
        return _copied(tensor, places, device)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        return _copied(gradient, ctx.places, ctx.back), None, None


def _copied(tensor: Tensor, places: _Places, device: torch.device) -> Tensor:
    made = tensor.clone()
    places.put(made, device)
    return made


class _Operations(TorchDispatchMode):
    """Checks every operation, those of the backward pass too, and notes where its results are."""

    def __init__(self, places: _Places) -> None:
        super().__init__()
        self.places = places

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        name = func._schema.name
        if name in _ANY:
            device = self.places.of(tensors[0])
        elif name in _INDEXED:
            indices = [index for index in args[1] if index is not None]
            device = self.places.common(name, [tensor for tensor in tensors if not any(tensor is index for index in indices)])
            if device == CPU:  # an index on the CPU goes with a tensor on the GPU, not the other way round
                self.places.common(name, [args[0], *indices])
        else:
            device = self.places.common(name, tensors) if tensors else self.places.around
        generator = kwargs.get("generator")
        if device == CUDA and generator is not None:
            raise MixedDevices(f"{name} works on cuda, but its generator is on the CPU.")
        found = func(*args, **kwargs)
        known = {id(tensor.untyped_storage()) for tensor in tensors if tensor.device.type == "cpu"}
        for leaf in tree_leaves(found):
            if isinstance(leaf, Tensor) and leaf.device.type == "cpu" and id(leaf.untyped_storage()) not in known:
                self.places.put(leaf, device)
        return found


class _Python(TorchFunctionMode):
    """What Python code asks of tensors: their device, copies on another one, and new tensors there."""

    def __init__(self, places: _Places) -> None:
        super().__init__()
        self.places = places

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        places = self.places
        if getattr(func, "__name__", "") == "__get__":
            return self._attribute(func, args)
        if func is torch.Tensor.backward:
            with self:  # layers that are computed again run Python code
                return torch.autograd.backward(args[0], kwargs.pop("gradient", None), **kwargs)
        if func in (torch.Tensor.to, torch.Tensor.cpu, torch.Tensor.cuda, torch.Tensor.type_as):
            return self._move(func, args, kwargs)
        if func in (torch.Tensor.numpy, torch.Tensor.__array__) and places.of(args[0]) == CUDA:
            raise MixedDevices("numpy cannot read a tensor on cuda.")
        asked = kwargs.get("device")
        if asked is not None and torch.device(asked).type in ("cpu", "cuda"):
            return self._make(func, args, kwargs, torch.device(asked))
        outer = places.around
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        places.around = CUDA if any(places.of(tensor) == CUDA for tensor in tensors) else CPU
        try:
            found = func(*args, **kwargs)
        finally:
            places.around = outer
        if func is torch.Tensor.__deepcopy__:
            places.put(found, places.of(args[0]))
        return found

    def _attribute(self, func: Callable[..., Any], args: Any) -> Any:
        if func == torch.Tensor.device.__get__:  # type: ignore[attr-defined]
            return self.places.of(args[0])
        if func == torch.Tensor.is_cuda.__get__:  # type: ignore[attr-defined]
            return self.places.of(args[0]) == CUDA
        return func(*args)

    def _move(self, func: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Tensor:
        """`to` in all its forms: the conversion where the tensor is, then the copy."""
        tensor, *rest = args
        places, here = self.places, self.places.of(tensor)
        target = kwargs.pop("device", None)
        if func in (torch.Tensor.cpu, torch.Tensor.cuda):
            target, rest, kwargs = func.__name__, [], {}
        for item in (*rest, kwargs.get("other")):
            if isinstance(item, Tensor):
                target, kwargs["dtype"] = places.of(item), item.dtype
            elif isinstance(item, str | torch.device):
                target = item
            elif isinstance(item, torch.dtype):
                kwargs["dtype"] = item
        device = here if target is None else torch.device(target)
        if device.type == "meta":
            return tensor.to(device, kwargs.get("dtype"))
        found = tensor if kwargs.get("dtype") is None else tensor.to(kwargs["dtype"])
        return found if device.type == here.type else _Moved.apply(found, places, device)  # type: ignore[return-value]

    def _make(self, func: Callable[..., Any], args: Any, kwargs: dict[str, Any], device: torch.device) -> Any:
        """A function with `device=`: it runs on the CPU, and its result is noted as being on this device."""
        if device.type == "cuda" and kwargs.get("generator") is not None:
            raise MixedDevices(f"{func.__name__} makes numbers on cuda, but its generator is on the CPU.")
        if func is torch.as_tensor and isinstance(args[0], Tensor):
            return self._move(torch.Tensor.to, args, kwargs)
        found = func(*args, **{**kwargs, "device": CPU})
        self.places.put(found, device)
        return found
