"""Products of matrices and vectors, and the basics of linear algebra."""

import torch
from _ops import inplace, integer, op, positive_definite, real, triangular
from torch.nn import functional as F

A, B, V, W = real(2, 3), real(3, 4), real(3), real(2)
SQUARE, SPD = real(3, 3), positive_definite(3, 3)


def symmetric(a):
    """Formulas for symmetric matrices look at one triangle only."""
    return (a + a.mT) / 2


PRODUCTS = [
    op("dot", torch.dot, V, V),
    op("vdot", torch.vdot, V, V),
    op("inner", torch.inner, A, real(4, 3)),
    op("outer", torch.outer, V, W),
    op("mv", torch.mv, A, V),
    op("mm", torch.mm, A, B),
    op("mm_then_view", lambda a, b: torch.mm(a, b).view(-1), A, B),
    op("bmm_then_view", lambda a, b: a.bmm(b).view(-1, 4), real(2, 2, 3), real(2, 3, 4)),
    op("mm_transposed", lambda a, b: torch.mm(a.T, b.T), A, real(4, 2)),
    op("bmm", torch.bmm, real(2, 2, 3), real(2, 3, 4)),
    op("matmul_1_1", torch.matmul, V, V),
    op("matmul_1_2", torch.matmul, V, B),
    op("matmul_2_1", torch.matmul, A, V),
    op("matmul_2_2", lambda a, b: a @ b, A, B),
    op("matmul_3_2", torch.matmul, real(2, 2, 3), B),
    op("matmul_2_3", torch.matmul, A, real(2, 3, 4)),
    op("matmul_3_1", torch.matmul, real(2, 2, 3), V),
    op("matmul_1_3", torch.matmul, V, real(2, 3, 4)),
    op("matmul_4_3", torch.matmul, real(2, 1, 2, 3), real(2, 3, 4)),
    op("addmm", lambda c, a, b: torch.addmm(c, a, b, beta=0.5, alpha=2), real(2, 4), A, B),
    op("addmm_broadcast", torch.addmm, real(4), A, B),
    # Integers of 32 bits: a sum must not make them longer.
    *[
        op(f"{fn.__name__}_int32", lambda *args, fn=fn: fn(*(x.int() for x in args)), *shapes)
        for fn, *shapes in [
            (torch.addbmm, integer(2, 4), integer(5, 2, 3), integer(5, 3, 4)),
            (F.bilinear, integer(2, 3), integer(2, 4), integer(5, 3, 4), integer(5)),
        ]
    ],
    op(
        "addmv_integer",
        lambda c, a, v: torch.addmv(c, a, v, beta=0.7, alpha=1.6),
        integer(2),
        integer(2, 3),
        integer(3),
    ),
    op("addmv", lambda c, a, v: torch.addmv(c, a, v, alpha=0.5), W, A, V),
    op("addr", torch.addr, A, W, V),
    op("baddbmm", torch.baddbmm, real(2, 2, 4), real(2, 2, 3), real(2, 3, 4)),
    op("addbmm", torch.addbmm, real(2, 4), real(2, 2, 3), real(2, 3, 4)),
    op("linear", F.linear, A, real(4, 3), real(4)),
    op("linear_no_bias", F.linear, V, real(4, 3)),
    op("linear_cube", F.linear, real(2, 2, 3), real(4, 3), real(4)),
    op("bilinear", F.bilinear, A, real(2, 2), real(4, 3, 2)),
    op("einsum", lambda a, b: torch.einsum("ij,jk->ki", a, b), A, B),
    op("einsum_three", lambda a, b, v: torch.einsum("ij,jk,j->ik", a, b, v), A, B, V),
    op("einsum_diagonal", lambda a: torch.einsum("ii->i", a), SQUARE),
    op("tensordot", lambda a, b: torch.tensordot(a, b, dims=([1], [0])), A, B),
    op("multi_dot", lambda a, b, v: torch.linalg.multi_dot([a, b, v]), A, B, real(4)),
    op("cross", lambda a, b: torch.linalg.cross(a, b), A, A),
    op("matrix_power", lambda a: torch.matrix_power(a, 3), SQUARE),
    op("matrix_exp", torch.matrix_exp, SQUARE),
    inplace("addmm_", lambda c, a, b: c.addmm_(a, b), real(2, 4), A, B),
    inplace("addmv_", lambda c, a, v: c.addmv_(a, v), W, A, V),
    inplace(
        "baddbmm_", lambda c, a, b: c.baddbmm_(a, b), real(2, 2, 4), real(2, 2, 3), real(2, 3, 4)
    ),
]

SOLVERS = [
    op("det", torch.det, SPD),
    op("slogdet", lambda a: torch.slogdet(a).logabsdet, SPD),
    op("logdet", torch.logdet, SPD),
    op("inv", torch.linalg.inv, SPD),
    op("pinv", torch.linalg.pinv, A),
    op("solve", torch.linalg.solve, SPD, real(3, 2)),
    op("solve_vector", torch.linalg.solve, SPD, V),
    op(
        "solve_triangular",
        lambda a, b: torch.linalg.solve_triangular(a, b, upper=False),
        triangular(3, 3),
        real(3, 2),
    ),
    op(
        "lu_solve",
        lambda a, b: torch.linalg.lu_solve(*torch.linalg.lu_factor(a), b),
        SPD,
        real(3, 2),
    ),
    op("cholesky", lambda a: torch.linalg.cholesky(symmetric(a)), SPD),
    op(
        "cholesky_solve",
        lambda b, c: torch.cholesky_solve(b, c.tril()),
        real(3, 2),
        triangular(3, 3),
    ),
    op("qr_r", lambda a: torch.linalg.qr(a).R.abs(), SPD),
    op("svdvals", torch.linalg.svdvals, A),
    op("eigvalsh", lambda a: torch.linalg.eigvalsh(symmetric(a)), SPD),
    op("eigh_projection", lambda a: torch.linalg.eigh(symmetric(a)).eigenvectors.square(), SPD),
    op(
        "svd_product", lambda a: (lambda s: s.U @ s.Vh)(torch.linalg.svd(a, full_matrices=False)), A
    ),
    op("matrix_norm", lambda a: torch.linalg.matrix_norm(a, 2), A),
    op("cond", torch.linalg.cond, SPD),
    op("lu_product", lambda a: (lambda f: f.P @ f.L @ f.U)(torch.linalg.lu(a)), SPD),
    *[
        op(name, f, SPD, differentiable=False)
        for name, f in {
            "qr_r_only": lambda a: tuple(torch.linalg.qr(a, mode="r")),
            "lu_unpack_data": lambda a: torch.lu_unpack(
                *torch.linalg.lu_factor(a), unpack_pivots=False
            ),
            "lu_unpack_pivots": lambda a: torch.lu_unpack(
                *torch.linalg.lu_factor(a), unpack_data=False
            ),
        }.items()
    ],
    op("matrix_rank", torch.linalg.matrix_rank, SPD, differentiable=False),
]

OPS = [*PRODUCTS, *SOLVERS]
