"""Decodes a channel's windows in order, each with the previous text as its prompt.

Knows the order of a channel's windows and the text so far; not how a window gets to the engine.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from batched_whisper.batching.decode_request import DecodeRequest
from batched_whisper.pipeline.decode_requests import RequestBuilder, WindowPosition
from batched_whisper.tokens.prompt import PreviousText
from batched_whisper.types import DecodedWindow

Send = Callable[[WindowPosition, DecodeRequest], None]
"""Sends a window to the engine, without waiting."""


@dataclass(frozen=True)
class _Waiting:
    position: WindowPosition
    request: DecodeRequest


class WindowChain:
    """The windows of one channel: a reader adds them, and each sends the next when it is decoded.

    Args:
        requests: the builder of the recording's requests.
        previous: the text so far.
        send: called with the next window after the one before it is decoded.
    """

    def __init__(self, requests: RequestBuilder, previous: PreviousText, send: Send) -> None:
        self._requests, self._previous, self._send = requests, previous, send
        self._lock = threading.Lock()
        self._waiting: deque[_Waiting] = deque()
        self._is_busy = False

    @property
    def n_waiting(self) -> int:
        """The number of windows that wait for the one before them."""
        return len(self._waiting)

    def add(self, position: WindowPosition, request: DecodeRequest) -> None:
        """Add the next window; send it if no other is being decoded."""
        with self._lock:
            self._waiting.append(_Waiting(position, request))
        self._send_next()

    def decoded(self, window: DecodedWindow) -> None:
        """Record the decoded window, and send the next one with its text as prompt."""
        self._previous.add(window.tokens, window.temperature)
        with self._lock:
            self._is_busy = False
        self._send_next()

    def _send_next(self) -> None:
        with self._lock:
            if self._is_busy or not self._waiting:
                return
            self._is_busy = True
            each = self._waiting.popleft()
        self._send(each.position, self._requests.after_text(each.request, self._previous.prefix()))
