"""Models of images, sound and time series of transformers."""

import _torchvision  # noqa: F401
import torch
import transformers as tf
from _model import EXAMPLES, Entry, numbers

TINY = {
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "num_labels": 3,
}
IMAGE = {"image_size": 8, "patch_size": 4, "num_channels": 2}


def images(size=8, channels=2):
    return numbers((EXAMPLES, channels, size, size), 0.4, torch.float64)


def configured(name, config):
    made = getattr(tf, name)
    return made(made.config_class(**config)).eval()


def image(name, *, size=8, channels=2, **config):
    def build():
        given = TINY | IMAGE | {"image_size": size, "num_channels": channels} | config
        model = configured(name, {k: v for k, v in given.items() if v is not None})
        return Entry(model, images(size, channels), (), lambda m, x: m(pixel_values=x.unsqueeze(0)))

    return build


STAGES = {
    "hidden_size": None,
    "num_hidden_layers": None,
    "num_attention_heads": None,
    "intermediate_size": None,
    "patch_size": None,
}
SOUND = {
    "conv_dim": [4, 4],
    "conv_kernel": [5, 3],
    "conv_stride": [3, 2],
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
    "vocab_size": 7,
}


def sound(name, samples=40, **config):
    def build():
        model = configured(name, TINY | SOUND | config)
        xs = numbers((EXAMPLES, samples), 0.4, torch.float64)
        return Entry(model, xs, (), lambda m, x: m(x.unsqueeze(0)))

    return build


def clip():
    part = {
        "hidden_size": 8,
        "intermediate_size": 12,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "projection_dim": 6,
    }
    text = part | {
        "vocab_size": 11,
        "max_position_embeddings": 6,
        "eos_token_id": 10,
        "bos_token_id": 0,
        "pad_token_id": 1,
    }
    config = tf.CLIPConfig(text_config=text, vision_config=part | IMAGE, projection_dim=6)
    ids = torch.arange(EXAMPLES * 5).reshape(EXAMPLES, 5) % 10 + 1
    call = lambda m, x, ids: m(input_ids=ids.unsqueeze(0), pixel_values=x.unsqueeze(0))
    return Entry(
        tf.CLIPModel(config).eval(),
        images(),
        (ids,),
        lambda *a: [call(*a)[k] for k in ("logits_per_image", "text_embeds", "image_embeds")],
    )


def siglip():
    part = {
        "hidden_size": 8,
        "intermediate_size": 12,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    text = part | {
        "vocab_size": 11,
        "max_position_embeddings": 6,
        "eos_token_id": 10,
        "bos_token_id": 0,
        "pad_token_id": 1,
    }
    config = tf.SiglipConfig(text_config=text, vision_config=part | IMAGE)
    ids = torch.arange(EXAMPLES * 5).reshape(EXAMPLES, 5) % 10 + 1
    call = lambda m, x, ids: m(input_ids=ids.unsqueeze(0), pixel_values=x.unsqueeze(0))
    return Entry(
        tf.SiglipModel(config).eval(),
        images(),
        (ids,),
        lambda *a: [call(*a)[k] for k in ("logits_per_image", "text_embeds", "image_embeds")],
    )


def clip_text():
    config = tf.CLIPTextConfig(
        hidden_size=8,
        intermediate_size=12,
        num_hidden_layers=1,
        num_attention_heads=2,
        projection_dim=6,
        vocab_size=11,
        max_position_embeddings=6,
        eos_token_id=10,
        bos_token_id=0,
        pad_token_id=1,
    )
    model = tf.CLIPTextModelWithProjection(config).eval()
    ids = torch.arange(EXAMPLES * 5).reshape(EXAMPLES, 5) % 10 + 1

    def call(m, x, ids):
        return m(input_ids=ids.unsqueeze(0)).text_embeds * x.sum()

    return Entry(model, numbers((EXAMPLES, 2), 0.4, torch.float64), (ids,), call)


def whisper():
    config = tf.WhisperConfig(
        vocab_size=11,
        num_mel_bins=4,
        encoder_layers=1,
        encoder_attention_heads=2,
        decoder_layers=1,
        decoder_attention_heads=2,
        encoder_ffn_dim=12,
        decoder_ffn_dim=12,
        d_model=8,
        max_source_positions=6,
        max_target_positions=6,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    )
    model = tf.WhisperForConditionalGeneration(config).eval()
    ids = torch.arange(EXAMPLES * 4).reshape(EXAMPLES, 4) % 10 + 1
    call = lambda m, x, ids: m(
        input_features=x.unsqueeze(0), decoder_input_ids=ids.unsqueeze(0), use_cache=False
    )
    return Entry(model, numbers((EXAMPLES, 4, 12), 0.4, torch.float64), (ids,), call)


def speech2text():
    config = tf.Speech2TextConfig(
        vocab_size=11,
        input_feat_per_channel=4,
        input_channels=1,
        conv_channels=6,
        num_conv_layers=1,
        conv_kernel_sizes=[3],
        encoder_layers=1,
        encoder_attention_heads=2,
        decoder_layers=1,
        decoder_attention_heads=2,
        encoder_ffn_dim=12,
        decoder_ffn_dim=12,
        d_model=8,
        max_source_positions=20,
        max_target_positions=6,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    )
    model = tf.Speech2TextForConditionalGeneration(config).eval()
    ids = torch.arange(EXAMPLES * 4).reshape(EXAMPLES, 4) % 10 + 1
    call = lambda m, x, ids: m(
        input_features=x.unsqueeze(0), decoder_input_ids=ids.unsqueeze(0), use_cache=False
    )
    return Entry(model, numbers((EXAMPLES, 12, 4), 0.4, torch.float64), (ids,), call)


def perceiver():
    config = tf.PerceiverConfig(
        num_latents=3,
        d_latents=8,
        d_model=6,
        num_blocks=1,
        num_self_attends_per_block=1,
        num_self_attention_heads=2,
        num_cross_attention_heads=2,
    )
    model = tf.PerceiverModel(config).eval()
    return Entry(model, numbers((EXAMPLES, 5, 6), 0.4, torch.float64))


def detr():
    backbone = {
        "backbone_config": tf.ResNetConfig(
            num_channels=3,
            embedding_size=4,
            hidden_sizes=[4, 6],
            depths=[1, 1],
            layer_type="basic",
            out_features=["stage2"],
        )
    }
    config = tf.DetrConfig(
        use_timm_backbone=False,
        backbone=None,
        use_pretrained_backbone=False,
        num_queries=3,
        d_model=8,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=12,
        decoder_ffn_dim=12,
        num_labels=3,
        **backbone,
    )
    return Entry(
        tf.DetrForObjectDetection(config).eval(),
        images(16, 3),
        (),
        lambda m, x: [m(pixel_values=x.unsqueeze(0))[k] for k in ("logits", "pred_boxes")],
    )


def series(name, **config):
    def build():
        model = configured(name, config)
        xs = numbers((EXAMPLES, 8, 2), 0.4, torch.float64)
        return Entry(model, xs, (), lambda m, x: m(past_values=x.unsqueeze(0))[0])

    return build


def decision():
    config = tf.DecisionTransformerConfig(
        state_dim=3, act_dim=2, hidden_size=8, max_ep_len=10, n_head=2, n_layer=1, n_positions=32
    )
    model = tf.DecisionTransformerModel(config).eval()

    def call(m, x):
        states, actions, returns = x.unsqueeze(0).split([3, 2, 1], -1)
        return m(
            states=states,
            actions=actions,
            rewards=returns,
            returns_to_go=returns,
            timesteps=torch.arange(4).unsqueeze(0),
            attention_mask=torch.ones(1, 4, dtype=torch.long),
        )

    return Entry(model, numbers((EXAMPLES, 4, 6), 0.4, torch.float64), (), call)


def encodec():
    config = tf.EncodecConfig(
        num_filters=2,
        upsampling_ratios=[2, 2],
        codebook_size=8,
        codebook_dim=4,
        hidden_size=4,
        num_lstm_layers=1,
        num_residual_layers=1,
        kernel_size=3,
        last_kernel_size=3,
        residual_kernel_size=3,
    )
    model = tf.EncodecModel(config).eval()
    return Entry(
        model,
        numbers((EXAMPLES, 1, 16), 0.4, torch.float64),
        (),
        lambda m, x: m.decoder(m.encoder(x.unsqueeze(0))),
    )


def ast():
    config = tf.ASTConfig(
        **TINY, patch_size=4, frequency_stride=4, time_stride=4, max_length=12, num_mel_bins=8
    )
    return Entry(
        tf.ASTForAudioClassification(config).eval(), numbers((EXAMPLES, 12, 8), 0.4, torch.float64)
    )


MODELS = {
    "vit": image("ViTForImageClassification"),
    "vit eager": image("ViTForImageClassification", attn_implementation="eager"),
    "deit": image("DeiTForImageClassification"),
    "beit": image("BeitForImageClassification", use_relative_position_bias=True),
    "data2vec vision": image(
        "Data2VecVisionForImageClassification",
        use_shared_relative_position_bias=True,
        out_indices=[0],
    ),
    "dinov2": image("Dinov2ForImageClassification"),
    "vit msn": image("ViTMSNForImageClassification"),
    "yolos": image("YolosForObjectDetection", image_size=[8, 8], num_detection_tokens=3),
    "swin": image(
        "SwinForImageClassification",
        **STAGES | {"patch_size": 2},
        embed_dim=4,
        depths=[2, 1],
        num_heads=[1, 2],
        window_size=2,
    ),
    "swin v2": image(
        "Swinv2ForImageClassification",
        **STAGES | {"patch_size": 2},
        embed_dim=4,
        depths=[2, 1],
        num_heads=[1, 2],
        window_size=2,
    ),
    "donut swin": image(
        "DonutSwinModel",
        **STAGES | {"patch_size": 2},
        embed_dim=4,
        depths=[2, 1],
        num_heads=[1, 2],
        window_size=2,
    ),
    "convnext": image(
        "ConvNextForImageClassification",
        **STAGES | {"patch_size": 2},
        hidden_sizes=[4, 6],
        depths=[1, 1],
        num_stages=2,
    ),
    "convnext v2": image(
        "ConvNextV2ForImageClassification",
        **STAGES | {"patch_size": 2},
        hidden_sizes=[4, 6],
        depths=[1, 1],
        num_stages=2,
    ),
    "segformer": image(
        "SegformerForSemanticSegmentation",
        **(STAGES | {"num_attention_heads": [1, 2]}),
        num_encoder_blocks=2,
        depths=[1, 1],
        sr_ratios=[2, 1],
        hidden_sizes=[4, 6],
        patch_sizes=[3, 3],
        strides=[2, 2],
        mlp_ratios=[2, 2],
        decoder_hidden_size=6,
    ),
    "resnet": image(
        "ResNetForImageClassification",
        **STAGES,
        embedding_size=4,
        hidden_sizes=[4, 6],
        depths=[1, 1],
        layer_type="bottleneck",
    ),
    "regnet": image(
        "RegNetForImageClassification",
        **STAGES,
        embedding_size=4,
        hidden_sizes=[4, 8],
        depths=[1, 1],
        groups_width=2,
    ),
    "mobilenet v1": image(
        "MobileNetV1ForImageClassification",
        **STAGES,
        depth_multiplier=0.01,
        min_depth=6,
        size=16,
        tf_padding=False,
    ),
    "mobilenet v2": image(
        "MobileNetV2ForImageClassification",
        **STAGES,
        depth_multiplier=0.01,
        min_depth=6,
        depth_divisible_by=2,
        initializer_range=0.25,  # else nothing is left of the input after so many layers
        size=16,
        tf_padding=False,
    ),
    "mobilevit": image(
        "MobileViTForImageClassification",
        **(STAGES | {"patch_size": 2, "num_attention_heads": 2}),
        size=32,
        hidden_sizes=[8, 8, 8],
        neck_hidden_sizes=[4, 4, 4, 4, 4, 4, 8],
        mlp_ratio=2.0,
    ),
    "poolformer": image(
        "PoolFormerForImageClassification",
        **STAGES,
        hidden_sizes=[4, 6],
        depths=[1, 1],
        patch_sizes=[3, 3],
        strides=[2, 2],
        padding=[1, 1],
        num_encoder_blocks=2,
    ),
    "pvt v2": image(
        "PvtV2ForImageClassification",
        **(STAGES | {"num_attention_heads": [1, 2]}),
        num_encoder_blocks=2,
        depths=[1, 1],
        sr_ratios=[2, 1],
        hidden_sizes=[4, 6],
        patch_sizes=[3, 3],
        strides=[2, 2],
        mlp_ratios=[2, 2],
    ),
    "focalnet": image(
        "FocalNetForImageClassification",
        **STAGES | {"patch_size": 2},
        embed_dim=4,
        hidden_sizes=[4, 8],
        depths=[1, 1],
        focal_levels=[1, 1],
        focal_windows=[3, 3],
    ),
    "bit": image(
        "BitForImageClassification",
        **STAGES,
        embedding_size=4,
        hidden_sizes=[4, 8],
        depths=[1, 1],
        num_groups=2,
        layer_type="preactivation",
    ),
    "dpt": image(
        "DPTForSemanticSegmentation",
        size=16,
        num_hidden_layers=4,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[4, 4, 4, 4],
        fusion_hidden_size=4,
        is_hybrid=False,
    ),
    "glpn": image(
        "GLPNForDepthEstimation",
        **(STAGES | {"num_attention_heads": [1, 1, 2, 2]}),
        size=32,
        channels=3,
        depths=[1, 1, 1, 1],
        sr_ratios=[2, 2, 1, 1],
        hidden_sizes=[4, 4, 6, 6],
        decoder_hidden_size=4,
    ),
    "swiftformer": image(
        "SwiftFormerForImageClassification",
        **STAGES,
        size=32,
        channels=3,
        depths=[1, 1],
        embed_dims=[4, 6],
        downsamples=[True, True],
    ),
    "clip": clip,
    "clip text": clip_text,
    "clip vision": image("CLIPVisionModelWithProjection", projection_dim=6),
    "siglip": siglip,
    "detr": detr,
    "perceiver": perceiver,
    "wav2vec2": sound("Wav2Vec2ForCTC"),
    "wav2vec2 stable": sound(
        "Wav2Vec2ForCTC", do_stable_layer_norm=True, feat_extract_norm="layer"
    ),
    "hubert": sound("HubertForCTC"),
    "wavlm": sound("WavLMForCTC", num_buckets=8, max_bucket_distance=16),
    "unispeech": sound("UniSpeechForCTC"),
    "data2vec audio": sound("Data2VecAudioForCTC", conv_pos_kernel_size=3),
    "sew": sound("SEWForCTC", squeeze_factor=2, samples=60),
    "wav2vec2 conformer": sound("Wav2Vec2ConformerForCTC", conv_depthwise_kernel_size=3),
    "whisper": whisper,
    "speech2text": speech2text,
    "ast": ast,
    "encodec": encodec,
    "patchtst": series(
        "PatchTSTForPrediction",
        num_input_channels=2,
        context_length=8,
        patch_length=4,
        patch_stride=4,
        num_hidden_layers=1,
        d_model=8,
        num_attention_heads=2,
        ffn_dim=12,
        prediction_length=2,
    ),
    "patchtsmixer": series(
        "PatchTSMixerForPrediction",
        num_input_channels=2,
        context_length=8,
        patch_length=4,
        patch_stride=4,
        num_layers=1,
        d_model=8,
        prediction_length=2,
    ),
    "decision transformer": decision,
}
MODELS = {k: v for k, v in MODELS.items() if v}
