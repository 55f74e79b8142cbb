"""Calls `execute(input)` of a function's file and writes down what came of it. Runs inside: the standard library only."""

import asyncio
import inspect
import json
import sys

FUNCTION, INPUT, OUTPUT = "function.py", "function-input.json", "function-output.json"


def write_down(status, output):
    with open(OUTPUT, "w", encoding="utf-8") as file:
        json.dump({"status": status, "output": output}, file)


def serializable(value):
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def main():
    with open(INPUT, encoding="utf-8") as file:
        given = json.load(file)
    with open(FUNCTION, encoding="utf-8", errors="surrogateescape") as file:
        source = file.read()
    module = sys.modules["__main__"].__dict__
    module["__file__"] = f"/work/{FUNCTION}"
    exec(compile(source, module["__file__"], "exec"), module)
    if not callable(module.get("execute")):
        sys.exit("the code defines no function execute(input)")
    output = module["execute"](given)
    if inspect.isawaitable(output):

        async def wait():
            return await output

        output = asyncio.run(wait())
    if serializable(output):
        write_down("valid", output)
    else:
        write_down("json_serialization_error", None)


main()
