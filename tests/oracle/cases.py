"""The merges that are compared with mergekit, as mergekit files.

`$base`, `$one`, `$two` and `$three` stand for the folders of a base model and three experts. Each
case runs on a Llama-type and on a Qwen2-type family of four layers.
"""

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

SLERP = {
    "slerp-base-first": """
        merge_method: slerp
        models:
          - {model: $base}
          - {model: $one}
        base_model: $base
        parameters: {t: 0.35}
        dtype: float32
        """,
    "slerp-base-last": """
        merge_method: slerp
        models:
          - {model: $one}
          - {model: $two}
        base_model: $two
        parameters: {t: 0.35}
        dtype: float32
        """,
    "slerp-base-unlisted": """
        merge_method: slerp
        models:
          - {model: $one}
        base_model: $base
        parameters: {t: 0.8}
        dtype: float32
        """,
    "slerp-gradient": """
        merge_method: slerp
        models:
          - {model: $one}
          - {model: $far}
        base_model: $one
        parameters: {t: [0, 0.5, 1]}
        dtype: float32
        """,
    "slerp-gradients-and-filters": """
        merge_method: slerp
        models:
          - {model: $one}
          - {model: $far}
        base_model: $far
        parameters:
          t:
            - {filter: self_attn, value: [0, 0.5, 0.3, 0.7, 1]}
            - {filter: mlp, value: [1, 0.5, 0.7, 0.3, 0]}
            - {value: 0.5}
        dtype: float32
        """,
    "slerp-beyond-the-endpoints": """
        merge_method: slerp
        models:
          - {model: $one}
          - {model: $far}
        base_model: $one
        parameters: {t: [-0.25, 1.25]}
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

TIES = {
    "ties-plain": """
        merge_method: ties
        models:
          - {model: $one, parameters: {weight: 1, density: 0.2}}
          - {model: $two, parameters: {weight: 1, density: 0.2}}
          - {model: $three, parameters: {weight: 1, density: 0.2}}
        base_model: $base
        dtype: float32
        """,
    "ties-weights": """
        merge_method: ties
        models:
          - {model: $base, parameters: {weight: 3, density: 0.001}}
          - {model: $one, parameters: {weight: 0.3, density: 0.33}}
          - {model: $two, parameters: {weight: 0.9, density: 0.7}}
        base_model: $base
        parameters: {lambda: 1.3}
        dtype: float32
        """,
    "ties-not-normalized": """
        merge_method: ties
        models:
          - {model: $one, parameters: {weight: 0.3}}
          - {model: $two, parameters: {weight: 0.9}}
          - {model: $base}
        base_model: $base
        parameters: {normalize: false, density: 0.5}
        dtype: float32
        """,
    "ties-negative-weight": """
        merge_method: ties
        models:
          - {model: $one, parameters: {weight: -0.3, density: 0.6}}
          - {model: $two, parameters: {weight: 0.9, density: 0.6}}
          - {model: $three, parameters: {weight: 0.0, density: 0.6}}
        base_model: $base
        dtype: float32
        """,
    "ties-int8-mask": """
        merge_method: ties
        models:
          - {model: $one, parameters: {weight: 0.4, density: 0.4}}
          - {model: $two, parameters: {weight: 0.6, density: 0.4}}
        base_model: $base
        parameters: {int8_mask: true, normalize: true}
        dtype: float32
        """,
    "ties-keep-everything": """
        merge_method: ties
        models:
          - {model: $one, parameters: {weight: 0.4}}
          - {model: $two, parameters: {weight: 0.6, density: 1}}
        base_model: $base
        dtype: float32
        """,
    "ties-keep-hardly-anything": """
        merge_method: ties
        models:
          - {model: $one, parameters: {weight: 0.4, density: 0.001}}
          - {model: $two, parameters: {weight: 0.6, density: 0.001}}
        base_model: $base
        dtype: float32
        """,
    "ties-gradients-and-filters": """
        merge_method: ties
        models:
          - model: $one
            parameters:
              weight: [0.9, 0.2, 0.5]
              density:
                - {filter: mlp, value: [0.1, 0.9]}
                - {filter: self_attn, value: 0.35}
          - model: $two
            parameters:
              weight: [{filter: embed_tokens, value: 0.1}]
        base_model: $base
        parameters:
          weight: 0.8
          density: 0.5
          normalize: [true, false]
          lambda: [1, 0.4]
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

# What is written in which dtype; the families are float32.
RESCALED = {
    "ties-rescaled": """
        merge_method: ties
        models:
          - {model: $one, parameters: {weight: 0.6, density: 0.4}}
          - {model: $two, parameters: {weight: 0.7, density: 1.0}}
          - {model: $three, parameters: {weight: 0.5, density: 0.3}}
        base_model: $base
        parameters: {rescale: true}
        dtype: float32
        """,
    "breadcrumbs-rescaled": """
        merge_method: breadcrumbs
        models:
          - {model: $one, parameters: {weight: 0.6, density: 0.4}}
          - {model: $two, parameters: {weight: 0.7, density: 0.7, gamma: 0.1}}
        base_model: $base
        parameters: {rescale: true}
        dtype: float32
        """,
}

BREADCRUMBS = {
    "breadcrumbs-plain": """
        merge_method: breadcrumbs
        models:
          - {model: $one, parameters: {weight: 0.6, density: 0.4}}
          - {model: $two, parameters: {weight: 0.7, density: 0.8, gamma: 0.1}}
        base_model: $base
        dtype: float32
        """,
    "breadcrumbs-normalized-gamma-reduced": """
        merge_method: breadcrumbs
        models:
          - {model: $one, parameters: {weight: 0.6, density: 0.95}}
          - {model: $two, parameters: {weight: 0.7, density: 0.9}}
        base_model: $base
        parameters: {normalize: true, gamma: 0.2, lambda: 1.3}
        dtype: float32
        """,
    "breadcrumbs-gradient-and-filter": """
        merge_method: breadcrumbs
        models:
          - model: $base
          - model: $one
            parameters:
              weight: [0.2, 0.8]
              density: [{filter: mlp, value: [0.3, 0.6]}, {value: 1.0}]
          - {model: $two, parameters: {weight: 0.5, density: 0.5}}
        base_model: $base
        parameters: {gamma: 0.05}
        dtype: float32
        """,
    "breadcrumbs_ties-plain": """
        merge_method: breadcrumbs_ties
        models:
          - {model: $one, parameters: {weight: 0.6, density: 0.4}}
          - {model: $two, parameters: {weight: 0.7, density: 0.7, gamma: 0.05}}
          - {model: $three, parameters: {weight: 0.5, density: 0.9}}
        base_model: $base
        dtype: float32
        """,
    "breadcrumbs_ties-normalized": """
        merge_method: breadcrumbs_ties
        models:
          - {model: $one}
          - {model: $two}
          - {model: $three}
        base_model: $base
        parameters: {weight: 0.5, density: 0.5, normalize: true, lambda: 1.2}
        dtype: float32
        """,
}

BY_INNER_PRODUCTS = {
    "model_stock-two": """
        merge_method: model_stock
        models: [{model: $one}, {model: $two}]
        base_model: $base
        dtype: float32
        """,
    "model_stock-base-listed": """
        merge_method: model_stock
        models: [{model: $three}, {model: $base}, {model: $one}, {model: $two}]
        base_model: $base
        dtype: float32
        """,
    "karcher-two": """
        merge_method: karcher
        models: [{model: $one}, {model: $far}]
        dtype: float32
        """,
    "karcher-four": """
        merge_method: karcher
        models: [{model: $one}, {model: $two}, {model: $three}, {model: $far}]
        parameters: {max_iter: 20, tol: 1.0e-6}
        dtype: float32
        """,
    "karcher-unlisted-base": """
        merge_method: karcher
        models: [{model: $one}, {model: $far}]
        base_model: $base
        dtype: float32
        """,
}

SPHERES = {
    "nuslerp-no-base": """
        merge_method: nuslerp
        models:
          - {model: $one, parameters: {weight: 0.3}}
          - {model: $far, parameters: {weight: 0.9}}
        dtype: float32
        """,
    "nuslerp-of-task-vectors": """
        merge_method: nuslerp
        models:
          - {model: $base}
          - {model: $one, parameters: {weight: 0.3}}
          - {model: $far, parameters: {weight: [0.1, 0.9]}}
        base_model: $base
        dtype: float32
        """,
    "nuslerp-weights-cancel": """
        merge_method: nuslerp
        models:
          - {model: $two, parameters: {weight: 0.5}}
          - {model: $far, parameters: {weight: -0.5}}
        dtype: float32
        """,
    "multislerp-no-base": """
        merge_method: multislerp
        models:
          - {model: $one, parameters: {weight: 0.3}}
          - {model: $two, parameters: {weight: 0.9}}
          - {model: $far, parameters: {weight: [0.1, 0.6]}}
        dtype: float32
        """,
    "multislerp-of-task-vectors": """
        merge_method: multislerp
        models:
          - {model: $one, parameters: {weight: 0.3}}
          - {model: $two, parameters: {weight: 0.9}}
          - {model: $far, parameters: {weight: 0.5}}
        base_model: $base
        parameters: {normalize_weights: false}
        dtype: float32
        """,
    "multislerp-one": """
        merge_method: multislerp
        models: [{model: $one, parameters: {weight: 0.3}}]
        base_model: $base
        dtype: float32
        """,
}

OVERLAP = {
    "ram-plain": """
        merge_method: ram
        models: [{model: $one}, {model: $two}, {model: $far}]
        base_model: $base
        parameters: {epsilon: 0.01}
        dtype: float32
        """,
    "ramplus_tl-plain": """
        merge_method: ramplus_tl
        models: [{model: $base}, {model: $one}, {model: $two}, {model: $far}]
        base_model: $base
        parameters: {epsilon: 0.005, r: 0.3, alpha: [0.1, 2.0]}
        dtype: float32
        """,
}

OF_ONE = {
    "nearswap-plain": """
        merge_method: nearswap
        models: [{model: $one}]
        base_model: $base
        parameters: {t: 0.005}
        dtype: float32
        """,
    "nearswap-base-listed-gradient": """
        merge_method: nearswap
        models: [{model: $base}, {model: $far}]
        base_model: $base
        parameters: {t: [{filter: mlp, value: [0.0, 0.01]}, {value: 0.02}]}
        dtype: float32
        """,
    "passthrough-plain": """
        merge_method: passthrough
        models: [{model: $two}]
        dtype: float32
        """,
    "passthrough-scale": """
        merge_method: passthrough
        models:
          - model: $two
            parameters: {scale: [{filter: o_proj, value: 0.0}, {filter: mlp, value: [0.5, 2]}]}
        dtype: float32
        """,
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

TRIMMED = TIES | BREADCRUMBS | RESCALED
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

# What mergekit stops at, and so do we, each with what our message must say.
REFUSED = {
    "refused-linear-base-without-weight": (
        """
        merge_method: linear
        models:
          - {model: $one, parameters: {weight: 0.3}}
        base_model: $base
        dtype: float32
        """,
        r"weight has no value of model '.*base' .*linear requires it",
    ),
    "refused-slerp-three-models": (
        """
        merge_method: slerp
        models: [{model: $one}, {model: $two}]
        base_model: $base
        parameters: {t: 0.5}
        """,
        r"slerp merges exactly 2 models; got ",
    ),
    "refused-slerp-without-base": (
        """
        merge_method: slerp
        models: [{model: $one}, {model: $two}]
        parameters: {t: 0.5}
        """,
        r"base_model is missing; slerp needs one",
    ),
    "refused-slerp-without-t": (
        """
        merge_method: slerp
        models: [{model: $one}]
        base_model: $base
        """,
        r"parameters.t has no value .*slerp requires it",
    ),
    "refused-ties-without-base": (
        """
        merge_method: ties
        models: [{model: $one, parameters: {weight: 1}}]
        """,
        r"base_model is missing; ties needs one",
    ),
    "refused-ties-without-weight": (
        """
        merge_method: ties
        models: [{model: $one}]
        base_model: $base
        """,
        r"weight has no value of model '.*expert-1' .*ties requires it",
    ),
    "refused-same-model-twice": (
        """
        merge_method: linear
        models:
          - {model: $one, parameters: {weight: 0.3}}
          - {model: $one, parameters: {weight: 0.3}}
        """,
        r"models\[1\]\.model is '.*expert-1' again, as in models\[0\]",
    ),
}

# What mergekit takes without a word and we refuse, each with what our message must say.
REFUSED_BY_US = {
    "strict-density-without-effect": (
        """
        merge_method: task_arithmetic
        models: [{model: $one, parameters: {weight: 0.3, density: 0.1}}]
        base_model: $base
        """,
        r"models\[0\].parameters.density has no effect on task_arithmetic",
    ),
    "strict-misplaced-normalize": (
        """
        merge_method: linear
        models: [{model: $one, parameters: {weight: 0.3}}]
        normalize: false
        """,
        "normalize is no key of a recipe",
    ),
    "strict-shared-parameter-on-a-model": (
        """
        merge_method: ties
        models: [{model: $one, parameters: {weight: 0.3, lambda: 0.5}}]
        base_model: $base
        """,
        r"models\[0\].parameters.lambda is one value for the whole merge",
    ),
    "strict-density-zero": (
        """
        merge_method: dare_linear
        models: [{model: $one, parameters: {weight: 0.3, density: 0.0}}]
        base_model: $base
        """,
        r"models\[0\].parameters.density is 0",
    ),
}
