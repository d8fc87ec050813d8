"""Sparse tensors of mapped, tracked and dual entries, by the dense tensors that they stand for."""

import pytest
import torch
from _reference import assert_equal_trees, randn
from torch.testing import assert_close

import functx

PLACES = torch.tensor([[0, 1, 2, 0], [1, 0, 2, 3]])
MATRIX, VECTOR = randn(4, 2), randn(4)


def sparse(entries):
    return torch.sparse_coo_tensor(PLACES, entries, (3, 4))


def dense(entries):
    return entries.new_zeros(3, 4).index_put(tuple(PLACES), entries)


# Of a sparse matrix, and the same of a dense one.
FUNCTIONS = {
    "sparse.mm": (lambda a: torch.sparse.mm(a, MATRIX), lambda a: a @ MATRIX),
    "mm": (lambda a: torch.mm(a, MATRIX), lambda a: a @ MATRIX),
    "matmul": (lambda a: a @ MATRIX, lambda a: a @ MATRIX),
    "matmul_vector": (lambda a: a @ VECTOR, lambda a: a @ VECTOR),
    "transposed": (lambda a: a.t() @ MATRIX[:3], lambda a: a.t() @ MATRIX[:3]),
    "dense_on_the_left": (lambda a: MATRIX[:3].t() @ a, lambda a: MATRIX[:3].t() @ a),
    "sparse.addmm": (
        lambda a: torch.sparse.addmm(MATRIX[:3], a, MATRIX, beta=0.5, alpha=2),
        lambda a: 0.5 * MATRIX[:3] + 2 * a @ MATRIX,
    ),
    "addmm": (
        lambda a: torch.addmm(MATRIX[:3], a, MATRIX, alpha=2),
        lambda a: MATRIX[:3] + 2 * a @ MATRIX,
    ),
    "sparse.sum": (torch.sparse.sum, torch.sum),
    "sparse.sum_rows": (lambda a: torch.sparse.sum(a, 0).to_dense(), lambda a: a.sum(0)),
    "sparse.sum_all": (lambda a: torch.sparse.sum(a, (0, 1)), torch.sum),
    "to_dense": (lambda a: a.to_dense(), lambda a: a),
    "scaled": (lambda a: (2 * a).to_dense(), lambda a: 2 * a),
    "added": (lambda a: (a + a).to_dense(), lambda a: a + a),
    "multiplied": (lambda a: (a * a).to_dense(), lambda a: a * a),
    "coalesced_values": (lambda a: a.coalesce().values(), lambda a: a[tuple(SORTED)]),
}
SORTED = torch.tensor([[0, 0, 1, 2], [1, 3, 0, 2]])

# Of a function of entries to numbers.
TRANSFORMS = {
    "grad": lambda F, f: F.grad(f)(randn(4)),
    "jvp": lambda F, f: F.jvp(f, (randn(4),), (randn(4),)),
    "vmap": lambda F, f: F.vmap(f)(randn(3, 4)),
    "vmap, in_dims=1": lambda F, f: F.vmap(f, in_dims=1)(randn(4, 3)),
    "vmap(vmap)": lambda F, f: F.vmap(F.vmap(f))(randn(2, 3, 4)),
    "vmap(grad)": lambda F, f: F.vmap(F.grad(f))(randn(3, 4)),
    "grad(vmap)": lambda F, f: F.grad(lambda x: F.vmap(f)(x).sum())(randn(3, 4)),
    "vmap(jvp)": lambda F, f: F.vmap(lambda x, t: F.jvp(f, (x,), (t,)))(randn(3, 4), randn(3, 4)),
    "jvp(vmap)": lambda F, f: F.jvp(F.vmap(f), (randn(3, 4),), (randn(3, 4),)),
    "jacfwd": lambda F, f: F.jacfwd(f)(randn(4)),
    "hessian": lambda F, f: F.hessian(f)(randn(4)),
    "jvp(grad)": lambda F, f: F.jvp(F.grad(f), (randn(4),), (randn(4),)),
    "grad(jvp)": lambda F, f: F.grad(lambda x: F.jvp(f, (x,), (x,))[1])(randn(4)),
    "grad(grad)": lambda F, f: F.grad(lambda x: F.grad(f)(x).square().sum())(randn(4)),
}


# PyTorch has no second derivative of sums over rows, and no product of sparse tensors of different
# shapes, which jacfwd makes of tangents that differ between examples and a primal that does not.
REFUSED = {
    ("sparse.sum_rows", "grad(grad)"): "not implemented",
    ("sparse.sum_all", "grad(grad)"): "not implemented",
    ("multiplied", "jacfwd"): "equal dimensionality",
    ("multiplied", "hessian"): "equal dimensionality",
}


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_of_entries(name, transform):
    if (name, transform) in REFUSED:
        f = lambda x: FUNCTIONS[name][0](sparse(x)).sin().sum()
        with pytest.raises(RuntimeError, match=REFUSED[name, transform]):
            TRANSFORMS[transform](functx, f)
        return
    of_sparse, of_dense = FUNCTIONS[name]
    transformed = TRANSFORMS[transform]
    torch.manual_seed(0)
    expected = transformed(torch.func, lambda x: of_dense(dense(x)).sin().sum())
    torch.manual_seed(0)
    actual = transformed(functx, lambda x: of_sparse(sparse(x)).sin().sum())
    assert_equal_trees(actual, expected)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_of_a_mapped_stack(name):
    of_sparse, of_dense = FUNCTIONS[name]
    entries = randn(3, 4)
    stack = torch.stack([sparse(each) for each in entries])
    expected = torch.stack([of_dense(dense(each)) for each in entries])
    assert_close(functx.vmap(of_sparse)(stack), expected)


def test_mapped_indices():
    places = torch.tensor([[[0, 1], [1, 3]], [[2, 0], [0, 0]]])
    entries = randn(2, 2)
    f = lambda places, entries: torch.sparse_coo_tensor(places, entries, (3, 4)) @ MATRIX
    expected = torch.stack(list(map(f, places, entries)))
    assert_close(functx.vmap(f)(places, entries), expected)
    assert_close(functx.vmap(f, in_dims=(0, None))(places, entries[0])[0], f(places[0], entries[0]))


def test_a_product_with_a_mapped_dense_matrix():
    entries, matrices = randn(4), randn(5, 4, 2)
    constant = sparse(entries)
    expected = dense(entries) @ matrices
    assert_close(functx.vmap(lambda m: constant @ m)(matrices), expected)
    assert_close(functx.vmap(lambda m: torch.sparse.mm(constant, m))(matrices), expected)
    assert_close(functx.vmap(lambda m: sparse(entries) @ m)(matrices), expected)
    mixed = functx.vmap(lambda e, m: sparse(e) @ m)(entries.expand(5, 4), matrices)
    assert_close(mixed, expected)


def test_indices_and_what_is_known_of_an_example():
    def f(entries):
        a = sparse(entries).coalesce()
        assert a.layout == torch.sparse_coo
        assert (a.sparse_dim(), a.dense_dim(), a.is_coalesced()) == (2, 0, True)
        return a.indices()

    assert_close(functx.vmap(f)(randn(3, 4)), SORTED.expand(3, 2, 4))
    primal, tangent = functx.jvp(f, (randn(4),), (randn(4),))
    assert_close(primal, SORTED)
    assert_close(tangent, torch.zeros_like(SORTED))


def test_examples_with_different_numbers_of_entries_are_refused():
    stack = torch.eye(2, dtype=torch.float64).to_sparse()
    uneven = torch.stack([stack, 0 * stack, torch.ones(2, 2, dtype=torch.float64).to_sparse()])
    with pytest.raises(RuntimeError, match=r"functx\.vmap: the examples of a sparse tensor have"):
        functx.vmap(lambda a: a.coalesce().values())(uneven)
    assert_close(
        functx.vmap(torch.sparse.sum)(torch.stack([stack, 2 * stack])),
        torch.tensor([2.0, 4.0]).double(),
    )


def test_compressed_layouts_are_constants_only():
    rows, columns = torch.tensor([0, 1, 2]), torch.tensor([1, 0])
    make = lambda entries: torch.sparse_csr_tensor(rows, columns, entries, (2, 2))
    with pytest.raises(NotImplementedError, match=r"functx\.vmap: a tensor of layout SparseCsr"):
        functx.vmap(lambda entries: make(entries) @ MATRIX[:2])(randn(3, 2))
    x, constant = randn(3, 2), make(randn(2))
    assert_close(functx.vmap(lambda x: constant @ x)(x), x @ constant.to_dense().t())
    gradient = functx.grad(lambda x: (make(x) @ MATRIX[:2]).sum())(x[0])
    assert_close(gradient, torch.stack([MATRIX[1].sum(), MATRIX[0].sum()]))


def test_two_sparse_factors_of_which_examples_differ_are_refused():
    with pytest.raises(NotImplementedError, match=r"functx\.vmap: mm of two sparse matrices"):
        functx.vmap(lambda x: torch.sparse.mm(sparse(x), sparse(x).t()).to_dense())(randn(3, 4))


ROWS = torch.tensor([2, 0, 2])


@pytest.mark.parametrize(
    ("with_sparse_gradient", "plain"),
    [
        (
            lambda x: torch.gather(x, 0, ROWS[:, None].expand(3, 4), sparse_grad=True),
            lambda x: x.gather(0, ROWS[:, None].expand(3, 4)),
        ),
        (
            lambda x: torch.nn.functional.embedding(ROWS, x, sparse=True),
            lambda x: torch.nn.functional.embedding(ROWS, x),
        ),
        (
            lambda x: torch.nn.functional.embedding_bag(ROWS[None], x, mode="sum", sparse=True),
            lambda x: x[ROWS].sum(0, keepdim=True),
        ),
    ],
    ids=["gather", "embedding", "embedding_bag"],
)
def test_sparse_gradients_of_dense_tensors(with_sparse_gradient, plain):
    x = randn(2, 3, 4)
    f, g = (
        lambda x, read=read: read(x).sin().pow(2).sum() for read in (with_sparse_gradient, plain)
    )
    gradients = torch.stack([torch.autograd.functional.jacobian(g, each) for each in x])
    hessians = torch.stack([torch.autograd.functional.hessian(g, each) for each in x])
    assert_close(functx.vmap(functx.grad(f))(x), gradients)
    assert_close(functx.grad(lambda x: functx.vmap(f)(x).sum())(x).to_dense(), gradients)
    assert_close(functx.hessian(f)(x[0]), hessians[0])
    product = torch.einsum("ijkl,kl->ij", hessians[0], x[1])
    assert_close(functx.jvp(functx.grad(f), (x[0],), (x[1],))[1], product)
