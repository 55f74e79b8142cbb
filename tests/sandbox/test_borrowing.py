"""Children that borrow their parent's memory: they leave what they wrote there, and nothing else."""

from __future__ import annotations

import subprocess
import sys

import pytest

# In a process of one thread, which a runner of tests is not.
BODIES = {
    "memory_is_shared": """
seen = []
def body():
    seen.append([str(n) for n in range(10_000)])
    return 0
assert borrowing.run(body) == 0
assert seen[0][-1] == '9999' and os.getpid() == own
""",
    "its_folder_descriptors_user_and_namespaces_are_its_own": """
read, write = os.pipe()
def body():
    os.close(read)
    os.chdir('/proc')
    kernel.unshare(kernel.CLONE_NEWUSER | kernel.CLONE_NEWUTS)
    kernel.set_hostname('elsewhere')
    said.append((os.getpid() != own, os.uname().nodename, os.getuid()))
    return 0
said, before = [], (os.getcwd(), os.uname().nodename, os.getuid())
assert borrowing.run(body) == 0
assert said == [(True, 'elsewhere', 65534)], said
assert before == (os.getcwd(), os.uname().nodename, os.getuid())
os.write(write, b'x')
assert os.read(read, 1) == b'x'
""",
    "one_may_have_one_of_its_own": """
def inner():
    said.append(os.getppid())
    return 7
def body():
    said.append(os.getpid())
    return os.waitstatus_to_exitcode(borrowing.run(inner))
said = []
assert os.waitstatus_to_exitcode(borrowing.run(body)) == 7
assert said[0] == said[1]
""",
    "an_exception_that_it_caught_is_no_matter": """
def deep(n):
    return deep(n - 1) if n else 1 / 0
def body():
    try:
        deep(200)
    except ZeroDivisionError as error:
        said.append(error)
    return 3
said = []
for _ in range(300):
    assert os.waitstatus_to_exitcode(borrowing.run(body)) == 3
gc.collect()
assert len(said) == 300 and len(sys.exc_info()) == 3 and sys.exc_info()[1] is None
""",
    "one_that_was_killed_is_told_by_its_status": """
status = borrowing.run(lambda: os.kill(os.getpid(), 9) or 0)
os._exit(0 if os.WIFSIGNALED(status) and os.WTERMSIG(status) == 9 else 1)
""",
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_a_child_that_borrows_memory(body: str) -> None:
    code = f"import gc, os, sys\nfrom fumehood.sandbox import borrowing, kernel\nown = os.getpid()\n{body}"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
