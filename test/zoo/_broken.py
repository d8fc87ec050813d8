"""Models that go wrong, to test that this is seen."""

import os
import signal
import time

import torch
from _model import EXAMPLES, Entry, numbers
from torch import nn

import functx


def is_due(x):
    """Under a transform, and in single precision: other checks of the model go well."""
    return x.dtype == torch.float32 and functx._C.level_depth() > 0


class Broken(nn.Module):
    def __init__(self, fault):
        super().__init__()
        self.fault = fault
        self.linear = nn.Linear(3, 3)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x):
        y = self.linear(x).tanh()
        return self.fault(self, x, y) if is_due(x) else y


def dies(module, x, y):
    os.kill(os.getpid(), signal.SIGSEGV)


def hangs(module, x, y):
    time.sleep(60)


def wrong(module, x, y):
    return y + (y - y.detach())


def keeps(module, x, y):
    module.seen = torch.ones(())
    return y


def freezes(module, x, y):
    FROZEN[0].requires_grad_(False)
    return y


FROZEN = []


def entry(fault):
    def build():
        module = Broken(fault)
        FROZEN[:] = module.parameters()
        return Entry(module, numbers((EXAMPLES, 3), 0.4, torch.float64), (), lambda m, x: m(x))

    return build


MODELS = {fault.__name__: entry(fault) for fault in (dies, hangs, wrong, keeps, freezes)}
