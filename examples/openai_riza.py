"""Any model behind OpenAI's API answers a question by programs that it has run, with the official `openai` and `rizaio`.

uv pip install openai rizaio
fumehood serve  # in another terminal; it prints the key
export RIZA_BASE_URL=http://127.0.0.1:3003 RIZA_API_KEY=fh_…
export OPENAI_BASE_URL=http://127.0.0.1:11434/v1 OPENAI_API_KEY=none OPENAI_MODEL=devstral
python examples/openai_riza.py "Which weekday was 1969-07-20?"
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from openai import OpenAI
from rizaio import Riza

QUESTION = "Which weekday was 1969-07-20?"
MOST_TURNS = 8
RUN_CODE: Any = {
    "type": "function",
    "function": {
        "name": "run_code",
        "description": "Run a program in a fresh sandbox without network. You get what it prints, so print what you need.",
        "parameters": {
            "type": "object",
            "properties": {
                "language": {"type": "string", "enum": ["python", "javascript"]},
                "code": {"type": "string", "description": "The whole program."},
            },
            "required": ["language", "code"],
        },
    },
}


def main() -> None:
    """Ask, run what the model calls for until it calls for nothing more, and print its answer."""
    messages: list[Any] = [{"role": "user", "content": " ".join(sys.argv[1:]) or QUESTION}]
    with OpenAI() as openai, Riza() as riza:
        for _turn in range(MOST_TURNS):
            answer = openai.chat.completions.create(
                model=os.environ["OPENAI_MODEL"], messages=messages, tools=[RUN_CODE]
            )
            message = answer.choices[0].message
            messages.append(message)
            if not message.tool_calls:
                print(message.content)
                return
            for call in message.tool_calls:
                printed = run(riza, call)
                messages.append({"role": "tool", "tool_call_id": call.id, "content": printed})
    sys.exit(f"no answer after {MOST_TURNS} turns")


def run(riza: Riza, call: Any) -> str:
    """Run one call, and say how it went in words for the model: it can mend its own mistakes."""
    try:
        given = json.loads(call.function.arguments)
        language, code = given["language"], given["code"]
        if language not in ("python", "javascript"):
            raise ValueError(language)
    except (ValueError, KeyError, TypeError):
        return "not run: the arguments must be a JSON object with `language`, python or javascript, and the text `code`"
    print(f"--- {language}\n{code}", file=sys.stderr)
    result = riza.command.exec(language=language, code=code)
    return json.dumps({"exit_code": result.exit_code, "stdout": result.stdout, "stderr": result.stderr})


if __name__ == "__main__":
    main()
