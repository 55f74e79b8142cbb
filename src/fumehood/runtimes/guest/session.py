"""Executes a session's Python cells, inside the sandbox: with IPython's shell where the runtime has it, else with a small one.

Messages go over one socket, at the descriptor that the first argument names; each starts with `PID MORE `, so that
pieces of two processes cannot mix. From the host: {"run": code}. To it: {"type": "ready" | "stream" | "display" | "result" |
"error" | "done", ...}. Output of Python comes this way too, in one order with all else; what other programs write comes by the
ordinary streams, and nothing is sent before the host has taken that.
"""

import _signal
import ast
import asyncio
import base64
import builtins
import ctypes
import fcntl
import gc
import inspect
import io
import json
import linecache
import os
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
import traceback

PIECE = 60_000
MIME = {
    "_repr_html_": "text/html", "_repr_markdown_": "text/markdown", "_repr_svg_": "image/svg+xml",
    "_repr_png_": "image/png", "_repr_jpeg_": "image/jpeg", "_repr_latex_": "text/latex",
    "_repr_json_": "application/json", "_repr_javascript_": "application/javascript",
}  # fmt: skip
PLOTLY = "application/vnd.plotly.v1+json"


class Uninterrupted:
    """Puts an interrupt off until what stands in the `with` is done."""

    def __enter__(self):
        self._handler, self._came = None, False
        if threading.current_thread() is threading.main_thread():
            self._handler = signal.signal(signal.SIGINT, self._note)

    def _note(self, *_):
        self._came = True

    def __exit__(self, *_):
        if self._handler is not None:
            signal.signal(signal.SIGINT, self._handler)
            if self._came:
                os.kill(os.getpid(), signal.SIGINT)


class Channel:
    def __init__(self, descriptor):
        os.set_inheritable(descriptor, False)
        self._socket = socket.socket(fileno=descriptor)
        self._lock = threading.RLock()
        os.register_at_fork(after_in_child=self._forget_lock)

    def _forget_lock(self):
        self._lock = threading.RLock()

    def send(self, message):
        data = json.dumps(message, default=repr).encode("utf-8", "surrogatepass")
        pieces = [data[start : start + PIECE] for start in range(0, len(data), PIECE)]
        with self._lock:
            self._let_streams_be_read()
            if len(pieces) == 1:
                self._socket.send(b"%d 0 " % os.getpid() + data)
                return
            # An interrupt between two pieces would leave half a message, and the next one would be taken for its end.
            with Uninterrupted():
                for left, piece in zip(range(len(pieces) - 1, -1, -1), pieces):
                    self._socket.send(b"%d %d " % (os.getpid(), left > 0) + piece)

    def _let_streams_be_read(self):
        # What other programs wrote before is to be seen before: wait until the host has taken it.
        waiting = bytearray(4)
        for number in (1, 2):
            try:
                while fcntl.ioctl(number, termios.FIONREAD, waiting) == 0 and any(waiting):
                    time.sleep(0.0005)
            except OSError:
                continue  # the cell closed it, or put something else there

    def receive(self):
        """Return the next message, None at the end."""
        whole = b""
        while True:
            message = self._socket.recv(1 << 17)
            if not message:
                return None
            _sender, more, piece = message.split(b" ", 2)
            whole += piece
            if more == b"0":
                return json.loads(whole)


class Stream(io.TextIOBase):
    """sys.stdout or sys.stderr of a session."""

    encoding, errors, line_buffering = "utf-8", "replace", True

    def __init__(self, channel, name, number):
        self._channel, self.name, self._number = channel, name, number
        self.buffer = Bytes(self)

    def write(self, text):
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        if text:
            for start in range(0, len(text), PIECE):
                self._channel.send({"type": "stream", "name": self.name[1:-1], "text": text[start : start + PIECE]})
        return len(text)

    def fileno(self):
        return self._number

    def writable(self):
        return True

    def isatty(self):
        return False


class Bytes(io.RawIOBase):
    def __init__(self, stream):
        self._stream = stream

    def writable(self):
        return True

    def write(self, data):
        self._stream.write(bytes(data).decode("utf-8", "replace"))
        return len(data)


def bundle(value):
    """Return (data by MIME type, metadata) of a value."""
    data, metadata = {}, {}
    own = getattr(type(value), "_repr_mimebundle_", None)
    if own is not None:
        made = value._repr_mimebundle_()
        data, metadata = made if isinstance(made, tuple) else (made, {})
        data = dict(data or {})
    for method, kind in MIME.items():
        if kind not in data and hasattr(type(value), method):
            made = getattr(value, method)()
            if made is not None:
                data[kind] = made[0] if isinstance(made, tuple) else made
    if PLOTLY not in data and hasattr(type(value), "to_plotly_json"):
        data[PLOTLY] = json.loads(value.to_json())
    if "text/plain" not in data:
        data["text/plain"] = repr(value)
    return plain(data), metadata


def plain(data):
    return {kind: base64.b64encode(v).decode() if isinstance(v, bytes) else v for kind, v in data.items()}


class PlainShell:
    """A notebook's behaviour by the standard library alone."""

    def __init__(self, channel, namespace):
        self._channel, self._namespace, self._count = channel, namespace, 0
        self._loop = None
        namespace["display"] = builtins.display = self.display

    def forget_loop(self):
        # What it polls was closed by the fork.
        self._loop = None

    def display(self, *values, metadata=None):
        for value in values:
            data, own = bundle(value)
            self._channel.send({"type": "display", "data": data, "metadata": {**own, **(metadata or {})}})

    def run(self, source):
        """Run a cell; return whether it ended well."""
        self._count += 1
        name = f"<cell {self._count}>"
        linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
        try:
            self._run(self._without_commands(source), name, source)
        except SystemExit as leaving:
            # It ends a program; a session goes on.
            if leaving.code not in (None, 0):
                self._complain(*sys.exc_info())
                return False
        except BaseException:
            self._complain(*sys.exc_info())
            return False
        finally:
            self._show_figures()
        return True

    def _without_commands(self, source):
        lines = []
        for line in source.splitlines():
            command = line.lstrip()
            if command.startswith("!"):
                line = f"{line[: len(line) - len(command)]}__import__('__main__').__command__({command[1:]!r})"
            lines.append(line)
        # A line of a string may start so too: then the text must stay as it is.
        changed = "\n".join(lines)
        try:
            ast.parse(source)
        except SyntaxError:
            return changed
        return source

    def _run(self, source, name, original):
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        tree = compile(source, name, "exec", flags | ast.PyCF_ONLY_AST)
        last = None
        if tree.body and isinstance(tree.body[-1], ast.Expr):
            last = ast.Expression(tree.body.pop().value)
        self._evaluate(compile(tree, name, "exec", flags))
        if last is not None:
            value = self._evaluate(compile(last, name, "eval", flags))
            if value is not None and not original.rstrip().endswith(";"):
                self._namespace["_"] = value
                data, metadata = bundle(value)
                self._channel.send({"type": "result", "data": data, "metadata": metadata})

    def _evaluate(self, code):
        value = eval(code, self._namespace)
        if code.co_flags & inspect.CO_COROUTINE:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                asyncio.set_event_loop(self._loop)
            value = self._loop.run_until_complete(value)
        return value

    def _complain(self, kind, value, trace):
        frames = trace
        while frames is not None and frames.tb_frame.f_code.co_filename == __file__:
            frames = frames.tb_next
        lines = traceback.format_exception(kind, value, frames)
        self._channel.send(error(kind, value, "".join(lines)))

    def _show_figures(self):
        pyplot = sys.modules.get("matplotlib.pyplot")
        for number in pyplot.get_fignums() if pyplot else ():
            picture = io.BytesIO()
            pyplot.figure(number).savefig(picture, format="png", bbox_inches="tight")
            data = {"image/png": base64.b64encode(picture.getvalue()).decode(), "text/plain": f"<Figure {number}>"}
            self._channel.send({"type": "display", "data": data, "metadata": {}})
            pyplot.close(number)


def error(kind, value, text):
    try:
        said = str(value)
    except Exception:  # its __str__ is the cell's, and may raise what it likes
        said = "its text cannot be had"
    return {"type": "error", "name": kind.__name__, "value": said, "traceback": text}


def ipython_shell(channel, namespace):
    """Return IPython's shell, which sends what it shows over the channel; None where there is no IPython."""
    try:
        from IPython.core.displayhook import DisplayHook
        from IPython.core.displaypub import DisplayPublisher
        from IPython.core.interactiveshell import InteractiveShell
        from traitlets import Type
        from traitlets.config import Config
    except ImportError:
        return None

    class Publisher(DisplayPublisher):
        def publish(self, data, metadata=None, **_rest):
            channel.send({"type": "display", "data": plain(data), "metadata": metadata or {}})

        def clear_output(self, wait=False):
            channel.send({"type": "clear"})

    class Hook(DisplayHook):
        def write_output_prompt(self):
            pass

        def write_format_data(self, format_dict, md_dict=None):
            channel.send({"type": "result", "data": plain(format_dict), "metadata": md_dict or {}})

        def finish_displayhook(self):
            self._is_active = False

    class Shell(InteractiveShell):
        displayhook_class = Type(Hook)
        display_pub_class = Type(Publisher)

        def enable_gui(self, gui=None):
            pass

        def system(self, command):
            run_command(self.var_expand(command, depth=1))

        def _showtraceback(self, kind, value, text):
            channel.send(error(kind, value, self.InteractiveTB.stb2text(text) + "\n"))

        def forget_loop(self):
            from IPython.core import async_helpers

            async_helpers._asyncio_event_loop = None

        def run(self, source):
            return bool(self.run_cell(source, store_history=True).success)

    config = Config()
    config.HistoryManager.enabled = False
    config.InteractiveShell.colors = "nocolor"
    config.InteractiveShell.cache_size = 100
    shell = Shell.instance(user_ns=namespace, config=config)
    if "matplotlib" in sys.modules:
        shell.run_line_magic("matplotlib", "inline")
    elif os.environ.get("MPLBACKEND", "Agg") == "Agg":
        os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"
    return shell


def run_command(command):
    """Run a shell command and pass on what it prints as it comes."""
    process = subprocess.Popen(
        command, shell=True, executable="/bin/bash", stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        while piece := os.read(process.stdout.fileno(), PIECE):
            sys.stdout.write(piece.decode("utf-8", "replace"))
    except KeyboardInterrupt:
        process.send_signal(signal.SIGINT)
        raise
    finally:
        process.stdout.close()
        sys.modules["__main__"]._exit_code = process.wait()


def hold(channel, shell):
    """Come to a stand. The host then forks this process from outside; only a copy returns, or all go on if it cannot."""
    lost = [f"thread {each.name}" for each in threading.enumerate() if each is not threading.main_thread()]
    has_threads = bool(lost) or native_threads() > 1
    lost += ["timer"] if any(_signal.getitimer(which)[0] for which in (0, 1, 2)) else []
    generators = [*FIRST_GENERATORS, *find_generators()]
    # By the C half of `signal`: the other turns every number into a name, and each copy would pay for the memory that it touches.
    # No signal of the cells' own may wake it.
    mask = _signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals() - {_signal.SIGINT})
    _signal.signal(_signal.SIGINT, lambda *_: None)
    child = 0
    if has_threads:
        # What threads hold, no copy could let go of: the child of a fork has one thread, and everything in order.
        child = os.fork()
    if child:
        os.waitpid(child, 0)
    else:
        channel.send({"type": "still", "pid": os.getpid(), "lost": lost})
        python, libc = ctypes.pythonapi, ctypes.PyDLL(None)
        python.PyOS_BeforeFork()
        # With the interpreter's lock held: no other thread runs, and this one stays where the host looks for it.
        is_copy = libc.pause() == 0
        if is_copy:
            python.PyOS_AfterFork_Child()
            draw_anew(generators)
            shell.forget_loop()
        else:
            python.PyOS_AfterFork_Parent()
            if os.getpid() != SESSION[0]:
                os._exit(0)
        SESSION[0] = os.getpid()
    _signal.signal(_signal.SIGINT, _signal.SIG_IGN)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, mask)
    channel.send({"type": "ready"})


SESSION = [os.getpid()]


def native_threads():
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return 1


# Random generators that were there before the first cell.
FIRST_GENERATORS = []


def freeze():
    """Have collections and forks leave alone what is there before the first cell: looking at it copies memory."""
    FIRST_GENERATORS.extend(find_generators(vars_of_modules()))
    gc.freeze()


def vars_of_modules():
    """Return what modules hold. The collector does not tell about those that were loaded before this program: they are frozen."""
    return [each for module in list(sys.modules.values()) for each in list(getattr(module, "__dict__", {}).values())]


def find_generators(others=()):
    """Return every random generator among what the collector tracks, and among others."""
    random, numpy = sys.modules.get("random"), sys.modules.get("numpy.random")
    kinds = () if random is None else (random.Random,)
    kinds += () if numpy is None else (numpy.RandomState, numpy.BitGenerator)
    if not kinds:
        return []
    return list({id(each): each for each in (*gc.get_objects(), *others) if issubclass(type(each), kinds)}.values())


def draw_anew(generators):
    for each in generators:
        if hasattr(each, "seed"):
            each.seed()
        else:
            each.state = type(each)().state
    if "_ssl" in sys.modules:
        sys.modules["_ssl"].RAND_add(os.urandom(32), 32.0)


def serve():
    os.unlink(__file__)
    channel = Channel(int(sys.argv.pop()))
    sys.argv[:] = [""]
    sys.path[0] = ""
    sys.stdout, sys.stderr = Stream(channel, "<stdout>", 1), Stream(channel, "<stderr>", 2)
    sys.__stdout__, sys.__stderr__ = sys.stdout, sys.stderr
    main = type(sys)("__main__")
    main.__dict__.update(__builtins__=builtins, __command__=run_command)
    sys.modules["__main__"] = main
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    shell = ipython_shell(channel, main.__dict__) or PlainShell(channel, main.__dict__)
    freeze()
    channel.send({"type": "ready"})
    while (message := channel.receive()) is not None:
        if "hold" in message:
            hold(channel, shell)
            continue
        ok = False
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            ok = shell.run(message["run"])
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        except KeyboardInterrupt:
            # It came in the moments around the cell.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            channel.send(
                {"type": "error", "name": "KeyboardInterrupt", "value": "", "traceback": "KeyboardInterrupt\n"}
            )
        channel.send({"type": "done", "ok": ok})


serve()
