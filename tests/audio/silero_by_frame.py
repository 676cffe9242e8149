"""Silero's network once more, one frame after the other in plain numpy: a reference."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from batched_whisper.audio.silero_graph import load_weights
from batched_whisper.types import Samples

Array = NDArray[np.float64]


def frame_by_frame(sound: Samples) -> Array:
    """The probability of speech of each whole frame of 512 samples."""
    weights = {name: array.astype(np.float64) for name, array in load_weights().items()}
    hidden, cell = np.zeros(128), np.zeros(128)
    context: Array = np.zeros(64)
    probabilities = []
    for start in range(0, len(sound) - 511, 512):
        seen = np.concatenate((context, sound[start : start + 512].astype(np.float64)))
        context = seen[-64:]
        hidden, cell = _lstm_cell(_features(seen, weights), hidden, cell, weights)
        output = weights["decoder.decoder.2.weight"].reshape(-1)
        logit = np.maximum(hidden, 0) @ output + weights["decoder.decoder.2.bias"]
        probabilities.append(float(_sigmoid(logit)))
    return np.array(probabilities)


def _features(seen: Array, weights: dict[str, Array]) -> Array:
    padded = np.pad(seen, (0, 64), mode="reflect")
    basis = weights["stft.forward_basis_buffer"].reshape(258, 256)
    spectra = np.stack([basis @ padded[at : at + 256] for at in range(0, 385, 128)], axis=1)
    columns = np.hypot(spectra[:129], spectra[129:])  # [n_channels, n_columns]
    for layer, stride in enumerate((1, 2, 2, 1)):
        kernel = weights[f"encoder.{layer}.reparam_conv.weight"]
        bias = weights[f"encoder.{layer}.reparam_conv.bias"]
        wide = np.pad(columns, ((0, 0), (1, 1)))
        starts = range(0, columns.shape[1], stride)
        convolved = [np.tensordot(kernel, wide[:, at : at + 3], 2) + bias for at in starts]
        columns = np.maximum(np.stack(convolved, axis=1), 0)
    return columns[:, 0]


def _lstm_cell(
    given: Array, hidden: Array, cell: Array, weights: dict[str, Array]
) -> tuple[Array, Array]:
    """One step of PyTorch's LSTMCell: gates input, forget, cell, output."""
    gates = weights["decoder.rnn.weight_ih"] @ given + weights["decoder.rnn.bias_ih"]
    gates += weights["decoder.rnn.weight_hh"] @ hidden + weights["decoder.rnn.bias_hh"]
    let_in, keep, new, let_out = np.split(gates, 4)
    cell = _sigmoid(keep) * cell + _sigmoid(let_in) * np.tanh(new)
    return _sigmoid(let_out) * np.tanh(cell), cell


def _sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))
