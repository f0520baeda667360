"""What recipes may say of tokenizers and chat templates, and what the templates write."""

import json
import re

import pytest
from transformers import AutoTokenizer

from merge_ops.checkpoints.files.byte_sources import FolderSource
from merge_ops.checkpoints.opening import open_checkpoint
from merge_ops.errors import CheckpointError, RecipeError
from merge_ops.recipes.chat_templates import BUILT_IN
from merge_ops.recipes.reading import parse_recipe
from merge_ops.recipes.vocabulary_policy import TokenRow, TokenRule
from merge_ops.vocabularies.chat_templates import resolve_template, template_of
from tests.models import checkpoint_factory as factory

HEAD = "merge_method: linear\nmodels: [{model: a}, {model: b}]\nparameters: {weight: 1}\n"


def parse(text):
    return parse_recipe(HEAD + text, "study", "study.yaml")


def test_every_key_of_mergekit():
    recipe = parse(
        "tokenizer:\n  source: c\n  pad_to_multiple_of: 8\n  tokens:\n"
        "    x: {source: d, force: true}\n    y: {source: {kind: zero}}\n"
        "    z: {source: {kind: model_token, model: a, token_id: 0}}\n    w: {}\n"
        "chat_template: auto"
    )
    policy = recipe.tokenizer
    assert policy.source == "c"
    assert policy.pad_to_multiple_of == 8
    assert policy.rules == {
        "x": TokenRule(TokenRow("d"), True),
        "y": TokenRule(TokenRow()),
        "z": TokenRule(TokenRow("a", token_id=0)),
        "w": TokenRule(),
    }
    assert recipe.merged_models == ("a", "b")
    assert recipe.referenced_models == ("a", "b", "c", "d")
    assert recipe.chat_template == "auto"
    assert parse("tokenizer: {}").tokenizer.source == "union"
    assert parse("tokenizer_source: base").tokenizer.source == "base"
    assert parse("dtype: float32").tokenizer is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tokenizer: {}\ntokenizer_source: base", "tokenizer_source cannot stand beside"),
        ("tokenizer: union", "tokenizer is 'union'; it must be a mapping of source, tokens"),
        ("tokenizer: {sorce: base}", "tokenizer.sorce is no key here (source, tokens"),
        ("tokenizer: {sorce: base}", "Did you mean 'source'?"),
        ("tokenizer: {source: 3}", "tokenizer.source is 3; it must be base, union or the name"),
        ("tokenizer: {pad_to_multiple_of: 0}", "pad_to_multiple_of is 0; it must be a whole"),
        ("tokenizer: {pad_to_multiple_of: true}", "pad_to_multiple_of is True; it must be"),
        ("tokenizer: {tokens: [x]}", "tokenizer.tokens must be a mapping of token to"),
        ("tokenizer: {tokens: {1: {}}}", "tokenizer.tokens.1 is named by 1; put the token in"),
        ("tokenizer: {tokens: {x: y}}", "tokenizer.tokens.x is 'y'; it must be a mapping of"),
        ("tokenizer: {tokens: {x: {froce: true}}}", "x.froce is no key here (source, force). Did"),
        ("tokenizer: {tokens: {x: {force: 2}}}", "x.force is 2; it must be true or false"),
        ("tokenizer: {tokens: {x: {force: true}}}", "x.force needs a `source`"),
        ("tokenizer: {tokens: {x: {source: 1}}}", "x.source is 1; it must be the name of a model"),
        (
            "tokenizer: {tokens: {x: {source: {kind: zeros}}}}",
            "x.source.kind is 'zeros'; it must be zero or model_token. Did you mean 'zero'?",
        ),
        (
            "tokenizer: {tokens: {x: {source: {kind: zero, model: a}}}}",
            "x.source.model is no key here (kind)",
        ),
        (
            "tokenizer: {tokens: {x: {source: {kind: model_token, token: a, token_id: 1}}}}",
            "x.source.model is None; it must be the name of a model",
        ),
        (
            "tokenizer: {tokens: {x: {source: {kind: model_token, model: a}}}}",
            "x.source must have either `token` or `token_id`",
        ),
        (
            "tokenizer: {tokens: {x: {source: {kind: model_token, model: a, token_id: -1}}}}",
            "token_id is -1; it must be a whole number from 0 on",
        ),
        (
            "tokenizer: {tokens: {x: {source: {kind: model_token, model: a, token: 1}}}}",
            "token is 1; it must be a token, in quotes",
        ),
        ("chat_template: chatlm", "chat_template is 'chatlm'; it must be one of auto, alpaca, "),
        ("chat_template: chatlm", "Did you mean 'chatml'?"),
        ("chat_template: 3", "chat_template is 3; it must be one of auto"),
    ],
)
def test_faults(text, expected):
    with pytest.raises(RecipeError, match=re.escape(expected)):
        parse(text)


TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "茯苓?"},
    {"role": "assistant", "content": "Poria."},
    {"role": "user", "content": "And?"},
]
WRITTEN = {
    "alpaca": "Be brief.\n\n### Instruction:\n茯苓?\n\n### Response:\nPoria.\n\n"
    "### Instruction:\nAnd?\n\n### Response:\n",
    "chatml": "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n茯苓?<|im_end|>\n"
    "<|im_start|>assistant\nPoria.<|im_end|>\n<|im_start|>user\nAnd?<|im_end|>\n"
    "<|im_start|>assistant\n",
    "exaone": "[|system|]Be brief.[|endofturn|]\n[|user|]茯苓?\n"
    "[|assistant|]Poria.[|endofturn|]\n[|user|]And?\n[|assistant|]",
    "llama3": "<s><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\n茯苓?<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\nPoria.<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nAnd?<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "mistral": "<s> [INST] Be brief.\n\n茯苓? [/INST] Poria.</s> [INST] And? [/INST]",
}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    factory.write_tokenizer(folder, special=["<s>", "</s>"])
    config = {"tokenizer_class": "TokenizersBackend", "bos_token": "<s>", "eos_token": "</s>"}
    factory.write_json(folder / "tokenizer_config.json", config)
    return AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_templates(tokenizer, name):
    written = tokenizer.apply_chat_template(
        TALK, chat_template=BUILT_IN[name], tokenize=False, add_generation_prompt=True
    )
    assert written == WRITTEN[name]


def test_templates_without_a_system_message(tokenizer):
    def write(name, talk, **more):
        return tokenizer.apply_chat_template(
            talk, chat_template=BUILT_IN[name], tokenize=False, **more
        )

    assert write("exaone", TALK[1:2]) == "[|system|][|endofturn|]\n[|user|]茯苓?\n"
    assert write("mistral", TALK[1:2]) == "<s> [INST] 茯苓? [/INST]"
    assert write("alpaca", TALK[1:3]) == "### Instruction:\n茯苓?\n\n### Response:\nPoria."
    with pytest.raises(Exception, match="take turns"):
        write("mistral", TALK[2:])


def test_auto_is_what_most_have_and_the_first_of_equals(tmp_path):
    texts = {"a": "{{ one }}", "b": " {{ two }}\n", "c": "{{ two }}", "d": "{{ one }}", "e": None}
    models = {}
    for number, (name, text) in enumerate(texts.items()):
        folder = factory.write_checkpoint(
            tmp_path / name, factory.base_tensors(factory.LLAMA), factory.LLAMA
        )
        if text and number % 2:
            (folder / "chat_template.jinja").write_text(text)
        elif text:
            config = json.loads((folder / "tokenizer_config.json").read_text())
            named = [{"name": "rag", "template": "{{ x }}"}, {"name": "default", "template": text}]
            template = text if name == "c" else named
            factory.write_json(
                folder / "tokenizer_config.json", config | {"chat_template": template}
            )
        models[name] = open_checkpoint(name, FolderSource(folder))

    def auto(names):
        return resolve_template("auto", [models[name] for name in names])

    assert auto("abc") == "{{ two }}"
    assert auto("abcd") == "{{ one }}"
    assert auto("bcda") == "{{ two }}"
    assert auto("e") is None
    assert resolve_template("chatml", []) == BUILT_IN["chatml"]
    assert resolve_template("{{ own }}", []) == "{{ own }}"


def test_a_template_of_gigabytes_is_refused_unread(tmp_path):
    tensors = factory.base_tensors(factory.LLAMA)
    folder = factory.write_checkpoint(tmp_path / "a", tensors, factory.LLAMA)
    with (folder / "chat_template.jinja").open("wb") as file:
        file.truncate(3 << 30)
    model = open_checkpoint("a", FolderSource(folder))
    with pytest.raises(CheckpointError, match=r"chat_template\.jinja: has 3221225472 bytes"):
        template_of(model)
