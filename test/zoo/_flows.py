"""Flows of zuko, differential equations of torchdiffeq, equivariant networks of e3nn."""

import e3nn
import e3nn.nn
import torch
import torchdiffeq
import zuko
from _model import EXAMPLES, Entry, numbers
from e3nn import o3
from torch import nn

from functx import functional_call


def points(*shape):
    return numbers((EXAMPLES, *shape), 0.4, torch.float64)


def log_prob(flow, x):
    return flow().log_prob(x)


def log_prob_given(flow, x):
    return flow(x[-2:]).log_prob(x[:-2])


def inverse(flow, x):
    return flow().transform.inv(x)


def flow(kind, *args, call=log_prob, size=3, frozen=False, **options):
    """Where parameters are read again in the backward pass, when `functional_call` has put them
    back, they have to be `frozen`."""
    options = {"hidden_features": (6,), **options}
    build = lambda: kind(*args, **options).eval().requires_grad_(not frozen)
    return lambda: Entry(build(), points(size), (), call)


class Equation(nn.Module):
    """The solution of y' = net(y, t) at two times."""

    def __init__(self, adjoint=False, **options):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
        self.adjoint, self.options = adjoint, options

    def forward(self, y):
        t = torch.tensor([0.0, 0.3, 0.7], dtype=y.dtype)
        # By value: `functional_call` puts the parameters back before the adjoint method reads them.
        params = dict(self.net.named_parameters())

        def slope(t, y):
            return functional_call(self.net, params, (torch.cat([y, t.reshape(1).to(y.dtype)]),))

        if self.adjoint:
            given = {"adjoint_params": tuple(params.values())}
            return torchdiffeq.odeint_adjoint(slope, y, t, **self.options, **given)
        return torchdiffeq.odeint(slope, y, t, **self.options)


def equation(method, adjoint=False, step=None, rtol=1e-9, atol=1e-11):
    """An adjoint method has gradients of the equation, not of the numbers that it computes; one
    with steps of its choice leaves out what depends on their size, and finds none in bfloat16."""
    options = {"method": method, "rtol": rtol, "atol": atol}
    if step:
        options["options"] = {"step_size": step}
    adapts = method == "dopri5"
    kept = {"error": 1e-6 if adjoint or adapts else 0.0, "autocasts": not adapts}
    return lambda: Entry(Equation(adjoint, **options), points(3), (), lambda m, y: m(y), **kept)


class Convolution(nn.Module):
    """A layer of a network on a cloud of points, as in e3nn's introduction."""

    def __init__(self):
        super().__init__()
        self.sh = o3.Irreps.spherical_harmonics(2)
        self.lin = o3.Linear("3x0e", "4x0e + 2x1o")
        self.product = o3.FullyConnectedTensorProduct(
            "4x0e + 2x1o", self.sh, "3x0e + 2x1o", shared_weights=False
        )
        self.radial = e3nn.nn.FullyConnectedNet([4, 6, self.product.weight_numel], torch.tanh)
        self.gate = e3nn.nn.Gate("2x0e", [torch.tanh], "1x0e", [torch.sigmoid], "1x1o")
        self.to_gate = o3.Linear("3x0e + 2x1o", self.gate.irreps_in)
        self.out = o3.Linear(self.gate.irreps_out, "2x0e + 1x1o")

    def forward(self, pos):
        i, j = torch.tensor([[0, 0, 1, 1, 2, 2, 3], [1, 2, 0, 2, 0, 3, 1]])
        edges = pos[i] - pos[j]
        harmonics = o3.spherical_harmonics(self.sh, edges, True, normalization="component")
        length = e3nn.math.soft_one_hot_linspace(
            edges.norm(dim=1), 0.0, 4.0, 4, basis="smooth_finite", cutoff=True
        )
        features = self.lin(
            torch.cat([pos[:, :1] * 0 + 1, pos[:, :1] * 0 + 2, pos.pow(2).sum(1, True)], 1)
        )
        messages = self.product(features[j], harmonics, self.radial(length * 2))
        gathered = torch.zeros(pos.shape[0], messages.shape[1], dtype=pos.dtype).index_add(
            0, i, messages
        )
        return self.out(self.gate(self.to_gate(gathered)))


def cloud():
    return Entry(Convolution(), 2 * points(4, 3), (), lambda m, x: m(x))


def irreps(make, width, call=None):
    return lambda: Entry(make(), points(width), (), call or (lambda m, x: m(x.unsqueeze(0))))


class Norms(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = e3nn.nn.NormActivation("2x0e + 1x1o", torch.sigmoid)
        self.batch = e3nn.nn.BatchNorm("2x0e + 1x1o", affine=True)

    def forward(self, x):
        return self.batch(self.norm(x))


class Harmonics(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(3, 3)
        self.sh = o3.SphericalHarmonics("1o + 2e + 3o", normalize=True)

    def forward(self, x):
        return self.sh(self.lin(x))


class Rotated(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.randn(3))

    def forward(self, x):
        a, b, c = x.unbind(-1)
        return o3.wigner_D(2, a, b, c) @ o3.angles_to_matrix(a, b, c).new_ones(5) * self.w.sum()


class Extracted(nn.Module):
    def __init__(self):
        super().__init__()
        self.s2 = e3nn.nn.S2Activation("1x0e + 1x1o + 1x2e", torch.tanh, 6, lmax_out=2)
        self.lin = o3.Linear("1x0e + 1x1o + 1x2e", "1x0e + 1x1o + 1x2e")

    def forward(self, x):
        return self.s2(self.lin(x))


MODELS = {
    "zuko nsf": flow(zuko.flows.NSF, 3, transforms=2),
    "zuko nsf context": flow(zuko.flows.NSF, 3, 2, transforms=2, size=5, call=log_prob_given),
    "zuko nsf coupling": flow(zuko.flows.NSF, 3, transforms=2, passes=2),
    "zuko nsf inverse": flow(zuko.flows.NSF, 3, transforms=1, call=inverse),
    "zuko ncsf": flow(zuko.flows.NCSF, 3, transforms=2),
    "zuko maf": flow(zuko.flows.MAF, 3, transforms=2),
    "zuko maf context": flow(zuko.flows.MAF, 3, 2, transforms=2, size=5, call=log_prob_given),
    "zuko maf inverse": flow(zuko.flows.MAF, 3, transforms=2, call=inverse),
    "zuko nice": flow(zuko.flows.NICE, 3, transforms=2),
    "zuko cnf": flow(zuko.flows.CNF, 3, frozen=True, atol=1e-6, rtol=1e-5),
    "zuko naf": flow(zuko.flows.NAF, 3, transforms=1, signal=4, network={"hidden_features": (6,)}),
    "zuko unaf": flow(
        zuko.flows.UNAF, 3, frozen=True, transforms=1, signal=4, network={"hidden_features": (6,)}
    ),
    "zuko sospf": flow(zuko.flows.SOSPF, 3, frozen=True, transforms=1),
    "zuko sospf inverse": flow(zuko.flows.SOSPF, 3, frozen=True, transforms=1, call=inverse),
    "zuko bpf": flow(zuko.flows.BPF, 3, transforms=1),
    "zuko gf": flow(zuko.flows.GF, 3, transforms=2),
    "zuko gmm": flow(zuko.mixtures.GMM, 3, components=2),
    "odeint rk4": equation("rk4"),
    "odeint euler": equation("euler"),
    "odeint midpoint": equation("midpoint", step=0.1),
    "odeint dopri5": equation("dopri5"),
    "odeint adams": equation("explicit_adams", step=0.05),
    "odeint implicit adams": equation("implicit_adams", step=0.05),
    "odeint adjoint rk4": equation("rk4", adjoint=True, step=0.05),
    "odeint adjoint dopri5": equation("dopri5", adjoint=True),
    "e3nn convolution": cloud,
    "e3nn norms": irreps(lambda: Norms().eval(), 5),
    "e3nn harmonics": irreps(Harmonics, 3),
    "e3nn wigner": irreps(Rotated, 3, lambda m, x: m(x)),
    "e3nn s2": irreps(Extracted, 9),
    "e3nn tensor square": irreps(lambda: o3.TensorSquare("2x0e + 1x1o"), 5),
    "e3nn full product": irreps(
        lambda: nn.Sequential(o3.Linear("2x0e + 1x1o", "2x0e + 1x1o"), o3.Norm("2x0e + 1x1o")), 5
    ),
    "e3nn reduced": irreps(
        lambda: o3.FullyConnectedTensorProduct("2x0e + 1x1o", "2x0e + 1x1o", "1x0e + 1x1o + 1x2e"),
        5,
        lambda m, x: m(x, x.sin()),
    ),
}
