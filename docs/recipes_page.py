"""Writes docs/recipes.md and docs/recipes.zh-CN.md: the keys of a recipe, from recipe_keys.yaml.

    make docs
    python -m docs.recipes_page

tests/docs compares the keys with those that the code knows, and plans the examples.
"""

import re
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent
LANGUAGES = {"en": "recipes.md", "zh": "recipes.zh-CN.md"}
SWITCH = {"en": "[中文](recipes.zh-CN.md)", "zh": "[English](recipes.md)"}
COLUMNS = {"en": ("key", "allowed", "what it does"), "zh": ("键", "允许的值", "作用")}
TABLES = {
    "mergekit": {"en": "Keys of mergekit", "zh": "mergekit 的键"},
    "ronghe": {"en": "Keys of Ronghe", "zh": "Ronghe 的键"},
}
_BROKEN = re.compile(
    r"(?<=[\u3000-\u9fff\uff00-\uffef])\n *(?=[\u3000-\u9fff\uff00-\uffef`])(?!```)"
)
NOTE = "<!-- Written by `make docs` from docs/recipe_keys.yaml and docs/recipes_page.py. -->"

EXAMPLES = {
    "file": """\
merge_method: ties
base_model: models/base
models:
  - {model: models/math, parameters: {weight: 0.6}}
  - {model: models/code, parameters: {weight: 0.4}}
parameters: {density: 0.3}
dtype: bfloat16
""",
    "gradient": """\
merge_method: task_arithmetic
base_model: models/base
models: [{model: models/math}, {model: models/code}]
parameters:
  weight:
    - {filter: self_attn, value: [0.2, 0.8]}
    - {value: 0.5}
""",
    "catalog": """\
title: TIES, two densities
merge_method: ties
base_model: base
experts: [all-pairs, all]
parameters: {weight: 1.0}
sweep: {density: [0.2, 0.5], lambda: [1.0, 1.5]}
suite: zh
gate: {allowed_loss: 0.05}
""",
    "steps": """\
name: consensus
merge_method: ties
base_model: base
experts: all
parameters: {weight: 1.0, density: 0.3}
---
merge_method: linear
models: [{model: consensus, parameters: {weight: 0.8}}, {model: base, parameters: {weight: 0.2}}]
parameters: {weight: 1.0}
""",
}

TEXTS: dict[str, dict[str, str]] = {
    "en": {
        "head": """\
# Recipes

A recipe says what is merged with what, and how. It is one YAML file. A file of mergekit is a recipe
as it is; [coming-from-mergekit.md](coming-from-mergekit.md) has every difference. All faults of a
file are told at once, each with its place, before a weight is read.

There are two ways to use one. `ronghe merge FILE OUT` takes a file that lists its models. In a
catalog, `recipes/NAME.yaml` also says which sets of experts are merged, at which coefficients, and
how the results are judged.
""",
        "file": "A file for `ronghe merge`:",
        "catalog": "A file of a catalog, `recipes/ties.yaml`:",
        "values": """\
## Values

A parameter is a number, a word or true and false, as its method says ([methods.md](methods.md)). Two
more forms are taken wherever numbers are:

- **A gradient**, `[0.2, 0.8]`: anchors that are spread over the layers, with straight lines between
  them. Tensors outside the layers take the first one.
- **Filters**, `[{filter: self_attn, value: 0.8}, {value: 0.4}]`: the first entry whose word is part
  of the tensor's name, and the one without a word for the rest.
""",
        "steps": """\
## Several steps in one file

Documents are divided by `---`. A document uses the results of others by their names; the last one is
what the file is for. In a catalog each step is an asset, and its checkpoint is made once.
""",
        "names": """\
## Names

A recipe's file names it and its assets. Letters and digits of any script and `_` will do:
`recipes/中药合并.yaml`. Names of models may have `-`, `.` and `/` too. Two names that only case or
Unicode's way of writing tells apart are refused.
""",
    },
    "zh": {
        "head": """\
# 配方

配方说明把什么和什么合并、怎样合并。它是一个 YAML 文件。mergekit 的文件本身就是配方；
[coming-from-mergekit.md](coming-from-mergekit.md)（英文）列出每一处差别。一个文件的所有错误在读取任何
权重之前一次报全，每个都指明位置。

有两种用法。`ronghe merge FILE OUT` 接受列出模型的文件。在目录册里，`recipes/名字.yaml` 还说明合并哪些
专家集、用哪些系数、怎样评判结果。
""",
        "file": "用于 `ronghe merge` 的文件：",
        "catalog": "目录册里的文件 `recipes/ties.yaml`：",
        "values": """\
## 取值

参数是数字、词或 true/false，由方法决定（[methods.md](methods.zh-CN.md)）。凡是写数字的地方，还可以写：

- **梯度** `[0.2, 0.8]`：锚点均匀分布在各层上，之间用直线连接。层之外的张量取第一个值。
- **过滤器** `[{filter: self_attn, value: 0.8}, {value: 0.4}]`：取第一个其词出现在张量名字里的条目；
  没有词的条目用于其余。
""",
        "steps": """\
## 一个文件里的多个步骤

文档用 `---` 分开。一个文档按名字使用其他文档的结果；最后一个是这个文件的目的。在目录册里，每个步骤是
一个资产，其检查点只做一次。
""",
        "names": """\
## 名字

配方的文件名就是它的名字，也是其资产的名字。任何文字的字母、数字和 `_` 都可以：
`recipes/中药合并.yaml`。模型的名字还可以有 `-`、`.` 和 `/`。只有大小写或 Unicode 写法不同的两个名字会被
拒绝。
""",
    },
}


def described_keys() -> list[dict[str, Any]]:
    """Return the described keys, in the page's order."""
    return yaml.safe_load((FOLDER / "recipe_keys.yaml").read_text(encoding="utf-8"))


def page(language: str) -> str:
    """Return the whole page in a language."""
    text = TEXTS[language]
    head, _, rest = text["head"].partition("\n")
    parts = [f"{head}\n\n{SWITCH[language]}\n\n{NOTE}{rest and chr(10) + rest}"]
    parts += [text["file"], block("file"), text["catalog"], block("catalog")]
    for origin, title in TABLES.items():
        parts += [f"## {title[language]}\n", table(origin, language)]
    parts += [text["values"], block("gradient"), text["steps"], block("steps"), text["names"]]
    whole = "\n\n".join(part.strip("\n") for part in parts) + "\n"
    return _BROKEN.sub("", whole)  # in Chinese a broken line would be a blank


def block(name: str) -> str:
    """Return an example as a block of YAML."""
    return f"```yaml\n{EXAMPLES[name]}```"


def table(origin: str, language: str) -> str:
    """Return the keys of one origin as a table; a key of both stands in the first."""
    lines = [f"| {' | '.join(COLUMNS[language])} |", "|---|---|---|"]
    for each in described_keys():
        if each["from"] == origin or (each["from"] == "both" and origin == "mergekit"):
            lines.append(f"| `{each['key']}` | {each['allowed'][language]} | {each[language]} |")
    return "\n".join(lines)


def main() -> None:
    """Write both pages."""
    for language, name in LANGUAGES.items():
        (FOLDER / name).write_text(page(language), encoding="utf-8")


if __name__ == "__main__":
    main()
