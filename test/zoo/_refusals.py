"""What is known to raise: for each model, patterns of checks and a part of the message."""

# A batched value is written into a tensor that was made from unbatched ones.
SHARED = "writes into a tensor that is the same for every example"
# The number of tokens that an expert gets differs between examples.
ROUTED = "data-dependent control flow"
# A Function that has no jvp, and a backward that is not to be differentiated.
REVERSIBLE = "has no jvp staticmethod, and its backward detaches the gradients"

REFUSALS = {
    "bigbird": {
        **dict.fromkeys(("vmap(grad)", "vmap(grad) float32"), SHARED),
        **dict.fromkeys(("vmap(vjp)*", "vmap(jvp)", "vmap(jvp) float32"), SHARED),
        **dict.fromkeys(("vmap(jvp(grad))*", "vmap(hessian)*"), SHARED),
        "* autocast": "plain autograd too",
    },
    "mixtral": dict.fromkeys(("vmap(grad)*", "vmap(vjp)*", "vmap(jvp)*"), ROUTED)
    | dict.fromkeys(("vmap(jvp(grad))*", "vmap(hessian)*"), ROUTED),
    "reformer": dict.fromkeys(("jacfwd*", "jvp*", "hessian*"), REVERSIBLE),
}
