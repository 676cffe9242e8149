import json
import socket

import pytest
from hub_stand_in import COMMIT, StandInHub, serving
from tiny_models import TINY, write_hugging_face

from batched_whisper.errors import HubUnreachable, ModelFileMissing, UnknownModel
from batched_whisper.models import hub as hub_module
from batched_whisper.models.checkpoint import load_checkpoint, random_checkpoint
from batched_whisper.models.model_files import Source
from batched_whisper.models.sources import download, find

MODEL = "someone/whisper"


@pytest.fixture
def places(tmp_path, monkeypatch):
    """The caches of this test alone, and an environment that allows the network."""
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    return {"hub_cache": tmp_path / "hub", "cache_dir": tmp_path / "own"}


@pytest.fixture
def hub(places, tmp_path, monkeypatch):
    """A Hub with a tiny model in two shards, among files that loading does not need."""
    write_hugging_face(tmp_path / "made", TINY, random_checkpoint(TINY, 0).weights, n_shards=2)
    files = {path.name: path.read_bytes() for path in (tmp_path / "made").iterdir()}
    files["tokenizer.json"] = b"{}"
    for name in ("pytorch_model.bin", "model.fp32-00001-of-00002.safetensors", "README.md"):
        files[name] = b"not needed"
    with serving(StandInHub(MODEL, files)) as stand_in:
        monkeypatch.setenv("HF_ENDPOINT", stand_in.url)
        yield stand_in


def test_a_model_of_the_hub_is_fetched_once(hub, places):
    first = find(MODEL, **places)
    assert (first.source, first.revision, first.name) == (Source.HUB, COMMIT, MODEL)
    n_asked = len(hub.asked)
    second = find(MODEL, **places)
    assert (second.source, second.revision) == (Source.CACHE, COMMIT)
    assert second.folder == first.folder
    assert len(hub.asked) == n_asked
    checkpoint = load_checkpoint(second)
    assert (checkpoint.dimensions, checkpoint.revision) == (TINY, COMMIT)


def test_only_what_is_needed_is_fetched(hub, places):
    find(MODEL, **places)
    assert hub.fetched() == {
        "config.json",
        "tokenizer.json",
        "model.safetensors.index.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    }


@pytest.mark.parametrize("revision", ["v1", COMMIT])
def test_a_revision_is_fetched_and_then_found_without_the_hub(hub, places, revision):
    hub.revisions["v1"] = COMMIT
    assert find(MODEL, revision, **places).revision == COMMIT
    assert find(MODEL, revision, **places, offline=True).source is Source.CACHE


def test_a_branch_is_used_as_cached_until_it_is_downloaded_again(hub, places):
    find(MODEL, **places)
    newer = COMMIT[::-1]
    hub.revisions["main"] = newer
    assert find(MODEL, **places).revision == COMMIT


def test_a_download_asks_the_hub_again_and_does_without_it(hub, places, monkeypatch):
    download(MODEL, **places)
    assert download(MODEL, **places).source is Source.HUB
    assert download(MODEL, COMMIT, **places).source is Source.CACHE  # it cannot have changed
    monkeypatch.setenv("HF_ENDPOINT", closed_port())
    assert download(MODEL, **places).source is Source.CACHE
    with pytest.raises(HubUnreachable):
        download("someone/else", **places)


def test_an_unknown_repository_raises_unknown_model(hub, places):
    with pytest.raises(UnknownModel, match="someone/else"):
        find("someone/else", **places)


def test_an_unknown_revision_raises_unknown_model(hub, places):
    with pytest.raises(UnknownModel, match="'v9'"):
        find(MODEL, "v9", **places)


def test_a_repository_without_readable_weights_is_refused_before_any_download(hub, places):
    for name in [name for name in hub.files if name.startswith("model")]:
        del hub.files[name]
    with pytest.raises(ModelFileMissing, match=r"model\.safetensors"):
        find(MODEL, **places)
    assert not hub.fetched()


def test_a_repository_without_a_tokenizer_is_refused(hub, places):
    del hub.files["tokenizer.json"]
    with pytest.raises(ModelFileMissing, match=r"tokenizer\.json"):
        find(MODEL, **places)


def test_half_a_file_is_never_used(hub, places):
    hub.cut = "model-00002-of-00002.safetensors"
    with pytest.raises(HubUnreachable, match=MODEL):
        find(MODEL, **places)
    with pytest.raises(HubUnreachable, match="offline"):
        find(MODEL, **places, offline=True)
    hub.cut = None
    files = find(MODEL, **places)
    for name in hub.fetched():
        assert (files.folder / name).read_bytes() == hub.files[name]


def test_a_refused_connection_raises_hub_unreachable_with_one_sentence(places, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", closed_port())
    with pytest.raises(HubUnreachable) as caught:
        find("small", **places)
    for words in ("small", "the Hub's cache", "folder", "127.0.0.1"):
        assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_hub_without_response_raises_hub_unreachable(places, monkeypatch):
    """It accepts the connection and says nothing."""
    monkeypatch.setattr(hub_module, "PROBE_TIMEOUT_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(HubUnreachable, match="small"):
            find("small", **places)


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_offline_mode_makes_no_request(hub, places, monkeypatch, variable):
    monkeypatch.setenv(variable, "1")
    with pytest.raises(HubUnreachable, match="offline"):
        find(MODEL, **places)
    assert not hub.asked


def closed_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize(
    ("present", "weights"),
    [
        (["model.safetensors", "pytorch_model.bin", "flax_model.msgpack"], {"model.safetensors"}),
        (["model.safetensors", "model.bin", "vocabulary.json"], {"model.safetensors"}),
        (
            ["model.safetensors", "model.safetensors.index.fp32.json"]
            + [f"model.fp32-0000{i}-of-00002.safetensors" for i in (1, 2)],
            {"model.safetensors"},
        ),
        (
            ["model.safetensors.index.json", "model-00001-of-00001.safetensors"],
            {"model.safetensors.index.json", "model-00001-of-00001.safetensors"},
        ),
        (["model.bin", "vocabulary.txt"], {"model.bin", "vocabulary.txt"}),
    ],
)
def test_one_kind_of_weights_is_chosen(present, weights):
    beside = ["config.json", "tokenizer.json", "generation_config.json", "merges.txt"]
    chosen = hub_module.needed_files([*present, *beside, "README.md", ".gitattributes"])
    assert set(chosen) == {*weights, *beside}


def test_needed_files_is_empty_for_pickles_alone():
    assert hub_module.needed_files(["config.json", "pytorch_model.bin", "tf_model.h5"]) == []


def test_a_snapshot_with_a_shard_missing_is_not_complete(tmp_path):
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).touch()
    assert "weights" in (hub_module.missing_file(tmp_path) or "")
    index = {"weight_map": {"a": "model-00001-of-00001.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert hub_module.missing_file(tmp_path) == "model-00001-of-00001.safetensors"
    (tmp_path / "model-00001-of-00001.safetensors").touch()
    assert hub_module.missing_file(tmp_path) is None
