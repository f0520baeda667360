"""Writes docs/methods.zh-CN.md: every method in a sentence of Chinese, from docs/methods_zh.yaml.

    make docs
    python -m docs.methods_zh_page

Formulas and parameters come from the registry, as on the English page, which has the rest.
"""

from pathlib import Path
from typing import Any

import yaml

from docs.methods_page import in_order, summary
from merge_ops.methods import METHODS, MergeMethod
from merge_ops.methods.parameters import REQUIRED

FOLDER = Path(__file__).parent
PAGE = FOLDER / "methods.zh-CN.md"
HEAD = """\
# 合并方法

[English](methods.md)

<!-- Written by `make docs` from docs/methods_zh.yaml and merge_ops/methods. -->

共 {count} 个方法，按综述 arXiv:2408.07666 分类。这里每个方法一句话，附公式与参数；英文页还有出处、允许的取值、可直接使用的配方，以及每个方法在玩具张量上的图。“需要基座”的方法对任务向量（专家 − 基座）工作，配方里要写 `base_model`。
"""
COLUMNS = "| 方法 | 做什么 | 公式（英文） | 基座 | 参数（默认值） |\n|---|---|---|---|---|"
BASE = {"required": "需要", "optional": "可选", "none": "不用"}


def table() -> dict[str, Any]:
    """Return the sentences: `families` and `methods`, by name."""
    return yaml.safe_load((FOLDER / "methods_zh.yaml").read_text(encoding="utf-8"))


def page() -> str:
    """Return the whole page."""
    words, by_family = table(), in_order(METHODS.values())
    parts = [HEAD.format(count=len(METHODS))]
    for family, members in by_family.items():
        rows = [_row(method, words["methods"][method.name]) for method in members]
        parts.append(
            "\n".join([f"## {family}\n\n{words['families'][family]}\n", COLUMNS, *rows, ""])
        )
    return "\n".join(parts)


def _row(method: MergeMethod, said: str) -> str:
    formula = " ".join(summary(method)[0].split())
    given = ", ".join(
        f"`{name}`" if each.default is REQUIRED else f"`{name}`（{_value(each.default)}）"
        for name, each in method.parameter_specs.items()
    )
    base = BASE.get(method.base, method.base)
    return f"| [{method.name}](methods.md#{method.name}) | {said} | {formula} | {base} | {given or '–'} |"


def _value(value: object) -> str:
    return str(value).lower() if isinstance(value, bool | None) else f"{value}"


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
