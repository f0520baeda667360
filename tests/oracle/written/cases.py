"""The merges that are compared with mergekit, as mergekit files.

`$base`, `$one`, `$two` and `$three` stand for the folders of a base model and three experts. Each
case runs on a family of four layers of Qwen2 type, and some on one of Llama type too.
"""

from tests.oracle.written.cases_directions import BY_INNER_PRODUCTS, OF_ONE, OVERLAP, SLERP, SPHERES
from tests.oracle.written.cases_trimmed import TRIMMED

LINEAR = {
    "linear-base-first": """
        merge_method: linear
        models:
          - {model: $base, parameters: {weight: 0.5}}
          - {model: $one, parameters: {weight: 0.3}}
          - {model: $two, parameters: {weight: 0.9}}
        base_model: $base
        dtype: float32
        """,
    "linear-no-base-model": """
        merge_method: linear
        models:
          - {model: $two, parameters: {weight: 1}}
          - {model: $one, parameters: {weight: 2}}
        dtype: float32
        """,
    "linear-not-normalized": """
        merge_method: linear
        models:
          - {model: $one, parameters: {weight: 0.7}}
          - {model: $two, parameters: {weight: 0.8}}
          - {model: $base, parameters: {weight: -0.4}}
        base_model: $base
        parameters: {normalize: false}
        dtype: float32
        """,
    "linear-unlisted-base-takes-the-global-weight": """
        merge_method: linear
        models:
          - {model: $one, parameters: {weight: 0.7}}
          - {model: $two}
        base_model: $base
        parameters: {weight: 0.45}
        dtype: float32
        """,
    "linear-gradients-and-filters": """
        merge_method: linear
        models:
          - model: $one
            parameters:
              weight:
                - {filter: self_attn, value: [0, 0.5, 1]}
                - {filter: mlp, value: [1, 0.2]}
                - {value: 0.3}
          - model: $two
            parameters:
              weight: [0.1, 0.9, 0.4, 0.6, 0.2]
        dtype: float32
        """,
    "linear-filter-falls-through-to-the-global-weight": """
        merge_method: linear
        models:
          - {model: $one, parameters: {weight: [{filter: self_attn, value: 0.9}]}}
          - {model: $two, parameters: {weight: {filter: mlp.down_proj, value: [0.2, 0.6]}}}
        parameters:
          weight:
            - {filter: embed_tokens, value: 0.25}
            - {filter: "*", value: 0.75}
        dtype: float32
        """,
    "linear-first-filter-wins": """
        merge_method: linear
        models:
          - model: $one
            parameters:
              weight:
                - {filter: layers.1, value: 0.2}
                - {filter: self_attn, value: 0.4}
                - {filter: layers.1.mlp, value: 9}
                - {filter: null, value: 0.6}
                - {value: 9}
          - {model: $two, parameters: {weight: 1.0}}
        dtype: float32
        """,
    "linear-normalize-by-layer": """
        merge_method: linear
        models:
          - {model: $one, parameters: {weight: 0.7}}
          - {model: $two, parameters: {weight: 0.8}}
        parameters: {normalize: [true, false, true]}
        dtype: float32
        """,
    "linear-one-model": """
        merge_method: linear
        models:
          - {model: $one, parameters: {weight: 0.7}}
        dtype: float32
        """,
}

TASK_ARITHMETIC = {
    "task_arithmetic-base-unlisted": """
        merge_method: task_arithmetic
        models:
          - {model: $one, parameters: {weight: 0.3}}
          - {model: $two, parameters: {weight: 0.9}}
        base_model: $base
        dtype: float32
        """,
    "task_arithmetic-base-first": """
        merge_method: task_arithmetic
        models:
          - {model: $base, parameters: {weight: 7}}
          - {model: $one, parameters: {weight: 0.3}}
          - {model: $two, parameters: {weight: 0.9}}
        base_model: $base
        parameters: {lambda: 0.7}
        dtype: float32
        """,
    "task_arithmetic-base-last": """
        merge_method: task_arithmetic
        models:
          - {model: $three, parameters: {weight: 0.1}}
          - {model: $one, parameters: {weight: -0.6}}
          - {model: $two, parameters: {weight: 0.9}}
          - {model: $base}
        base_model: $base
        parameters: {normalize: true}
        dtype: float32
        """,
    "task_arithmetic-normalize-negative-sum": """
        merge_method: task_arithmetic
        models:
          - {model: $one, parameters: {weight: -0.6}}
          - {model: $two, parameters: {weight: 0.1}}
        base_model: $base
        parameters: {normalize: true, lambda: 1.4}
        dtype: float32
        """,
    "task_arithmetic-normalize-zero-sum": """
        merge_method: task_arithmetic
        models:
          - {model: $one, parameters: {weight: -0.5}}
          - {model: $two, parameters: {weight: 0.5}}
        base_model: $base
        parameters: {normalize: true}
        dtype: float32
        """,
    "task_arithmetic-gradients-and-filters": """
        merge_method: task_arithmetic
        models:
          - model: $one
            parameters:
              weight:
                - {filter: q_proj, value: [1, 0]}
                - {filter: mlp, value: 0.4}
                - {value: 0.2}
          - {model: $two}
        base_model: $base
        parameters:
          weight: [0.9, 0.3, 0.5]
          lambda:
            - {filter: layernorm, value: 0}
            - {value: [0.5, 1.5]}
        dtype: float32
        """,
    "task_arithmetic-int8-mask": """
        merge_method: task_arithmetic
        models:
          - {model: $one, parameters: {weight: 0.3}}
          - {model: $two, parameters: {weight: 0.9}}
        base_model: $base
        parameters: {int8_mask: true}
        dtype: float32
        """,
}

# With density 1 nothing is dropped, so these two have no chance in them.
DARE_WITHOUT_CHANCE = {
    "dare_linear-density-one": """
        merge_method: dare_linear
        models:
          - {model: $one, parameters: {weight: 0.3, density: 1.0}}
          - {model: $two, parameters: {weight: [0.9, 0.1]}}
        base_model: $base
        parameters: {normalize: true, lambda: 1.2}
        dtype: float32
        """,
    "dare_ties-density-one": """
        merge_method: dare_ties
        models:
          - {model: $one, parameters: {weight: 0.3}}
          - {model: $two, parameters: {weight: 0.9}}
          - {model: $three, parameters: {weight: [{filter: mlp, value: -0.5}, {value: 0.5}]}}
        base_model: $base
        dtype: float32
        """,
}

# One expert, weight 1, not normalized: the output minus the base is the masked, rescaled task
# vector, so its support and its factor can be read off.
DARE = {
    f"{method}-{label}": f"""
        merge_method: {method}
        models:
          - {{model: $one, parameters: {{weight: 1, density: {density}}}}}
        base_model: $base
        parameters: {{normalize: false, rescale: {rescale}}}
        dtype: float32
        """
    for method in ("dare_linear", "dare_ties")
    for label, density, rescale in (
        ("rescaled", "0.3", "true"),
        ("not-rescaled", "0.6", "false"),
        ("by-layer", "[0.2, 0.8]", "true"),
    )
}

DTYPES = {
    "dtypes-out-bfloat16": """
        merge_method: task_arithmetic
        models:
          - {model: $one, parameters: {weight: 0.3}}
          - {model: $two, parameters: {weight: 0.9}}
        base_model: $base
        dtype: float32
        out_dtype: bfloat16
        """,
    "dtypes-bfloat16": """
        merge_method: linear
        models:
          - {model: $one, parameters: {weight: 0.3}}
          - {model: $two, parameters: {weight: 0.9}}
        dtype: bfloat16
        """,
    "dtypes-none": """
        merge_method: linear
        models:
          - {model: $one, parameters: {weight: 0.3}}
          - {model: $two, parameters: {weight: 0.9}}
        """,
}

EXACT = (
    LINEAR
    | SLERP
    | TASK_ARITHMETIC
    | TRIMMED
    | DARE_WITHOUT_CHANCE
    | BY_INNER_PRODUCTS
    | SPHERES
    | OVERLAP
    | OF_ONE
)
