"""A stand-in for Modal on 127.0.0.1: the control plane that its client talks to, and containers.

The client and the containers are the real programs of the package ``modal``; what is made here is
what lies between them. It registers what an app defines and keeps it to be looked at. It runs a
function's inputs in a container of its own: a process that is started as Modal starts one, in a
folder that holds the app's file alone. Batches are formed by Modal's rule: as many inputs as there
are, up to the size, once the first has waited. An image is never built: a container runs in the
environment of the tests, with the image's own variables.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import shlex
import shutil
import subprocess
import sys
import threading
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from grpclib.const import Cardinality, Handler
from grpclib.server import Server, Stream
from modal_proto import api_pb2 as api
from modal_proto.api_grpc import ModalClientBase

POLL_S = 5.0
"""How long a container's request for inputs is held before it is answered with none."""


@dataclass
class Call:
    """A function call: one input, or the inputs of a ``map``."""

    function_id: str
    outputs: list[api.FunctionGetOutputsItem] = field(default_factory=list)
    chunks: list[api.DataChunk] = field(default_factory=list)
    n_inputs: int = 0


@dataclass
class Input:
    """An input on its way to a container."""

    id: str
    call_id: str
    index: int
    input: api.FunctionInput


@dataclass
class StandInModal:
    """What apps have registered, what was asked, and what containers printed."""

    folder: Path
    app_file: Path
    environment: dict[str, str] = field(default_factory=dict)
    """What containers find in their environment besides the image's own variables."""
    url: str = ""
    requests: dict[str, list[Any]] = field(default_factory=lambda: defaultdict(list))
    functions: dict[str, api.Function] = field(default_factory=dict)  # by id
    objects: dict[str, api.Object] = field(default_factory=dict)  # by id
    published: api.AppPublishRequest = field(default_factory=api.AppPublishRequest)
    batches: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    """By function name, how many inputs each of its containers' fetches was answered with."""

    def function(self, name: str) -> api.Function:
        """What an app registered under this name, such as ``Model.*``."""
        return next(each for each in self.functions.values() if each.function_name == name)

    def image_commands(self) -> list[str]:
        """The lines of the Dockerfiles of all image layers."""
        images = (request.image for request in self.requests["ImageGetOrCreate"])
        return [line for image in images for line in image.dockerfile_commands]

    def image_variables(self) -> dict[str, str]:
        """The environment variables that the image sets."""
        lines = (line for line in self.image_commands() if line.startswith("ENV "))
        return dict(pair.split("=", 1) for line in lines for pair in shlex.split(line[4:]))

    def printed(self) -> str:
        """What all containers printed."""
        return "".join(path.read_text("utf-8") for path in sorted(self.folder.glob("ta-*.log")))


@contextmanager
def serving(stand_in: StandInModal) -> Iterator[StandInModal]:
    """Serve on a thread of its own; containers are ended at the end."""
    loop, control_plane = asyncio.new_event_loop(), _ControlPlane(stand_in)
    started: threading.Event = threading.Event()

    async def serve() -> None:
        server = Server([control_plane])
        await server.start("127.0.0.1", 0)
        port = server._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
        stand_in.url = f"http://127.0.0.1:{port}"
        started.set()
        await control_plane.stopped.wait()
        server.close()
        await server.wait_closed()

    thread = threading.Thread(target=loop.run_until_complete, args=[serve()])
    thread.start()
    started.wait()
    try:
        yield stand_in
    finally:
        control_plane.end_containers()
        loop.call_soon_threadsafe(control_plane.stopped.set)
        thread.join()
        loop.close()


class _ControlPlane:
    """Answers each request: by a method of its name, or with an empty reply."""

    def __init__(self, stand_in: StandInModal) -> None:
        self.stopped = asyncio.Event()
        self._app_is_over = asyncio.Event()
        self._stand_in = stand_in
        self._number = itertools.count(1)
        self._calls: dict[str, Call] = {}
        self._inputs: dict[str, Input] = {}
        self._waiting: dict[str, deque[Input]] = defaultdict(deque)
        self._changed = asyncio.Condition()
        self._containers: dict[str, subprocess.Popen[bytes]] = {}

    def __mapping__(self) -> dict[str, Handler]:
        class Everything(ModalClientBase):  # type: ignore[misc]
            pass

        for name in Everything.__abstractmethods__:
            setattr(Everything, name, None)
        Everything.__abstractmethods__ = frozenset()
        return {
            path: Handler(
                partial(self._answer, path.rpartition("/")[2], handler),
                handler.cardinality,
                handler.request_type,
                handler.reply_type,
            )
            for path, handler in Everything().__mapping__().items()
        }

    async def _answer(self, name: str, handler: Handler, stream: Stream[Any, Any]) -> None:
        request = await stream.recv_message()
        self._stand_in.requests[name].append(request)
        reply = handler.reply_type()
        answer: Callable[..., Any] | None = getattr(self, name, None)
        if handler.cardinality is Cardinality.UNARY_STREAM:
            async for each in answer(request) if answer else _nothing():
                await stream.send_message(each)
            return
        if answer is not None:
            await answer(request, reply)
        await stream.send_message(reply)

    def _id(self, kind: str) -> str:
        return f"{kind}-{next(self._number):04d}"

    # What an app defines

    async def ClientHello(self, _: Any, reply: Any) -> None:
        pass

    async def EnvironmentGetOrCreate(self, _: Any, reply: Any) -> None:
        reply.environment_id = "en-1"
        reply.metadata.name = "main"
        reply.metadata.settings.image_builder_version = "2025.06"

    async def AppCreate(self, _: Any, reply: Any) -> None:
        reply.app_id = "ap-1"
        reply.app_page_url = reply.app_logs_url = f"{self._stand_in.url}/app"

    async def AppPublish(self, request: Any, reply: Any) -> None:
        self._stand_in.published.CopyFrom(request)
        reply.url = f"{self._stand_in.url}/app"

    async def AppGetLayout(self, _: Any, reply: Any) -> None:
        reply.app_layout.CopyFrom(self._layout())

    async def ImageGetOrCreate(self, _: Any, reply: Any) -> None:
        reply.image_id = self._id("im")
        reply.result.status = api.GenericResult.GENERIC_STATUS_SUCCESS
        reply.metadata.image_builder_version = "2025.06"
        self._keep(reply.image_id)

    async def MountBatchedCheckExistence(self, request: Any, reply: Any) -> None:
        pass  # nothing is missing, so nothing is uploaded

    async def MountPutFile(self, _: Any, reply: Any) -> None:
        reply.exists = True

    async def MountGetOrCreate(self, _: Any, reply: Any) -> None:
        reply.mount_id = self._id("mo")
        self._keep(reply.mount_id).mount_handle_metadata.CopyFrom(reply.handle_metadata)

    async def VolumeGetOrCreate(self, request: Any, reply: Any) -> None:
        reply.volume_id = self._id("vo")
        reply.metadata.name = request.deployment_name
        self._keep(reply.volume_id).volume_metadata.CopyFrom(reply.metadata)

    async def FunctionPrecreate(self, request: Any, reply: Any) -> None:
        reply.function_id = request.existing_function_id or self._id("fu")
        reply.handle_metadata.CopyFrom(_handle(request, reply.function_id))
        self._keep(reply.function_id).function_handle_metadata.CopyFrom(reply.handle_metadata)

    async def FunctionCreate(self, request: Any, reply: Any) -> None:
        reply.function_id = request.existing_function_id or self._id("fu")
        reply.function.CopyFrom(request.function)
        reply.function_data.function_name = request.function.function_name
        reply.function_data.ranked_functions.add().function.CopyFrom(request.function)
        reply.handle_metadata.CopyFrom(_handle(request.function, reply.function_id))
        self._stand_in.functions[reply.function_id] = request.function
        self._keep(reply.function_id).function_handle_metadata.CopyFrom(reply.handle_metadata)

    async def ClassCreate(self, request: Any, reply: Any) -> None:
        reply.class_id = request.existing_class_id or self._id("cs")
        reply.handle_metadata.CopyFrom(api.ClassHandleMetadata())
        self._keep(reply.class_id).class_handle_metadata.CopyFrom(reply.handle_metadata)

    async def AppClientDisconnect(self, _: Any, reply: Any) -> None:
        self._app_is_over.set()

    async def AppGetLogs(self, _: Any) -> AsyncIterator[Any]:
        await self._app_is_over.wait()
        yield api.TaskLogsBatch(app_done=True)

    def _keep(self, object_id: str) -> api.Object:
        return self._stand_in.objects.setdefault(object_id, api.Object(object_id=object_id))

    def _layout(self) -> api.AppLayout:
        published = self._stand_in.published
        return api.AppLayout(
            objects=list(self._stand_in.objects.values()),
            function_ids=dict(published.function_ids),
            class_ids=dict(published.class_ids),
        )

    # What a caller asks for

    async def FunctionMap(self, request: Any, reply: Any) -> None:
        reply.function_call_id = call_id = self._id("fc")
        reply.max_inputs_outstanding = 1000
        self._calls[call_id] = Call(request.function_id)
        reply.pipelined_inputs.extend(await self._put(call_id, request.pipelined_inputs))

    async def FunctionPutInputs(self, request: Any, reply: Any) -> None:
        reply.inputs.extend(await self._put(request.function_call_id, request.inputs))

    async def FunctionGetOutputs(self, request: Any, reply: Any) -> None:
        call = self._calls[request.function_call_id]
        n_known = int(request.last_entry_id.split("-")[0] or 0)
        async with self._waits(request.timeout, lambda: len(call.outputs) > n_known):
            reply.outputs.extend(call.outputs[n_known:])
            reply.last_entry_id = f"{len(call.outputs)}-0"
            reply.num_unfinished_inputs = call.n_inputs - len(call.outputs)

    async def FunctionCallGetDataOut(self, request: Any) -> AsyncIterator[Any]:
        call, n_sent = self._calls[request.function_call_id], request.last_index
        while len(call.outputs) < call.n_inputs or n_sent < len(call.chunks):
            async with self._waits(POLL_S, lambda sent=n_sent: len(call.chunks) > sent):
                chunks = call.chunks[n_sent:]
            for chunk in chunks:
                yield chunk
            n_sent += len(chunks)

    async def _put(self, call_id: str, items: Any) -> list[api.FunctionPutInputsResponseItem]:
        call, replies = self._calls[call_id], []
        async with self._changed:
            for item in items:
                new = Input(self._id("in"), call_id, item.idx, item.input)
                self._inputs[new.id] = new
                self._waiting[call.function_id].append(new)
                call.n_inputs += 1
                replies.append(
                    api.FunctionPutInputsResponseItem(
                        idx=item.idx, input_id=new.id, input_jwt=new.id
                    )
                )
            self._changed.notify_all()
        if replies:
            self._start_container(call.function_id)
        return replies

    @asynccontextmanager
    async def _waits(self, timeout_s: float, until: Callable[[], bool]) -> AsyncIterator[None]:
        """Hold the lock, once something is true or the time is over."""
        async with self._changed:
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._changed.wait_for(until), timeout_s or 0.001)
            yield

    # What a container asks for

    async def FunctionGetInputs(self, request: Any, reply: Any) -> None:
        waiting = self._waiting[request.function_id]
        most = max(1, request.batch_max_size)
        async with self._waits(POLL_S, lambda: bool(waiting)):
            pass
        if waiting and most > 1:
            async with self._waits(request.batch_linger_ms / 1000, lambda: len(waiting) >= most):
                pass
        taken = [waiting.popleft() for _ in range(min(most, len(waiting)))]
        if taken:
            name = self._stand_in.functions[request.function_id].function_name
            self._stand_in.batches[name].append(len(taken))
        reply.inputs.extend(
            api.FunctionGetInputsItem(
                input_id=each.id,
                input=each.input,
                function_call_id=each.call_id,
                function_call_invocation_type=api.FUNCTION_CALL_INVOCATION_TYPE_SYNC,
            )
            for each in taken
        )

    async def FunctionGetDynamicConcurrency(self, request: Any, reply: Any) -> None:
        reply.concurrency = request.max_concurrency

    async def FunctionPutOutputs(self, request: Any, _: Any) -> None:
        async with self._changed:
            self._answered(
                (self._inputs[item.input_id], item.result, item.data_format)
                for item in request.outputs
            )
            self._changed.notify_all()

    async def FunctionCallPutDataOut(self, request: Any, _: Any) -> None:
        async with self._changed:
            self._calls[request.function_call_id].chunks.extend(request.data_chunks)
            self._changed.notify_all()

    async def TaskResult(self, request: Any, _: Any) -> None:
        """A container could not start: what waits fails as it did."""
        async with self._changed:
            for waiting in self._waiting.values():
                self._answered((given, request.result, api.DATA_FORMAT_PICKLE) for given in waiting)
                waiting.clear()
            self._changed.notify_all()

    def _answered(self, outputs: Iterable[tuple[Input, Any, Any]]) -> None:
        for given, result, data_format in outputs:
            output = api.FunctionGetOutputsItem(
                result=result, idx=given.index, input_id=given.id, data_format=data_format
            )
            self._calls[given.call_id].outputs.append(output)

    def _start_container(self, function_id: str) -> None:
        if function_id in self._containers:
            return
        stand_in, name = self._stand_in, self._id("ta")
        home = stand_in.folder / name
        home.mkdir()
        shutil.copy(stand_in.app_file, home)  # as Modal mounts it: alone
        arguments = api.ContainerArguments(
            task_id=name,
            function_id=function_id,
            app_id="ap-1",
            function_def=stand_in.functions[function_id],
            app_layout=self._layout(),
            environment_name="main",
        )
        (stand_in.folder / f"{name}.bin").write_bytes(arguments.SerializeToString())
        log = (stand_in.folder / f"{name}.log").open("wb")
        self._containers[function_id] = subprocess.Popen(
            [sys.executable, "-m", "modal._container_entrypoint"],
            cwd=home,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={
                **{key: value for key, value in os.environ.items() if "MODEL" not in key},
                **stand_in.image_variables(),
                **stand_in.environment,
                "MODAL_SERVER_URL": stand_in.url,
                "MODAL_CONTAINER_ARGUMENTS_PATH": str(stand_in.folder / f"{name}.bin"),
                "MODAL_CONFIG_PATH": str(stand_in.folder / "no-such-file"),
                "MODAL_IS_REMOTE": "1",
                "MODAL_TASK_ID": name,
                "PYTHONUNBUFFERED": "1",
            },
        )

    def end_containers(self) -> None:
        """End every container, as Modal ends the containers of an app that is over."""
        for container in self._containers.values():
            container.terminate()
        for container in self._containers.values():
            container.wait()


async def _nothing() -> AsyncIterator[Any]:
    return
    yield


def _handle(function: Any, function_id: str) -> api.FunctionHandleMetadata:
    """What the client keeps of a function, made of its definition."""
    handle = api.FunctionHandleMetadata(
        function_name=function.function_name,
        function_type=function.function_type,
        definition_id=f"de-{function_id}",
        app_id="ap-1",
        function_schema=function.function_schema,
        supported_input_formats=function.supported_input_formats,
        supported_output_formats=function.supported_output_formats,
    )
    for name, method in function.method_definitions.items():
        handle.method_handle_metadata[name].CopyFrom(
            api.FunctionHandleMetadata(
                function_name=method.function_name,
                function_type=method.function_type,
                is_method=True,
                use_method_name=name,
                app_id="ap-1",
                function_schema=method.function_schema,
                supported_input_formats=method.supported_input_formats,
                supported_output_formats=method.supported_output_formats,
            )
        )
    return handle
