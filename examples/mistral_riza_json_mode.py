"""A Mistral model writes a program as {"code": …}, and Fumehood runs it: JSON mode, with the official `mistralai` and `rizaio`.

For models that call no functions. A program that fails goes back to its model, with what it said.

    uv pip install mistralai rizaio
    fumehood serve  # in another terminal; it prints the key
    export RIZA_BASE_URL=http://127.0.0.1:3003 RIZA_API_KEY=fh_… MISTRAL_API_KEY=…
    python examples/mistral_riza_json_mode.py "Print the 50th Fibonacci number."

MISTRAL_SERVER_URL names another server that speaks Mistral's API, MISTRAL_MODEL a model of it.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from mistralai.client import Mistral
from rizaio import Riza

MODEL = os.environ.get("MISTRAL_MODEL", "codestral-latest")
TASK = "Print the 50th Fibonacci number."
MOST_TRIES = 3
ORDERS = """Write a Python 3 program for the user's task. It prints its result, and uses the standard library alone.
Answer with one JSON object that has one key, "code": the whole program as a text."""


def main() -> None:
    """Have a program written and run, again while it fails, and print what it printed."""
    messages: list[Any] = [
        {"role": "system", "content": ORDERS},
        {"role": "user", "content": " ".join(sys.argv[1:]) or TASK},
    ]
    server = os.environ.get("MISTRAL_SERVER_URL")
    with Mistral(api_key=os.environ["MISTRAL_API_KEY"], server_url=server) as mistral, Riza() as riza:
        for _try in range(MOST_TRIES):
            answer = mistral.chat.complete(model=MODEL, messages=messages, response_format={"type": "json_object"})
            message = answer.choices[0].message
            try:
                code = json.loads(str(message.content))["code"]
            except (ValueError, KeyError, TypeError):
                complaint = 'That is no JSON object with the key "code".'
            else:
                print(f"---\n{code}", file=sys.stderr)
                result = riza.command.exec(language="python", code=code)
                if result.exit_code == 0:
                    print(result.stdout, end="")
                    return
                complaint = f"It ended with exit code {result.exit_code} and said:\n{result.stderr}"
            print(complaint, file=sys.stderr)
            messages += [message, {"role": "user", "content": f"{complaint}\nMend it."}]
    sys.exit(f"no program that works after {MOST_TRIES} tries")


if __name__ == "__main__":
    main()
