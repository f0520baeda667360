"""Adapters that are averaged, and the dense models that they and their average stand for."""

import json
import math
from dataclasses import replace

import torch

from merge_ops.checkpoints.checkpoint import source_of
from merge_ops.checkpoints.files.byte_sources import FolderSink, FolderSource
from merge_ops.checkpoints.opening import open_checkpoint
from merge_ops.jobs.adapter_average import BLOCK, plan_average, write_average
from merge_ops.recipes.reading import parse_recipe
from merge_ops.sources.lora.adapters import open_adapter, read_adapter
from merge_ops.stream.block_reader import fetch_stored
from tests.models import checkpoint_factory as factory

QUERY, KEY = (f"model.layers.0.self_attn.{each}_proj" for each in "qk")
SHAPE = replace(factory.QWEN2, tied=False)
BASE = factory.base_tensors(SHAPE)


def text(weights, **more):
    models = [{"model": f"a{n}", "parameters": {"weight": w}} for n, w in enumerate(weights)]
    return json.dumps({"merge_method": "linear", "models": models, **more})


def average(folders, out, weights, factor_wise=False, block=BLOCK, **more):
    """The averaged folder's tensors and config."""
    recipe = parse_recipe(text(weights, **more), "average", "average.yaml")
    adapters = [read_adapter(str(each), FolderSource(each)) for each in folders]
    write_average(plan_average(recipe, adapters, factor_wise), FolderSink(out), block=block)
    config = json.loads((out / "adapter_config.json").read_text())
    return factory.read_tensors(out), config


def dense(base, adapter):
    """Every tensor of the base with an adapter on it, in float64 where there is a change."""
    below = open_checkpoint("base", FolderSource(base))
    opened = open_adapter("x", below, FolderSource(adapter))
    found = {}
    for name in opened.tensors:
        source = source_of(opened, name)
        out = torch.empty(math.prod(source.shape))
        source.fill(fetch_stored, 0, out)
        found[name] = out.view(source.shape).double()
    return found
