"""Lets `torchvision` be imported beside a torch that its compiled operators were not built for.

timm imports it, and transformers if it is there; neither model here calls an operator of its own.
Without the operators, the shapes that it wants to register for them are what fails.
"""

import sys
import types

name = "torchvision._meta_registrations"
sys.modules.setdefault(name, types.ModuleType(name))
