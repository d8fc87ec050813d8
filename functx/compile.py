"""What `functorch.compile` has, for compiling a function and its derivative ahead of time.

It is all PyTorch's own, and takes functions made by functx's transforms: what is traced are the
operators that really run.

    >>> import torch
    >>> from functx import grad, vmap
    >>> from functx.compile import aot_function, nop
    >>> aot_function(vmap(grad(torch.sin)), nop)(torch.zeros(3))
    tensor([1., 1., 1.])
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
