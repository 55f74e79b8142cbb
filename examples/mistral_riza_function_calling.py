"""A Mistral model answers a question by programs that it has run: function calling, with the official `mistralai` and `rizaio`.

    uv pip install mistralai rizaio
    fumehood serve  # in another terminal; it prints the key
    export RIZA_BASE_URL=http://127.0.0.1:3003 RIZA_API_KEY=fh_… MISTRAL_API_KEY=…
    python examples/mistral_riza_function_calling.py "How many primes are there below 10,000?"

MISTRAL_SERVER_URL names another server that speaks Mistral's API, MISTRAL_MODEL a model of it.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from mistralai.client import Mistral
from rizaio import Riza

MODEL = os.environ.get("MISTRAL_MODEL", "devstral-small-latest")
QUESTION = "How many primes are there below 10,000?"
MOST_TURNS = 8
RUN_PYTHON = {
    "type": "function",
    "function": {
        "name": "run_python",
        "description": "Run a Python program in a fresh sandbox without network. You get what it prints, so print what you need.",
        "parameters": {
            "type": "object",
            "properties": {"code": {"type": "string", "description": "The whole program."}},
            "required": ["code"],
        },
    },
}


def main() -> None:
    """Ask, run what the model calls for until it calls for nothing more, and print its answer."""
    messages: list[Any] = [{"role": "user", "content": " ".join(sys.argv[1:]) or QUESTION}]
    server = os.environ.get("MISTRAL_SERVER_URL")
    with Mistral(api_key=os.environ["MISTRAL_API_KEY"], server_url=server) as mistral, Riza() as riza:
        for _turn in range(MOST_TURNS):
            answer = mistral.chat.complete(model=MODEL, messages=messages, tools=[RUN_PYTHON])
            message = answer.choices[0].message
            messages.append(message)
            if not message.tool_calls:
                print(message.content)
                return
            for call in message.tool_calls:
                printed = run(riza, call.function.name, call.function.arguments)
                messages.append(
                    {"role": "tool", "name": call.function.name, "tool_call_id": call.id, "content": printed}
                )
    sys.exit(f"no answer after {MOST_TURNS} turns")


def run(riza: Riza, name: str, arguments: str | dict[str, Any]) -> str:
    """Run one call, and say how it went in words for the model: it can mend its own mistakes."""
    try:
        given = json.loads(arguments) if isinstance(arguments, str) else arguments
        code = given["code"]
    except (ValueError, KeyError, TypeError):
        return f"{name} was not run: its arguments must be a JSON object with the text `code`"
    print(f"--- {name}\n{code}", file=sys.stderr)
    result = riza.command.exec(language="python", code=code)
    return json.dumps({"exit_code": result.exit_code, "stdout": result.stdout, "stderr": result.stderr})


if __name__ == "__main__":
    main()
