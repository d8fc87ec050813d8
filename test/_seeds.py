"""Seeds for PyTorch's random numbers."""

import torch

everywhere = torch.manual_seed


def seed_torch(seed):
    """`torch.manual_seed` puts off what it has to do for each kind of device that was not used yet,
    and notes the Python stack with it: a millisecond a call where there is none of them."""
    if torch.accelerator.is_available():
        everywhere(seed)
    else:
        torch.default_generator.manual_seed(seed)
