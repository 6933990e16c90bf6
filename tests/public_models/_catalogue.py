"""Sixty public models of reduced width, from configurations: nothing is downloaded."""

import importlib

import torch
from torch import nn

from tests.torchvision_that_fits import torchvision

_TEXT = {
    "vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 64, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2,
}  # fmt: skip
_KV = {**_TEXT, "num_key_value_heads": 2}
_EXPERTS = {
    **_KV, "num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2,
    "moe_intermediate_size": 32, "shared_expert_intermediate_size": 32, "decoder_sparse_step": 1,
}  # fmt: skip
_IMAGE = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
    "image_size": 32, "patch_size": 8, "num_labels": 5,
}  # fmt: skip
_GPT = {
    "vocab_size": 96, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "n_inner": 64,
    "rotary_dim": 4, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
_SEQ = {
    "vocab_size": 96, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2,
    "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2, "decoder_start_token_id": 2, "forced_eos_token_id": None,
}  # fmt: skip

# Transformers: kind of configuration → (head, its sizes).
TRANSFORMERS = {
    "gpt2": ("CausalLM", _GPT),
    "gptj": ("CausalLM", _GPT),
    "codegen": ("CausalLM", _GPT),
    "gpt_neox": ("CausalLM", _TEXT),
    "opt": ("CausalLM", {**_TEXT, "ffn_dim": 64, "word_embed_proj_dim": 32}),
    "bloom": ("CausalLM", {"vocab_size": 96, "hidden_size": 32, "n_layer": 2, "n_head": 4}),
    "llama": ("CausalLM", _KV),
    "mistral": ("CausalLM", _KV),
    "qwen2": ("CausalLM", _KV),
    "qwen3": ("CausalLM", {**_KV, "head_dim": 8}),
    "gemma": ("CausalLM", {**_KV, "head_dim": 8}),
    "gemma2": ("CausalLM", {**_KV, "head_dim": 8}),
    "phi": ("CausalLM", _KV),
    "phi3": ("CausalLM", _KV),
    "stablelm": ("CausalLM", _KV),
    "olmo2": ("CausalLM", _KV),
    "starcoder2": ("CausalLM", _KV),
    "granite": ("CausalLM", _KV),
    "cohere": ("CausalLM", _KV),
    "mixtral": ("CausalLM", _EXPERTS),
    "qwen2_moe": ("CausalLM", _EXPERTS),
    "qwen3_moe": ("CausalLM", {**_EXPERTS, "head_dim": 8}),
    "olmoe": ("CausalLM", _EXPERTS),
    "granitemoe": ("CausalLM", _EXPERTS),
    "mamba": (
        "CausalLM",
        {"vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
    ),
    "mamba2": (
        "CausalLM",
        {
            "vocab_size": 96,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "state_size": 8,
            "num_heads": 8,
            "head_dim": 8,
            "n_groups": 2,
            "chunk_size": 8,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
    ),
    "falcon_mamba": (
        "CausalLM",
        {"vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
    ),
    "bert": ("MaskedLM", _TEXT),
    "roberta": ("MaskedLM", _TEXT),
    "electra": ("MaskedLM", {**_TEXT, "embedding_size": 16}),
    "albert": ("MaskedLM", {**_TEXT, "embedding_size": 16}),
    "convbert": ("MaskedLM", {**_TEXT, "embedding_size": 32}),
    "distilbert": (
        "MaskedLM",
        {
            "vocab_size": 96,
            "dim": 32,
            "n_layers": 2,
            "n_heads": 4,
            "hidden_dim": 64,
            "max_position_embeddings": 64,
        },
    ),
    "bart": ("Seq2SeqLM", _SEQ),
    "t5": (
        "Seq2SeqLM",
        {
            "vocab_size": 96,
            "d_model": 32,
            "d_kv": 8,
            "d_ff": 64,
            "num_layers": 2,
            "num_heads": 4,
            "decoder_start_token_id": 0,
        },
    ),
    "vit": ("ImageClassification", _IMAGE),
    "dinov2": ("ImageClassification", _IMAGE),
    "segformer": (
        "SemanticSegmentation",
        {
            "depths": [1, 1, 1, 1],
            "hidden_sizes": [8, 16, 16, 32],
            "num_attention_heads": [1, 2, 2, 4],
            "decoder_hidden_size": 16,
            "num_labels": 5,
        },
    ),
    "convnext": (
        "ImageClassification",
        {"depths": [1, 1, 2, 1], "hidden_sizes": [16, 32, 32, 64], "num_labels": 5},
    ),
}
TIMM = {
    "resnet18": {}, "regnety_002": {}, "mobilenetv3_small_050": {}, "efficientnet_b0": {},
    "convnext_atto": {}, "ghostnet_050": {}, "mixer_s32_224": {"img_size": 64},
    "vit_tiny_patch16_224": {"img_size": 64, "embed_dim": 48, "depth": 2},
    "deit_tiny_patch16_224": {"img_size": 64, "embed_dim": 48, "depth": 2},
    "mobilevit_xxs": {},
}  # fmt: skip
TORCHVISION = {
    "resnet18": "classification", "mobilenet_v2": "classification",
    "shufflenet_v2_x0_5": "classification", "squeezenet1_1": "classification",
    "lraspp_mobilenet_v3_large": "segmentation", "deeplabv3_mobilenet_v3_large": "segmentation",
    "fcn_resnet50": "segmentation",
}  # fmt: skip
GRAPHS = ("GCN", "GAT", "GraphSAGE", "GIN")
NAMES = (
    *(f"hf:{n}" for n in TRANSFORMERS), *(f"timm:{n}" for n in TIMM),
    *(f"torchvision:{n}" for n in TORCHVISION), *(f"pyg:{n}" for n in GRAPHS),
)  # fmt: skip


def made(name: str) -> tuple[nn.Module, object]:
    """(model, batch), the same each time."""
    torch.manual_seed(0)
    place, _, kind = name.partition(":")
    return {"hf": _transformer, "timm": _timm, "torchvision": _vision, "pyg": _graph}[place](kind)


def _transformer(kind):
    transformers = importlib.import_module("transformers")
    head, sizes = TRANSFORMERS[kind]
    config = transformers.AutoConfig.for_model(kind, **sizes)
    if hasattr(config, "use_cache"):
        config.use_cache = False
    model = getattr(transformers, f"AutoModelFor{head}").from_config(
        config, attn_implementation=_attention(kind)
    )
    if head == "ImageClassification":
        size = getattr(config, "image_size", 32)
        return model, {
            "pixel_values": torch.randn(2, 3, size, size),
            "labels": torch.tensor([1, 3]),
        }
    if head == "SemanticSegmentation":
        return model, {
            "pixel_values": torch.randn(2, 3, 64, 64),
            "labels": torch.randint(0, 5, (2, 64, 64)),
        }
    ids = torch.randint(3, 96, (2, 16))
    return model, {"input_ids": ids, "labels": ids.clone()}


def _attention(kind):
    return (
        None
        if kind in ("mamba", "mamba2", "falcon_mamba", "convnext", "segformer", "convbert")
        else "eager"
    )


def _timm(kind):
    model = importlib.import_module("timm").create_model(kind, num_classes=5, **TIMM[kind])
    return model, torch.randn(2, 3, 64, 64)


def _vision(kind):
    torchvision()
    models = importlib.import_module("torchvision.models")
    if TORCHVISION[kind] == "segmentation":
        made = getattr(models.segmentation, kind)(
            weights=None, weights_backbone=None, num_classes=5
        )
    else:
        made = getattr(models, kind)(weights=None, num_classes=5)
    return made, torch.randn(2, 3, 64, 64)


def _graph(kind):
    models = importlib.import_module("torch_geometric.nn.models")
    model = getattr(models, kind)(12, 16, num_layers=3, out_channels=5)
    edges = torch.stack([torch.arange(20), (torch.arange(20) * 7 + 3) % 20])
    return model, (torch.randn(20, 12), edges)
