"""Two devices that compute like a CPU and know which tensor is whose: an operation across them is an error.

torch has no second device on a machine without a GPU. While ``TwoDevices`` is entered, memory belongs to a
device by name; a tensor must be moved, which copies it, before it meets one of another device.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

CPU, FIRST, SECOND = torch.device("cpu"), torch.device("cuda", 0), torch.device("cuda", 1)


# What a module's `to` asks before it moves a parameter.
_ASKED = (torch._C._nn._parse_to, torch._has_compatible_shallow_copy_type)


class Mixed(AssertionError):
    """Tensors of two devices met."""


class TwoDevices(TorchFunctionMode):
    """moved: how many tensors went from one device to another."""

    def __init__(self) -> None:
        super().__init__()
        self.moved = 0
        self._places: dict[int, torch.device] = {}

    def place(self, tensor: torch.Tensor) -> torch.device:
        with torch._C.DisableTorchFunction():
            return self._places.get(tensor.untyped_storage().data_ptr(), CPU)

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if function == torch.Tensor.device.__get__:  # type: ignore[attr-defined]  # a property made in C
            return self.place(args[0])
        if function in _ASKED:
            return function(*args, **(kwargs or {}))
        given = dict(kwargs or {})
        asked = [one for one in (*args, given.get("device")) if isinstance(one, torch.device)]
        found = function(
            *(CPU if isinstance(one, torch.device) else one for one in args),
            **{**given, **({"device": CPU} if "device" in given else {})},
        )
        if function is torch.Tensor.to:
            return self._sent(args[0], found, asked)
        held = {self.place(one) for one in _tensors((args, given)) if one.dim()}
        if len(held) > 1:
            raise Mixed(f"{function} of {', '.join(sorted(map(str, held)))}")
        for one in _tensors(found):
            self._places[one.untyped_storage().data_ptr()] = asked[0] if asked else next(iter(held), CPU)
        return found

    def _sent(self, tensor: torch.Tensor, found: torch.Tensor, asked: Sequence[torch.device]) -> torch.Tensor:
        before = self.place(tensor)
        to = asked[0] if asked else before
        if to != before:
            self.moved += 1
            found = found.clone()
        self._places[found.untyped_storage().data_ptr()] = to
        return found


def _tensors(value: Any) -> list[torch.Tensor]:
    return [one for one in tree_leaves(value) if isinstance(one, torch.Tensor)]
