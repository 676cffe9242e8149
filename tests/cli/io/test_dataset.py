"""Datasets are read as they are stored, row by row."""

from __future__ import annotations

import sys

import pytest

from batched_whisper.cli.io.dataset import EXAMPLE_DATASET, DatasetName, from_dataset
from batched_whisper.errors import ManifestError, MissingExtra, OptionError, UnreadableAudio


@pytest.fixture
def stored(tmp_path, monkeypatch):
    """A dataset of three rows on this disk: bytes, a file, and nothing."""
    datasets = pytest.importorskip("datasets", reason="the extra datasets is not installed")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    (tmp_path / "two.wav").write_bytes(b"two")
    sounds = [
        {"bytes": b"one", "path": "one.wav"},
        {"bytes": None, "path": str(tmp_path / "two.wav")},
        None,
    ]
    stored_as = {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}
    rows = datasets.Dataset.from_dict(
        {"audio": sounds, "text": ["1", "2", "3"]},
        features=datasets.Features({"audio": stored_as, "text": datasets.Value("string")}),
    ).cast_column("audio", datasets.Audio(decode=False))
    folder = tmp_path / "data"
    folder.mkdir()
    rows.to_parquet(folder / "train.parquet")
    rows.to_parquet(folder / "test.parquet")
    return str(folder)


def test_each_row_is_a_recording_with_a_name_of_its_own(stored):
    sources = from_dataset(DatasetName(stored, split="test"))
    assert [source.name for source in sources] == [f"{stored}/test/{n:06d}" for n in range(3)]
    assert [source.open() for source in sources[:2]] == [b"one", b"two"]
    with pytest.raises(UnreadableAudio, match="this row has no audio"):
        sources[2].open()


def test_what_is_not_there_is_told_with_what_is(stored):
    with pytest.raises(OptionError, match="--split: choose one of train, test"):
        from_dataset(DatasetName(stored))
    with pytest.raises(OptionError, match=r"--column sound: .* has audio, text"):
        from_dataset(DatasetName(stored, split="test", column="sound"))
    with pytest.raises(ManifestError, match="cannot be loaded"):
        from_dataset(DatasetName(f"{stored}/gone"))


def test_without_a_network_it_is_told_at_once(stored, monkeypatch):
    import datasets
    from huggingface_hub import constants

    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    before = datasets.config.HF_HUB_OFFLINE
    slept = list[float]()
    monkeypatch.setattr("time.sleep", slept.append)
    with pytest.raises(
        ManifestError, match=r"127.0.0.1:9\) cannot be reached, and there is no local copy"
    ):
        from_dataset(DatasetName("somebody/speech"))
    assert not slept  # no request is tried again
    assert before == datasets.config.HF_HUB_OFFLINE


def test_a_data_set_is_transcribed(stored, run):
    ended = run("transcribe", "--dataset", stored, "--split", "test", "--format", "text")
    assert ended.out == f"{stored}/test/000000: one\n{stored}/test/000001: two\n"
    assert ended.code == 1 and "1 recording failed:" in ended.err


def test_the_small_data_set_needs_no_configuration():
    assert DatasetName(EXAMPLE_DATASET).completed() == DatasetName(
        EXAMPLE_DATASET, "clean", "validation"
    )
    assert DatasetName(EXAMPLE_DATASET, split="x").completed() == DatasetName(
        EXAMPLE_DATASET, "clean", "x"
    )
    assert DatasetName("other").completed() == DatasetName("other")


def test_a_missing_package_says_which_extra_brings_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtra, match=r"pip install 'batched-whisper\[datasets\]'"):
        from_dataset(DatasetName("x"))
