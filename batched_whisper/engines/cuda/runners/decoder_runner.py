"""Runs passes of the decoder: inputs in, a few numbers per token out.

Several passes can follow each other without the host (multi-step decoding), which reads the outputs
when the last is done. On a GPU a pass is recorded as a CUDA graph for each of a few sizes; passes
between those sizes are padded with tokens of the padding slot. On a CPU it just runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from batched_whisper.decoding.rules import TokenIds
from batched_whisper.engines.cuda.cuda_graphs import (
    RecordedGraphs,
    StreamSlot,
    blocking_event,
    try_to_record,
)
from batched_whisper.engines.cuda.kv_cache import KVCache
from batched_whisper.engines.cuda.model.decode_inputs import (
    DecodeInputs,
    Field,
    TokenInput,
    next_inputs,
)
from batched_whisper.engines.cuda.model.decoder import Decoder
from batched_whisper.engines.cuda.model.token_choice import (
    N_OUTPUTS,
    Choose,
    MaskTable,
    best_tokens,
)


def recorded_sizes(max_tokens: int) -> list[int]:
    """Return powers of two up to ``max_tokens`` and, from 16 on, the sizes halfway between them."""
    powers = [2**i for i in range(max_tokens.bit_length() + 1)]
    sizes = sorted(powers + [size * 3 // 2 for size in powers if size >= 16])
    return [size for size in sizes if size < max_tokens] + [max_tokens]


@dataclass(frozen=True)
class PassOutputs:
    """Outputs of a pass: per token, the choice, its log-probability and the probe's probability."""

    tokens: list[int]
    logprobs: list[float]
    probes: list[float]


@dataclass(frozen=True)
class RankedTokens:
    """Tokens, best first, and their log-probabilities; -inf if not allowed."""

    tokens: list[int]
    logprobs: list[float]


class _DecoderPass:
    """The device's part of a pass, on memory at fixed addresses.

    Holds no reference to its graphs: a reference cycle would keep GPU memory until Python's garbage
    collector runs.
    """

    def __init__(
        self,
        decoder: Decoder,
        choose: Choose,
        cache: KVCache,
        masks: MaskTable,
        ids: TokenIds,
        inputs: DecodeInputs,
        max_tokens: int,
    ) -> None:
        device = cache.cross_kv.device
        self._decoder, self._choose = decoder, choose
        self._cache, self._masks, self._ids, self._inputs = cache, masks, ids, inputs
        self._max_tokens = max_tokens
        self.outputs = torch.zeros((N_OUTPUTS, max_tokens), device=device)
        # Shared by all recorded sizes, which would otherwise keep one each.
        self._logits = torch.zeros((max_tokens, decoder.n_columns), device=device)

    def run(self, size: int) -> None:
        """Run a pass over the first ``size`` inputs."""
        inputs = self._inputs.read(size)
        tokens, slots, positions = inputs[Field.TOKEN], inputs[Field.SLOT], inputs[Field.POSITION]
        logits = self._logits[:size]
        self._decoder.logits(self._cache, tokens, slots, positions, logits)
        chosen = self._choose(logits[:, : self._decoder.n_vocab], self._masks.forbidden, inputs)
        self.outputs[:, :size].copy_(chosen)

    def advance(self, size: int) -> None:
        """Replace the inputs by those of the next pass."""
        inputs, chosen = self._inputs.read(size), self.outputs[0, :size].long()
        inputs.copy_(next_inputs(inputs, chosen, self._ids, self._inputs.padding))

    def best(self, indices: torch.Tensor, n_best: int) -> torch.Tensor:
        """Return the best tokens after some tokens of the pass (`token_choice.best_tokens`)."""
        inputs = self._inputs.read(self._max_tokens)[:, indices]
        logits = self._logits[indices, : self._decoder.n_vocab]
        return best_tokens(logits, self._masks.forbidden, inputs, n_best)


class DecoderRunner:
    """Runs passes of up to ``max_tokens`` tokens.

    Args:
        decoder: the decoder.
        choose: chooses tokens from logits.
        cache: the slots' keys and values.
        masks: the token masks.
        ids: the special tokens.
        max_tokens: the most tokens of a pass.
        max_passes: the most consecutive passes without the host.
        stream_slots: the streams to record CUDA graphs on.
    """

    def __init__(
        self,
        decoder: Decoder,
        choose: Choose,
        cache: KVCache,
        masks: MaskTable,
        ids: TokenIds,
        *,
        max_tokens: int,
        max_passes: int,
        stream_slots: Sequence[StreamSlot] = (),
    ) -> None:
        device = cache.cross_kv.device
        self.max_tokens, self.max_passes = max_tokens, max_passes
        self.cache, self.masks = cache, masks
        self._inputs = DecodeInputs(
            max_tokens, device, TokenInput(token=0, slot=cache.padding_slot, position=0)
        )
        self._device_pass = _DecoderPass(
            decoder, choose, cache, masks, ids, self._inputs, max_tokens
        )
        on_gpu = device.type == "cuda"
        self._host_outputs = torch.zeros((max_passes, N_OUTPUTS, max_tokens), pin_memory=on_gpu)
        self._done = blocking_event() if on_gpu else None
        self.graphs = RecordedGraphs(self._device_pass.run, recorded_sizes(max_tokens))
        """The device's part of a pass over the current inputs, by the number of tokens."""
        self._between = RecordedGraphs(self._device_pass.advance, [max_tokens])
        self.why = "stepping is not recorded"
        if stream_slots:
            self.record(stream_slots)

    def run(self, token_inputs: Sequence[TokenInput], n_passes: int = 1) -> list[PassOutputs]:
        """Run passes and return their outputs."""
        return self.begin(token_inputs, n_passes, len(token_inputs))()

    def begin(
        self,
        token_inputs: Sequence[TokenInput],
        n_passes: int,
        n_continuing: int,
        stream_slot: int = 0,
    ) -> Callable[[], list[PassOutputs]]:
        """Start consecutive passes; the returned function waits for them and returns their outputs.

        Args:
            token_inputs: the inputs of the first pass.
            n_passes: the number of passes.
            n_continuing: the number of tokens, the first ones, that continue in the next passes,
                each with the token chosen for it. Outputs of a row that has ended are undefined.
            stream_slot: the stream slot whose graphs are replayed.

        No passes may be started before these outputs are read.
        """
        size = self.graphs.size(len(token_inputs))
        self._inputs.send(token_inputs, size)
        for i in range(n_passes):
            if i:
                self._between.replay(self.max_tokens, stream_slot)
                size = self.graphs.size(n_continuing)
            self.graphs.replay(size, stream_slot)
            # All of it: a part is not contiguous and would be copied twice.
            self._host_outputs[i].copy_(self._device_pass.outputs, non_blocking=True)
        if self._done is not None:
            self._done.record()
        return partial(self._read, n_passes, len(token_inputs))

    def _read(self, n_passes: int, n: int) -> list[PassOutputs]:
        if self._done is not None:
            self._done.synchronize()
        return [
            PassOutputs([int(token) for token in tokens], logprobs, probes)
            for tokens, logprobs, probes in self._host_outputs[:n_passes, :, :n].tolist()
        ]

    def best(self, indices: Sequence[int], n_best: int) -> list[RankedTokens]:
        """Return the best tokens after some tokens of a pass, which must have been the only one."""
        best = self._device_pass.best(
            torch.tensor(indices, device=self.cache.self_kv.device), n_best
        )
        tokens, logprobs = best.tolist()
        return [
            RankedTokens([int(token) for token in row_tokens], row_logprobs)
            for row_tokens, row_logprobs in zip(tokens, logprobs, strict=True)
        ]

    def record(self, stream_slots: Sequence[StreamSlot]) -> None:
        """Record passes as CUDA graphs if possible. Raises torch.OutOfMemoryError."""
        self.why = try_to_record("stepping", (self.graphs, self._between), stream_slots)
