"""A merged checkpoint stops where its models do, or it is said that it may not."""

import json

import pytest
from tokenizers import AddedToken, Tokenizer, models
from transformers import AutoTokenizer, GenerationConfig

from merge_ops.checkpoints.opening import open_checkpoint
from merge_ops.plans.planning import plan_merge
from merge_ops.recipes.chat_templates import BUILT_IN
from merge_ops.recipes.reading import parse_recipe
from tests.merges.merging import merge_in_process
from tests.models import vocabulary_folders as folders

WORDS = ("<unk>", "<s>", "</s>", "a", "b", "c", "d")
ENDS = ("<|im_start|>", "<|im_end|>", "<|eot_id|>", "<pad>")
ROWS = len(WORDS) + len(ENDS)
IM_END, EOT, PAD = 8, 9, 10
RECIPE = "merge_method: linear\nparameters: {weight: 1}\nmodels: [{model: base}, {model: e1}]\n"
CHATML = "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"


def tokenizer(turned=False):
    """Eleven tokens; `turned` gives the added ones in the other order."""
    words = {word: row for row, word in enumerate(WORDS)}
    made = Tokenizer(models.BPE(vocab=words, merges=[], unk_token="<unk>"))
    ends = ENDS[::-1] if turned else ENDS
    made.add_special_tokens([AddedToken(token, special=True) for token in ends])
    return made.to_str().encode()


def files(config=None, generation=None, named=None, turned=False, template=None):
    """The files of a model that says what ends its text in any of three places."""
    kind = {"tokenizer_class": "PreTrainedTokenizerFast"}
    made = {
        "config.json": {"model_type": "toy", "vocab_size": ROWS, **(config or {})},
        "tokenizer.json": tokenizer(turned),
        "tokenizer_config.json": {**kind, **(named or {})},
    }
    if generation is not None:
        made["generation_config.json"] = generation
    if template:
        made["chat_template.jinja"] = template.encode()
    return made


def eos(number):
    return {"eos_token_id": number}


def models_of(tmp_path, **of_models):
    opened = {}
    for name, made in of_models.items():
        config = made.pop("config.json")
        opened[name] = folders.model(tmp_path / name, made, ROWS, config)
    return opened


def warned(opened, text=RECIPE):
    return [str(each) for each in plan_merge(parse_recipe(text, "r", "r.yaml"), opened).cautions]


# ------------------------------------------------------------------------------- other ends


@pytest.mark.parametrize(
    ("ours", "theirs", "told"),
    [
        (files(eos(2)), files(eos(IM_END)), "eos_token_id for '<|im_end|>'"),
        (files(eos(2)), files(eos(2), eos([2, IM_END])), "for '</s>', '<|im_end|>'"),
        (files(eos(2), eos(2)), files(eos(2), eos(2), {"eos_token": "<|im_end|>"}), "<|im_end|>"),
        (files({"text_config": eos(2)}), files({"text_config": eos(EOT)}), "for '<|eot_id|>'"),
        (files(named={"eos_token": "</s>"}), files(named={"eos_token": {"content": "<|im_end|>"}}),
         "for '<|im_end|>', the merged checkpoint for '</s>'"),
        (files({"pad_token_id": 0}), files({"pad_token_id": PAD}), "pad_token_id for '<pad>'"),
        (files({}, {"bos_token_id": 1}), files({"bos_token_id": 3}), "bos_token_id for 'a'"),
        # no word
        (files(eos(2)), files(eos(2), eos([2])), None),
        (files(eos(2), eos([2, IM_END])), files(eos(IM_END)), None),  # it stops there too
        (files(eos(2)), files(), None),
        (files({"pad_token_id": 0}), files(), None),
        (files(eos(2), None, {"eos_token": "<|im_end|>"}),
         files(eos(2), None, {"eos_token": "<|im_end|>"}), None),
    ],
)  # fmt: skip
def test_what_the_result_does_not_end_with_is_told(tmp_path, ours, theirs, told):
    warnings = warned(models_of(tmp_path, base=dict(ours), e1=dict(theirs)))
    assert len(warnings) == (1 if told else 0)
    if told:
        assert told in warnings[0]
        assert "generation_config.json" in warnings[0]
    if told and "eos" in told:
        assert "it may not stop where it should" in warnings[0]


def test_a_model_without_a_tokenizer_has_the_bases_rows(tmp_path):
    bare = {"config.json": {"model_type": "toy", "eos_token_id": 2}}
    named = files(eos(2), None, {"eos_token": "</s>"})
    assert not warned(models_of(tmp_path / "a", base=dict(named), e1=dict(bare)))
    [absent] = warned(models_of(tmp_path / "b", base=dict(bare), e1=dict(named)))
    assert absent.startswith("base has no tokenizer, so the result will have none, and e1 has one.")
    other = {"config.json": {"model_type": "toy", "eos_token_id": IM_END}}
    assert "for '<|im_end|>'" in warned(models_of(tmp_path / "c", base=named, e1=other))[0]


def test_other_settings_of_generation_are_one_warning(tmp_path):
    ours = {"temperature": 1.0, "top_p": 0.9, "do_sample": True, "transformers_version": "4"}
    theirs = {"temperature": 0.6, "top_p": 0.8, "do_sample": True, "transformers_version": "5"}
    [warning] = warned(models_of(tmp_path, base=files({}, ours), e1=files({}, theirs)))
    assert "(temperature 0.6 for 1.0, top_p 0.8 for 0.9)" in warning
    assert "change them in the result's generation_config.json" in warning


def test_a_lost_chat_template_is_told(tmp_path):
    opened = models_of(tmp_path, base=files(eos(2)), e1=files(eos(2), template=CHATML))
    [warning] = warned(opened)
    assert "e1 has a chat template, base and so the merged checkpoint have none" in warning
    assert "`chat_template: auto`" in warning
    both = models_of(
        tmp_path / "both",
        base=files(eos(2), template=CHATML),
        e1=files(eos(2), template=CHATML + " "),
    )
    assert not warned(both)


# ------------------------------------------------------------------------------- chat templates


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("auto", "<|im_end|>"),
        ("chatml", "<|im_end|>"),
        ("llama3", "<|eot_id|>"),
        ("exaone", "[|endofturn|]"),
        ("mistral", None),  # it writes eos_token
        ("alpaca", None),  # text alone
        ("'{{ messages[0].content + eos_token }}'", None),
        ("'{{ messages[0].content }}</s>'", None),
        ("'{{ messages[0].content | trim }}<end_of_turn>'", "<end_of_turn>"),
        ("'{{ messages[0].content }}<｜end▁of▁sentence｜>'", "<｜end▁of▁sentence｜>"),
        ("'{{ messages[0].content }}<|assistant|>'", None),  # it begins the next
    ],
)
def test_a_template_that_ends_turns_otherwise_is_told(tmp_path, template, told):
    opened = models_of(tmp_path, base=files(eos(2)), e1=files(eos(2), template=CHATML))
    warnings = warned(opened, RECIPE + f"chat_template: {template}\n")
    assert len(warnings) == (1 if told else 0)
    if told:
        assert f"chat_template ends turns with '{told}'" in warnings[0]
        assert "it may not stop after an answer" in warnings[0]
    stops = models_of(tmp_path / "s", base=files(eos([2, IM_END, EOT])), e1=files(template=CHATML))
    if told in ("<|im_end|>", "<|eot_id|>"):
        assert not warned(stops, RECIPE + f"chat_template: {template}\n")


def test_every_built_in_template_is_known():
    assert set(BUILT_IN) == {"alpaca", "chatml", "exaone", "llama3", "mistral"}


# ---------------------------------------------------------------------- another model's tokenizer


@pytest.mark.parametrize(
    ("theirs", "config", "generation"),
    [
        (files(eos(IM_END), eos(IM_END), {"eos_token": "<|im_end|>"}), IM_END, IM_END),
        (files(eos(2), eos([IM_END, 2]), {"eos_token": "<|im_end|>"}), IM_END, [IM_END, 2]),
        (files({}, None, {"eos_token": "<|im_end|>"}), IM_END, IM_END),
        (files(eos(EOT)), EOT, EOT),
        (files({}, eos([EOT])), [EOT], [EOT]),
        (files({"text_config": eos(EOT)}), EOT, EOT),
        (files(), 2, 2),  # nothing is said: the base's
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_with_a_tokenizer_come_its_ids(tmp_path, theirs, config, generation, nested):
    ours = {"text_config": eos(2)} if nested else eos(2)
    models_of(tmp_path, base=files(ours, {**eos(2), "top_k": 7}), e1=dict(theirs))
    path = tmp_path / "recipe.yaml"
    path.write_text(
        RECIPE.replace("base}", f"{tmp_path}/base}}").replace("e1}", f"{tmp_path}/e1}}")
        + f"tokenizer: {{source: {tmp_path}/e1}}\n"
    )
    out = merge_in_process(path, tmp_path / "out")
    written = json.loads((out / "config.json").read_text())
    assert (written["text_config"] if nested else written)["eos_token_id"] == config
    known = GenerationConfig.from_pretrained(out)
    assert (known.eos_token_id, known.top_k) == (generation, 7)
    if "eos_token" in json.loads((out / "tokenizer_config.json").read_text()):
        assert AutoTokenizer.from_pretrained(out).eos_token_id == IM_END


def test_ids_that_no_key_of_the_base_states(tmp_path):
    """The end of text is stated in any case, padding where the base states it."""
    theirs = files({**eos(IM_END), "pad_token_id": PAD}, turned=False)
    opened = models_of(tmp_path, base=files(), e1=theirs)
    found = plan_merge(parse_recipe(RECIPE + "tokenizer: {source: e1}", "r", "r.yaml"), opened)
    assert found.config["eos_token_id"] == IM_END
    assert "pad_token_id" not in found.config
    assert not found.cautions


def test_ids_move_with_tokens_before_they_are_compared(tmp_path):
    """The expert numbers its added tokens otherwise; in the union they have the base's rows."""
    theirs = files(eos(9), turned=True)  # <|im_end|> there
    opened = models_of(tmp_path, base=files(eos(IM_END)), e1=theirs)
    union = RECIPE + "tokenizer: {source: union}\n"
    assert not warned(opened, union)
    opened = models_of(tmp_path / "b", base=files(eos(9)), e1=files(eos(9), turned=True))
    assert "for '<|im_end|>', the merged checkpoint for '<|eot_id|>'" in warned(opened, union)[0]


def test_a_digest_covers_the_ids_that_come_along(tmp_path):
    digests = []
    for number in (IM_END, EOT):
        opened = models_of(
            tmp_path / str(number), base=files({}, eos(2)), e1=files({}, eos(number))
        )
        opened = {
            name: open_checkpoint(name, each.source, f"of {name}") for name, each in opened.items()
        }
        text = RECIPE + "tokenizer: {source: e1}\n"
        plan = plan_merge(parse_recipe(text, "r", "r.yaml"), opened)
        digests.append(plan.tokenizer.digest)
    assert digests[0] != digests[1]
