"""The configurations, as data."""

from __future__ import annotations

from importlib import import_module

import pytest

from batched_whisper.config.options import DecodingOptions, Settings
from batched_whisper.errors import OptionError
from benchmarks.peer_models import PeerModels
from benchmarks.systems.catalog import CONFIGURATIONS, OURS, Configuration, choose
from benchmarks.systems.interface import Place
from benchmarks.systems.ours import settings_and_options


def test_names_are_unique() -> None:
    assert len({each.name for each in CONFIGURATIONS}) == len(CONFIGURATIONS)


@pytest.mark.parametrize("model", ["base", "tiny.en"])
@pytest.mark.parametrize("configuration", CONFIGURATIONS, ids=lambda each: each.name)
def test_every_configuration_has_an_adapter_that_takes_its_settings(
    configuration: Configuration, model: str
) -> None:
    module = import_module(f"benchmarks.systems.{configuration.system}")
    system = module.make(Place(configuration.settings, threads=2, models=PeerModels(model)))
    assert system.packages


@pytest.mark.parametrize(
    "configuration", [each for each in CONFIGURATIONS if each.is_ours], ids=lambda each: each.name
)
def test_our_options_exist_and_are_in_range(configuration: Configuration) -> None:
    settings, options = settings_and_options(configuration.settings.get("options", {}))
    Settings.of(**settings)
    DecodingOptions.of(**options)


def test_an_unknown_option_is_named() -> None:
    with pytest.raises(OptionError, match="speeed"):
        settings_and_options({"speeed": 2})


@pytest.mark.parametrize("flags", [set(), {"avx512f"}])
def test_the_small_comparison_has_ours_and_faster_whisper_on_every_processor(
    flags: set[str],
) -> None:
    chosen = choose(all_peers=False, only=[], processor_flags=flags)
    assert {OURS, "faster_whisper"} <= {each.system for each in chosen}
    assert all(set(each.processor_flags) <= flags for each in chosen)
