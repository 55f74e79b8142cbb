"""What the whole suite needs of the process that it runs in."""

from __future__ import annotations

import signal

# A shell's background jobs start with Ctrl-C ignored, and so would every command that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
