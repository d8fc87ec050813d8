"""What `functorch.compile` has, for compiling a function and its derivative ahead of time.

It is all PyTorch's own, and takes functions made by functx's transforms: what is traced are the
operators that really run.

    >>> import torch
    >>> from functx import grad, vmap
    >>> from functx.compile import aot_function, nop
    >>> aot_function(vmap(grad(torch.sin)), nop)(torch.zeros(3))
    tensor([1., 1., 1.])

`torch.compile` calls a transform as it is, with a graph break. For a transform in the graph, mark
the transformed function; all tensors that change have to be arguments of it:

    >>> gradients = torch._dynamo.nonstrict_trace(vmap(grad(torch.sin)))
    >>> torch.compile(lambda x: gradients(x) + 1, backend="eager", fullgraph=True)(torch.zeros(3))
    tensor([2., 2., 2.])
"""

from functorch.compile import (
    aot_function,
    aot_module,
    aot_module_simplified,
    compiled_function,
    compiled_module,
    config,
    debug_compile,
    default_decompositions,
    default_partition,
    draw_graph,
    draw_graph_compile,
    get_aot_compilation_context,
    get_aot_graph_name,
    get_graph_being_compiled,
    make_boxed_compiler,
    make_boxed_func,
    memory_efficient_fusion,
    min_cut_rematerialization_partition,
    minifier,
    nnc_jit,
    nop,
    print_compile,
    pythonkey_decompose,
    ts_compile,
)

__all__ = [
    "aot_function",
    "aot_module",
    "aot_module_simplified",
    "compiled_function",
    "compiled_module",
    "config",
    "debug_compile",
    "default_decompositions",
    "default_partition",
    "draw_graph",
    "draw_graph_compile",
    "get_aot_compilation_context",
    "get_aot_graph_name",
    "get_graph_being_compiled",
    "make_boxed_compiler",
    "make_boxed_func",
    "memory_efficient_fusion",
    "min_cut_rematerialization_partition",
    "minifier",
    "nnc_jit",
    "nop",
    "print_compile",
    "pythonkey_decompose",
    "ts_compile",
]
