"""Recipes in mergekit's other spellings, as model cards and mergekit's own tools print them."""

DIALECT = {
    "dialect-booleans-as-numbers": """
        base_model: $base
        dtype: float32
        merge_method: ties
        modules:
          default:
            slices:
            - sources:
              - layer_range: [0, 4]
                model: $one
                parameters: {density: 1, weight: 0.5}
              - layer_range: [0.0, 4.0]
                model: $two
                parameters: {density: 1.0, weight: "5e-1"}
              - layer_range: [0, 4]
                model: $base
        parameters: {int8_mask: 1.0, normalize: 1.0}
        """,
    "dialect-booleans-as-words": """
        base_model: $base
        dtype: torch.float32
        merge_method: task_arithmetic
        models:
          - {model: $one, parameters: {weight: 1}}
          - {model: $two, parameters: {weight: "0.25"}}
        parameters: {normalize: "Yes", int8_mask: "off", lambda: 2}
        """,
    "dialect-rescale-as-a-number": """
        base_model: $base
        dtype: float32
        merge_method: ties
        models:
          - {model: $one, parameters: {weight: 1, density: 0.5}}
          - {model: $two, parameters: {weight: 1, density: 0.25}}
        parameters: {rescale: 1.0, normalize: 0.0}
        """,
    "dialect-booleans-by-layer": """
        merge_method: nuslerp
        models:
          - {model: $one, parameters: {weight: 1}}
          - {model: $far, parameters: {weight: 3}}
        parameters: {nuslerp_flatten: [0, 1.0], nuslerp_row_wise: ["n", "y"]}
        dtype: float32
        """,
    "dialect-not-normalized": """
        merge_method: linear
        models:
          - {model: $one, parameters: {weight: 1}}
          - {model: $two, parameters: {weight: 2}}
        parameters: {normalize: 0.0}
        out_dtype: torch.float32
        """,
    "dialect-mergekit-evolve": """
        base_model: $base
        dtype: float32
        merge_method: linear
        parameters: {int8_mask: 1.0, normalize: 1.0}
        slices:
        - merge_method: linear
          parameters: {normalize: 1.0}
          sources:
          - layer_range: [0, 2]
            model: $one
            parameters: {weight: 0.8374437093734741}
          - layer_range: [0, 2]
            model: $base
            parameters: {weight: 0.003805825486779213}
        - merge_method: linear
          sources:
          - {layer_range: [2, 4], model: $two, parameters: {weight: 0.3}}
          - {layer_range: [2, 4], model: $base, parameters: {weight: 0.4}}
        """,
    "dialect-references-as-mappings": """
        merge_method: slerp
        base_model: {model: {path: $one, revision: null}, lora: null}
        models:
          - model: {model: $one}
          - model: {model: {path: $far}, lora: null, override_architecture: null}
        parameters: {t: [{filter: mlp, value: 0.25}, {value: "0.5"}], int8_mask: true}
        dtype: float32
        """,
    "dialect-references-as-mappings-in-slices": """
        merge_method: task_arithmetic
        base_model: {model: $base}
        slices:
          - base_model: {model: {path: $base}}
            sources:
              - {model: {model: $one}, layer_range: ["0", "4"], parameters: {weight: 0.5}}
              - {model: {model: {path: $base}}, layer_range: [0, 4]}
        parameters: {normalize: false}
        dtype: float32
        """,
}
