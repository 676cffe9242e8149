"""The tiers of the tests: which are slow, and how many examples Hypothesis tries.

`make test` runs what is not marked slow, `make test-all` everything. The markers are put on here,
by path, so that a test's file need not say where its time goes; docs/testing.md has the figures.
Knows no test's subject.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

MARKERS = {
    "slow": "left out by `make test`; `make test-all` runs it",
    "real_model": "loads the weights of a real model",
    "triton": "runs or compiles kernels written in Triton",
    "subprocess": "starts processes of its own",
}
PROFILE_VARIABLE = "HYPOTHESIS_PROFILE"
DEV_EXAMPLES = 15
FIXTURES = {"base_model": "real_model", "tiny_en_model": "real_model", "start": "subprocess"}
"""The marker of each test that uses one of these fixtures."""

TESTS = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Rule:
    """The markers of a file's tests.

    Attributes:
        path: the file, from the folder of the tests.
        markers: names of `MARKERS`.
        test: the one test that is meant; None for all of the file.
        unless: a parameter's name that keeps a test out of the rule.
    """

    path: str
    markers: tuple[str, ...]
    test: str | None = None
    unless: str | None = None

    def covers(self, path: str, test: str, name: str) -> bool:
        """Whether the rule is about this test, whose name with its parameters is `name`."""
        kept_out = self.unless is not None and self.unless in name
        return path == self.path and self.test in (None, test) and not kept_out


PROCESS, SLOW_PROCESS = ("subprocess",), ("slow", "subprocess")
REAL, REAL_PROCESS = ("slow", "real_model"), ("slow", "real_model", "subprocess")

RULES = (
    Rule("benchmarks/test_cuda_bench.py", SLOW_PROCESS),
    Rule("cli/test_options.py", PROCESS, test="test_help_loads_nothing_heavy"),
    Rule("cli/test_options.py", PROCESS, test="test_the_package_runs_as_a_module"),
    Rule("cli/test_real_program.py", REAL),
    Rule("deploy/test_modal_app.py", SLOW_PROCESS),
    Rule("engines/cuda/kernels/test_compiles.py", ("slow", "triton", "subprocess")),
    Rule("engines/cuda/kernels/test_kernels.py", ("slow", "triton")),
    Rule("engines/cuda/test_like_openvino.py", REAL),
    Rule("engines/cuda/test_packed_batch.py", ("slow",)),
    Rule("engines/cuda/test_several_gpus.py", ("slow",)),
    Rule("engines/openvino/test_graphs_on_disk.py", ("slow",)),
    Rule("engines/openvino/test_multi_engine.py", ("slow",)),
    Rule("engines/test_alignment.py", ("slow",)),
    Rule("engines/test_beam_search.py", ("slow",)),
    # The laws of every engine hold in the fast tier for the cheapest one that is always there.
    Rule("engines/test_contract.py", ("slow",), unless="openvino-int8"),
    *(
        Rule("engines/test_contract.py", ("slow",), test=test)
        for test in (
            "test_steps_can_fill_the_text_context",
            "test_copy_between_beams_of_several_windows",
            "test_allowed_mask_applies_to_its_own_row",
            "test_steps_by_rules_give_the_reference_texts",
            "test_release_does_not_affect_other_slots",
            "test_copies_are_independent_and_outlive_their_source",
            "test_n_best_equals_numpy",
        )
    ),
    Rule("engines/test_schedules.py", ("slow",)),
    *(
        Rule("functions/test_lifecycle.py", PROCESS, test=test)
        for test in (
            "test_exit_methods_run_at_interpreter_exit_without_close",
            "test_the_interpreter_ends_with_a_batch_running_and_calls_waiting",
        )
    ),
    Rule("backends/test_thread_count.py", SLOW_PROCESS),
    Rule("models/test_weight_formats.py", REAL),
    Rule(
        "pipeline/test_recording_job.py",
        ("slow",),
        test="test_a_long_recording_is_read_no_further_ahead_than_a_few_windows",
    ),
    *(
        Rule("pipeline/test_shutdown.py", SLOW_PROCESS, test=test)
        for test in (
            "test_a_forked_process_ends_though_the_other_one_listened_for_speech",
            "test_a_forked_process_is_refused_and_may_close_it_and_the_other_one_goes_on",
            "test_a_forked_process_may_load_its_own",
            "test_a_process_that_ends_while_a_real_engine_decodes_does_not_crash",
            "test_a_process_that_ends_while_it_decodes_gives_up_and_has_its_own_exit_code",
            "test_threads_that_outlive_the_main_one_are_answered",
        )
    ),
    Rule("pipeline/test_word_timestamps.py", REAL),
    Rule("test_examples.py", SLOW_PROCESS),
    Rule("test_interrupt.py", REAL_PROCESS),
    Rule("test_openvino_telemetry.py", PROCESS),
    Rule("test_parity.py", REAL),
    Rule("test_public_names.py", PROCESS, test="test_importing_the_package_imports_no_engine"),
    Rule("test_readme.py", SLOW_PROCESS),
    Rule("test_tiers.py", SLOW_PROCESS),
    Rule("test_what_editors_know.py", SLOW_PROCESS),
    Rule("test_whisper_real.py", REAL),
)


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers and choose the Hypothesis profile."""
    for name, meaning in MARKERS.items():
        config.addinivalue_line("markers", f"{name}: {meaning}")
    settings.register_profile("dev", max_examples=DEV_EXAMPLES, deadline=None)
    settings.register_profile("ci", deadline=None, print_blob=True)
    settings.load_profile(_profile())
    config.pluginmanager.register(LeftOut(), "left-out")


@pytest.hookimpl(tryfirst=True)  # before `-m` selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the collected tests, and in the profile `dev` cap their examples."""
    for item in items:
        for marker in markers_of(item):
            item.add_marker(marker)
        if _profile() == "dev":
            _cap_examples(item)


def markers_of(item: pytest.Item) -> set[str]:
    """The markers that the rules and the fixtures give to a test."""
    path = item.path.relative_to(TESTS).as_posix() if item.path.is_relative_to(TESTS) else ""
    test = getattr(item, "originalname", item.name)
    found = {name for rule in RULES if rule.covers(path, test, item.name) for name in rule.markers}
    fixtures = getattr(item, "fixturenames", ())
    return found | {FIXTURES[name] for name in fixtures if name in FIXTURES}


class LeftOut:
    """Counts the tests that `-m` and `-k` leave out, in this process or in its workers."""

    count = 0

    def pytest_deselected(self, items: list[pytest.Item]) -> None:
        """Count what this process leaves out."""
        self.count += len(items)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Tell pytest-xdist's controller, where this process is one of its workers."""
        output = getattr(session.config, "workeroutput", None)
        if output is not None:
            output["left_out"] = self.count

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take the count of a worker; each collects the same tests."""
        output = getattr(node, "workeroutput", {})
        self.count = max(self.count, output.get("left_out", 0))

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say at the end what else there is."""
        if self.count:
            terminalreporter.write_line(
                f"{self.count:,} tests were not selected. `make test-all` runs everything."
            )


def _profile() -> str:
    return os.environ.get(PROFILE_VARIABLE, "dev")


def _cap_examples(item: pytest.Item) -> None:
    """Let a test try no more examples than the profile `dev` has, whatever it asks for.

    Its own `@settings` would win over the profile. Hypothesis offers no other way to change them
    than the attribute; a test sees whether it still works.
    """
    for owner, name in _settings_of(item):
        wanted = getattr(owner, name)
        examples = min(wanted.max_examples, DEV_EXAMPLES)
        setattr(owner, name, settings(wanted, max_examples=examples))


def _settings_of(item: pytest.Item) -> Iterable[tuple[Any, str]]:
    function = getattr(item, "obj", None)
    if isinstance(getattr(function, "_hypothesis_internal_use_settings", None), settings):
        yield function, "_hypothesis_internal_use_settings"
    machine = getattr(item, "cls", None)  # the TestCase of a state machine
    if isinstance(getattr(machine, "settings", None), settings):
        yield machine, "settings"
