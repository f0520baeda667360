"""The files of a first catalog, with comments in the user's language: data, and little else."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestration.commands.starting.models_text import entry_text, scalar
from orchestration.commands.starting.new_models import NewModel

LANGUAGES = ("en", "zh")
Words = Mapping[str, str]
"""One text by language."""

MODELS: Words = {
    "en": """\
# The models that are merged, and where each comes from. `ronghe add` writes further ones below.
# source: a folder (relative to this file), hf://owner/name[@revision], modelscope://…, s3://…
#   Without a revision, what its authors publish next is an update, and is merged again.
# base: of an expert, the model that it was fine-tuned from. kind: full (default) or lora.
# store: full or packed (the exact difference from the base; left out: where it saves 20 %).
""",
    "zh": """\
# 要合并的模型，以及每个模型的来源。用 `ronghe add` 可在下面继续添加。
# source: 文件夹（相对于本文件）、hf://机构/名称[@版本]、modelscope://…、s3://…、file://…
#   不写版本时，作者发布的新版本就是更新，会重新合并。
# base: 专家模型由哪个基座微调而来。kind: full（默认）或 lora。
# store: full 或 packed（与基座的精确差；不写则在能省 20 % 时使用）。
""",
}

SCORED: Words = {
    "en": "# Coefficients are chosen on validation items of this suite, reported on test items.\n",
    "zh": "# 系数在该评测集的验证题上选出，在测试题上报告。\n",
}
SHARE: Words = {
    "en": "    # The file says no splits: this share chooses coefficients, the rest is reported.\n",
    "zh": "    # 文件里没有 split：这么大的一部分用来选系数，其余用来报告。\n",
}
UNSCORED: Words = {
    "en": "# Nothing is scored without a suite. Shipped: {shipped}. See docs/evaluation.md.\n"
    "# suite: {example}\n",
    "zh": "# 没有评测集就不打分。内置：{shipped}。见 docs/evaluation.md。\n# suite: {example}\n",
}
GATE: Words = {
    "en": "# A champion may lose so much on any benchmark against the best single expert there.\n",
    "zh": "# 冠军在任一基准上相对最佳单个专家最多可以损失这么多。\n",
}
EXPERTS: Words = {
    "en": "# Which experts are merged: all-pairs, all, or sets by name, such as [{names}].\n",
    "zh": "# 合并哪些专家：all-pairs（所有两两组合）、all（全部），或按名字列出，如 [{names}]。\n",
}
ONE_EXPERT: Words = {
    "en": "# With one expert, lambda goes from the base model (0) to the expert (1) and beyond.\n",
    "zh": "# 只有一个专家时，lambda 从基座（0）走到专家（1），也可以更大。\n",
}
SWEPT: Words = {
    "en": "# Every value is a candidate; all come from one read of the models. Only the champion\n"
    "# is written.\n",
    "zh": "# 每个值是一个候选；模型只读一遍。只有冠军会写盘。\n",
}
ONE_POINT: Words = {
    "en": "# Without scores one value is enough: each checkpoint of it is written.\n",
    "zh": "# 没有分数时一个值就够了：它的每个检查点都会写盘。\n",
}


@dataclass(frozen=True)
class _Sketch:
    """A first recipe: its method, what it says of itself, and its coefficients."""

    name: str
    said: Words
    method: str
    parameters: str
    sweep: Mapping[str, Sequence[float]]
    one: Mapping[str, Sequence[float]]
    with_base: bool = True
    pairs_only: bool = False


AVERAGE = _Sketch(
    "average",
    {
        "en": "# The plain average of the experts: what every other recipe has to beat.\n",
        "zh": "# 专家的简单平均：其他配方都要超过它。\n",
    },
    "linear",
    "{weight: 1.0}",
    {},
    {},
    with_base=False,
)
TASK_ARITHMETIC = _Sketch(
    "task_arithmetic",
    {
        "en": "# base + lambda · Σ (expert − base): hard to beat on real models.\n",
        "zh": "# 基座 + lambda · Σ（专家 − 基座）：在真实模型上很难被超过。\n",
    },
    "task_arithmetic",
    "{weight: 1.0}",
    {"lambda": (0.3, 0.5, 0.8, 1.0)},
    {"lambda": (0.5,)},
)
TIES = _Sketch(
    "ties",
    {
        "en": "# Keep the largest entries of each expert's change, agree on a sign, average.\n",
        "zh": "# 保留每个专家改动中最大的部分，统一符号，再取平均。\n",
    },
    "ties",
    "{weight: 1.0}",
    {"density": (0.2, 0.5), "lambda": (1.0,)},
    {"density": (0.5,), "lambda": (1.0,)},
)
SLERP = _Sketch(
    "slerp",
    {
        "en": "# From one expert to the other along the sphere; pairs only.\n",
        "zh": "# 沿球面从一个专家走到另一个；只用于两个专家。\n",
    },
    "slerp",
    "",
    {"t": (0.3, 0.5, 0.7)},
    {"t": (0.5,)},
    pairs_only=True,
)

NEXT: Words = {
    "en": """\
Next:
  cd {folder}
  ronghe check               everything that is wrong, before any work
  ronghe refresh --dry-run   what would be made, how large, how long
  ronghe refresh             pull, merge{scored}
  {last}
""",
    "zh": """\
接下来：
  cd {folder}
  ronghe check               在开工之前列出所有错误
  ronghe refresh --dry-run   将会做什么、多大、多久
  ronghe refresh             拉取、合并{scored}
  {last}
""",
}
SCORE_TOO: Words = {"en": ", score, rank", "zh": "、评测、排名"}
SEE_BOARD: Words = {
    "en": "ronghe leaderboard         the result; `ronghe ui` shows the lineage",
    "zh": "ronghe leaderboard         结果；`ronghe ui` 显示血缘",
}
SEE_UI: Words = {
    "en": "ronghe ui                  the lineage and every checkpoint",
    "zh": "ronghe ui                  血缘与每个检查点",
}
IGNORED = "/.ronghe/\n"
"""Of the project's folder for git: the store and Dagster's files are no source."""


def models_yaml(name: str, models: Sequence[NewModel], language: str) -> str:
    """Return the text of models.yaml."""
    entries = "".join(map(entry_text, models))
    return f"{MODELS[language]}name: {scalar(name)}\nmodels:\n{entries}"


def suite_yaml(name: str, items: str, has_splits: bool, language: str) -> str:
    """Return the text of a suite of one benchmark, whose items are a file of the user's."""
    benchmark = f"  - name: {scalar(name)}\n    items: {scalar(items)}\n"
    if not has_splits:
        benchmark += f"{SHARE[language]}    validation_share: 0.5\n"
    return f"name: {scalar(name)}\nbenchmarks:\n{benchmark}"


def recipes(
    base: str, experts: Sequence[str], suite: str | None, language: str, shipped: Sequence[str]
) -> dict[str, str]:
    """Return the texts of the first recipes by name, for experts of one base model."""
    sketches = [TASK_ARITHMETIC]
    if len(experts) > 1:
        sketches = [AVERAGE, TASK_ARITHMETIC, TIES]
    if len(experts) == 2:
        sketches.append(SLERP)
    return {
        sketch.name: _recipe(sketch, base, experts, suite, language, shipped) for sketch in sketches
    }


def _recipe(
    sketch: _Sketch,
    base: str,
    experts: Sequence[str],
    suite: str | None,
    language: str,
    shipped: Sequence[str],
) -> str:
    lines = [sketch.said[language], f"merge_method: {sketch.method}\n"]
    lines += [f"base_model: {scalar(base)}\n"] if sketch.with_base else []
    if len(experts) == 1:
        lines += [ONE_EXPERT[language], "experts: all\n"]
    else:
        named = ", ".join(map(scalar, experts[:2]))
        lines.append(EXPERTS[language].format(names=f"[{named}]"))
        several = "[all-pairs, all]" if len(experts) > 2 else "all"
        lines.append(f"experts: {'all-pairs' if sketch.pairs_only else several}\n")
    lines += [f"parameters: {sketch.parameters}\n"] if sketch.parameters else []
    if points := sketch.sweep if suite else sketch.one:
        lines.append((SWEPT if suite else ONE_POINT)[language])
        lines.append("sweep:\n")
        lines += [f"  {name}: [{', '.join(map(str, at))}]\n" for name, at in points.items()]
    if suite is None:
        told = UNSCORED[language].format(shipped=", ".join(shipped), example=shipped[0])
        return "".join([*lines, told])
    lines += [SCORED[language], f"suite: {scalar(suite)}\n"]
    return "".join([*lines, GATE[language], "gate: {allowed_loss: 0.05}\n"])


def next_steps(folder: str, suite: str | None, language: str) -> str:
    """Say how to go on after `ronghe init`."""
    scored = SCORE_TOO[language] if suite else ""
    last = (SEE_BOARD if suite else SEE_UI)[language]
    return NEXT[language].format(folder=folder, scored=scored, last=last)
