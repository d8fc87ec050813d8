"""Neural networks: convolutions, pools, normalisations, attention, resampling and losses."""

import torch
from _ops import boolean, constant, index, integer, op, partition, positive, probability, real
from torch.nn import functional as F

SIGNAL, IMAGE = real(2, 2, 7), real(1, 2, 5, 6)
ONE_IMAGE = real(2, 5, 6)
PREDICTION, TARGET = real(3, 4), real(3, 4)
CHANNELS = real(2)

CONVOLUTIONS = [
    op("conv1d", lambda x, w, b: F.conv1d(x, w, b, padding=1), SIGNAL, real(3, 2, 3), real(3)),
    op("conv1d_unbatched", F.conv1d, real(2, 7), real(3, 2, 3)),
    op("conv2d", F.conv2d, IMAGE, real(3, 2, 3, 3), real(3)),
    op("conv2d_unbatched", F.conv2d, ONE_IMAGE, real(3, 2, 3, 3)),
    op(
        "conv2d_stride",
        lambda x, w: F.conv2d(x, w, stride=2, padding=(1, 0)),
        IMAGE,
        real(3, 2, 3, 2),
    ),
    op("conv2d_dilation", lambda x, w: F.conv2d(x, w, dilation=2), IMAGE, real(2, 2, 2, 2)),
    op(
        "conv2d_groups",
        lambda x, w, b: F.conv2d(x, w, b, groups=2),
        IMAGE,
        real(4, 1, 2, 2),
        real(4),
    ),
    op("conv2d_same", lambda x, w: F.conv2d(x, w, padding="same"), IMAGE, real(2, 2, 3, 3)),
    op("conv3d", F.conv3d, real(1, 1, 3, 3, 3), real(2, 1, 2, 2, 2)),
    op("conv_transpose1d", F.conv_transpose1d, SIGNAL, real(2, 3, 3)),
    op(
        "conv_transpose2d",
        lambda x, w, b: F.conv_transpose2d(x, w, b, stride=2),
        IMAGE,
        real(2, 3, 2, 2),
        real(3),
    ),
    op("unfold_blocks", lambda x: F.unfold(x, 2), IMAGE),
    op("fold", lambda x: F.fold(x, (3, 3), 2), real(1, 4, 4)),
]

POOLS = [
    op("max_pool1d", lambda x: F.max_pool1d(x, 2), SIGNAL),
    op("max_pool2d", lambda x: F.max_pool2d(x, 2), IMAGE),
    op("max_pool2d_indices", lambda x: F.max_pool2d(x, 2, stride=1, return_indices=True), IMAGE),
    op("max_pool2d_unbatched", lambda x: F.max_pool2d(x, 2, padding=1), ONE_IMAGE),
    op("avg_pool1d", lambda x: F.avg_pool1d(x, 3), SIGNAL),
    op("avg_pool2d", lambda x: F.avg_pool2d(x, 2, padding=1), IMAGE),
    op("adaptive_avg_pool1d", lambda x: F.adaptive_avg_pool1d(x, 3), SIGNAL),
    op("adaptive_avg_pool2d", lambda x: F.adaptive_avg_pool2d(x, (2, 3)), IMAGE),
    op("adaptive_avg_pool2d_one", lambda x: F.adaptive_avg_pool2d(x, 1), ONE_IMAGE),
    op("adaptive_max_pool2d", lambda x: F.adaptive_max_pool2d(x, 2), IMAGE),
    op("lp_pool1d", lambda x: F.lp_pool1d(x, 3, 2), positive(1, 2, 6)),
    op("interpolate_nearest", lambda x: F.interpolate(x, scale_factor=2), IMAGE),
    op("interpolate_bilinear", lambda x: F.interpolate(x, (4, 4), mode="bilinear"), IMAGE),
]

NORMALISATIONS = [
    op("layer_norm", lambda x, w, b: F.layer_norm(x, (4,), w, b), PREDICTION, real(4), real(4)),
    *[
        op(
            f"batch_norm_functional_{training}",
            lambda x, w, b, m, v, training=training: (
                torch.ops.aten._native_batch_norm_legit_functional(
                    x, w, b, m, v, training, 0.2, 1e-5
                )
            ),
            *(real(5, 3), real(3), real(3), real(3), constant(3)),
            differentiable=False,
        )
        for training in (True, False)
    ],
    op(
        "batch_norm_with_update_functional",
        lambda x, w, b, m, v: torch.ops.aten._batch_norm_with_update_functional(
            x, w, b, m, v, 0.2, 1e-5
        )[:3],
        *(real(5, 3), real(3), real(3), real(3), constant(3)),
        differentiable=False,
    ),
    op("layer_norm_plain", lambda x: F.layer_norm(x, (3, 4)), PREDICTION),
    op("rms_norm", lambda x, w: F.rms_norm(x, (4,), w), PREDICTION, real(4)),
    op("group_norm", lambda x, w, b: F.group_norm(x, 2, w, b), real(2, 4, 3), real(4), real(4)),
    op("group_norm_plain", lambda x: F.group_norm(x, 2), real(2, 4, 3)),
    op(
        "batch_norm_eval",
        lambda x, m, v, w, b: F.batch_norm(x, m.detach(), v.detach(), w, b),
        real(3, 2, 2),
        CHANNELS,
        positive(2),
        CHANNELS,
        CHANNELS,
        differentiable=False,
    ),
    op(
        "batch_norm_eval_fixed",
        lambda x, w, b: F.batch_norm(x, MEAN, VARIANCE, w, b),
        real(3, 2, 2),
        CHANNELS,
        CHANNELS,
    ),
    op(
        "batch_norm_train",
        lambda x, w, b: F.batch_norm(x, None, None, w, b, True),
        real(3, 2, 2),
        CHANNELS,
        CHANNELS,
    ),
    op("instance_norm", lambda x: F.instance_norm(x), real(2, 2, 4)),
    op("local_response_norm", lambda x: F.local_response_norm(x, 2), real(2, 4, 3)),
]
MEAN = torch.tensor([0.1, -0.2], dtype=torch.float64)
VARIANCE = torch.tensor([0.9, 1.1], dtype=torch.float64)

ATTENTION = [
    op("attention", F.scaled_dot_product_attention, real(2, 3, 4), real(2, 5, 4), real(2, 5, 4)),
    op(
        "attention_causal",
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
        real(3, 4),
        real(3, 4),
        real(3, 4),
    ),
    op(
        "attention_mask",
        lambda q, k, m: F.scaled_dot_product_attention(q, k, k, attn_mask=m),
        real(1, 3, 4),
        real(1, 5, 4),
        real(3, 5),
    ),
]

LOSSES = [
    op("mse_loss", F.mse_loss, PREDICTION, TARGET),
    op("mse_loss_none", lambda x, y: F.mse_loss(x, y, reduction="none"), PREDICTION, TARGET),
    op("l1_loss", lambda x, y: F.l1_loss(x, y, reduction="sum"), PREDICTION, TARGET),
    op("smooth_l1_loss", F.smooth_l1_loss, PREDICTION, TARGET),
    op(
        "huber_loss",
        lambda x, y: F.huber_loss(x, y, delta=0.7),
        PREDICTION,
        TARGET,
    ),
    op("binary_cross_entropy", F.binary_cross_entropy, probability(3, 4), probability(3, 4)),
    op("bce_with_logits", F.binary_cross_entropy_with_logits, PREDICTION, probability(3, 4)),
    op(
        "bce_with_logits_weights",
        lambda x, y, w: F.binary_cross_entropy_with_logits(x, y, pos_weight=w),
        PREDICTION,
        probability(3, 4),
        constant(4),
    ),
    op("kl_div", lambda x, p: F.kl_div(x, p, reduction="batchmean"), PREDICTION, probability(3, 4)),
    op("nll_loss", F.nll_loss, PREDICTION, index(4, 3)),
    op("nll_loss_one", F.nll_loss, real(4), index(4)),
    op("nll_loss_sum", lambda x, y: F.nll_loss(x, y, reduction="sum"), PREDICTION, index(4, 3)),
    op("nll_loss_none", lambda x, y: F.nll_loss(x, y, reduction="none"), PREDICTION, index(4, 3)),
    op("nll_loss_weight", lambda x, y: F.nll_loss(x, y, WEIGHTS), PREDICTION, index(4, 3)),
    op("nll_loss_2d", F.nll_loss, real(1, 3, 2, 2), index(3, 1, 2, 2)),
    op("cross_entropy", F.cross_entropy, PREDICTION, index(4, 3)),
    op("cross_entropy_one", F.cross_entropy, real(4), index(4)),
    op("cross_entropy_probabilities", F.cross_entropy, PREDICTION, probability(3, 4)),
    op(
        "cross_entropy_smooth",
        # It writes a mask of the targets into what it makes of the logits: both have to be batched.
        lambda x, y: F.cross_entropy(x + 0 * y[..., None], y, label_smoothing=0.1),
        PREDICTION,
        index(4, 3),
    ),
    op(
        "cross_entropy_ignore",
        lambda x, y: F.cross_entropy(x, y, ignore_index=2),
        real(5, 4),
        index(4, 5),
    ),
    op("poisson_nll_loss", F.poisson_nll_loss, PREDICTION, probability(3, 4)),
    op(
        "soft_margin_loss",
        lambda x, m: F.soft_margin_loss(x, 2.0 * m - 1),
        PREDICTION,
        boolean(3, 4),
    ),
    op(
        "hinge_embedding_loss",
        lambda x, m: F.hinge_embedding_loss(x, 2.0 * m - 1),
        PREDICTION,
        boolean(3, 4),
    ),
    op("margin_ranking_loss", F.margin_ranking_loss, real(3), real(3), real(3)),
    *[
        op(
            f"multi_margin_loss_{reduction}_p{p}",
            lambda x, y, w, p=p, reduction=reduction: F.multi_margin_loss(
                x, y, p, weight=w, reduction=reduction
            ),
            PREDICTION,
            index(4, 3),
            constant(4),
        )
        for p, reduction in [(1, "mean"), (2, "none"), (2, "sum")]
    ],
    op(
        "multi_margin_loss_one",
        lambda x, y: F.multi_margin_loss(x, y, reduction="none"),
        real(4),
        index(4),
    ),
    op(
        "multi_margin_loss_one_in_a_row",
        lambda x, y: F.multi_margin_loss(x, y, reduction="none"),
        real(4),
        index(4, 1),
    ),
    *[
        op(
            f"multilabel_margin_loss_{reduction}",
            lambda x, y, reduction=reduction: F.multilabel_margin_loss(x, y, reduction=reduction),
            PREDICTION,
            integer(3, 4, low=-1, high=4),
        )
        for reduction in ["mean", "sum", "none"]
    ],
    op(
        "multilabel_margin_loss_one",
        lambda x, y: F.multilabel_margin_loss(x, y, reduction="none"),
        real(4),
        integer(4, low=-1, high=4),
    ),
    op("triplet_margin_loss", F.triplet_margin_loss, real(2, 3), real(2, 3), real(2, 3)),
    op(
        "cosine_embedding_loss",
        lambda x, y: F.cosine_embedding_loss(x, y, torch.ones(2)),
        real(2, 3),
        real(2, 3),
    ),
    *(
        op(
            f"ctc_loss_{name}",
            lambda x, y, loss=loss: loss(x.log_softmax(-1), y),
            real(5, 2, 4),
            targets,
        )
        for name, targets, loss in (
            ("padded", index(3, 2, 3), lambda x, y: F.ctc_loss(x, y + 1, (5, 4), (2, 3))),
            ("joined", index(3, 5), lambda x, y: F.ctc_loss(x, y + 1, (5, 4), (2, 3))),
            ("tensors", index(3, 5), lambda x, y: F.ctc_loss(x, y + 1, *LENGTHS, reduction="none")),
        )
    ),
    op(
        "ctc_loss_lengths",
        lambda x, y, n: F.ctc_loss(x.log_softmax(-1), y + 1, LENGTHS[0], n, zero_infinity=True),
        real(5, 2, 4),
        index(3, 5),
        partition(5, 2),
    ),
    op("rrelu_eval", F.rrelu, PREDICTION),
    op("dropout_eval", lambda x: F.dropout(x, 0.5, training=False), PREDICTION),
]
LENGTHS = torch.tensor([5, 4]), torch.tensor([2, 3])  # of inputs and of targets
WEIGHTS = torch.tensor([0.2, 0.5, 1.5, 1.0], dtype=torch.float64)

OPS = [*CONVOLUTIONS, *POOLS, *NORMALISATIONS, *ATTENTION, *LOSSES]
