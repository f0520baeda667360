"""What a refresh says of its failures: each cause once, by name."""

from orchestration.commands.refresh_command import by_cause


def test_a_cause_is_said_once_with_its_places() -> None:
    same = [f"ties/scores [k{number}|e1+e2]: HarnessError: no task" for number in range(9)]
    assert by_cause([*same, same[0]]) == [
        "ties/scores [k0|e1+e2], ties/scores [k1|e1+e2], ties/scores [k2|e1+e2],"
        " ties/scores [k3|e1+e2] and 5 more: HarnessError: no task"
    ]


def test_a_broken_part_is_named_as_what_it_is() -> None:
    message = "recipe ties: recipes/ties.yaml: merge_method: no merge method is called 'tis'."
    assert by_cause([f"broken/recipe/ties: check is_sound failed: {message}"]) == [message]


def test_other_text_is_said_as_it_is() -> None:
    assert by_cause(["no colon", "a: b: c", "d: b: c", "a: "]) == ["no colon", "a, d: b: c", "a: "]
