"""Merges of models with different vocabularies: `$base`, `$one`, `$two`, `$three` of
`write_vocabulary_family`. The results are compared by token: mergekit numbers the tokens of a
union in an order that varies."""

LINEAR = """
    merge_method: linear
    base_model: $base
    models:
      - {model: $base, parameters: {weight: 0.2}}
      - {model: $one, parameters: {weight: 0.5}}
      - {model: $two, parameters: {weight: 0.3}}
      - {model: $three, parameters: {weight: 0.1}}
    dtype: float32
    """
TASK_ARITHMETIC = """
    merge_method: task_arithmetic
    base_model: $base
    models:
      - {model: $one, parameters: {weight: 0.7}}
      - {model: $two, parameters: {weight: 0.4}}
    dtype: float32
    """
SLERP = """
    merge_method: slerp
    base_model: $two
    models:
      - {model: $two}
      - {model: $one}
    parameters: {t: 0.3}
    dtype: float32
    """
TWO_SLICES = """
    merge_method: linear
    base_model: $base
    slices:
      - sources:
          - {model: $base, layer_range: [0, 1], parameters: {weight: 0.5}}
          - {model: $one, layer_range: [0, 1], parameters: {weight: 0.5}}
      - sources:
          - {model: $base, layer_range: [1, 3], parameters: {weight: 0.5}}
          - {model: $two, layer_range: [1, 3], parameters: {weight: 0.2}}
    dtype: float32
    """
NO_BASE = """
    merge_method: linear
    models:
      - {model: $one, parameters: {weight: 0.5}}
      - {model: $two, parameters: {weight: 0.3}}
      - {model: $three, parameters: {weight: 0.1}}
    dtype: float32
    """
TOKENS = """
    tokenizer:
      source: union
      pad_to_multiple_of: 64
      tokens:
        <|tool|>: {source: {kind: zero}}
        <|im_start|>: {source: $one}
        当归: {source: {kind: model_token, model: $one, token: 茯苓}}
        <|end|>: {source: {kind: model_token, model: $two, token_id: 7}}
        <|im_end|>: {source: {kind: model_token, model: $base, token: <|im_start|>}, force: true}
        <|endoftext|>: {source: {kind: zero}, force: true}
        a: {source: $two, force: true}
    """
UNION = "tokenizer_source: union\n"
BASE = "tokenizer_source: base\n"
A_MODEL = "tokenizer_source: $two\n"
PADDED = "tokenizer: {source: base, pad_to_multiple_of: 8}\n"
UNION_TOO = "tokenizer: {}\n"

MERGED = {
    f"{method}-{policy}": text + keys
    for method, text in (("linear", LINEAR), ("arithmetic", TASK_ARITHMETIC), ("slerp", SLERP))
    for policy, keys in (("union", UNION), ("base", BASE), ("model", A_MODEL), ("padded", PADDED))
} | {
    "linear-tokens": LINEAR + TOKENS,
    "arithmetic-tokens": TASK_ARITHMETIC + TOKENS,
    "slices-union": TWO_SLICES + UNION,
    "no-base-union": NO_BASE + UNION_TOO,
}
# A token whose id lies beyond the embedding: mergekit's KeyError in the middle of the work.
REFUSED = {"beyond": LINEAR.replace("$three", "$beyond") + UNION}
