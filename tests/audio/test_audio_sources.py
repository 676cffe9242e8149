"""Every form in which a recording may come gives the same sound."""

from __future__ import annotations

import io
import os
import wave
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from batched_whisper.audio.decode import decode, open_audio, source_name
from batched_whisper.audio.sources import check_several
from batched_whisper.errors import EmptyAudio, InvalidSamples, OptionError, UnreadableAudio
from batched_whisper.types import Samples

PCM = (np.sin(np.arange(8_000) / 9) * 20_000).astype(np.int16)
SOUND: Samples = PCM.astype(np.float32) / np.float32(32_768)


class Tensor:
    """What a PyTorch tensor with a gradient offers, and no more."""

    def __init__(self, values: NDArray[Any], detached: bool = False) -> None:
        self._values, self._detached = values, detached

    def detach(self) -> Tensor:
        return Tensor(self._values, detached=True)

    def cpu(self) -> Tensor:
        return self

    def __array__(self, dtype: Any = None, copy: Any = None) -> NDArray[Any]:
        if not self._detached:
            raise RuntimeError("call detach() first")
        return self._values


class TorchcodecDecoder:
    """What `datasets` returns for an audio value since its version 4."""

    def get_all_samples(self) -> Any:
        return SimpleNamespace(data=Tensor(SOUND[None, :]), sample_rate=16_000)


class BrokenDecoder:
    def get_all_samples(self) -> Any:
        raise RuntimeError("no frames")


class Pipe(io.RawIOBase):
    """A file object that can only be read forwards."""

    def __init__(self, content: bytes) -> None:
        self._content = io.BytesIO(content)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._content.readinto(buffer)


def write_wav(path: Path, values: NDArray[np.int16] = PCM, sampling_rate: int = 16_000) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sampling_rate)
        file.writeframes(values.tobytes())
    return path


FORMS: dict[str, Callable[[Path], Any]] = {
    "path": lambda path: path,
    "text": str,
    "bytes": lambda path: path.read_bytes(),
    "bytearray": lambda path: bytearray(path.read_bytes()),
    "memoryview": lambda path: memoryview(path.read_bytes()),
    "file in memory": lambda path: io.BytesIO(path.read_bytes()),
    "pipe": lambda path: Pipe(path.read_bytes()),
    "float32": lambda _: SOUND,
    "float64": lambda _: SOUND.astype(np.float64),
    "int16": lambda _: PCM,
    "int32": lambda _: PCM.astype(np.int32) * 65_536,
    "uint16": lambda _: (PCM.astype(np.int32) + 32_768).astype(np.uint16),
    "list": lambda _: SOUND.tolist(),
    "strided": lambda _: np.repeat(SOUND, 2)[::2],
    "channels first": lambda _: np.stack([SOUND, SOUND]),
    "channels last": lambda _: np.stack([SOUND, SOUND], axis=1),
    "one channel": lambda _: SOUND[:, None],
    "tensor": lambda _: Tensor(SOUND),
    "datasets array": lambda _: {"array": SOUND, "sampling_rate": 16_000, "path": "a.wav"},
    "pipeline input": lambda _: {"raw": SOUND, "sampling_rate": 16_000},
    "datasets bytes": lambda path: {"bytes": path.read_bytes(), "path": "not/here.wav"},
    "datasets path": lambda path: {"bytes": None, "path": str(path)},
    "datasets decoder": lambda _: TorchcodecDecoder(),
    "datasets row": lambda path: {"id": 7, "audio": {"bytes": path.read_bytes(), "path": None}},
    "datasets row, decoder": lambda _: {"audio": TorchcodecDecoder(), "text": "so"},
    "datasets row, path": lambda path: {"audio": str(path)},
}


@pytest.mark.parametrize("form", FORMS)
def test_every_audio_source_decodes_to_the_same_samples(form: str, tmp_path: Path) -> None:
    recording = decode(FORMS[form](write_wav(tmp_path / "a.wav")))
    assert recording.samples.dtype == np.float32
    np.testing.assert_allclose(recording.samples, SOUND, atol=1e-6)
    assert recording.warnings == ()


def test_audio_values_of_datasets_are_accepted(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    path = write_wav(tmp_path / "a.wav")
    column = datasets.Dataset.from_dict({"audio": [str(path)]})
    rows = column.cast_column("audio", datasets.Audio(decode=False))
    np.testing.assert_array_equal(decode(rows[0]).samples, SOUND)
    np.testing.assert_array_equal(decode(rows[0]["audio"]).samples, SOUND)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_8_bit_samples_decode_to_8_bit_precision(dtype: Any) -> None:
    coarse = np.round(SOUND * 127).astype(np.int16)
    values = (coarse + (128 if dtype is np.uint8 else 0)).astype(dtype)
    np.testing.assert_allclose(decode(values).samples, SOUND, atol=0.01)


def test_channels_are_mixed_to_their_mean() -> None:
    silent = np.zeros_like(SOUND)
    mixed = decode(np.stack([SOUND, silent], axis=1)).samples
    np.testing.assert_allclose(mixed, SOUND / 2, atol=1e-7)


def test_sampling_rate_of_an_array_defaults_to_16_khz_and_is_resampled() -> None:
    assert decode(SOUND).duration_s == 0.5
    assert decode(SOUND, sampling_rate=8_000).duration_s == 1.0
    assert decode({"array": SOUND}, sampling_rate=8_000).duration_s == 1.0


def test_decode_does_not_modify_or_share_the_callers_array() -> None:
    values = SOUND.copy()
    samples = decode(values).samples
    samples[:] = 9
    np.testing.assert_array_equal(values, SOUND)


def test_decode_rewinds_the_callers_file_and_leaves_it_open(tmp_path: Path) -> None:
    with write_wav(tmp_path / "a.wav").open("rb") as file:
        file.read(1000)
        assert len(decode(file).samples) == len(SOUND)
        assert not file.closed


def test_source_name_is_the_path_if_there_is_one(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav")
    assert source_name(path) == source_name(str(path)) == str(path)
    assert source_name({"path": "b.wav", "bytes": b""}) == "b.wav"
    assert source_name({"audio": {"path": "b.wav", "bytes": b""}}) == "b.wav"
    assert source_name({"audio": SOUND}) == source_name(SOUND) == source_name(b"") == "audio"
    with path.open("rb") as file:
        assert source_name(file) == str(path)
    assert decode(path, name="mine").name == "mine"


@pytest.mark.parametrize(
    "values",
    [
        np.array([0.0, np.nan]),
        np.array([0.0, np.inf]),
        np.array([-np.inf, 0.0]),
        np.zeros(10, bool),
        np.zeros(10, np.int64),
        np.zeros(10, complex),
        np.zeros((80, 3000)),
        np.zeros((1, 1, 10)),
        np.array(["a", "b"]),
        ["a", "b"],
        [[0.0], [0.0, 1.0]],
        np.float32(3),
    ],
    ids=str,
)
def test_arrays_that_are_not_audio_raise_invalid_samples(values: Any) -> None:
    with pytest.raises(InvalidSamples, match=r"^call 7: "):
        decode(values, name="call 7")


@pytest.mark.parametrize("rate", [0, -16_000, 999, 1_092_676, 16_000.5, float("nan"), "fast"])
def test_an_invalid_sampling_rate_is_rejected(rate: Any) -> None:
    with pytest.raises(InvalidSamples, match="sampling rate"):
        decode(SOUND, sampling_rate=rate)


@pytest.mark.parametrize("values", [np.zeros(0), np.zeros((2, 0)), np.zeros((0, 2)), [], b""])
def test_no_samples_raise_empty_audio(values: Any) -> None:
    with pytest.raises(EmptyAudio):
        decode(values)


@pytest.mark.parametrize("source", [None, object(), {}, {"audio": None}, {"text": "so"}])
def test_an_object_without_audio_raises_unreadable_audio(source: Any) -> None:
    with pytest.raises(UnreadableAudio, match=r"not? audio"):
        decode(source)


def test_sampling_rate_is_rejected_for_sources_with_their_own(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav")
    for form in ("path", "bytes", "file in memory", "datasets array", "datasets decoder"):
        with pytest.raises(OptionError, match="bare array"):
            decode(FORMS[form](path), sampling_rate=8_000)


def test_float_samples_far_above_full_scale_give_a_warning() -> None:
    assert "reach 19999" in decode(PCM.astype(np.float32)).warnings[0]
    assert decode(SOUND * 5).warnings == ()


def test_a_path_that_cannot_be_opened_raises_with_the_reason(tmp_path: Path) -> None:
    for path, why in [
        (tmp_path / "absent.wav", "No such file"),
        (tmp_path, "directory"),
        ("https://example.org/a.wav", "URLs are not supported"),
        ("nul\0l.wav", "null"),
    ]:
        with pytest.raises(UnreadableAudio, match=why) as caught:
            open_audio(path)
        assert str(caught.value).startswith(str(path))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_path_without_permission_says_so(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav")
    path.chmod(0)
    with pytest.raises(UnreadableAudio, match="Permission denied"):
        decode(path)


def test_a_denied_permission_raises_unreadable_audio(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(UnreadableAudio, match="Permission denied"):
        decode(tmp_path / "a.wav")


def test_a_file_opened_in_text_mode_is_rejected(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav")
    with path.open(encoding="latin-1") as file, pytest.raises(UnreadableAudio, match="'rb'"):
        decode(file)  # type: ignore[arg-type]


def test_a_closed_file_and_a_failing_decoder_are_unreadable(tmp_path: Path) -> None:
    with write_wav(tmp_path / "a.wav").open("rb") as file:
        pass
    with pytest.raises(UnreadableAudio, match="closed file"):
        decode(file)
    with pytest.raises(UnreadableAudio, match="no frames"):
        decode(BrokenDecoder())


class Dropping(io.BytesIO):
    """A file whose connection is lost at its call number ``n_calls`` of one kind."""

    def __init__(self, content: bytes, kind: str, n_calls: int, error: Exception) -> None:
        super().__init__(content)
        self._kind, self._left, self._error = kind, n_calls, error

    def _called(self, kind: str) -> None:
        self._left -= kind == self._kind
        if self._left < 0:
            raise self._error

    def read(self, size: int | None = -1, /) -> bytes:
        self._called("read")
        return super().read(size)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        self._called("seek")
        return super().seek(offset, whence)

    def tell(self) -> int:
        self._called("tell")
        return super().tell()

    def seekable(self) -> bool:
        self._called("seekable")
        return True


class DroppingPipe(Dropping):
    """The same, and it can only be read forwards."""

    def seekable(self) -> bool:
        return False


@pytest.mark.parametrize(
    ("kind", "of"),
    [(kind, Dropping) for kind in ("read", "seek", "tell", "seekable")] + [("read", DroppingPipe)],
)
@pytest.mark.parametrize("error", [RuntimeError("gone"), OSError("gone"), KeyError("gone")])
def test_a_file_object_that_fails_at_any_time_in_any_way_is_unreadable(
    tmp_path: Path, kind: str, of: type[Dropping], error: Exception
) -> None:
    content = write_wav(tmp_path / "a.wav", np.tile(PCM, 20)).read_bytes()
    n_failed = 0
    for n_calls in range(60):
        try:
            decode(of(content, kind, n_calls, error))
        except UnreadableAudio as unreadable:
            assert "gone" in str(unreadable)
            assert unreadable.__cause__ is error
            n_failed += 1
    assert 0 < n_failed < 60


@pytest.mark.parametrize("rate", [float("inf"), float("-inf"), float("nan"), 1e300, "16000"])
def test_an_infinite_sampling_rate_is_rejected(rate: Any) -> None:
    with pytest.raises(InvalidSamples, match="sampling rate"):
        decode(SOUND, sampling_rate=rate)


# --- one recording, or several --------------------------------------------------------------------


@pytest.mark.parametrize(
    "several",
    [
        ["a.wav", "b.wav"],
        (Path("a.wav"),),
        [b"RIFF", b"RIFF"],
        [{"array": SOUND, "sampling_rate": 16_000}],
    ],
)
def test_a_list_of_recordings_for_one_recording_suggests_map(several: Any) -> None:
    with pytest.raises(InvalidSamples, match=r"use transcribe\.map\(\[\.\.\.\]\)"):
        decode(several)


def test_arrays_of_different_lengths_for_one_recording_suggest_map() -> None:
    with pytest.raises(InvalidSamples, match=r"use map\(\[\.\.\.\]\) for several recordings"):
        decode([SOUND, SOUND[:10]])  # type: ignore[list-item]


@pytest.mark.parametrize(
    "one",
    [
        "talk.wav",
        Path("talk.wav"),
        b"RIFF",
        bytearray(b"RIFF"),
        memoryview(b"RIFF"),
        io.BytesIO(b"RIFF"),
        SOUND,
        PCM,
        {"audio": "talk.wav"},
        TorchcodecDecoder(),
    ],
    ids=lambda one: type(one).__name__,
)
def test_check_several_rejects_one_recording_for_map(one: Any) -> None:
    with pytest.raises(UnreadableAudio, match=r"use transcribe\(\.\.\.\) for it, or map\("):
        check_several(one)


def _ragged() -> NDArray[Any]:
    rows = np.empty(2, object)
    rows[:] = [SOUND, SOUND[:10]]
    return rows


@pytest.mark.parametrize(
    "several",
    [
        ["talk.wav"],
        [],
        np.array([]),
        np.array(["a.wav", "b.wav"]),
        np.array([Path("a.wav")], object),
        np.stack([SOUND, SOUND]),
        _ragged(),
        iter(["talk.wav"]),
        (path for path in ["talk.wav"]),
        {"a.wav"},
        {"a.wav": 1}.keys(),
    ],
    ids=lambda several: type(several).__name__,
)
def test_check_several_accepts_any_iterable_of_recordings(several: Any) -> None:
    check_several(several)
