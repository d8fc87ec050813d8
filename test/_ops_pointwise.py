"""Pointwise operators: unary, scalar, binary, ternary, comparisons, in place, promotion."""

import torch
from _ops import (
    above_one,
    boolean,
    complex_,
    inplace,
    integer,
    op,
    positive,
    probability,
    real,
    single,
    unit,
)
from torch.nn import functional as F

X, Y = real(2, 3), real(2, 3)
ROW, SCALAR = real(3), real()
INT, BOOL = integer(2, 3), boolean(2, 3)


def _named(names, *args, namespace=torch, **options):
    return [op(name, getattr(namespace, name), *args, **options) for name in names.split()]


UNARY = [
    *_named("sin cos tan atan sinh cosh tanh asinh exp expm1 exp2 square reciprocal abs neg", X),
    *_named("sign sgn floor ceil round trunc frac sigmoid erf erfc sinc nan_to_num deg2rad", X),
    *_named("positive clone rad2deg relu selu celu", X),
    *_named("asin acos atanh erfinv", unit(2, 3)),
    *_named("log log2 log10 log1p sqrt rsqrt lgamma digamma i0", positive(2, 3)),
    op("acosh", torch.acosh, above_one(2, 3)),
    op("logit", torch.logit, probability(2, 3)),
    *_named("isnan isfinite isinf signbit logical_not", X, differentiable=False),
    *_named("elu gelu silu mish softplus softsign hardtanh hardswish", X, namespace=F),
    *_named("leaky_relu logsigmoid relu6 tanhshrink softshrink hardshrink", X, namespace=F),
    op("hardsigmoid", F.hardsigmoid, X),
    op("gelu_tanh", lambda x: F.gelu(x, approximate="tanh"), X),
    op("threshold", lambda x: F.threshold(x, 0.25, 3.0), X),
    op("polygamma", lambda x: torch.polygamma(1, x), positive(2, 3)),
    op("to_float32", lambda x: x.to(torch.float32), X, differentiable=False),
    op("to_int", lambda x: x.long(), X, differentiable=False),
    op("to_bool", lambda x: x.bool(), X, differentiable=False),
    op("contiguous", lambda x: x.T.contiguous(), X),
    op("bitwise_not", torch.bitwise_not, INT, differentiable=False),
    op("neg_scalar_tensor", torch.neg, SCALAR),
]

WITH_SCALARS = [
    op("add_number", lambda x: x + 2, X),
    op("add_alpha", lambda x, y: torch.add(x, y, alpha=0.5), X, Y),
    op("rsub_number", lambda x: 2 - x, X),
    op("mul_number", lambda x: 3 * x, X),
    op("div_number", lambda x: x / 2, X),
    op("rdiv_number", lambda x: 2 / x, X),
    op("pow_number", lambda x: x**3, X),
    op("pow_half", lambda x: x**0.5, positive(2, 3)),
    op("pow_negative", lambda x: x**-2, X),
    op("rpow_number", lambda x: 2.5**x, X),
    op("floor_divide_number", lambda x: x // 0.7, X, differentiable=False),
    op(
        "floor_divide_scalar",
        lambda x: torch.ops.aten.floor_divide.Scalar(x, 0.7),
        X,
        differentiable=False,
    ),
    op("remainder_number", lambda x: x % 0.77, X),
    op("remainder_of_number", lambda x: 5.3 % x, above_one(2, 3), reverse=False),
    op("fmod_number", lambda x: torch.fmod(x, 0.77), X),
    op("clamp", lambda x: x.clamp(-1.0, 0.5), X),
    op("clamp_min", lambda x: x.clamp(min=0.0), X),
    op("clamp_max", lambda x: x.clamp_max(1.0), X),
    op("compare_numbers", lambda x: (x > 0, x <= 0.5, x == x, x != 1), X, differentiable=False),
    op("bitwise_numbers", lambda x: (x & 3, x | 1, x ^ 2, x << 1), INT, differentiable=False),
    op("integer_division", lambda x: (x // 2, x % 3, x / 2), INT, differentiable=False),
]

BINARY = [
    *_named("add sub mul div atan2 maximum minimum fmax fmin hypot logaddexp logaddexp2", X, Y),
    *_named("copysign fmod remainder", X, Y),
    *_named("gt lt ge le eq ne isclose", X, Y, differentiable=False),
    *_named("logical_and logical_or logical_xor", BOOL, BOOL, differentiable=False),
    *_named("bitwise_and bitwise_or bitwise_xor gcd", INT, INT, differentiable=False),
    op(
        "div_floor", lambda x, y: torch.div(x, y, rounding_mode="floor"), X, Y, differentiable=False
    ),
    op(
        "div_trunc", lambda x, y: torch.div(x, y, rounding_mode="trunc"), X, Y, differentiable=False
    ),
    op("floor_divide", torch.floor_divide, X, Y, differentiable=False),
    op("heaviside", torch.heaviside, X, Y, differentiable=False),
    op("pow", torch.pow, positive(2, 3), Y),
    op("xlogy", torch.xlogy, X, positive(2, 3)),
    op("ldexp", torch.ldexp, X, integer(2, 3, low=0, high=4)),
    op("prelu", F.prelu, X, real(1)),
    op("clamp_tensors", lambda x, y: x.clamp(max=y), X, Y),
    op("masked_fill", lambda x, m: x.masked_fill(m, 2.0), X, BOOL),
    op("masked_fill_tensor", lambda x, m, v: x.masked_fill(m, v), X, BOOL, SCALAR),
    op("glu", lambda x: F.glu(x, -1), real(2, 4)),
    op("broadcast_row", torch.mul, X, ROW),
    op("broadcast_column", lambda x, y: x - y[:, None], X, real(2)),
    op("broadcast_both", torch.mul, real(2, 1), real(1, 3)),
    op("broadcast_scalar", torch.div, X, SCALAR),
    op("broadcast_from_scalar", torch.sub, SCALAR, X),
    op("scalars", torch.mul, SCALAR, SCALAR),
    op("float_power", torch.float_power, positive(2, 3), Y),
]

TERNARY = [
    op("where", torch.where, BOOL, X, Y),
    op("where_condition", lambda x, y: torch.where(x > 0, x * y, y), X, Y),
    op("where_number", lambda c, x: torch.where(c, x, 0.0), BOOL, X),
    op("where_broadcast", torch.where, boolean(3), X, SCALAR),
    op("mask_by_where", lambda x: torch.where(x > 0, x, torch.zeros_like(x)).sum(), X),
    op("lerp", torch.lerp, X, Y, ROW),
    op("lerp_number", lambda x, y: torch.lerp(x, y, 0.3), X, Y),
    op("addcmul", lambda x, y, z: torch.addcmul(x, y, z, value=0.5), X, Y, ROW),
    op("addcdiv", lambda x, y, z: torch.addcdiv(x, y, z, value=0.5), X, Y, ROW),
]

PROMOTION = [
    op("promote_single_and_double", torch.add, single(2, 3), X, differentiable=False),
    op("promote_double_scalar", torch.mul, single(2, 3), SCALAR, differentiable=False),
    op("promote_scalars", torch.mul, single(), SCALAR, differentiable=False),
    op("promote_integer", torch.mul, INT, X, differentiable=False),
    op("promote_integer_and_single", torch.add, INT, single(3), differentiable=False),
    op("promote_boolean", torch.mul, BOOL, X, differentiable=False),
    op("promote_integer_scalar", torch.mul, integer(2, 3), single(), differentiable=False),
    op("promote_where", torch.where, BOOL, single(2, 3), SCALAR, differentiable=False),
    op("promote_number", lambda x: x * 2.5, INT, differentiable=False),
    op("promote_cat", lambda x, y: torch.cat([x, y]), single(2, 3), X, differentiable=False),
]

COMPLEX = [
    op("complex", lambda x, y: torch.view_as_real(torch.complex(x, y) ** 2), X, Y),
    op("complex_abs", torch.abs, complex_(2, 3), differentiable=False),
    op("complex_conj", lambda x: (x.conj() * x).real, complex_(2, 3), differentiable=False),
    op("complex_imag", lambda x: x.imag + x.real, complex_(2, 3), differentiable=False),
    op("complex_mul", torch.mul, complex_(2, 3), X, differentiable=False),
    op("polar", lambda r, a: torch.view_as_real(torch.polar(r, a)), positive(2, 3), Y),
    op("fft", lambda x: torch.view_as_real(torch.fft.fft(x)), X),
    op("rfft_irfft", lambda x: torch.fft.irfft(torch.fft.rfft(x).cumsum(-1), n=4), real(2, 4)),
]

IN_PLACE = [
    inplace("sin_", lambda x: x.sin_(), X),
    inplace("exp_", lambda x: x.exp_(), X),
    inplace("neg_", lambda x: x.neg_(), X),
    inplace("abs_", lambda x: x.abs_(), X),
    inplace("tanh_", lambda x: x.tanh_(), X),
    inplace("relu_", lambda x: x.relu_(), X),
    inplace("sigmoid_", lambda x: x.sigmoid_(), X),
    inplace("sqrt_", lambda x: x.sqrt_(), positive(2, 3)),
    inplace("round_", lambda x: x.round_(), X),
    inplace("zero_", lambda x: x.zero_(), X),
    inplace("fill_", lambda x: x.fill_(3.0), X),
    inplace("clamp_", lambda x: x.clamp_(-0.5, 1.0), X),
    inplace("add_number_", lambda x: x.add_(2), X),
    inplace("mul_number_", lambda x: x.mul_(0.5), X),
    inplace("pow_number_", lambda x: x.pow_(2), X),
    inplace("leaky_relu_", lambda x: F.leaky_relu_(x), X),
    inplace("elu_", lambda x: F.elu_(x), X),
    inplace("rrelu_eval_", lambda x: F.rrelu_(x), X),
    inplace("add_", lambda x, y: x.add_(y, alpha=2), X, Y),
    inplace("sub_", lambda x, y: x.sub_(y), X, Y),
    inplace("mul_", lambda x, y: x.mul_(y), X, ROW),
    inplace("div_", lambda x, y: x.div_(y), X, SCALAR),
    inplace("pow_", lambda x, y: x.pow_(y), positive(2, 3), Y),
    inplace("atan2_", lambda x, y: x.atan2_(y), X, Y),
    inplace("copy_", lambda x, y: x.copy_(y), X, ROW),
    inplace("fill_tensor_", lambda x, v: x.fill_(v), X, SCALAR),
    inplace("masked_fill_", lambda x, m: x.masked_fill_(m, 2.0), X, BOOL),
    inplace("lerp_", lambda x, y: x.lerp_(y, 0.3), X, Y),
    inplace("addcmul_", lambda x, y, z: x.addcmul_(y, z), X, Y, ROW),
    inplace("add_to_row_", lambda x, y: (x[1].add_(y), x)[1], X, ROW),
    inplace("mul_columns_", lambda x, y: (x[:, 1:].mul_(y), x)[1], X, SCALAR),
    inplace("set_integer_", lambda x: x.floor_().add_(1), X),
    inplace("logical_and_", lambda x, y: x.logical_and_(y), BOOL, BOOL, differentiable=False),
    inplace("iadd_integer_", lambda x, y: x.__iadd__(y), INT, INT, differentiable=False),
    inplace("ior_", lambda x, y: x.__ior__(y), INT, INT, differentiable=False),
]

OPS = [*UNARY, *WITH_SCALARS, *BINARY, *TERNARY, *PROMOTION, *COMPLEX, *IN_PLACE]
