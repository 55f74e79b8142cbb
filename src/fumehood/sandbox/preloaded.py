"""What a zygote has loaded ahead of its programs, and what keeps that from being seen in them.

Promised, by tests that compare a warm program with a cold one: every random generator that is loaded draws anew in each
program; its main module, signal handlers, fork handlers, threads and way of ending are a fresh interpreter's.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# What the interpreter takes from `sys` before it lets go of modules (finalize_modules_delete_special in its pylifecycle.c).
_GONE_AT_THE_END = dict.fromkeys((
    "path", "argv", "ps1", "ps2", "last_type", "last_value", "last_traceback", "path_hooks", "path_importer_cache", "meta_path",
    "__interactivehook__",
))  # fmt: skip
_OF_MAIN = ("__name__", "__doc__", "__package__", "__loader__", "__spec__", "__annotations__", "__builtins__")


class Warm:
    """What was loaded. Made once in the zygote; the methods are called in a program's process, in their order."""

    def __init__(self, handlers: list[dict[str, Callable[[], object]]], generators: list[Callable[[], object]]) -> None:
        #: Every module that is loaded, by its full name.
        self.modules = frozenset(sys.modules)
        self._last = next(reversed(sys.modules))
        self._handlers, self._generators = handlers, generators
        # What `adopt_thread` did once; None where each fork has to do it.
        self._adopted: object = None
        # Kept alive, so that the interpreter's own end does not take apart what the kernel frees by itself. With it the module in
        # which the zygote itself runs: a program has one of its own.
        self._kept = list(sys.modules.values())
        atexit.register(self._let_go)
        self._main: dict[str, Any] = {}

    def adopt_thread(self) -> None:
        """In the zygote's thread that forks: be the main thread to `threading`, as it is in each child. That takes 0.3 ms."""
        # From 3.13 on a thread's end is the interpreter's to tell, and this outside of a fork crashes it.
        if "threading" in sys.modules and sys.version_info < (3, 13):
            self._adopted = sys.modules["threading"]._after_fork
            sys.modules["threading"]._after_fork()

    def settle(self) -> None:
        """Become what a fresh interpreter is before its main program."""
        import _signal  # noqa: PLC0415 - loaded by now
        import posix  # noqa: PLC0415

        _signal.signal(_signal.SIGINT, _signal.default_int_handler)
        for number in (_signal.SIGPIPE, _signal.SIGXFSZ):
            _signal.signal(number, _signal.SIG_IGN)
        os.register_at_fork = posix.register_at_fork
        for handlers in self._handlers:
            after = handlers.get("after_in_child")
            if after is not None and after not in self._generators and after is not self._adopted:
                after()
            os.register_at_fork(**handlers)
        if self._adopted is not None:
            sys.modules["threading"].main_thread()._set_native_id()
        for reseed in self._generators:
            reseed()
        main = sys.modules["__main__"].__dict__
        self._main = {name: main[name] for name in _OF_MAIN}
        self._renew_main()

    def rehearse_end(self) -> None:
        """Touch what the end of a program touches, and forget the sample that just ran."""
        self._take_down()
        # What is there by now lives to the end: collections need not look at it, and copy what it lies in.
        gc.freeze()
        self._renew_main()

    def end(self, result: int) -> None:
        """End as an interpreter ends whose program ran to its last line or raised: threads, exit functions, finalizers."""
        was_interrupted = result != 0 and getattr(sys, "last_type", None) is KeyboardInterrupt
        code = self.run_to_end(result)
        if was_interrupted:
            import _signal  # noqa: PLC0415 - loaded by now

            _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
            os.kill(os.getpid(), _signal.SIGINT)
        os._exit(code)

    def run_to_end(self, result: int) -> int:
        """Do all of that but the last step; return the exit code."""
        if "threading" in sys.modules:
            sys.modules["threading"]._shutdown()
        self._run_exit_functions()
        code = _flush(0 if result == 0 else 1)
        # As the interpreter's end does before it lets go of modules: finalizers find its own streams, and can import nothing.
        known = sys.__dict__
        known.update(_GONE_AT_THE_END)
        known.update(stdin=known.get("__stdin__"), stdout=known.get("__stdout__"), stderr=known.get("__stderr__"))
        return self._take_down(code)

    def _run_exit_functions(self) -> None:
        atexit.unregister(self._let_go)
        atexit._run_exitfuncs()

    def _take_down(self, code: int = 0) -> int:
        # What the program made is taken down, so that its finalizers run; what was there before it is left to the kernel,
        # which frees memory without copying it first.
        sys.modules.pop("__main__", None)
        for name in self._new_modules():
            del sys.modules[name]
        gc.collect()
        return _flush(code)

    def _new_modules(self) -> list[str]:
        """Return the names of modules that were not there before, in their order."""
        new: list[str] = []
        for name in reversed(sys.modules):
            if name == self._last:
                break
            new.append(name)
        # Without `__main__`. Where none of the others was taken away, what came since stands behind the last of them.
        if len(sys.modules) - len(new) != len(self.modules) - 1:
            return [each for each in sys.modules if each not in self.modules]
        return new[::-1]

    def _renew_main(self) -> None:
        # Made after the freeze: what is in a cycle with something frozen no collection finds.
        main = type(sys)("__main__")
        main.__dict__.clear()
        main.__dict__.update(self._main)
        sys.modules["__main__"] = main

    def _let_go(self) -> None:
        # Only reached where the interpreter itself ends the process (`sys.exit`): by the last of the exit functions.
        for name in self.modules - {"sys", "builtins", "__main__", "threading"}:
            sys.modules.pop(name, None)


def load(names: tuple[str, ...], forget: str) -> Warm:
    """Import what programs use, then take our own traces out: `forget` is where our code was found."""
    handlers: list[dict[str, Callable[[], object]]] = []
    # Modules would add what runs in every fork: it is added again in the program, whose forks are its own.
    os.register_at_fork = lambda **added: handlers.append(added)
    for name in names:
        __import__(name)
    sys.path.remove(forget)
    for place in [each for each in sys.path_importer_cache if each.startswith((forget, "/work"))]:
        del sys.path_importer_cache[place]
    generators = _generators()
    for name in [each for each in sys.modules if each.partition(".")[0] == "fumehood"]:
        del sys.modules[name]
    return Warm(handlers, generators)


def _generators() -> list[Callable[[], object]]:
    """Return a function for each loaded random generator that gives it a new seed. A fork copies their states."""
    found: list[Callable[[], object]] = []
    from functools import partial  # noqa: PLC0415 - loaded by now

    random: Any = sys.modules.get("random")
    numpy: Any = sys.modules.get("numpy.random")
    # Those of `SystemRandom` have no state, and seeding them does nothing.
    seeded = (random and random.Random, numpy and numpy.RandomState)
    for each in gc.get_objects():
        kind = type(each)
        if any(base is not None and issubclass(kind, base) for base in seeded):
            found.append(each.seed)
        elif numpy is not None and issubclass(kind, numpy.BitGenerator):
            found.append(partial(_renew, each))
    return found


def _renew(bits: Any) -> None:
    bits.state = type(bits)().state


def _flush(code: int) -> int:
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None and not stream.closed:
                stream.flush()
        except Exception:  # noqa: BLE001 - the program's own object, of any kind
            code = 120
    return code
