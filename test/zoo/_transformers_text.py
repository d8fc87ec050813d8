"""Language models of transformers."""

import _torchvision  # noqa: F401
import torch
import transformers as tf
from _model import EXAMPLES, Entry, numbers

LENGTH, WORDS = 5, 13
TINY = {
    "vocab_size": WORDS,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "max_position_embeddings": 16,
}


def tokens(length=LENGTH, words=WORDS):
    """None is 0 or 1, the padding, whose embedding is a constant."""
    return (torch.arange(EXAMPLES * length) * 5 % (words - 2) + 2).reshape(EXAMPLES, length)


def reads_embeddings(model, length, words=WORDS, **options):
    """`x` is added to the embeddings of the tokens; the layers see a batch of one."""
    table = model.get_input_embeddings()
    ids = tokens(length, words)

    def call(model, x, ids):
        embedded = model.get_input_embeddings()(ids.unsqueeze(0)) + x.unsqueeze(0)
        return model(inputs_embeds=embedded, **options)

    width = table.weight.shape[-1]
    xs = 0.3 * numbers((EXAMPLES, length, width), 0.4, torch.float64)
    return Entry(model, xs, (ids,), call)


def text(name, *, length=LENGTH, options=None, attention=None, train=False, frozen=False, **config):
    """A builder of the model `name`; `config` goes over the tiny configuration. If it reads its
    parameters again in the backward pass, when `functional_call` has put them back, it is `frozen`.
    """

    def build():
        made = getattr(tf, name)
        given = {k: v for k, v in (TINY | config).items() if v is not None}
        made_config = made.config_class(**given)
        if attention:
            made_config._attn_implementation = attention
        # The kernels for experts are not there in float64.
        made_config._experts_implementation = "eager"
        model = made(made_config).train(train).requires_grad_(not frozen)
        return reads_embeddings(model, length, **(options or {}))

    return build


NO_CACHE = {"use_cache": False}
CACHE = {"use_cache": True}
ONE_KV = {"num_key_value_heads": 1, "head_dim": 4}
BART = {
    "d_model": 8,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 12,
    "decoder_ffn_dim": 12,
}


def seq2seq(name, *, length=LENGTH, options=None, attention=None, **config):
    """An encoder that reads `x`, and a decoder that reads tokens."""

    def build():
        made = getattr(tf, name)
        given = {k: v for k, v in (TINY | BART | config).items() if v is not None}
        made_config = made.config_class(**given)
        if attention:
            made_config._attn_implementation = attention
        # The kernels for experts are not there in float64.
        made_config._experts_implementation = "eager"
        model = made(made_config)
        ids = tokens(length)

        def call(model, x, ids):
            embedded = model.get_input_embeddings()(ids.unsqueeze(0)) + x.unsqueeze(0)
            given = {"inputs_embeds": embedded, "decoder_input_ids": ids.unsqueeze(0)[:, :3]}
            return model(**given, **(options or {}))

        xs = 0.3 * numbers((EXAMPLES, length, 8), 0.4, torch.float64)
        return Entry(model.eval(), xs, (ids,), call)

    return build


MODELS = {
    "bert": text("BertForMaskedLM"),
    "bert eager": text("BertForMaskedLM", attention="eager"),
    "roberta": text("RobertaForMaskedLM", max_position_embeddings=20),
    "distilbert": text("DistilBertForMaskedLM", dim=8, n_layers=1, n_heads=2, hidden_dim=12),
    "albert": text("AlbertForMaskedLM", embedding_size=6),
    "electra": text("ElectraForPreTraining", embedding_size=6),
    "deberta v2": text(
        "DebertaV2ForMaskedLM", relative_attention=True, pos_att_type=["p2c", "c2p"]
    ),
    "mpnet": text("MPNetForMaskedLM"),
    "xlnet": text(
        "XLNetLMHeadModel",
        max_position_embeddings=None,
        d_model=8,
        n_layer=1,
        n_head=2,
        d_inner=12,
        options={"use_mems": False},
    ),
    "funnel": text(
        "FunnelForMaskedLM",
        num_hidden_layers=None,
        d_model=8,
        block_sizes=[1, 1],
        n_head=2,
        d_head=4,
        d_inner=12,
        num_decoder_layers=1,
    ),
    "fnet": text("FNetForMaskedLM", tpu_short_seq_length=5),
    "longformer": text(
        "LongformerForMaskedLM",
        length=8,
        attention_window=[4],
        max_position_embeddings=30,
    ),
    "bigbird": text(
        "BigBirdForMaskedLM",
        length=12,
        attention_type="block_sparse",
        block_size=1,
        num_random_blocks=1,
        max_position_embeddings=30,
    ),
    "bigbird full": text("BigBirdForMaskedLM", attention_type="original_full"),
    "reformer": text(
        "ReformerModelWithLMHead",
        train=True,
        frozen=True,
        hidden_dropout_prob=0.0,
        length=8,
        attention_head_size=4,
        axial_pos_embds=False,
        attn_layers=["local", "lsh"],
        feed_forward_size=12,
        is_decoder=True,
        hash_seed=0,
        lsh_attention_probs_dropout_prob=0.0,
        local_attention_probs_dropout_prob=0.0,
        lsh_attn_chunk_length=4,
        local_attn_chunk_length=4,
        num_hashes=1,
        num_buckets=2,
    ),
    "nystromformer": text(
        "NystromformerForMaskedLM", num_landmarks=2, segment_means_seq_len=4, length=4
    ),
    "convbert": text("ConvBertForMaskedLM", embedding_size=8, conv_kernel_size=3, head_ratio=1),
    "mobilebert": text(
        "MobileBertForMaskedLM",
        embedding_size=8,
        intra_bottleneck_size=8,
        true_hidden_size=8,
        use_bottleneck=True,
        pad_token_id=0,
    ),
    "squeezebert": text(
        "SqueezeBertForMaskedLM",
        q_groups=2,
        k_groups=2,
        v_groups=2,
        post_attention_groups=1,
        intermediate_groups=2,
        output_groups=2,
        embedding_size=8,
    ),
    "ernie": text("ErnieForMaskedLM"),
    "roformer": text("RoFormerForMaskedLM"),
    "rembert": text("RemBertForMaskedLM", input_embedding_size=6, output_embedding_size=6),
    "esm": text(
        "EsmForMaskedLM",
        position_embedding_type="rotary",
        pad_token_id=0,
        mask_token_id=12,
        token_dropout=False,
    ),
    "modernbert": text(
        "ModernBertForMaskedLM",
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        cls_token_id=1,
        sep_token_id=2,
    ),
    "xlm": text(
        "XLMWithLMHeadModel",
        pad_index=0,
        emb_dim=8,
        n_layers=1,
        n_heads=2,
        n_words=WORDS,
    ),
    "ctrl": text(
        "CTRLLMHeadModel", n_embd=8, n_layer=1, n_head=2, dff=12, n_positions=16, options=NO_CACHE
    ),
    "openai gpt": text("OpenAIGPTLMHeadModel", n_embd=8, n_layer=1, n_head=2, n_positions=16),
    "gpt2": text("GPT2LMHeadModel", options=NO_CACHE),
    "gpt2 cache": text("GPT2LMHeadModel", options=CACHE),
    "gpt neo": text(
        "GPTNeoForCausalLM",
        num_layers=2,
        num_heads=2,
        num_hidden_layers=None,
        attention_types=[[["global", "local"], 1]],
        window_size=2,
        options=NO_CACHE,
    ),
    "gpt neox": text("GPTNeoXForCausalLM", options=NO_CACHE),
    "gptj": text(
        "GPTJForCausalLM",
        n_embd=8,
        n_layer=1,
        n_head=2,
        rotary_dim=4,
        n_positions=16,
        options=NO_CACHE,
    ),
    "codegen": text(
        "CodeGenForCausalLM",
        n_embd=16,
        hidden_size=16,
        n_layer=1,
        n_head=4,
        num_attention_heads=4,
        rotary_dim=4,
        n_positions=16,
        options=NO_CACHE,
    ),
    "gpt bigcode": text(
        "GPTBigCodeForCausalLM", n_embd=8, n_layer=1, n_head=2, n_positions=16, options=NO_CACHE
    ),
    "opt": text("OPTForCausalLM", word_embed_proj_dim=8, ffn_dim=12, options=NO_CACHE),
    "bloom": text("BloomForCausalLM", n_layer=1, n_head=2, options=NO_CACHE),
    "falcon": text("FalconForCausalLM", options=NO_CACHE),
    "falcon alibi": text("FalconForCausalLM", alibi=True, options=NO_CACHE),
    "mpt": text("MptForCausalLM", d_model=8, n_heads=2, n_layers=1, options=NO_CACHE),
    "llama": text("LlamaForCausalLM", options=NO_CACHE, num_key_value_heads=1),
    "llama cache": text("LlamaForCausalLM", options=CACHE, num_key_value_heads=1),
    "llama eager": text(
        "LlamaForCausalLM", options=NO_CACHE, num_key_value_heads=1, attention="eager"
    ),
    "mistral": text(
        "MistralForCausalLM", options=NO_CACHE, num_key_value_heads=1, sliding_window=3
    ),
    "mixtral": text(
        "MixtralForCausalLM",
        options=NO_CACHE,
        num_key_value_heads=1,
        num_local_experts=2,
        num_experts_per_tok=1,
    ),
    "gemma": text("GemmaForCausalLM", options=NO_CACHE, **ONE_KV),
    "gemma2": text("Gemma2ForCausalLM", options=NO_CACHE, num_key_value_heads=1, head_dim=4),
    "gemma3": text("Gemma3ForCausalLM", options=NO_CACHE, num_key_value_heads=1, head_dim=4),
    "qwen2": text("Qwen2ForCausalLM", options=NO_CACHE, num_key_value_heads=1),
    "qwen3": text("Qwen3ForCausalLM", options=NO_CACHE, **ONE_KV),
    "qwen2 moe": text(
        "Qwen2MoeForCausalLM",
        options=NO_CACHE,
        num_key_value_heads=1,
        num_experts=2,
        num_experts_per_tok=1,
        moe_intermediate_size=6,
        shared_expert_intermediate_size=6,
    ),
    "qwen3 next": text(
        "Qwen3NextForCausalLM",
        options=NO_CACHE,
        num_hidden_layers=2,
        layer_types=["linear_attention", "full_attention"],
        num_experts=2,
        num_experts_per_tok=1,
        moe_intermediate_size=6,
        shared_expert_intermediate_size=6,
        linear_num_value_heads=2,
        linear_num_key_heads=2,
        linear_key_head_dim=4,
        linear_value_head_dim=4,
        head_dim=4,
        num_key_value_heads=1,
    ),
    "phi": text("PhiForCausalLM", options=NO_CACHE),
    "phi3": text(
        "Phi3ForCausalLM", options=NO_CACHE, pad_token_id=0, original_max_position_embeddings=16
    ),
    "stablelm": text("StableLmForCausalLM", options=NO_CACHE, num_key_value_heads=1),
    "olmo": text("OlmoForCausalLM", options=NO_CACHE),
    "olmo2": text("Olmo2ForCausalLM", options=NO_CACHE),
    "cohere": text("CohereForCausalLM", options=NO_CACHE),
    "granite": text("GraniteForCausalLM", options=NO_CACHE),
    "nemotron": text("NemotronForCausalLM", options=NO_CACHE, head_dim=4, num_key_value_heads=2),
    "persimmon": text("PersimmonForCausalLM", options=NO_CACHE),
    "glm": text(
        "GlmForCausalLM", options=NO_CACHE, head_dim=4, num_key_value_heads=1, pad_token_id=0
    ),
    "deepseek v3": text(
        "DeepseekV3ForCausalLM",
        options=NO_CACHE,
        num_hidden_layers=2,
        first_k_dense_replace=1,
        n_routed_experts=4,
        n_group=2,
        topk_group=1,
        num_experts_per_tok=2,
        moe_intermediate_size=6,
        kv_lora_rank=4,
        q_lora_rank=4,
        qk_rope_head_dim=2,
        v_head_dim=4,
        qk_nope_head_dim=2,
    ),
    "gpt oss": text(
        "GptOssForCausalLM",
        options=NO_CACHE,
        num_key_value_heads=1,
        head_dim=4,
        num_local_experts=2,
        num_experts_per_tok=1,
        attention="eager",
    ),
    "mamba": text("MambaForCausalLM", state_size=3, time_step_rank=2, options=NO_CACHE),
    "mamba2": text(
        "Mamba2ForCausalLM",
        state_size=3,
        num_heads=4,
        head_dim=4,
        n_groups=1,
        chunk_size=4,
        options=NO_CACHE,
    ),
    "falcon mamba": text(
        "FalconMambaForCausalLM", state_size=3, time_step_rank=2, options=NO_CACHE
    ),
    "recurrent gemma": text(
        "RecurrentGemmaForCausalLM",
        num_hidden_layers=3,
        lru_width=8,
        attention_window_size=4,
        num_key_value_heads=1,
        options=NO_CACHE,
    ),
    "rwkv": text(
        "RwkvForCausalLM",
        num_hidden_layers=2,
        attention_hidden_size=8,
        options=NO_CACHE,
    ),
    "xlstm": text(
        "xLSTMForCausalLM",
        num_heads=2,
        num_blocks=1,
        embedding_dim=8,
        chunk_size=4,
        options=NO_CACHE,
    ),
    "jamba": text(
        "JambaForCausalLM",
        num_hidden_layers=2,
        attn_layer_period=2,
        attn_layer_offset=1,
        expert_layer_period=2,
        expert_layer_offset=1,
        num_experts=2,
        num_experts_per_tok=1,
        mamba_d_state=3,
        mamba_dt_rank=2,
        num_key_value_heads=1,
        use_mamba_kernels=False,
        options=NO_CACHE,
    ),
    "bamba": text(
        "BambaForCausalLM",
        num_hidden_layers=2,
        attn_layer_indices=[1],
        mamba_n_heads=4,
        mamba_d_head=4,
        mamba_d_state=3,
        mamba_n_groups=1,
        mamba_chunk_size=4,
        num_key_value_heads=1,
        options=NO_CACHE,
    ),
    "zamba2": text(
        "Zamba2ForCausalLM",
        num_hidden_layers=2,
        layers_block_type=["mamba", "hybrid"],
        hybrid_layer_ids=[1],
        n_mamba_heads=4,
        mamba_headdim=4,
        mamba_d_state=3,
        mamba_ngroups=1,
        chunk_size=4,
        num_mem_blocks=1,
        adapter_rank=2,
        num_key_value_heads=2,
        options=NO_CACHE,
    ),
    "lfm2": text(
        "Lfm2ForCausalLM",
        num_hidden_layers=2,
        layer_types=["conv", "full_attention"],
        num_key_value_heads=1,
        options=NO_CACHE,
    ),
    "t5": seq2seq(
        "T5ForConditionalGeneration", d_kv=4, d_ff=12, num_layers=1, num_heads=2, options=NO_CACHE
    ),
    "long t5": seq2seq(
        "LongT5ForConditionalGeneration",
        feed_forward_proj="gated-gelu",
        d_kv=4,
        d_ff=12,
        num_layers=1,
        num_heads=2,
        local_radius=2,
        global_block_size=2,
        encoder_attention_type="transient-global",
        options=NO_CACHE,
    ),
    "bart": seq2seq("BartForConditionalGeneration", options=NO_CACHE),
    "pegasus": seq2seq("PegasusForConditionalGeneration", options=NO_CACHE),
    "mbart": seq2seq("MBartForConditionalGeneration", options=NO_CACHE),
    "led": seq2seq("LEDForConditionalGeneration", attention_window=[4], length=8, options=NO_CACHE),
    "blenderbot": seq2seq("BlenderbotForConditionalGeneration", options=NO_CACHE),
}
