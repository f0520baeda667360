"""Merges that keep a part of each task vector, that mergekit does too."""

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

TRIMMED = TIES | BREADCRUMBS | RESCALED
