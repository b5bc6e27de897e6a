"""A model over several devices: each layer whole on one of them, everything around the layers on the first.

What passes between two devices are the tensors of one step; keys and values stay where their layer is.
Nothing is computed on two devices at once: several GPUs hold a larger model and do not make it faster.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils._pytree import tree_map

from quotary.errors import Unsupported


def needed(size: int, free: Sequence[int]) -> int:
    """Say how many of the devices, in order, a model of ``size`` bytes takes: a fifth of each is left for the
    caches; all of them where that is not enough.

    free: bytes of each device
    """
    for count in range(1, len(free)):
        if size * 5 <= min(free[:count]) * 4 * count:
            return count
    return len(free)


def plan(layers: int, devices: int) -> tuple[int, ...]:
    """Give the device of each layer: neighbours together, as many on each as on the others, or one more."""
    return tuple(layer * devices // layers for layer in range(layers))


def spread(model: Any, devices: Sequence[torch.device]) -> tuple[int, ...]:
    """Move a filled model to its devices; returns how many layers each of them has."""
    body = model.base_model
    layers, norm = getattr(body, "layers", None), getattr(body, "norm", None)
    if norm is None or not isinstance(layers, torch.nn.ModuleList) or len(layers) < len(devices):
        raise Unsupported(f"this model cannot be split over {len(devices)} devices")
    places = plan(len(layers), len(devices))
    body.layers = None
    model.to(devices[0])
    body.layers = layers
    for layer, place in zip(layers, places, strict=True):
        _bring(layer, devices[place])
    _bring(norm, devices[0])
    return tuple(places.count(number) for number in range(len(devices)))


def _bring(part: Any, device: torch.device) -> None:
    """Move a part, and whatever it is called with."""

    def moved(value: Any) -> Any:
        return value.to(device) if isinstance(value, torch.Tensor) else value

    part.to(device)
    part.register_forward_pre_hook(
        lambda _, args, kwargs: (tree_map(moved, args), tree_map(moved, kwargs)), with_kwargs=True
    )
