"""What is refused: by mergekit and by us, or by us alone, with what our message says."""

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
