"""`slices` as mergekit files: ranges of layers, each with parameters of its own."""

SLICES = {
    "slerp-slices": """
        merge_method: slerp
        slices:
          - sources:
              - {model: $one, layer_range: [0, 4]}
              - {model: $two, layer_range: [0, 4]}
        base_model: $one
        parameters:
          t:
            - {filter: self_attn, value: [0, 0.5, 0.3, 0.7, 1]}
            - {value: [0.9, 0.1]}
        dtype: float32
        """,
    "ties-slices": """
        merge_method: ties
        slices:
          - sources:
              - {model: $base, layer_range: [0, 2]}
              - {model: $one, layer_range: [0, 2], parameters: {weight: 0.5, density: [0.2, 0.8]}}
              - {model: $two, layer_range: [0, 2], parameters: {weight: 0.4, density: 0.6}}
          - sources:
              - {model: $one, layer_range: [2, 4], parameters: {weight: 0.7}}
              - {model: $base, layer_range: [2, 4]}
              - {model: $three, layer_range: [2, 4], parameters: {weight: [1, 0.1]}}
            parameters: {density: 0.25}
        base_model: $base
        dtype: float32
        """,
    "slice-base-model": """
        merge_method: task_arithmetic
        slices:
          - base_model: $two
            sources:
              - {model: $two, layer_range: [0, 2]}
              - {model: $one, layer_range: [0, 2], parameters: {weight: 0.4}}
          - sources:
              - {model: $base, layer_range: [2, 4]}
              - {model: $two, layer_range: [2, 4], parameters: {weight: 0.6}}
        base_model: $base
        dtype: float32
        """,
    "breadcrumbs-slices": """
        merge_method: breadcrumbs
        slices:
          - sources:
              - {model: $base, layer_range: [0, 1]}
              - {model: $one, layer_range: [0, 1], parameters: {weight: 0.5}}
          - sources:
              - {model: $three, layer_range: [1, 4], parameters: {weight: [1, 0.1]}}
              - {model: $base, layer_range: [1, 4]}
            parameters: {density: [{filter: mlp, value: 0.4}, {value: 0.8}], gamma: 0.05}
        base_model: $base
        parameters: {density: 0.6}
        dtype: float32
        """,
}

TRIMMED_SLICES = {name: SLICES[name] for name in ("ties-slices", "breadcrumbs-slices")}

# Another number of layers. On Qwen2 mergekit 0.1.5 writes the weights and dies at the config.
FRANKENMERGES = {
    "linear-slices": """
        merge_method: linear
        slices:
          - sources:
              - {model: $one, layer_range: [0, 2], parameters: {weight: [0.2, 0.8]}}
              - {model: $two, layer_range: [2, 4], parameters: {weight: 0.5}}
          - sources:
              - {model: $two, layer_range: [1, 4], parameters: {weight: [0, 1]}}
              - {model: $base, layer_range: [0, 3]}
            parameters: {weight: [{filter: layers.0, value: 0.3}, {value: 0.6}]}
          - sources:
              - {model: $one, layer_range: [3, 4], parameters: {weight: [0.1, 0.9]}}
              - {model: $base, layer_range: [3, 4], parameters: {weight: 0.4}}
        base_model: $base
        dtype: float32
        """,
    "task_arithmetic-slices": """
        merge_method: task_arithmetic
        slices:
          - sources:
              - {model: $base, layer_range: [0, 3]}
              - {model: $one, layer_range: [0, 3], parameters: {weight: [0.1, 0.7]}}
          - sources:
              - {model: $two, layer_range: [2, 4], parameters: {weight: 0.6}}
              - {model: $base, layer_range: [2, 4]}
            parameters: {lambda: [0.5, 2]}
        base_model: $base
        parameters: {lambda: 1.1}
        dtype: float32
        """,
    "passthrough-repeats": """
        merge_method: passthrough
        slices:
          - sources: [{model: $one, layer_range: [0, 3]}]
          - sources: [{model: $two, layer_range: [1, 3]}]
          - sources:
              - model: $one
                layer_range: [1, 4]
                parameters:
                  scale:
                    - {filter: o_proj, value: 0.0}
                    - {filter: down_proj, value: [0.0, 0.5]}
                    - {value: 1.0}
        dtype: float32
        """,
    "linear-shorter": """
        merge_method: linear
        slices:
          - sources:
              - {model: $one, layer_range: [0, 1], parameters: {weight: 0.3}}
              - {model: $two, layer_range: [0, 1], parameters: {weight: 0.9}}
          - sources:
              - {model: $two, layer_range: [3, 4], parameters: {weight: 0.5}}
              - {model: $three, layer_range: [2, 3], parameters: {weight: 0.25}}
        dtype: float32
        """,
}
