"""No test is lost between the tiers, and what is left out is said."""

from __future__ import annotations

import re

import pytest
import tiers

SUITE = """
    import pytest

    def test_quick(): ...

    @pytest.mark.slow
    @pytest.mark.parametrize("n", range(3))
    def test_slow(n): ...
"""

EXAMPLES = """
    from hypothesis import given, settings, strategies as st
    from hypothesis.stateful import RuleBasedStateMachine, rule

    tried = {"wished": 0, "plain": 0, "machine": 0}

    @settings(max_examples=60)
    @given(st.integers())
    def test_wished(n):
        tried["wished"] += 1

    @given(st.integers())
    def test_plain(n):
        tried["plain"] += 1

    class Machine(RuleBasedStateMachine):
        def __init__(self):
            super().__init__()
            tried["machine"] += 1

        @rule()
        def nothing(self): ...

    Machine.TestCase.settings = settings(max_examples=60, stateful_step_count=1)
    TestMachine = Machine.TestCase

    def test_z_the_counts():
        print(tried)
"""


@pytest.fixture(autouse=True)
def _the_plugin_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tiers.TESTS))


@pytest.mark.parametrize("rule", tiers.RULES, ids=lambda rule: f"{rule.path}-{rule.test}")
def test_every_rule_is_about_a_test_that_exists(rule: tiers.Rule) -> None:
    text = (tiers.TESTS / rule.path).read_text()
    assert rule.test is None or re.search(rf"^\s*(async )?def {rule.test}\(", text, re.MULTILINE)
    assert set(rule.markers) <= set(tiers.MARKERS)


@pytest.mark.parametrize("workers", ["0", "2"])
def test_both_tiers_together_are_all_and_the_fast_one_says_what_it_leaves_out(
    pytester: pytest.Pytester, workers: str
) -> None:
    pytester.makepyfile(SUITE)
    count = {}
    for tier in ("not slow", "slow", ""):
        run = _run(pytester, "-m", tier, "-n", workers)
        count[tier] = run.parseoutcomes()["passed"]
        said = [line for line in run.outlines if "make test-all" in line]
        assert (
            said
            == {
                "not slow": ["3 tests were not selected. `make test-all` runs everything."],
                "slow": ["1 tests were not selected. `make test-all` runs everything."],
                "": [],
            }[tier]
        )
    assert count["not slow"] + count["slow"] == count[""] == 4


def test_the_gate_runs_every_test_and_the_fast_tier_all_that_are_not_slow() -> None:
    makefile = (tiers.TESTS.parent / "Makefile").read_text()
    fast, whole = re.findall(r"^\t(.*-m pytest .*)$", makefile, re.MULTILINE)
    assert '-m "not slow"' in fast
    assert not re.search(r" (-m (?!pytest)|-k|--deselect|--ignore)", whole)
    assert "make test-all" in (tiers.TESTS.parent / ".ci" / "run").read_text()


@pytest.mark.parametrize(
    ("profile", "wished", "plain"),
    [("dev", tiers.DEV_EXAMPLES, tiers.DEV_EXAMPLES), ("ci", 60, 100)],
)
def test_a_profile_decides_how_many_examples_are_tried(
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    profile: str,
    wished: int,
    plain: int,
) -> None:
    monkeypatch.setenv(tiers.PROFILE_VARIABLE, profile)
    pytester.makepyfile(EXAMPLES)
    run = _run(pytester, "-s")
    assert run.parseoutcomes() == {"passed": 4}
    text = run.stdout.str()
    counted = {name: int(n) for name, n in re.findall(r"'(\w+)': (\d+)", text)}
    assert counted["wished"] == wished and counted["plain"] == plain
    assert abs(counted["machine"] - wished) <= 1  # one more run looks for what varies


def _run(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    """Run the small suite with the plugin of the tiers, in a process of its own."""
    return pytester.runpytest_subprocess("-p", "tiers", "--strict-markers", *arguments)
