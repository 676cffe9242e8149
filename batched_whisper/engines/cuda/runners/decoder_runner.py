"""DecoderRunner over the decoder: numbers in, a few numbers a row out.

One pass may follow another without the host, which reads what they said when the last is done. On
a GPU a pass is recorded once for each of a few sizes, as a CUDA graph. Fewer tokens than a recorded
size are filled up with tokens that are padding_slot's. Elsewhere it just runs.
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


def recorded_sizes(most: int) -> list[int]:
    """Powers of two and, from 16 on, what lies halfway between them; up to ``most``."""
    powers = [2**i for i in range(most.bit_length() + 1)]
    sizes = sorted(powers + [size * 3 // 2 for size in powers if size >= 16])
    return [size for size in sizes if size < most] + [most]


@dataclass(frozen=True)
class PassOutputs:
    """What a pass said: of each token_input token, log-probability and the probe's probability."""

    tokens: list[int]
    logprobs: list[float]
    probes: list[float]


@dataclass(frozen=True)
class RankedTokens:
    """Tokens, the best first, and their log-probabilities: -inf for what is not allowed."""

    tokens: list[int]
    logprobs: list[float]


class _DecoderPass:
    """What the device does, on memory that stays where it is.

    It knows nothing of how it is recorded: of two that know each other neither is gone, nor its
    memory, when padding_slot needs them any more.
    """

    def __init__(
        self,
        decoder: Decoder,
        choose: Choose,
        cache: KVCache,
        masks: MaskTable,
        ids: TokenIds,
        inputs: DecodeInputs,
        most: int,
    ) -> None:
        device = cache.cross_kv.device
        self._decoder, self._choose = decoder, choose
        self._cache, self._masks, self._ids, self._inputs = cache, masks, ids, inputs
        self._most = most
        self.outputs = torch.zeros((N_OUTPUTS, most), device=device)
        # One for all recorded sizes: each would keep its own.
        self._logits = torch.zeros((most, decoder.n_columns), device=device)

    def run(self, size: int) -> None:
        """A pass of so many tokens, which were fed."""
        inputs = self._inputs.read(size)
        tokens, slots, positions = inputs[Field.TOKEN], inputs[Field.SLOT], inputs[Field.POSITION]
        logits = self._logits[:size]
        self._decoder.logits(self._cache, tokens, slots, positions, logits)
        chosen = self._choose(logits[:, : self._decoder.n_vocab], self._masks.hidden, inputs)
        self.outputs[:, :size].copy_(chosen)

    def advance(self, size: int) -> None:
        """DecodeInputs the next pass with what was chosen."""
        inputs, chosen = self._inputs.read(size), self.outputs[0, :size].long()
        inputs.copy_(next_inputs(inputs, chosen, self._ids, self._inputs.padding))

    def best(self, places: torch.Tensor, n_best: int) -> torch.Tensor:
        """The best tokens of some places of the last pass, see `token_choice.best_tokens`."""
        inputs = self._inputs.read(self._most)[:, places]
        logits = self._logits[places, : self._decoder.n_vocab]
        return best_tokens(logits, self._masks.hidden, inputs, n_best)


class DecoderRunner:
    """Runs passes of up to ``most`` tokens.

    Args:
        decoder: runs over the cache.
        choose: says what is chosen of the logits.
        cache: the slots'.
        masks: the token masks'.
        ids: the special tokens.
        most: the most tokens of a pass.
        max_passes: the most passes without the host.
        places: where to record CUDA graphs.
    """

    def __init__(
        self,
        decoder: Decoder,
        choose: Choose,
        cache: KVCache,
        masks: MaskTable,
        ids: TokenIds,
        *,
        most: int,
        max_passes: int,
        places: Sequence[StreamSlot] = (),
    ) -> None:
        device = cache.cross_kv.device
        self.most, self.max_passes = most, max_passes
        self.cache, self.masks = cache, masks
        self._inputs = DecodeInputs(
            most, device, TokenInput(token=0, slot=cache.padding_slot, position=0)
        )
        self._device_pass = _DecoderPass(decoder, choose, cache, masks, ids, self._inputs, most)
        on_gpu = device.type == "cuda"
        self._host_outputs = torch.zeros((max_passes, N_OUTPUTS, most), pin_memory=on_gpu)
        self._done = blocking_event() if on_gpu else None
        self.graphs = RecordedGraphs(self._device_pass.run, recorded_sizes(most))
        """The device's part of a pass, on what was fed last, by its number of tokens."""
        self._between = RecordedGraphs(self._device_pass.advance, [most])
        self.why = "stepping is not recorded"
        if places:
            self.record(places)

    def run(self, token_inputs: Sequence[TokenInput], n_passes: int = 1) -> list[PassOutputs]:
        """`begin` and `read`."""
        return self.begin(token_inputs, n_passes, len(token_inputs))()

    def begin(
        self, token_inputs: Sequence[TokenInput], n_passes: int, n_asking: int, place: int = 0
    ) -> Callable[[], list[PassOutputs]]:
        """DecoderRunner one after another; what is returned waits for them, and tells what each said.

        The first is fed the token_inputs, and each other one what was chosen in the one before for the
        first ``n_asking`` of them. What is told of an token_input that has come to its end means nothing.
        No passes may begin before these are read. ``place`` is that of a recording.
        """
        size = self.graphs.size(len(token_inputs))
        self._inputs.send(token_inputs, size)
        for i in range(n_passes):
            if i:
                self._between.replay(self.most, place)
                size = self.graphs.size(n_asking)
            self.graphs.replay(size, place)
            # All of it: a part would be copied twice.
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

    def best(self, places: Sequence[int], n_best: int) -> list[RankedTokens]:
        """The best tokens of some token_inputs of a pass that was just run, alone."""
        found = self._device_pass.best(
            torch.tensor(places, device=self.cache.self_kv.device), n_best
        )
        tokens, logprobs = found.tolist()
        return [
            RankedTokens([int(token) for token in best], likely)
            for best, likely in zip(tokens, logprobs, strict=True)
        ]

    def record(self, places: Sequence[StreamSlot]) -> None:
        """As CUDA graphs, if that can be. Raises torch.OutOfMemoryError."""
        self.why = try_to_record("stepping", (self.graphs, self._between), places)
