"""Chat templates that a recipe may name, and the one that most of its models have.

The formats are those that the models named were trained on; the templates are written for Ronghe.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, cast

from merge_ops.checkpoints.checkpoint import Checkpoint, read_file, read_json

AUTO = "auto"
TEMPLATE_FILE = "chat_template.jinja"
CONFIG_FILE = "tokenizer_config.json"

# ruff: noqa: E501
ALPACA = """\
{%- for message in messages -%}
{%- set text = message.content | trim -%}
{%- if message.role == 'system' -%}{{ text }}
{%- elif message.role == 'user' -%}{{ '### Instruction:\\n' + text }}
{%- elif message.role == 'user_context' -%}{{ '### Input:\\n' + text }}
{%- elif message.role == 'assistant' -%}{{ '### Response:\\n' + text }}
{%- endif -%}
{%- if not loop.last or (add_generation_prompt and message.role != 'assistant') -%}{{ '\\n\\n' }}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt and messages[-1].role != 'assistant' -%}{{ '### Response:\\n' }}{%- endif -%}
"""
CHATML = """\
{%- for message in messages -%}
{{ '<|im_start|>' ~ message.role ~ '\\n' ~ message.content ~ '<|im_end|>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}
"""
EXAONE = """\
{%- if messages[0].role != 'system' -%}{{ '[|system|][|endofturn|]\\n' }}{%- endif -%}
{%- for message in messages -%}
{{ '[|' ~ message.role ~ '|]' ~ message.content ~ ('\\n' if message.role == 'user' else '[|endofturn|]\\n') }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '[|assistant|]' }}{%- endif -%}
"""
LLAMA3 = """\
{{- bos_token -}}
{%- for message in messages -%}
{{ '<|start_header_id|>' ~ message.role ~ '<|end_header_id|>\\n\\n' ~ (message.content | trim) ~ '<|eot_id|>' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif -%}
"""
MISTRAL = """\
{{- bos_token -}}
{%- set turns = messages | rejectattr('role', 'equalto', 'system') | list -%}
{%- if turns | length + (1 if messages[0].role == 'system' else 0) != messages | length -%}
{{ raise_exception('mistral: at most one system message, at the start') }}
{%- endif -%}
{%- for message in turns -%}
{%- if message.role != ('user' if loop.index0 is even else 'assistant') -%}
{{ raise_exception('mistral: after the system message, user and assistant take turns') }}
{%- endif -%}
{%- if message.role == 'assistant' -%}{{ ' ' ~ message.content ~ eos_token }}
{%- else -%}
{%- set preface = messages[0].content ~ '\\n\\n' if loop.first and messages[0].role == 'system' else '' -%}
{{ ' [INST] ' ~ preface ~ message.content ~ ' [/INST]' }}
{%- endif -%}
{%- endfor -%}
"""
BUILT_IN = {
    "alpaca": ALPACA,
    "chatml": CHATML,
    "exaone": EXAONE,
    "llama3": LLAMA3,
    "mistral": MISTRAL,
}


def resolve_template(asked: str, models: Sequence[Checkpoint]) -> str | None:
    """The Jinja text that `chat_template` asks for.

    `auto` is what most of the models have; of equally frequent ones the first in the recipe's
    order (mergekit's order varies from run to run). None: no model has any.
    """
    if asked != AUTO:
        return BUILT_IN.get(asked, asked)
    found = [template for model in models if (template := template_of(model))]
    return Counter(found).most_common(1)[0][0] if found else None


def template_of(checkpoint: Checkpoint) -> str | None:
    """A model's chat template (the one called `default` of several), without outer blanks."""
    source, files = checkpoint.source, checkpoint.files
    if TEMPLATE_FILE in files:
        text = read_file(source, TEMPLATE_FILE, 0, files[TEMPLATE_FILE])
        return text.decode("utf-8", errors="replace").strip() or None
    for file in (CONFIG_FILE, "chat_template.json"):
        value = read_json(source, file, files[file]).get("chat_template") if file in files else None
        if isinstance(value, list):
            value = _default_of(cast(list[Any], value))
        if isinstance(value, str) and value.strip():
            return value.strip()
    return None


def _default_of(templates: Sequence[Any]) -> Any:
    """The last one called `default` of a list of {name, template}; None where there is none."""
    tables = [cast(dict[str, Any], each) for each in templates if isinstance(each, dict)]
    found = [each.get("template") for each in tables if each.get("name") == "default"]
    return found[-1] if found else None
