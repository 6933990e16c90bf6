"""Public sets of measured steps, each in its own form, as Steps."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from analysis.steps.record import Step

Row = dict[str, Any]
_FAMILIES = (
    "vit", "deit", "beit", "eva", "swin", "cait", "tnt", "twins", "hiera", "coatnet", "levit",
    "efficientformer", "mobilevit", "davit", "focalnet", "mixer", "gmixer", "gmlp", "resmlp",
    "convnext", "convmixer", "resnext", "resnetv2", "resnet", "vgg", "repvgg", "regnet",
    "cspresnet", "vovnet", "selecsls", "dpn", "efficientnet", "mobilenet", "mnasnet", "ghostnet",
    "lcnet", "fbnet",
)  # fmt: skip
# What is built alike is one family.
_ALIKE = {
    "deit": "vit", "beit": "vit", "eva": "vit", "cait": "vit", "gmixer": "mlp", "mixer": "mlp",
    "gmlp": "mlp", "resmlp": "mlp", "resnext": "resnet", "resnetv2": "resnet",
    "cspresnet": "resnet", "mnasnet": "mobilenet", "fbnet": "mobilenet", "lcnet": "mobilenet",
    "repvgg": "vgg", "opt": "gpt", "gpt2": "gpt", "gpt3": "gpt",
}  # fmt: skip


def known_form(name: str, content: Row) -> list[Step] | None:
    """The steps of a public set that is recognised by its keys; None if it is not one.

    Rows whose model cannot be built here are left out.
    """
    rows = content["rows"]
    first = rows[0] if rows else {}
    if "samples_per_s" in first:
        return [_timm(content, row) for row in rows]
    if "backward_and_update_ms" in first:
        return [s for row in rows if (s := _model(row)) is not None]
    if "tokens_per_s_per_gpu" in first and "micro_batch" in first and "d_model" in first:
        return [s for row in rows if (s := _decoder(row)) is not None]
    if "tflops" in first and "layer" in first:
        return [s for row in rows if (s := _layer(row)) is not None]
    if "framework" in first and "value" in first:
        return [s for row in rows if (s := _example(row)) is not None]
    return None


def family_of(model: str) -> str:
    """Models that are built alike share one."""
    found = next((f for f in _FAMILIES if f in model), re.split(r"[_\d]", model)[0])
    return _ALIKE.get(found, found)


def _timm(content: Row, row: Row) -> Step:
    old = str(content["torch"]) < "200"
    return Step(
        f"timm:{row['model']}", content["device"],
        "forward" if content["mode"] == "inference" else "training",
        row["batch"], row["step_ms"] * 1e-3, image=row["image"],
        precision="amp-fp16" if "amp" in content["precision"] else "float32",
        layout=content["layout"], compiled=content["compiled"],
        # Before torch 2.0 there was no fused attention, and updates went parameter by parameter.
        attention="plain" if old else "fused",
        optimizer="sgd_momentum-unfused" if old else "sgd_momentum-foreach",
        family=family_of(row["model"]), source=f"timm, torch {content['torch']}",
    )  # fmt: skip


def _model(row: Row) -> Step | None:
    kinds = {"BertLMHeadModel": "bert", "GPT2LMHeadModel": "gpt2", "OPTForCausalLM": "opt"}
    if row["family"] not in kinds or row["option"] not in ("", "fusion"):
        return None
    sizes = {k: row[k] for k in ("hidden", "layers", "heads", "ffn", "vocab")}
    return Step(
        kinds[row["family"]], _card(row["device"]),
        "forward" if row["mode"] == "forward" else "training", row["batch"],
        row["total_ms"] * 1e-3, sizes, row["seq"], attention="plain", optimizer="sgd-foreach",
        compiled=row["option"] == "fusion", family=_ALIKE.get(kinds[row["family"]], "bert"),
        source="NeuSight's artifact",
    )  # fmt: skip


def _decoder(row: Row) -> Step | None:
    """Of one node, without recomputation: forward and backward of one micro-batch."""
    if row["gpus"] != 8 or row["activation_checkpointing"]:
        return None
    sizes = {"hidden": row["d_model"], "layers": row["n_layers"], "heads": row["n_heads"],
             "vocab": row["vocab"]}  # fmt: skip
    tokens = row["micro_batch"] * row["seq"]
    return Step(
        "decoder", _card(row["gpu"]), "forward+backward", row["micro_batch"],
        tokens / row["tokens_per_s_per_gpu"], sizes, row["seq"], precision="bfloat16",
        family=f"decoder {row['model']}", source="llm-foundry",
    )  # fmt: skip


def _layer(row: Row) -> Step | None:
    if row["model"] not in ("bert_large", "gpt2_medium"):
        return None
    batch, length = row["batch"], row["sequence"]
    flops = 24 * batch * length * 1024**2 + 4 * batch * 1024 * length**2
    flops *= 3 if row["mode"] != "forward" else 1
    return Step(
        f"layer:{row['model']}", row["device"], row["mode"], batch,
        flops / (row["tflops"] * 1e12), sequence=length, precision="float16", attention="plain",
        family=row["model"], source="mli/transformers-benchmarks",
    )  # fmt: skip


_EXAMPLES = {
    "resnet50v1.5": "resnet50", "RN50v1.5": "resnet50", "resnext101-32x4d": "resnext101_32x4d",
    "se-resnext101-32x4d": "seresnext101_32x4d", "efficientnet-b0": "efficientnet_b0",
    "efficientnet-b4": "efficientnet_b4",
}  # fmt: skip
_BATCH_OF = {"fp32": "float32", "tf32": "tfloat32", "amp": "amp-fp16", "fp16": "float16"}


def _example(row: Row) -> Step | None:
    """Image classifiers in PyTorch, one GPU: images a second."""
    name = _EXAMPLES.get(row["model"])
    if name is None or row["framework"] != "PyTorch" or not row["value"]:
        return None
    # Where the table does not say: the images a second of large batches hardly depend on it.
    batch = int(row["batch"] or 128)
    if row["precision"] not in _BATCH_OF:
        return None
    image = 380 if name == "efficientnet_b4" else 224
    return Step(
        f"timm:{name}", row["device"], "training", batch, batch / row["value"],
        image=image, precision=_BATCH_OF[row["precision"]], layout="channels_last",
        optimizer="sgd_momentum", attention="plain", family=family_of(name),
        source="DeepLearningExamples",
    )  # fmt: skip


def _card(name: str) -> str:
    """The measurer's name of a card as the other sets write it."""
    known: dict[str, str] = {
        "NVIDIA_A100-PCIE-40GB": "a100_40gb_pcie", "NVIDIA_A100_80GB_PCIe": "a100_80gb_pcie",
        "NVIDIA_A100-SXM4-40GB": "a100_40gb_sxm", "NVIDIA_H100_80GB_HBM3": "h100_sxm",
        "Tesla_T4": "t4", "Tesla_V100-PCIE-32GB": "v100_pcie",
        "H100-SXM5-80GB": "h100_sxm", "A100-SXM4-80GB": "a100_80gb_sxm",
        "A100-SXM4-40GB": "a100_40gb_sxm",
    }  # fmt: skip
    return known.get(name, name)


Reader = Callable[[Row], Step | None]
