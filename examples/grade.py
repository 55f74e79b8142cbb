"""Grades answers to an exercise by running them, hostile or not, each in a sandbox of its own."""

import fumehood

EXERCISE = "Define double(n)."
ANSWERS = {
    "right": "def double(n): return 2 * n",
    "wrong": "def double(n): return n",
    "endless": "while True: pass",
    "sly": "print('passed'); import os; os._exit(1)",
}
CHECK = "\nassert double(21) == 42\n"


def main() -> None:
    """Print a verdict for each answer; the exit code decides, never what an answer prints."""
    for name, answer in ANSWERS.items():
        result = fumehood.run(answer + CHECK, limits=fumehood.Limits(wall_seconds=1))
        print(f"{name}: {'passed' if result.ok else 'failed'} ({result.reason})")


if __name__ == "__main__":
    main()
