"""What is known to raise: for each model, patterns of checks and a part of the message."""

from _checks import UNDER_AUTOCAST

# A batched value is written into a tensor that was made from unbatched ones.
SHARED = "writes into a tensor that is the same for every example"
CAPTURED = "would mutate a captured Tensor, or one computed from captured ones only"
# The number of tokens that an expert gets, or of steps that a solver takes, differs between
# examples.
ROUTED = "data-dependent control flow"
STEPS = "calling .item() on a Tensor that differs between examples"
# Inside of PyTorch's own vmap, by `is_grads_batched`.
STEPS_OF_PYTORCH = "Batching rule not implemented for aten::_local_scalar_dense"
# Functions that have no jvp, and a backward that is not to be differentiated.
DETACHED = "has no jvp staticmethod, and its backward detaches"
DETACHED_TWICE = "whose backward detaches the gradients"
ONCE = "none can be derived, since backward is once_differentiable"
ONCE_TWICE = "differentiate twice a function that was marked with @once_differentiable"
INNER = "PyTorch's autograd was asked inside vmap for the gradient of a tensor"


def raising(*refusals):
    """Patterns of all checks, and where they are made in single precision and under autocast."""
    return {
        pattern + suffix: message
        for message, checks in refusals
        for pattern in checks
        for suffix in ("", " float32", " autocast")
        if suffix != " autocast" or pattern in UNDER_AUTOCAST
    }


EXAMPLES = ("vmap(grad)", "vmap(vjp)", "vmap(jvp)", "vmap(jvp(grad))", "vmap(hessian)")
ALONG_X = ("jacfwd x", "hessian x", "jacfwd(jacfwd) x", "jacrev(jacfwd) x")
DIRECTED = ("jvp", "linearize", "vmap(linearized)", "jvp(grad)", "grad(jvp)", "linearize(grad)")
TWICE_IN_REVERSE = ("jacrev(jacrev) x", "vjp(grad)")

REFUSALS = {
    "bigbird": raising((SHARED, EXAMPLES)),
    "mixtral": raising((ROUTED, EXAMPLES)),
    "reformer": raising(
        (INNER, (*ALONG_X, "vmap(hessian)")),
        (DETACHED, (*DIRECTED, "vmap(jvp)", "vmap(jvp(grad))")),
        (DETACHED_TWICE, TWICE_IN_REVERSE),
    ),
    "zuko unaf": raising(
        (ONCE, (*ALONG_X, *DIRECTED, "vmap(jvp)", "vmap(jvp(grad))", "vmap(hessian)")),
        (ONCE_TWICE, TWICE_IN_REVERSE),
    ),
    "zuko cnf": raising(
        (STEPS, EXAMPLES),
        (ONCE, ALONG_X),
        (STEPS_OF_PYTORCH, DIRECTED),
        (ONCE_TWICE, TWICE_IN_REVERSE),
    ),
    "odeint adjoint rk4": raising(
        (SHARED, (*EXAMPLES, "jacrev")),
        (DETACHED, (*ALONG_X, "vmap(linearized)")),
        (CAPTURED, ("jvp", "linearize", "hessian p", "jvp(grad)", "grad(jvp)", "linearize(grad)")),
        (DETACHED_TWICE, TWICE_IN_REVERSE),
    ),
    "odeint dopri5": raising((SHARED, EXAMPLES)),
    "gru": raising((SHARED, ("vmap(jvp)", "vmap(jvp(grad))", "vmap(hessian)"))),
    # In single precision it is one call of oneDNN.
    "lstm": dict.fromkeys(("vmap(jvp)", "vmap(jvp(grad))", "vmap(hessian)"), SHARED),
}
