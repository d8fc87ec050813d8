"""Statements on tensors: operators, views, indexing, fresh tensors, writes and constants."""

from __future__ import annotations

from _program_scope import Scope, split

# {x} is a value, {y} another, {c} a number. Smooth, or at least without kinks where values differ.
# Not here, as they have no one answer: `logcumsumexp`, whose double backward is wrong in PyTorch;
# `as_strided` beyond its own tensor, which sees other examples in a loop.
UNARY = split("""
{x}.sin(); {x}.cos(); {x}.tanh(); {x}.sigmoid(); {x}.tanh().exp(); {x}.square(); -{x}; {x} * {c}
{x} + {c}; {c} - {x}; {x} / 2; {x} ** 3; {x}.square().log1p(); ({x} * {x} + 1).sqrt()
1 / ({x} * {x} + 1); {x}.atan(); {x}.erf(); torch.nn.functional.softplus({x}); {x}.asinh()
torch.nn.functional.gelu({x}); torch.nn.functional.silu({x}); torch.nn.functional.relu({x})
{x}.abs(); {x}.clamp(min=-0.5); {x}.expm1().tanh(); {x}.sinc()
{x}.square().add(1).lgamma().tanh(); {x}.clone()
torch.nn.functional.leaky_relu({x}); torch.nn.functional.elu({x}); {x}.logit(0.3); {x}.frac()
torch.nn.functional.hardtanh({x}); torch.nn.functional.mish({x}); {x}.round().detach() + {x}
{x}.sign() * {x}; {x}.nan_to_num(); {x}.double(); {x}.to(torch.float64).sin(); {x}.contiguous()
""")

BINARY = split("""
{x} + {y}; {x} - {y}; {x} * {y}; {x} / ({y} * {y} + 1); {x} @ {y}; torch.outer({x}, {y})
torch.maximum({x}, {y}); torch.minimum({x}, {y}); torch.where({x} > {y}, {x}, {y}.sin())
torch.atan2({x}, {y}.square() + 1); torch.hypot({x}, {y}.square() + 1); {x}.lerp({y}, 0.3)
torch.addcmul({x}, {y}, {y}, value=0.5); torch.addcdiv({x}, {y}, {x} * {x} + 1)
torch.logaddexp({x}, {y}); torch.dot({x}, {y}); torch.mv({x}, {y}); torch.addmm({x}, {x}, {y})
torch.baddbmm({x}, {x}, {y}); torch.einsum('i,j->ij', {x}, {y})
torch.einsum('ij,kj->ik', {x}, {y}); torch.cdist({x}, {y}.square() + 2)
torch.nn.functional.linear({x}, {y}); torch.matmul({x}, {y}.t()); torch.where({x} > 0, {x}, {y})
{x}.masked_fill({x} > 0.2, {c}); {x}.pow(2) * {y}; torch.xlogy({x}, {y}.square() + 1)
torch.nn.functional.mse_loss({x}, {y})
torch.nn.functional.cosine_similarity({x} - 3, {y} + 2, dim=-1)
torch.nn.functional.conv1d({x}, {y})
torch.rsub({x}, {y}, alpha=2); torch.addr({x}, {y}[0], {y}[-1]); torch.tensordot({x}, {y}, 1)
torch.inner({x}, {y}); torch.cross({x}, {y}, dim=-1); ({x}.square() + 1) ** ({y} + 0.0123)
torch.nn.functional.bilinear({x}, {x}, {y}.expand(2, *{y}.shape)); torch.copysign({x}, {y})
torch.fmod({x}, 2)
""")

REDUCTIONS = split("""
{x}.sum(); {x}.sum({d}); {x}.sum({d}, keepdim=True); {x}.mean(); {x}.mean({d}); {x}.prod()
{x}.prod({d}); {x}.var({d}); torch.cat([{x}, {x} + 1], {d}).std({d}, correction=0, keepdim=True)
{x}.logsumexp({d})
{x}.amax({d}); {x}.amin(); {x}.norm(); ({x} + 2).norm(dim={d}); {x}.cumsum({d}); {x}.cumprod({d})
{x}.softmax({d}); {x}.log_softmax({d}); {x}.trace(); torch.linalg.vector_norm({x} + 2)
{x}.max({d}).values; {x}.median(); {x}.sort({d}).values; {x}.topk(2).values
({x}.square().sum({d}) + 0.1).sqrt(); {x}.diff(dim={d}); {x}.nansum({d}); torch.linalg.det({x})
torch.linalg.inv({x} @ {x}.mT + torch.eye({x}.shape[-2])); {x}.cummax({d}).values
torch.linalg.solve({x} @ {x}.mT + torch.eye({x}.shape[-2]), {x})
torch.linalg.matrix_exp({x}.tanh())
torch.linalg.cholesky({x} @ {x}.mT + torch.eye({x}.shape[-2])); {x}.renorm(2, 0, 0.9)
{x}.dist({x}.detach() + 1); torch.linalg.eigvalsh({x} + {x}.mT)
torch.linalg.slogdet({x} @ {x}.mT + torch.eye({x}.shape[-2])).logabsdet
torch.nn.functional.normalize({x} + 2, dim={d}); torch.nn.functional.avg_pool1d({x}[None], 2)[0]
{x}.quantile(0.3); torch.nn.functional.max_pool1d({x}[None], 2)[0]
torch.logdet({x} @ {x}.mT + torch.eye({x}.shape[-2]))
""")

VIEWS = split("""
{x}.t(); {x}.mT; {x}.transpose(0, -1); {x}[0]; {x}[-1]; {x}[..., 0]; {x}[1:]; {x}[:-1]; {x}[::2]
{x}[..., 1:]; {x}.unsqueeze(0); {x}.unsqueeze(-1); {x}[None]; {x}[:, None]; {x}.view(-1)
{x}.reshape(-1); {x}.flatten(); {x}.expand(2, *{x}.shape); {x}.select({d}, 0); {x}.select({d}, -1)
{x}.narrow({d}, 0, 1); {x}.narrow({d}, 1, 1); {x}.unbind({d})[0]; {x}.unbind()[-1]
{x}.split(1, {d})[0]; {x}.chunk(2, {d})[-1]; {x}.squeeze(); {x}.squeeze(0); {x}.movedim(0, -1)
{x}.diagonal(); {x}.diagonal(1); {x}.unfold(0, 2, 1); {x}.view_as({x}); {x}.swapaxes(0, -1)
{x}.reshape(2, -1); {x}.view(-1, 2); {x}.unflatten(0, (1, -1))
{x}.permute(*range({x}.dim())[::-1]); {x}[...]; {x}.as_strided({x}.shape, {x}.stride())
{x}.adjoint()
{x}.expand_as({x}); {x}.view({x}.shape); {x}.hsplit(2)[0]; {x}.real; torch.atleast_2d({x})
torch.broadcast_to({x}, (2, *{x}.shape)); {x}.ravel(); {x}.T
{x}.tensor_split(2)[1]; {x}.detach().view(-1)
""")

REARRANGED = split("""
{x}.flip(0); {x}.roll(1, {d}); {x}.repeat(2); torch.cat([{x}, {y}]); torch.stack([{x}, {y}])
torch.hstack([{x}, {y}]); torch.cat([{x}, {y}], -1); torch.stack([{x}, {x}.sin()], -1)
torch.nn.functional.pad({x}, (1, 0)); {x}.tril(); {x}.triu(1); torch.diag({x})
torch.diag_embed({x}); {x}.repeat_interleave(2, {d}); {x}.index_select({d}, torch.tensor([1, 0]))
{x}[torch.tensor([1, 0, 1])]; {x}.gather({d}, torch.zeros_like({x}, dtype=torch.int64))
{x}.take(torch.tensor([1, 0])); {x}[torch.tensor([0, 1]), torch.tensor([1, 0])]
{x}[:, torch.tensor([1])]; {x}.scatter(0, torch.tensor([0, 1]), {y})
{x}.index_add(0, torch.tensor([0, 0]), {y}); {x}.masked_fill(torch.tensor([True, False]), 0.3)
torch.block_diag({x}, {y}); {x}.index_copy(0, torch.tensor([1, 0]), {y})
{x}.select_scatter({y}, 0, 0); {x}.slice_scatter({y}, 0, 0, 1); {x}[{x}.argsort()]
{x}.diagonal_scatter({y}); {x}.scatter_add(0, torch.tensor([0, 0]), {y}); {x}.tile(2)
torch.column_stack([{x}, {y}]); {x}.rot90(); torch.meshgrid({x}, {y}, indexing='ij')[0]
{x}.index_put((torch.tensor([1]),), {y}, accumulate=True); torch.combinations({x}).sum(0)
torch.cartesian_prod({x}, {y})[0]; torch.vander({x}, 3); {x}.take_along_dim({x}.argsort(-1), -1)
{x}.index_fill(0, torch.tensor([0]), 0.3); torch.where(torch.tensor([True, False]), {x}, {y})
{x}[{x}.argmax()].clone()
""")

SEVERAL = split("""
{x}.unbind(); {x}.unbind(-1); {x}.split(1); {x}.chunk(2); {x}.chunk(2, -1); {x}.split([1, 1], -1)
torch.linalg.slogdet({x} + 3 * torch.eye({x}.shape[-1])); {x}.max({d}); {x}.sort({d})
{x}.tensor_split(2)
torch.var_mean({x}, {d})
torch.linalg.eigh(({x} + {x}.mT).real + torch.diag(torch.arange({x}.shape[-1]) * 3.0))
torch.broadcast_tensors({x}, {y}); torch.meshgrid({x}, {x}, indexing='ij'); torch.aminmax({x})
torch.frexp({x}); torch.std_mean({x})
""")

FRESH = split("""
torch.zeros({shape}); torch.zeros_like({x}); {x}.new_zeros({shape})
torch.empty({shape}).fill_({c}); torch.ones({shape}); torch.full({shape}, {c})
torch.arange({n}) * 0.5; torch.arange(1.0, {n} + 1.0); {literal}; torch.eye({n}); {x}.clone()
torch.empty_like({x}).copy_({x}); torch.ones_like({x}); {x}.new_full({shape}, {c})
{x}.new_ones({shape}); {x} * 1; torch.linspace(-1, 1, {n}); {x}.new_tensor({list})
{x}.new_empty({shape}).zero_(); torch.empty_like({x}).fill_({c}); torch.full_like({x}, {c})
torch.zeros({n}, 2).t(); torch.zeros(2, {shape0}).sum(0); {x}.detach().clone()
torch.empty({shape}).zero_(); torch.zeros({shape}).clone(); torch.zeros(2, {n})[0]
torch.zeros({shape}).expand({shape}).clone()
""")

# {o} is what is written into; {v} a value that may or may not fit.
WRITES = split("""
{o}[{i}] = {v}; {o}[:] = {v}; {o}[...] = {v}; {o}[0:1] = {v}; {o}[1:] = {v}; {o}[..., 0] = {v}
{o}[..., 1:] = {v}; {o}[:, 0] = {v}; {o} += {v}; {o} -= {v}; {o} *= {v}; {o} /= {v} * {v} + 1
{o}[{i}] += {v}; {o}[1:] *= {v}; {o}[..., -1] -= {v}; {o}[:1] += {v}; {o}.copy_({v})
{o}.add_({v}); {o}.mul_({v}); {o}.sub_({v}); {o}.div_({v} * {v} + 1); {o}.add_({v}, alpha=0.5)
{o}.lerp_({v}, 0.3); {o}.index_put_((torch.tensor([1, 0]),), {v})
{o}.index_put_((torch.tensor([0]),), {v}, accumulate=True); {o}[torch.tensor([1, 0])] = {v}
{o}.scatter_(0, torch.tensor([1, 0]), {v}); {o}.scatter_add_(0, torch.tensor([0, 0]), {v})
{o}.index_add_(0, torch.tensor([1, 0]), {v}); {o}.index_copy_(0, torch.tensor([1, 0]), {v})
{o}.index_fill_(0, torch.tensor([1]), {v}.sum()); {o}[torch.tensor([True, False])] = {v}
{o}.masked_fill_(torch.tensor([True, False]), {v}.sum())
{o}.masked_scatter_(torch.tensor([True, True]), {v}); {o}[{o} > 0.1] = {c}
{o}.masked_fill_({v} > 0, {c}); {o}.diagonal().copy_({v}); {o}.diagonal().add_({v})
{o}.t().copy_({v}); {o}.t().add_({v}); {o}.mT.mul_({v}); {o}.select(0, 0).copy_({v})
{o}.select(-1, -1).mul_({v}); {o}.narrow(0, 0, 1).copy_({v}); {o}.narrow(-1, 0, 1).add_({v})
{o}.fill_({c}); {o}.zero_(); {o}.fill_({v}.sum()); {o}[{i}].fill_({c}); {o}[{i}].zero_()
{o}[{i}].copy_({v}); {o}.view(-1)[{i}] = {v}; {o}.view(-1)[:2] += {v};
{o}.sin_(); {o}.tanh_(); {o}.exp_().tanh_(); {o}.neg_(); {o}.square_(); {o}.sigmoid_()
{o}.clamp_(min=-0.4); {o}[{i}].sin_(); {o}[1:].cos_(); {o}.relu_(); {o}.addcmul_({v}, {v})
{o}.addcmul_({v}, {w}, value=0.5); {o}.addcdiv_({v}, {w} * {w} + 1)
{o}.addmm_({v}.clone(), {w}.clone())
{o}.addmv_({v}, {w}); {o}.addr_({v}, {w}); {o}.unsqueeze(0)[0, {i}] = {v}
{o}.transpose(0, -1).copy_({v}); {o}.unbind()[0].copy_({v}); {o}.chunk(2)[0].add_({v})
{o}.split(1)[-1].mul_({v}); {o}.squeeze().copy_({v}); {o}.unfold(0, 2, 2).copy_({v})
{o}.expand(1, *{o}.shape)[0].copy_({v}); {o}.as_strided({o}.shape, {o}.stride()).copy_({v})
{o}.permute(*range({o}.dim())[::-1]).add_({v}); {o}.tril_(); {o}.cumsum_(0)
{o}.fill_diagonal_({c}); {o}.transpose_(0, -1); {o}.unsqueeze_(0); {o}.squeeze_(); {o}.t_()
{o}.swapaxes_(0, -1); {o}.pow_(2); {o}.put_(torch.tensor([1]), {v}); {o}.view_as({o}).mul_({v})
{o}[:].add_({v}); {o}[None].mul_({v}); {o}.detach().copy_({v}.detach())
torch.nn.functional.relu({o}, inplace=True); torch.nn.init.zeros_({o})
torch.nn.init.constant_({o}, {c}); torch._foreach_add_([{o}], [{v}])
torch._foreach_mul_([{o}[1:], {o}[:1]], 0.5); {o}[{o}.argmax()] = {v}; {o}[{v} > 0] = {v}[{v} > 0]
{o}[{i}], {o}[-1] = {v}, {w}; {o}[[0, 1]] = {v}
{o}[(torch.tensor([0, 1]), torch.tensor([1, 0]))] = {v}; {o}.where({o} > 9, {v})
""")

CONSTANTS = split("""
{x}.detach(); {x}.detach().sin(); {x}.data.clone(); {x}.data.clone() * {y}
{x}.detach() * {y}; {x}.detach() + {x}
{x} * {x}.detach(); quietly(torch.sin, {x}); quietly(torch.mul, {x}, {y})
{x} * quietly(torch.cos, {x}); {x} * {x}.detach().max(); {x}.detach().clone() * {y}
{x} / {x}.detach().square().add(1); torch.no_grad()(torch.sin)({x}) + {y}
{x} - {x}.detach() + {y}; ({x} > {y}) * {x}; ({x} > 0).to({x}.dtype); torch.zeros_like({x}) + {y}
{x} * ({x}.detach() > {c}); torch.where({x}.detach() > 0, {x}, {y}); {x}.detach()[0] * {x}
""")

KINDS = {
    "unary": (14, UNARY),
    "binary": (14, BINARY),
    "reduction": (6, REDUCTIONS),
    "view": (12, VIEWS),
    "rearranged": (7, REARRANGED),
    "several": (3, SEVERAL),
    "fresh": (12, FRESH),
    "write": (20, WRITES),
    "constant": (6, CONSTANTS),
}
TEMPLATES = {kind: templates for kind, (_, templates) in KINDS.items()}
WEIGHTS = [kind for kind, (weight, _) in KINDS.items() for _ in range(weight)]


def add_statement(scope: Scope) -> bool:
    kind = scope.choose(WEIGHTS)
    template = scope.choose(TEMPLATES[kind])
    if kind == "write":
        target = scope.target()
        return target is not None and _write(scope, template, target)
    if kind == "fresh" and scope.chance(0.6):
        return _made_and_written(scope, template)
    text = _filled(scope, template, scope.value(), scope.value())
    return scope.bind_several(text) if kind == "several" else scope.bind(text)


def _made_and_written(scope: Scope, template: str) -> bool:
    """A tensor that the program makes and writes to, the way results are put together in a loop."""
    value = scope.value()
    if not scope.bind(_filled(scope, template, value, value)):
        return False
    target = scope.floats[-1]
    written = sum(_write(scope, scope.choose(TEMPLATES["write"]), target) for _ in range(3))
    return written > 0


def _write(scope: Scope, template: str, target: str) -> bool:
    tensor = scope.tensor(target)
    value, other = (scope.apart_from(target, scope.value()) for _ in range(2))
    text = (
        template.replace("{o}", target)
        .replace("{v}", value)
        .replace("{w}", other)
        .replace("{c}", scope.number())
        .replace("{i}", str(scope.rng.randrange(max(tensor.shape[0], 1) if tensor.dim() else 1)))
    )
    return scope.do(text, target)


def _filled(scope: Scope, template: str, x: str, y: str) -> str:
    tensor = scope.tensor(x)
    shape = tuple(tensor.shape) if scope.chance(0.5) else scope.choose([(2,), (3,), (2, 2), ()])
    text = template.replace("{x}", x).replace("{y}", y).replace("{c}", scope.number())
    if "{d}" in text:
        if not tensor.dim():
            return ""
        text = text.replace("{d}", str(scope.dim(x)))
    text = text.replace("{shape}", str(shape)).replace("{n}", str(scope.choose([2, 3])))
    if "{shape0}" in text:
        text = text.replace("{shape0}", ", ".join(map(str, shape or (2,))))
    if "{literal}" in text or "{list}" in text:
        literal = scope.literal(shape)
        text = text.replace("{literal}", literal)
        text = text.replace("{list}", literal.removeprefix("torch.tensor(").removesuffix(")"))
    return text
