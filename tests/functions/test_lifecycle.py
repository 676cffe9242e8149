"""Laws of how a model instance begins and ends."""

from __future__ import annotations

import asyncio
import gc
import inspect
import subprocess
import sys
import textwrap
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest

from batched_whisper.errors import Closed, OptionError
from batched_whisper.functions.decorator import batched, enter, exit, running

SOON_S = 60.0  # a deadline for what happens at once unless something is broken


class Model:
    """Writes down what happens to it."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.threads: set[int] = set()

    @enter()
    def load(self) -> None:
        self.events.append("load")
        self.threads.add(threading.get_ident())

    @enter()
    async def connect(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.events.append("connect")

    @batched(max_batch_size=4, wait_ms=0)
    def double(self, numbers: list[int]) -> list[int]:
        """Twice each."""
        self.events.append("double")
        self.threads.add(threading.get_ident())
        return [2 * number for number in numbers]

    @batched(max_batch_size=4, wait_ms=0)
    async def triple(self, numbers: list[int]) -> list[int]:
        assert asyncio.get_running_loop() is self.loop
        self.events.append("triple")
        return [3 * number for number in numbers]

    @exit()
    async def disconnect(self) -> None:
        assert asyncio.get_running_loop() is self.loop
        self.events.append("disconnect")

    @exit()
    def unload(self) -> None:
        self.events.append("unload")


class Collectable:
    """One without exit methods."""

    @enter()
    def load(self) -> None:
        self.weights = [1]

    @batched(max_batch_size=4, wait_ms=0)
    def double(self, numbers: list[int]) -> list[int]:
        return [2 * number for number in numbers]


# --- beginning ------------------------------------------------------------------------------------


def test_enter_methods_run_once_in_their_order_before_the_first_batch_of_any_method() -> None:
    model = Model()
    assert model.events == []
    assert [model.triple(1), model.double(2), model.double(3)] == [3, 4, 6]
    assert model.events == ["load", "connect", "triple", "double", "double"]
    model.double.close()


def test_enter_runs_once_with_many_concurrent_first_calls() -> None:
    model = Model()
    with ThreadPoolExecutor(8) as pool:
        doubles = [pool.submit(model.double, number) for number in range(4)]
        triples = [pool.submit(model.triple, number) for number in range(4)]
        assert [each.result(SOON_S) for each in doubles] == [0, 2, 4, 6]
        assert [each.result(SOON_S) for each in triples] == [0, 3, 6, 9]
    assert model.events.count("load") == model.events.count("connect") == 1
    model.double.close()


def test_enter_runs_in_the_worker_thread() -> None:
    with running(Model()) as model:
        model.double(1)
    assert threading.get_ident() not in model.threads


def test_a_failing_enter_method_fails_its_batch_and_is_retried_by_the_next() -> None:
    class Flaky:
        def __init__(self) -> None:
            self.events: list[str] = []

        @enter()
        def first(self) -> None:
            self.events.append("first")

        @enter()
        def download(self) -> None:
            self.events.append("download")
            if self.events.count("download") == 1:
                raise ConnectionError("no network")

        @batched(max_batch_size=2, wait_ms=1e9)
        def double(self, numbers: list[int]) -> list[int]:
            return [2 * number for number in numbers]

        @exit()
        def unload(self) -> None:
            self.events.append("unload")

    async def twice(model: Flaky) -> list[int | BaseException]:
        calls = [model.double.aio(1), model.double.aio(2)]
        return await asyncio.gather(*calls, return_exceptions=True)

    model = Flaky()
    errors = asyncio.run(twice(model))
    assert [type(error) for error in errors] == [ConnectionError] * 2
    assert asyncio.run(twice(model)) == [2, 4]
    model.double.close()
    assert model.events == ["first", "download", "download", "unload"]


def test_base_classes_enter_first_and_exit_last() -> None:
    events: list[str] = []

    class Base:
        @enter()
        def load_base(self) -> None:
            events.append("load base")

        @exit()
        def unload_base(self) -> None:
            events.append("unload base")

        @batched(wait_ms=0)
        def double(self, numbers: list[int]) -> list[int]:
            return [2 * number for number in numbers]

    class Derived(Base):
        @enter()
        def load(self) -> None:
            events.append("load")

        @exit()
        def unload(self) -> None:
            events.append("unload")

    with running(Derived()) as model:
        assert model.double(1) == 2
    assert events == ["load base", "load", "unload", "unload base"]


# --- instances ------------------------------------------------------------------------------------


def test_instances_share_nothing() -> None:
    one, other = Model(), Model()
    assert (one.double(1), other.double(2)) == (2, 4)
    assert one.double.stats.n_items == other.double.stats.n_items == 1
    one.double.close()
    with pytest.raises(Closed):
        one.double(1)
    assert other.double(3) == 6
    other.double.close()


def test_a_method_keeps_its_name_documentation_and_signature_without_self() -> None:
    method = Model().double
    assert method.__name__ == "double"
    assert method.__doc__ == "Twice each."
    assert list(inspect.signature(method).parameters) == ["numbers"]


def test_a_method_is_called_on_an_instance() -> None:
    with pytest.raises(TypeError, match="on an instance"):
        Model.double(1)


def test_a_subclass_may_call_the_batched_method_of_its_base() -> None:
    class Derived(Model):
        def double_of_both(self, number: int) -> int:
            return super().double(number)

    with running(Derived()) as model:
        assert model.double_of_both(4) == 8
        assert model.events.count("load") == 1


def test_an_instance_without_exit_methods_is_garbage_collected_and_its_worker_ends() -> None:
    model = Collectable()
    assert model.double(1) == 2
    workers = [t for t in threading.enumerate() if t.name == "Collectable worker"]
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None
    for worker in workers:
        worker.join(SOON_S)
    assert not any(worker.is_alive() for worker in workers)


def test_a_temporary_instance_lives_until_its_map_has_ended() -> None:
    async def main() -> list[int]:
        return [each async for each in Collectable().double.map.aio(range(20))]

    assert asyncio.run(main()) == [2 * number for number in range(20)]
    assert list(Collectable().double.map(range(5))) == [0, 2, 4, 6, 8]


def test_an_instance_with_exit_methods_lives_until_they_have_run() -> None:
    model = Model()
    model.double(1)
    events, gone, close = model.events, weakref.ref(model), model.double.close
    del model
    gc.collect()
    assert gone() is not None
    close()
    assert events[-2:] == ["unload", "disconnect"]
    del close
    gc.collect()
    assert gone() is None


def test_slots_without_weakref_raise_option_error_with_the_remedy() -> None:
    class Slotted:
        __slots__ = ()

        @batched(wait_ms=0)
        def double(self, numbers: list[int]) -> list[int]:
            return numbers

    with pytest.raises(OptionError, match="__weakref__"):
        Slotted().double(1)


# --- ending ---------------------------------------------------------------------------------------


def test_exit_methods_run_once_after_the_last_batch_in_the_opposite_order() -> None:
    model = Model()
    model.double(1)
    model.double.close()
    model.triple.close()
    assert model.events == ["load", "connect", "double", "unload", "disconnect"]
    with pytest.raises(Closed):
        model.triple(1)


def test_close_of_an_unused_instance_runs_no_enter_or_exit_method() -> None:
    with running(Model()) as model:
        pass
    assert model.events == []
    with pytest.raises(Closed):
        model.double(1)


def test_running_works_with_async_with_and_closes_after_an_error() -> None:
    model = Model()

    async def main() -> None:
        async with running(model) as same:
            assert await same.double.aio(1) == 2
            raise LookupError

    with pytest.raises(LookupError):
        asyncio.run(main())
    assert model.events[-1] == "disconnect"


def test_an_exit_method_that_fails_does_not_keep_the_others_from_running() -> None:
    class Breaks(Collectable):
        def __init__(self) -> None:
            self.events: list[str] = []

        @exit()
        def runs_last(self) -> None:
            self.events.append("last")

        @exit()
        def runs_first(self) -> None:
            raise SystemExit("broken")

    model = Breaks()
    assert model.double(1) == 2
    with pytest.raises(SystemExit, match="broken"):
        model.double.close()
    assert model.events == ["last"]
    model.double.close()


def test_a_background_task_that_is_left_is_cancelled_at_the_end() -> None:
    cancelled = threading.Event()

    async def background() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    class Busy:
        @enter()
        async def start(self) -> None:
            self.task = asyncio.create_task(background())

        @batched(wait_ms=0)
        def double(self, numbers: list[int]) -> list[int]:
            return [2 * number for number in numbers]

    with running(Busy()) as model:
        assert model.double(1) == 2
    assert cancelled.is_set()


# --- the interpreter ------------------------------------------------------------------------------


def run_program(program: str) -> str:
    prelude = """
    import asyncio, os, sys, threading
    from batched_whisper.functions.decorator import batched, enter, exit

    class Model:
        @enter()
        def load(self): print("load")
        @batched(max_batch_size=4, wait_ms=0)
        def double(self, numbers): return [2 * number for number in numbers]
        @batched(max_batch_size=4, wait_ms=0)
        async def triple(self, numbers): return [3 * number for number in numbers]
        @exit()
        async def unload(self): print("unload")
    """
    code = textwrap.dedent(prelude) + textwrap.dedent(program)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=SOON_S, check=False
    )
    assert done.stderr == ""
    return " ".join(done.stdout.split())


def test_exit_methods_run_at_interpreter_exit_without_close() -> None:
    output = run_program("print(Model().double(1), Model().triple(1))")
    assert output.startswith("load load 2 3")
    assert output.count("unload") == 2  # at the same time, so perhaps on one line


def test_the_interpreter_ends_with_a_batch_running_and_calls_waiting() -> None:
    program = """
    entered, let_go = threading.Event(), threading.Event()

    @batched(max_batch_size=1, wait_ms=0)
    def held(numbers):
        entered.set()
        let_go.wait()
        return numbers

    def call(number):
        try:
            print(held(number))
        except Exception as error:
            print(type(error).__name__)

    def end():
        threading.main_thread().join()
        let_go.set()

    for number in range(3):
        threading.Thread(target=call, args=(number,), daemon=True).start()
    entered.wait()
    threading.Thread(target=end, daemon=True).start()
    """
    run_program(program)  # what the daemon threads still print is chance; that it ends is the law


def test_calls_in_a_forked_process_raise_closed() -> None:
    program = """
    import warnings
    warnings.simplefilter("ignore")
    model = Model()
    model.double(1)
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        try:
            model.double(2)
        except Exception as error:
            print(type(error).__name__, flush=True)
        sys.exit()
    os.waitpid(child, 0)
    print(model.double(3))
    """
    assert run_program(program) == "load Closed 6 unload"


def test_a_forked_process_closes_what_the_other_one_used_without_waiting() -> None:
    program = """
    import warnings
    warnings.simplefilter("ignore")
    model = Model()
    model.double(1)
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        model.double.close()
        print("closed", flush=True)
        sys.exit()
    os.waitpid(child, 0)
    """
    assert run_program(program) == "load closed unload"


def test_a_forked_process_ends_the_workers_of_its_own_instances_that_are_collected() -> None:
    program = """
    import gc, warnings
    warnings.simplefilter("ignore")

    class Collectable:
        @batched(wait_ms=0)
        def double(self, numbers): return [2 * number for number in numbers]

    def use_and_drop():
        model = Collectable()
        model.double(1)
        [worker] = [t for t in threading.enumerate() if t.name == "Collectable worker"]
        del model
        gc.collect()
        worker.join(30)
        print(worker.is_alive(), flush=True)

    use_and_drop()
    if os.fork() == 0:
        use_and_drop()
        sys.exit()
    os.wait()
    """
    assert run_program(program) == "False False"
