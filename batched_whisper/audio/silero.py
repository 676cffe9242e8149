"""Detects speech with Silero VAD, 4 s per call of the network.

The probabilities equal those of the model run frame by frame: the recurrent state is passed from
call to call, and the calls cover the same parts of the recording whatever the block boundaries.
The network is in `batched_whisper.audio.silero_graph`; `batched_whisper.audio.speech` turns
probabilities into spans.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batched_whisper.audio.silero_graph import CONTEXT, FRAME, WIDTH, compiled, spectra_samples
from batched_whisper.audio.speech import SpeechOptions, SpeechTracker, SpeechUpdate
from batched_whisper.types import Samples

FRAMES_AT_ONCE = 128
"""Frames per call of the network: 4.1 s. More are not faster, and short clips pay for all."""

_SAMPLES_PER_CALL = FRAMES_AT_ONCE * FRAME


class SileroDetector:
    """Finds speech with Silero VAD v6.2; shared by many recordings and threads.

    Args:
        options: what counts as speech.
        threads: CPU threads per call of the network.

    Raises:
        ModelFileMissing: the wheel with the weights is not installed.
        WrongHash: its weights do not have the expected SHA-256.
        EngineError: OpenVINO cannot compile the network.
    """

    def __init__(self, options: SpeechOptions | None = None, threads: int = 1) -> None:
        self._options = SpeechOptions() if options is None else options
        self._network = compiled(FRAMES_AT_ONCE, threads)

    def new_stream(self) -> SileroStream:
        """Start detecting in a new recording."""
        tracker = SpeechTracker(FRAME, self._options)
        return SileroStream(SileroProbabilities(self._network), tracker)


class SileroStream:
    """Detects speech in one recording; created by `SileroDetector.new_stream`."""

    def __init__(self, probabilities: SileroProbabilities, tracker: SpeechTracker) -> None:
        self._probabilities, self._tracker = probabilities, tracker

    def process(self, block: Samples) -> SpeechUpdate:
        """Process the next samples, ``[n_samples]``, of any length."""
        return self._tracker.track(self._probabilities.process(block).tolist())

    def end(self) -> SpeechUpdate:
        """End the recording; returns the rest of the speech."""
        rest = self._probabilities.end().tolist()
        return self._tracker.end(rest, self._probabilities.n_samples)


class SileroProbabilities:
    """Computes the speech probability of each frame of a recording; buffers at most 4.1 s.

    Args:
        network: from `compiled`, for `FRAMES_AT_ONCE` frames.
    """

    def __init__(self, network: Any) -> None:
        self.n_samples = 0
        """Samples processed so far."""
        self._request = network.create_infer_request()
        self._hidden = np.zeros((1, 1, WIDTH), np.float32)
        self._cell = np.zeros((1, 1, WIDTH), np.float32)
        self._sound = np.zeros(CONTEXT + _SAMPLES_PER_CALL, np.float32)

    def process(self, block: Samples) -> NDArray[np.float32]:
        """Process samples; returns the probabilities of all complete calls, ``[n_frames]``."""
        computed = [np.zeros(0, np.float32)]
        while len(block):
            n_held = self.n_samples % _SAMPLES_PER_CALL
            piece, block = block[: _SAMPLES_PER_CALL - n_held], block[_SAMPLES_PER_CALL - n_held :]
            self._sound[CONTEXT + n_held : CONTEXT + n_held + len(piece)] = piece
            self.n_samples += len(piece)
            if self.n_samples % _SAMPLES_PER_CALL == 0:
                computed.append(self._computed())
        return np.concatenate(computed)

    def end(self) -> NDArray[np.float32]:
        """Return the probabilities of the rest; the last frame is padded with silence."""
        n_held = self.n_samples % _SAMPLES_PER_CALL
        if n_held == 0:
            return np.zeros(0, np.float32)
        self._sound[CONTEXT + n_held :] = 0
        return self._computed()[: math.ceil(n_held / FRAME)]

    def _computed(self) -> NDArray[np.float32]:
        inputs = [spectra_samples(self._sound), self._hidden, self._cell]
        outputs = self._request.infer(inputs, share_inputs=True)
        probabilities, self._hidden, self._cell = (outputs[at] for at in range(3))
        self._sound[:CONTEXT] = self._sound[-CONTEXT:]
        row: NDArray[np.float32] = probabilities[:, 0]
        return row
