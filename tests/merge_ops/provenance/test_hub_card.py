"""The card: what the Hub takes, and strangers' words that stay words."""

import pytest
import yaml
from huggingface_hub import ModelCard

from merge_ops.errors import AncestryError
from merge_ops.provenance.hub_card import (
    CardFacts,
    CardInput,
    CardResult,
    hub_id,
    licence_fields,
    pipeline_tag,
    write_card,
)
from merge_ops.provenance.licences import effective
from merge_ops.provenance.reproduction import MakingStep, Part, Reproduction, from_card

EVIL = "x](javascript:a)\n---\n# <script>`|"


def facts(**more: object) -> CardFacts:
    given: dict[str, object] = {
        "title": "ties", "method": "ties", "method_source": "a paper", "coefficient": "default",
        "inputs": [CardInput("base", "b", "d" * 64), CardInput("expert", "e", "e" * 64)],
        "digest": "f" * 64, "recipe": {"merge_method": "ties"},
        "config": {"architectures": ["Qwen2ForCausalLM"]},
    }  # fmt: skip
    return CardFacts(**{**given, **more})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("stated", "fields"),
    [
        ({"a": "apache-2.0", "b": "mit"}, {"license": "apache-2.0"}),
        ({"a": "apache-2.0", "b": "llama3.1"}, {"license": "llama3.1"}),
        (
            {"a": "mit", "b": "qwen"},
            {
                "license": "other", "license_name": "qwen",
                "license_link": "https://huggingface.co/Qwen/Qwen2.5-72B-Instruct/blob/main/LICENSE",
            },
        ),
        ({"a": "llama3.1", "b": "qwen"}, {"license": "other", "license_name": "llama3.1-and-qwen"}),
        ({"a": "mit", "b": None}, {}),
        ({"a": "House Rules, v2"}, {"license": "other", "license_name": "house-rules-v2"}),
    ],
)  # fmt: skip
def test_the_licence_as_the_hub_has_it(
    stated: dict[str, str | None], fields: dict[str, str]
) -> None:
    assert licence_fields(effective(stated)) == fields


@pytest.mark.parametrize(
    ("origin", "found"),
    [
        ("hf://org/name@abc", "org/name"), ("hf://org/name", "org/name"), (None, None),
        ("file:///home/me/org/name", None), ("modelscope://org/name", None), ("hf://name", "name"),
        ("hf://a/b/c@x", None), (f"hf://org/{'n' * 100}", None), ("hf://org/a--b", None),
    ],
)  # fmt: skip
def test_ids_of_the_hub(origin: str | None, found: str | None) -> None:
    assert hub_id(origin) == found


@pytest.mark.parametrize(
    ("config", "tag"),
    [
        ({"architectures": ["LlamaForCausalLM"]}, "text-generation"),
        ({"architectures": ["GPT2LMHeadModel"]}, "text-generation"),
        (
            {"architectures": ["Qwen2VLForConditionalGeneration"], "vision_config": {}},
            "image-text-to-text",
        ),
        ({"architectures": ["BertModel"]}, None),
        ({"architectures": 3}, None),
        ({}, None),
    ],
)
def test_the_task_is_told_by_the_config(config: dict[str, object], tag: str | None) -> None:
    assert pipeline_tag(config) == tag


def test_strangers_words_stay_words() -> None:
    made = facts(
        title=EVIL, coefficient=EVIL, called=EVIL, languages=[EVIL], cautions=[EVIL], notes=[EVIL],
        inputs=[CardInput("base", EVIL, None, EVIL, 0.5, EVIL)], excluded={EVIL: EVIL},
        licence=effective({EVIL: EVIL}), recipe={"models": [{"model": EVIL}]},
        results=[CardResult(EVIL, EVIL, EVIL, 0.5, 3, 0.1, 0.9)],
    )  # fmt: skip
    text = write_card(made)
    card = ModelCard(text)
    assert card.data.license == "other"
    assert card.data.language is None
    body = text.split("\n---\n", 2)[1]
    assert "\n# <script" not in body
    assert yaml.safe_load(body.split("```yaml\n")[1].split("\n```")[0]) == made.recipe


def test_scores_are_a_model_index() -> None:
    text = write_card(facts(results=[CardResult("zh", "ceval", "acc", 0.5, 40, 0.35, 0.65)]))
    (result,) = ModelCard(text).data.eval_results or ()
    assert (result.task_type, result.dataset_name, result.metric_value) == (
        "text-generation", "zh: ceval", 0.5,
    )  # fmt: skip
    assert "| zh | ceval | acc | 0.5000 | 0.3500 to 0.6500 | 40 |" in text


def test_the_block_is_read_again_and_nothing_else_is() -> None:
    parts = (Part("b" * 64, "hf://org/b@1"), Part("a" * 64))
    step = MakingStep("f" * 64, {"merge_method": "ties", "models": []}, {"b+a": parts}, "cpu")
    made = Reproduction((step,), "0.1.0", {"model.safetensors": "c" * 64})
    text = write_card(facts(reproduction=made))
    assert from_card(text, "it") == made
    for old, new in (("digest: " + "b" * 64, "dogest: 1"), ("steps:", "steps: []\nx:")):
        with pytest.raises(AncestryError, match="it: its block"):
            from_card(text.replace(old, new), "it")
    with pytest.raises(AncestryError, match="it holds no block that begins with '# ronghe repro"):
        from_card(write_card(facts()), "it")
