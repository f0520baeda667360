"""Merges by methods that select entries, compared with mergekit; see cases.py for the names."""

EXACT = {
    "sce-plain": """
        merge_method: sce
        models: [{model: $one}, {model: $two}, {model: $three}]
        base_model: $base
        parameters: {select_topk: 0.3}
        dtype: float32
        """,
    "sce-everything": """
        merge_method: sce
        models: [{model: $one}, {model: $far}]
        base_model: $base
        dtype: float32
        """,
    "sce-two": """
        merge_method: sce
        models: [{model: $one}, {model: $two}]
        base_model: $base
        parameters: {select_topk: 0.71, int8_mask: true}
        dtype: float32
        """,
    "sce-weights-of-large-changes": """
        merge_method: sce
        models: [{model: $far}, {model: $base}, {model: $two}, {model: $three}, {model: $one}]
        base_model: $base
        parameters: {select_topk: 0.1}
        dtype: float32
        """,
    "sce-hardly-anything": """
        merge_method: sce
        models: [{model: $one}, {model: $far}, {model: $three}]
        base_model: $base
        parameters: {select_topk: 0.003}
        dtype: float32
        """,
    "sce-gradient-and-filter": """
        merge_method: sce
        models: [{model: $one}, {model: $two}, {model: $far}]
        base_model: $base
        parameters:
          select_topk: [{filter: mlp, value: [0.29, 0.9]}, {value: [1.0, 0.4]}]
        dtype: float32
        """,
}

# mergekit gives the expert itself, or the base where select_topk is below 1: one expert has no
# variance.
REFUSED_BY_US = {
    "strict-sce-of-one-expert": (
        """
        merge_method: sce
        models: [{model: $one}]
        base_model: $base
        parameters: {select_topk: 0.5}
        """,
        r"sce merges at least 2 models besides the base",
    ),
}
