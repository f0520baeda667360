"""Merges on spheres, by angles, inner products and overlap, that mergekit does too."""

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
