"""Chat templates that a recipe may name.

The formats are those that the models named were trained on; the templates are written for Ronghe.
"""

AUTO = "auto"

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
