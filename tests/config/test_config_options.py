"""One declaration an option: default, range, environment variable, all hold everywhere."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from batched_whisper.config.fields import Numbers, environment_variables, is_optional, kinds
from batched_whisper.config.options import DecodingOptions, Settings
from batched_whisper.errors import OptionError

OWNERS = (Settings, DecodingOptions)
DECLARED = [(owner, field) for owner in OWNERS for field in dataclasses.fields(owner)]
BOUNDED = [
    pytest.param(
        *(owner, field, bound, step),
    )
    for owner, field in DECLARED
    for bound, step in (("minimum", -1), ("maximum", +1))
    if field.metadata[bound] is not None
]
NUMBERS = [(owner, field) for owner, field in DECLARED if {float, Numbers} & set(kinds(field))]


def name_of(value: Any) -> str | None:
    return value.name if isinstance(value, dataclasses.Field) else None


@pytest.mark.parametrize(("owner", "field", "bound", "step"), BOUNDED, ids=name_of)
def test_minimum_and_maximum_are_inclusive_and_values_beyond_are_rejected(
    owner: type[Any], field: dataclasses.Field[Any], bound: str, step: int
) -> None:
    is_list = Numbers in kinds(field)
    edge: Any = field.metadata[bound]
    beyond: Any = edge + step
    if is_list:
        edge, beyond = (edge,), (beyond,)
    assert getattr(owner.of(**{field.name: edge}), field.name) == edge
    with pytest.raises(OptionError, match=rf"{field.name}=.* out of range"):
        owner.of(**{field.name: beyond})


@pytest.mark.parametrize(("owner", "field"), NUMBERS, ids=name_of)
def test_nan_is_out_of_every_range(owner: type[Any], field: dataclasses.Field[Any]) -> None:
    with pytest.raises(OptionError, match=field.name):
        owner.of(**{field.name: float("nan")})


@pytest.mark.parametrize(("owner", "field"), DECLARED, ids=name_of)
def test_every_default_is_in_range_and_has_a_help_text(
    owner: type[Any], field: dataclasses.Field[Any]
) -> None:
    assert getattr(owner.of(), field.name) == field.default
    assert field.metadata["help"].endswith(".")


@pytest.mark.parametrize("owner", OWNERS)
def test_no_two_options_share_an_environment_variable(owner: type[Any]) -> None:
    variables = [name for _, field in DECLARED for name in environment_variables(field)]
    assert len(set(variables)) == len(variables)


@pytest.mark.parametrize(("owner", "field"), DECLARED, ids=name_of)
def test_an_environment_variable_equals_the_argument(
    owner: type[Any], field: dataclasses.Field[Any]
) -> None:
    value = _another_value(field)
    text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    for variable in environment_variables(field):
        told = owner.from_environment({variable: text})
        assert told == owner.of(**{field.name: value})
        assert told != owner.of()


def _another_value(field: dataclasses.Field[Any]) -> Any:
    """One that is allowed and is not the default."""
    choices = field.metadata["choices"]
    default: Any = field.default
    others = [choice for choice in choices or () if choice != default]
    if others:
        return others[0]
    if field.name == "device":
        return "cuda:0,2"
    if bool in kinds(field):
        return not default
    if str in kinds(field) and choices is None:
        return "some text"
    if Numbers in kinds(field):
        return (1.0, 2.5)
    if {int, float} & set(kinds(field)):
        low, high = field.metadata["minimum"], field.metadata["maximum"]
        bounds = [bound for bound in (low, high) if bound is not None and bound != default]
        return bounds[0] if bounds else default + (1 if high is None else -1)
    raise AssertionError(f"what is another {field.type}?")


def test_an_environment_variable_out_of_range_is_rejected() -> None:
    with pytest.raises(OptionError, match="max_batch_size=0"):
        Settings.from_environment({"BATCHED_WHISPER_MAX_BATCH_SIZE": "0"})


def test_an_environment_variable_that_is_not_a_number_is_named_in_the_error() -> None:
    with pytest.raises(OptionError, match="BATCHED_WHISPER_WAIT_MS='soon' is not a number"):
        Settings.from_environment({"BATCHED_WHISPER_WAIT_MS": "soon"})


@pytest.mark.parametrize("name", ["model", "revision"])
def test_the_prefixed_environment_variable_overrides_the_fallback(name: str) -> None:
    ours, shared = f"BATCHED_WHISPER_{name.upper()}", name.upper()
    told = Settings.from_environment({ours: "base", shared: "gpt-4o"})
    assert told == Settings.of(**{name: "base"})
    assert Settings.from_environment({ours: "", shared: "tiny"}) == Settings.of(**{name: "tiny"})


def test_a_list_option_may_be_empty() -> None:
    told = DecodingOptions.from_environment({"BATCHED_WHISPER_SUPPRESS_TOKENS": "none"})
    assert told == DecodingOptions.of(suppress_tokens=[])


def test_an_empty_environment_variable_is_ignored() -> None:
    assert Settings.from_environment({"BATCHED_WHISPER_WAIT_MS": ""}) == Settings()


def test_an_unknown_option_raises_with_the_names_of_all_options() -> None:
    with pytest.raises(OptionError, match=r"best_of.*temperature"):
        DecodingOptions.of(best_of=5)


@pytest.mark.parametrize(("owner", "field"), DECLARED, ids=name_of)
def test_none_is_accepted_for_optional_options_only(
    owner: type[Any], field: dataclasses.Field[Any]
) -> None:
    chosen = owner.of(**{field.name: _another_value(field)})
    if is_optional(field):
        assert getattr(chosen.replace(**{field.name: None}), field.name) is None
        return
    for refuses in (chosen.replace, owner.of, owner):
        with pytest.raises(OptionError, match=f"{field.name}=None"):
            refuses(**{field.name: None})


@pytest.mark.parametrize(
    "name", ["logprob_threshold", "compression_ratio_threshold", "no_speech_threshold"]
)
def test_none_in_an_environment_variable_disables_a_threshold(name: str) -> None:
    told = DecodingOptions.from_environment({f"BATCHED_WHISPER_{name.upper()}": "None"})
    assert told == DecodingOptions.of(**{name: None})


def test_none_is_plain_text_for_a_text_option() -> None:
    assert DecodingOptions.from_environment({"BATCHED_WHISPER_PROMPT": "none"}).prompt == "none"


def test_replacing_leaves_the_original_alone() -> None:
    chosen = DecodingOptions()
    assert chosen.replace(language="de").language == "de"
    assert chosen.language is None


@pytest.mark.parametrize("times", [(0.0,), (1, 2), (0, 5, 5, 10), (0.5, 1.5, 2), [3, 4]])
def test_clip_timestamps_in_chronological_order_are_accepted(times: Any) -> None:
    assert DecodingOptions.of(clip_timestamps=times).clip_timestamps == tuple(times)


@pytest.mark.parametrize(
    "times",
    [(), (2, 1), (1, 1), (0, 5, 4, 6), (0, 5, 4), (0, 5, 7, 6), (0, float("inf")), (-1, 5)],
)
def test_clip_timestamps_in_another_order_are_rejected(times: Any) -> None:
    with pytest.raises(OptionError, match="clip_timestamps="):
        DecodingOptions.of(clip_timestamps=times)
