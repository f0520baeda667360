"""Merges by methods that look at rows, for the comparison with mergekit; see `cases.py`."""

MODEL_STOCK = {
    "model_stock-filter-wise": """
        merge_method: model_stock
        models: [{model: $one}, {model: $two}]
        base_model: $base
        parameters: {filter_wise: true}
        dtype: float32
        """,
    "model_stock-filter-wise-three-by-layer": """
        merge_method: model_stock
        models: [{model: $three}, {model: $base}, {model: $one}, {model: $far}]
        base_model: $base
        parameters: {filter_wise: [{filter: mlp, value: false}, {value: [true, false, true]}]}
        dtype: float32
        """,
}

NUSLERP = {
    f"nuslerp-{label}-{what}": f"""
        merge_method: nuslerp
        models:
          - {{model: $one, parameters: {{weight: 0.3}}}}
          - {{model: $far, parameters: {{weight: [0.1, 0.9]}}}}
        {base}
        parameters: {{nuslerp_flatten: {flatten}, nuslerp_row_wise: {row_wise}}}
        dtype: float32
        """
    for label, flatten, row_wise in (
        ("by-row", "false", "false"),
        ("by-column", "false", "true"),
        ("row-wise-without-effect", "true", "true"),
        ("by-layer", "[false, true]", "[true, false]"),
    )
    for what, base in (("no-base", ""), ("of-task-vectors", "base_model: $base"))
}

# With density 1 nothing is dropped, so there is no chance in these.
DELLA_WITHOUT_CHANCE = {
    "della-density-one": """
        merge_method: della
        models:
          - {model: $one, parameters: {weight: 0.3, density: 1.0}}
          - {model: $two, parameters: {weight: [0.9, 0.1]}}
          - {model: $three, parameters: {weight: -0.4, epsilon: 0.9}}
        base_model: $base
        parameters: {lambda: 1.2}
        dtype: float32
        """,
    "della-density-one-not-normalized": """
        merge_method: della
        models:
          - {model: $one, parameters: {weight: 0.3}}
          - {model: $two, parameters: {weight: 0.9}}
        base_model: $base
        parameters: {normalize: false, int8_mask: true}
        dtype: float32
        """,
    "della_linear-density-one": """
        merge_method: della_linear
        models:
          - {model: $one, parameters: {weight: 0.3}}
          - {model: $two, parameters: {weight: [{filter: mlp, value: -0.5}, {value: 0.5}]}}
        base_model: $base
        dtype: float32
        """,
    "della_linear-density-one-normalized": """
        merge_method: della_linear
        models:
          - {model: $one, parameters: {weight: 0.3}}
          - {model: $two, parameters: {weight: 0.4}}
        base_model: $base
        parameters: {normalize: true}
        dtype: float32
        """,
}

ROWS = MODEL_STOCK | NUSLERP | DELLA_WITHOUT_CHANCE

# One expert, weight 1, not normalized: what was kept, and by how much it grew, can be read off.
# Each with its density (from the first layer to the last), its epsilon, and whether it is rescaled.
DELLA_CHANCES = {
    "rescaled": ((0.3, 0.3), 0.15, True),
    "not-rescaled": ((0.6, 0.6), 0.3, False),
    "by-layer": ((0.3, 0.7), 0.25, True),
}
DELLA = {
    f"{method}-{label}": f"""
        merge_method: {method}
        models:
          - {{model: $one, parameters: {{weight: 1, density: {list(density)}, epsilon: {epsilon}}}}}
        base_model: $base
        parameters: {{normalize: false, rescale: {str(rescale).lower()}}}
        dtype: float32
        """
    for method in ("della", "della_linear")
    for label, (density, epsilon, rescale) in DELLA_CHANCES.items()
}
