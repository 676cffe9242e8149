"""Transformers' Whisper with the same weights: static batches, as most programs run it.

A batch goes on until its longest text has ended, and every window is 30 s.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from batched_whisper.models.safetensors_file import _our_name
from benchmarks.gpu import parts
from benchmarks.gpu.mix import FULL_LENGTH, SHORT, WindowSize
from benchmarks.gpu.rig import PROMPT, Rig, ids_of, run_windows

BATCH = 64
N_BATCHES = 2


def transformers_model(rig: Rig) -> Any:
    """Their model on the rig's weights, in 16 bits with PyTorch's fused attention."""
    from pathlib import Path

    from transformers import WhisperConfig, WhisperForConditionalGeneration

    sizes, ids = rig.sizes, ids_of(rig.sizes)
    config = WhisperConfig(
        vocab_size=sizes.n_vocab,
        num_mel_bins=sizes.n_mels,
        encoder_layers=sizes.n_audio_layer,
        encoder_attention_heads=sizes.n_audio_head,
        decoder_layers=sizes.n_text_layer,
        decoder_attention_heads=sizes.n_text_head,
        encoder_ffn_dim=4 * sizes.n_audio_state,
        decoder_ffn_dim=4 * sizes.n_text_state,
        d_model=sizes.n_audio_state,
        max_source_positions=sizes.n_audio_ctx,
        max_target_positions=sizes.n_text_ctx,
        eos_token_id=ids.eot,
        bos_token_id=ids.eot,
        pad_token_id=ids.eot,
        decoder_start_token_id=ids.eot + 1,
        attn_implementation="sdpa",
    )
    dtype = torch.float32 if rig.device == "cpu" else torch.float16
    with torch.device(rig.device):
        model = WhisperForConditionalGeneration(config).to(dtype).eval()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name == "proj_out.weight":
                continue  # the token embedding
            ours = rig.checkpoint.weights[_our_name(name, Path("transformers"))]
            tensor.copy_(torch.from_numpy(np.array(ours)))
    return model


def beside_transformers(rig: Rig, n: int) -> dict[str, Any]:
    """Ours and theirs on the very same windows: the short mix, and windows of nearly 30 s.

    Theirs always encodes 30 s; ours does too, and where a mix is short also on fitted contexts.
    """
    import transformers  # noqa: F401 - if it is missing, before anything is measured

    mixes = {mix: rig.workload.windows(mix, n) for mix in (SHORT, FULL_LENGTH)}
    cases = [(SHORT, False), (SHORT, True), (FULL_LENGTH, False)]
    ours = {}
    with rig.engine() as engine:
        run_windows(rig, engine, mixes[SHORT], fitted=True)
        for mix, fitted in cases:
            run = run_windows(rig, engine, mixes[mix], fitted=fitted)
            ours[mix, fitted] = parts.rates(run, mixes[mix])
    # Their rate is that of a batch; ours needs enough windows to be in full swing.
    some = {mix: windows[: min(n, N_BATCHES * BATCH)] for mix, windows in mixes.items()}
    theirs = _transformers_rates(rig, some)
    figures: dict[str, Any] = {f"transformers, {mix}": each for mix, each in theirs.items()}
    for mix, fitted in cases:
        each = ours[mix, fitted]
        each["over_transformers"] = each["windows_per_s"] / theirs[mix]["windows_per_s"]
        figures[f"ours, {parts.case_name(mix, fitted)}"] = each
    return figures


def _transformers_rates(
    rig: Rig, mixes: Mapping[str, Sequence[WindowSize]]
) -> dict[str, dict[str, Any]]:
    """Windows per second in static batches."""
    model = transformers_model(rig)
    figures = {}
    for mix, windows in mixes.items():
        for i, window in enumerate(windows):
            rig.heard(i, window, rig.sizes.n_audio_ctx)  # now, before the clock starts
        _generate(rig, model, windows[:BATCH])  # takes its memory, and loads its kernels
        rig.sync()
        began_s = time.perf_counter()
        for i in range(0, len(windows), BATCH):
            _generate(rig, model, windows[i : i + BATCH])
        rig.sync()
        figures[mix] = _rates(windows, time.perf_counter() - began_s)
    del model
    if rig.device != "cpu":
        torch.cuda.empty_cache()
    return figures


def _rates(windows: Sequence[WindowSize], wall_s: float) -> dict[str, Any]:
    audio_s = sum(window.duration_s for window in windows)
    return {
        "n_windows": len(windows),
        "batch": BATCH,
        "mean_audio_s": audio_s / len(windows),
        "mean_tokens": sum(window.n_tokens for window in windows) / len(windows),
        "wall_s": wall_s,
        "windows_per_s": len(windows) / wall_s,
        "times_real_time": audio_s / wall_s,
    }


def _generate(rig: Rig, model: Any, windows: Sequence[WindowSize]) -> Any:
    from transformers.generation import GenerationMixin

    ids, context = ids_of(rig.sizes), rig.sizes.n_audio_ctx
    features = np.stack([rig.heard(i, window, context) for i, window in enumerate(windows)])
    start = [ids.eot + 1, *range(ids.eot + 2, ids.eot + 2 + PROMPT)]
    longest = max(window.n_tokens for window in windows)
    with torch.inference_mode():
        # Not Whisper's own generate(), which looks for languages and timestamps.
        found = GenerationMixin.generate(
            model,
            inputs=torch.from_numpy(features).to(rig.device).to(model.dtype),
            decoder_input_ids=torch.tensor([start] * len(windows), device=rig.device),
            min_new_tokens=longest,
            max_new_tokens=longest,
            do_sample=False,
            use_cache=True,
        )
    assert found.shape == (len(windows), len(start) + longest), found.shape
    return found
