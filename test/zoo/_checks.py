"""What is checked of each model: a composition of transforms, and what it has to give.

The references are plain autograd in a Python loop, and for second derivatives central differences
of plain autograd's gradients.
"""

import torch
from _model import DIRECTIONS, EXAMPLES

import functx
from functx import grad, hessian, jacfwd, jacrev, jvp, linearize, vjp, vmap

STEP = 1e-5
WIDE = 1e-3  # where float32 is inside


# ---- the compositions ----


def per_sample_grad(s):
    mapped = (None, 0, *(0 for _ in s.datas))
    return vmap(grad(s.loss, argnums=(0, 1)), mapped)(s.params, s.xs, *s.datas)


def vmap_vjp(s):
    def pullback(x, *data):
        return vjp(lambda x: s.out(s.params, x, *data), x)[1](torch.ones(3, dtype=s.dtype))[0]

    return vmap(pullback)(s.xs, *s.datas)


def jvp_full(s):
    primals, tangents = (s.params, s.x), (s.param_tangents, s.x_tangents[0])
    return jvp(lambda params, x: s.out(params, x, *s.data), primals, tangents)


def vmap_jvp(s):
    def one(x, t, *data):
        primals, tangents = (s.params, x), (s.param_tangents, t)
        return jvp(lambda params, x: s.out(params, x, *data), primals, tangents)[1]

    return vmap(one)(s.xs, s.x_tangents, *s.datas)


def linearize_full(s):
    value, derivative = linearize(lambda params, x: s.out(params, x, *s.data), s.params, s.x)
    return value, derivative(s.param_tangents, s.x_tangents[0])


def vmap_linearize(s):
    value, derivative = linearize(lambda x: s.out(s.params, x, *s.data), s.x)
    return value, vmap(derivative)(s.x_directions)


def gradient(s):
    return grad(lambda params, x: s.loss(params, x, *s.data), argnums=(0, 1))


def hvp_jvp_grad(s):
    return jvp(gradient(s), (s.params, s.x), (s.param_tangents, s.x_tangents[0]))[1]


def hvp_vjp_grad(s):
    return vjp(gradient(s), s.params, s.x)[1]((s.param_tangents, s.x_tangents[0]))


def hvp_grad_jvp(s):
    def slope(params, x):
        primals, tangents = (params, x), (s.param_tangents, s.x_tangents[0])
        return jvp(lambda params, x: s.loss(params, x, *s.data), primals, tangents)[1]

    return grad(slope, argnums=(0, 1))(s.params, s.x)


def hvp_linearize_grad(s):
    return linearize(gradient(s), s.params, s.x)[1](s.param_tangents, s.x_tangents[0])


def vmap_hvp(s):
    def one(x, t, *data):
        return jvp(grad(lambda x: s.loss(s.params, x, *data)), (x,), (t,))[1]

    return vmap(one)(s.xs, s.x_tangents, *s.datas)


def vmap_hessian(s):
    in_dims = (None, 0, *(0 for _ in s.datas))
    return vmap(hessian(s.example_along_x), in_dims)(s.zero, s.xs, *s.datas)


# ---- what they have to give ----


def plain_gradient(f, *inputs):
    """By plain autograd, zeros where `f` does not depend on an input; the inputs are pytrees."""
    leaves, spec = torch.utils._pytree.tree_flatten(inputs)
    leaves = [x.detach().clone().requires_grad_() for x in leaves]
    value = f(*torch.utils._pytree.tree_unflatten(leaves, spec))
    found = torch.autograd.grad(value, leaves, allow_unused=True) if value.requires_grad else leaves
    found = [
        torch.zeros_like(x) if g is None or g is x else g
        for g, x in zip(found, leaves, strict=True)
    ]
    return torch.utils._pytree.tree_unflatten(found, spec)


def stacked(results):
    return torch.utils._pytree.tree_map(lambda *xs: torch.stack(xs), *results)


def dot(gradients, tangents):
    leaves = torch.utils._pytree.tree_leaves
    pairs = zip(leaves(gradients), leaves(tangents), strict=True)
    return sum((g * t).sum() for g, t in pairs)


def each_output(f, *inputs):
    """The gradient of each output of `f`."""
    return [plain_gradient(lambda *a, i=i: f(*a)[i], *inputs) for i in range(3)]


def want_per_sample_grad(s):
    results = []
    for k in range(EXAMPLES):
        x, data = s.example(k)
        results.append(plain_gradient(lambda p, x, data=data: s.loss(p, x, *data), s.params, x))
    return stacked(results)


def want_jacobian(f):
    return lambda s: torch.stack([g[0] for g in each_output(getattr(s, f), s.zero)])


def want_jacrev_x(s):
    return stacked([g[0] for g in each_output(lambda x: s.out(s.params, x, *s.data), s.x)])


def want_vmap_vjp(s):
    results = []
    for k in range(EXAMPLES):
        x, data = s.example(k)
        f = lambda x, data=data: s.out(s.params, x, *data).sum()
        results.append(plain_gradient(f, x)[0])
    return torch.stack(results)


def want_slope(s, x, t, data):
    gradients = each_output(lambda p, x: s.out(p, x, *data), s.params, x)
    return torch.stack([dot(g, (s.param_tangents, t)) for g in gradients])


def want_value(s):
    with torch.no_grad():
        return s.out(s.params, s.x, *s.data)


def want_jvp(s):
    return want_value(s), want_slope(s, s.x, s.x_tangents[0], s.data)


def want_vmap_jvp(s):
    examples = [s.example(k) for k in range(EXAMPLES)]
    return torch.stack(
        [want_slope(s, x, t, data) for (x, data), t in zip(examples, s.x_tangents, strict=True)]
    )


def want_vmap_linearize(s):
    return want_value(s), want_jacobian("out_along_x")(s).T


def difference(s, f):
    """The central difference of `f(step)`, a pytree; of fourth order where the step is wide."""
    tree_map = torch.utils._pytree.tree_map
    if not s.single:
        return tree_map(lambda a, b: (b - a) / (2 * STEP), f(-STEP), f(STEP))
    near, far = (tree_map(lambda a, b: b - a, f(-step), f(step)) for step in (WIDE, 2 * WIDE))
    return tree_map(lambda a, b: (8 * a - b) / (12 * WIDE), near, far)


def want_hessian(f):
    def want(s):
        gradient = lambda step, k: plain_gradient(
            getattr(s, f), s.zero + step * torch.eye(DIRECTIONS, dtype=s.dtype)[k]
        )[0]
        rows = [difference(s, lambda step, k=k: gradient(step, k)) for k in range(DIRECTIONS)]
        return torch.stack(rows)

    return want


def want_vmap_hessian(s):
    results = []
    for n in range(EXAMPLES):
        x, data = s.example(n)
        rows = []
        for k in range(DIRECTIONS):
            e = torch.eye(DIRECTIONS, dtype=s.dtype)[k]
            f = lambda z, x=x, data=data: s.example_along_x(z, x, *data)
            rows.append(difference(s, lambda step, e=e, f=f: plain_gradient(f, step * e)[0]))
        results.append(torch.stack(rows))
    return torch.stack(results)


def want_hvp(s):
    def moved(step):
        params = {name: p + step * s.param_tangents[name] for name, p in s.params.items()}
        x = s.x + step * s.x_tangents[0]
        return plain_gradient(lambda p, x: s.loss(p, x, *s.data), params, x)

    return difference(s, moved)


def want_vmap_hvp(s):
    results = []
    for k in range(EXAMPLES):
        x, data = s.example(k)
        f = lambda x, data=data: s.loss(s.params, x, *data)
        t = s.x_tangents[k]
        results.append(
            difference(s, lambda step, f=f, x=x, t=t: plain_gradient(f, x + step * t)[0])
        )
    return torch.stack(results)


FIRST = {
    "vmap(grad)": (per_sample_grad, want_per_sample_grad),
    "vmap(vjp)": (vmap_vjp, want_vmap_vjp),
    "jacrev": (
        lambda s: jacrev(lambda x: s.out(s.params, x, *s.data))(s.x),
        want_jacrev_x,
    ),
    "jacfwd x": (lambda s: jacfwd(s.out_along_x)(s.zero), want_jacobian("out_along_x")),
    "jacfwd p": (lambda s: jacfwd(s.out_along_params)(s.zero), want_jacobian("out_along_params")),
    "jvp": (jvp_full, want_jvp),
    "vmap(jvp)": (vmap_jvp, want_vmap_jvp),
    "linearize": (linearize_full, want_jvp),
    "vmap(linearized)": (vmap_linearize, want_vmap_linearize),
}
SECOND = {
    "hessian x": (lambda s: hessian(s.loss_along_x)(s.zero), want_hessian("loss_along_x")),
    "hessian p": (
        lambda s: hessian(s.loss_along_params)(s.zero),
        want_hessian("loss_along_params"),
    ),
    "jacfwd(jacfwd) x": (
        lambda s: jacfwd(jacfwd(s.loss_along_x))(s.zero),
        want_hessian("loss_along_x"),
    ),
    "jacfwd(jacfwd) p": (
        lambda s: jacfwd(jacfwd(s.loss_along_params))(s.zero),
        want_hessian("loss_along_params"),
    ),
    "jacrev(jacrev) x": (
        lambda s: jacrev(jacrev(s.loss_along_x))(s.zero),
        want_hessian("loss_along_x"),
    ),
    "jacrev(jacfwd) x": (
        lambda s: jacrev(jacfwd(s.loss_along_x))(s.zero),
        want_hessian("loss_along_x"),
    ),
    "jvp(grad)": (hvp_jvp_grad, want_hvp),
    "vjp(grad)": (hvp_vjp_grad, want_hvp),
    "grad(jvp)": (hvp_grad_jvp, want_hvp),
    "linearize(grad)": (hvp_linearize_grad, want_hvp),
    "vmap(jvp(grad))": (vmap_hvp, want_vmap_hvp),
    "vmap(hessian)": (vmap_hessian, want_vmap_hessian),
}
CHECKS = FIRST | SECOND
UNDER_AUTOCAST = (
    "vmap(grad)",
    "jacrev",
    "jacfwd x",
    "jvp",
    "vmap(jvp)",
    "linearize",
    "hessian x",
    "jvp(grad)",
)


def levels_left():
    return functx._C.level_depth()
