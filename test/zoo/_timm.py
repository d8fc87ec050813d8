"""Models of timm, with the constructors' small arguments."""

import _torchvision  # noqa: F401
import timm
import torch
from _model import EXAMPLES, Entry, numbers
from timm.layers import GatedMlp
from timm.models import convnext, focalnet, levit, metaformer, mlp_mixer, nest, volo


def images(size, channels=3):
    return numbers((EXAMPLES, channels, size, size), 0.4, torch.float64)


def image(name, size=16, **options):
    def build():
        model = timm.create_model(name, num_classes=3, **options).eval()
        return Entry(model, images(size))

    return build


def made(kind, size, call=Entry.call, **options):
    """Of classes whose constructors take more than the registered models let through."""
    return lambda: Entry(kind(num_classes=3, **options).eval(), images(size), (), call)


def of_two(model, image):
    """One image alone has gradients with strides that PyTorch's batch_norm reads wrongly."""
    return model(torch.stack([image, image.flip(-1)]))


VIT = {"img_size": 8, "patch_size": 4, "embed_dim": 8, "depth": 1, "num_heads": 2}

MODELS = {
    "timm resnet": image("test_resnet"),
    "timm vit": image("vit_tiny_patch16_224", 8, **VIT),
    "timm deit3": image("deit3_small_patch16_224", 8, **VIT),
    "timm beit": image("beit_base_patch16_224", 8, **VIT),
    "timm beitv2": image("beitv2_base_patch16_224", 8, **VIT),
    "timm eva": image("eva02_tiny_patch14_224", 8, **VIT),
    "timm cait": image("cait_xxs24_224", 8, **VIT),
    "timm xcit": image("xcit_nano_12_p16_224", 16, img_size=16, embed_dim=8, depth=1, num_heads=2),
    "timm mixer": made(mlp_mixer.MlpMixer, 8, img_size=8, patch_size=4, num_blocks=1, embed_dim=8),
    "timm gmlp": made(
        mlp_mixer.MlpMixer,
        8,
        block_layer=mlp_mixer.SpatialGatingBlock,
        mlp_layer=GatedMlp,
        mlp_ratio=4,
        img_size=8,
        patch_size=4,
        num_blocks=1,
        embed_dim=8,
    ),
    "timm resmlp": made(
        mlp_mixer.MlpMixer,
        8,
        block_layer=mlp_mixer.ResBlock,
        norm_layer=mlp_mixer.Affine,
        mlp_ratio=4,
        img_size=8,
        patch_size=4,
        num_blocks=1,
        embed_dim=8,
    ),
    "timm swin": image(
        "swin_tiny_patch4_window7_224",
        16,
        img_size=16,
        patch_size=2,
        window_size=2,
        embed_dim=4,
        depths=(2, 1),
        num_heads=(1, 2),
    ),
    "timm swin v2": image(
        "swinv2_tiny_window8_256",
        16,
        img_size=16,
        patch_size=2,
        window_size=2,
        embed_dim=4,
        depths=(2, 1),
        num_heads=(1, 2),
    ),
    "timm swin v2 cr": image(
        "swinv2_cr_tiny_224",
        16,
        img_size=16,
        patch_size=2,
        window_size=2,
        embed_dim=4,
        depths=(2, 1),
        num_heads=(1, 2),
    ),
    "timm convnext": made(convnext.ConvNeXt, 64, depths=(1, 1, 1, 1), dims=(4, 6, 6, 6)),
    "timm convnext v2": made(
        convnext.ConvNeXt,
        64,
        depths=(1, 1, 1, 1),
        dims=(4, 6, 6, 6),
        use_grn=True,
        ls_init_value=None,
    ),
    "timm poolformer": made(metaformer.MetaFormer, 16, depths=(1, 1), dims=(4, 6)),
    "timm convformer": made(
        metaformer.MetaFormer, 16, depths=(1, 1), dims=(4, 6), token_mixers=metaformer.SepConv
    ),
    "timm pit": image(
        "pit_ti_224",
        16,
        img_size=16,
        patch_size=4,
        stride=2,
        base_dims=[4, 4],
        depth=[1, 1],
        heads=[1, 2],
    ),
    "timm twins": image(
        "twins_svt_small",
        32,
        img_size=32,
        patch_size=2,
        embed_dims=(4, 8, 8, 8),
        num_heads=(1, 2, 2, 2),
        depths=(1, 1, 1, 1),
        wss=(4, 4, 4, 4),
        sr_ratios=(2, 2, 1, 1),
    ),
    "timm pvt v2": image(
        "pvt_v2_b0", 64, depths=(1, 1, 1, 1), embed_dims=(4, 4, 8, 8), num_heads=(1, 1, 2, 2)
    ),
    "timm crossvit": image(
        "crossvit_tiny_240",
        24,
        img_size=24,
        img_scale=(1.0, 1.0),
        patch_size=(4, 8),
        embed_dim=(4, 8),
        depth=((1, 1, 0),),
        num_heads=(2, 2),
        mlp_ratio=(2, 2, 1),
    ),
    "timm mobilenetv3": image("mobilenetv3_small_050", 16),
    "timm efficientnet": image("test_efficientnet", 16),
    "timm efficientnet gn": image("test_efficientnet_gn", 16),
    "timm byobnet": image("test_byobnet", 16),
    "timm mambaout": image("test_mambaout", 16),
    "timm test convnext": image("test_convnext", 64),
    "timm test convnext2": image("test_convnext2", 64),
    "timm test convnext3": image("test_convnext3", 64),
    "timm test nfnet": image("test_nfnet", 16),
    "timm test vit": image("test_vit", 16, img_size=16),
    "timm test vit2": image("test_vit2", 16, img_size=16),
    "timm test vit3": image("test_vit3", 16, img_size=16),
    "timm test vit4": image("test_vit4", 16, img_size=16),
    "timm levit": made(
        levit.Levit,
        64,
        of_two,
        img_size=64,
        embed_dim=(8, 8),
        num_heads=(1, 2),
        depth=(1, 1),
        key_dim=4,
    ),
    "timm edgenext": image(
        "edgenext_xx_small",
        32,
        dims=(4, 4, 8, 8),
        depths=(1, 1, 2, 1),
        heads=(2, 2, 2, 2),
        kernel_sizes=(3, 3, 3, 3),
    ),
    "timm davit": image(
        "davit_tiny",
        32,
        embed_dims=(4, 4, 8, 8),
        depths=(1, 1, 1, 1),
        num_heads=(1, 1, 2, 2),
        window_size=2,
    ),
    "timm focalnet": made(focalnet.FocalNet, 16, embed_dim=4, depths=(1, 1)),
    "timm sequencer": image(
        "sequencer2d_s",
        14,
        img_size=14,
        layers=(1, 1),
        embed_dims=(6, 6),
        hidden_sizes=(2, 2),
        patch_sizes=(7, 1),
        mlp_ratios=(2.0, 2.0),
    ),
    "timm volo": made(
        volo.VOLO,
        32,
        img_size=32,
        layers=(1, 1),
        embed_dims=(8, 8),
        num_heads=(2, 2),
        stem_hidden_dim=4,
        outlook_attention=(True, False),
        downsamples=(True, False),
        mlp_ratio=2,
    ),
    "timm tnt": image(
        "tnt_s_patch16_224",
        16,
        img_size=16,
        patch_size=8,
        embed_dim=8,
        inner_dim=4,
        depth=1,
        num_heads_inner=2,
        num_heads_outer=2,
    ),
    "timm nest": made(
        nest.Nest, 16, img_size=16, num_levels=2, embed_dims=(4, 8), num_heads=(1, 2), depths=(1, 1)
    ),
    "timm densenet": image("densenet121", 32, growth_rate=4, block_config=(1, 1)),
    "timm repvit": image("repvit_m0_9", 32, embed_dim=(4, 8), depth=(1, 1)),
    "timm tiny vit": image(
        "tiny_vit_5m_224",
        32,
        embed_dims=(4, 8, 8, 8),
        depths=(1, 1, 1, 1),
        num_heads=(1, 2, 2, 2),
        window_sizes=(2, 2, 2, 2),
    ),
    "timm starnet": image("starnet_s050", 32, base_dim=4, depths=(1, 1)),
    "timm fastvit": image("fastvit_t8", 32, layers=(1, 1, 1, 1), embed_dims=(4, 8, 8, 8)),
    "timm hiera": image(
        "hiera_tiny_224", 32, img_size=(32, 32), embed_dim=8, num_heads=1, stages=(1, 1, 1, 1)
    ),
    "timm shvit": image(
        "shvit_s1", 32, embed_dim=(8, 8, 8), partial_dim=(4, 4, 4), depth=(1, 1, 1)
    ),
}
