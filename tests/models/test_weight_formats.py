"""The weight dictionary against CTranslate2, which reads the same files by its own code."""

import numpy as np
import pytest
from numpy_whisper import NumpyWhisper

from batched_whisper.tokens.prompt import sot_sequence

N_FRAMES = 400


@pytest.mark.parametrize("fixture", ["tiny_en_model", "base_model"])
def test_loaded_weights_compute_the_same_as_ctranslate2(request, fixture):
    ctranslate2 = pytest.importorskip("ctranslate2")
    model = request.getfixturevalue(fixture)
    theirs = ctranslate2.models.Whisper(str(model.files.folder), compute_type="float32")
    ours = NumpyWhisper(model.checkpoint)
    # Any sound will do: smooth noise in the range of log-mel features
    noise = np.random.default_rng(0).standard_normal((1, 80, N_FRAMES), dtype=np.float32)
    features = np.tanh(noise + np.roll(noise, 1, axis=2))

    hidden = theirs.encode(ctranslate2.StorageView.from_array(features))
    audio = ours.encode(features[0], cut_off=True)
    expected = np.array(hidden)[0]
    assert np.abs(audio.hidden - expected).max() < 2e-3 * np.abs(expected).max()

    t = model.tokenizer
    prompt = list(sot_sequence(t, "en"))
    result = theirs.generate(
        hidden,
        [prompt],
        beam_size=1,
        max_length=len(prompt) + 1,
        return_logits_vocab=True,
        suppress_tokens=[],
        suppress_blank=False,
    )[0]
    their_logits = np.array(result.logits[0][0]).ravel()
    our_logits = ours.logits(prompt, audio)[-1]
    assert np.abs(our_logits - their_logits).max() < 2e-3 * np.abs(their_logits).max()
