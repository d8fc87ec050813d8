"""Repeating random numbers, for transforms that run a function several times."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


def check_randomness(transform: str, randomness: str) -> None:
    """Raises RuntimeError unless `randomness` is one of the three behaviours of vmap."""
    if randomness not in ("error", "different", "same"):
        raise RuntimeError(
            f"{transform}: Only allowed values for randomness are 'error', 'different', or "
            f"'same'. Got {randomness!r}."
        )


class RngSnapshot:
    """The state of the default generators of the CPU and of the devices that tensors are on."""

    def __init__(self, values: Iterable[Any]) -> None:
        devices = {value.device for value in values if isinstance(value, Tensor)}
        self._cpu = torch.get_rng_state()
        self._others = {
            device: torch.get_device_module(device).get_rng_state(device)
            for device in devices
            if device.type not in ("cpu", "meta")
        }

    def restore(self) -> None:
        """Makes the generators repeat what they gave since the snapshot."""
        torch.set_rng_state(self._cpu)
        for device, state in self._others.items():
            torch.get_device_module(device).set_rng_state(state, device)
