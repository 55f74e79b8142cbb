#!/bin/sh
# A program run by curl alone, then a saved tool that is given a stored secret.
#
#     fumehood serve  # in another terminal; it prints the key
#     export RIZA_BASE_URL=http://127.0.0.1:3003 RIZA_API_KEY=fh_…
#     sh examples/riza_curl.sh
set -eu

# call METHOD PATH [BODY]: prints the answer; an error's answer too, and then ends this script.
call() {
    curl --silent --show-error --fail-with-body --request "$1" "$RIZA_BASE_URL$2" \
        --header "Authorization: Bearer $RIZA_API_KEY" --header 'Content-Type: application/json' \
        ${3:+--data-binary "$3"}
    echo
}

# Ids are letters and digits: nothing in them needs a parser of JSON.
id_of() {
    sed 's/.*"id":"\([^"]*\)".*/\1/'
}

call POST /v1/execute '{"language": "python", "code": "import sys; print(sys.stdin.read().upper())", "stdin": "hello"}'
call POST /v1/execute '{"language": "python", "code": "while True: pass", "limits": {"execution_timeout": 1}}'

secret=$(call POST /v1/secrets '{"name": "token", "value": "correct horse"}' | id_of)
tool=$(call POST /v1/tools '{
    "name": "length_of_token", "language": "python",
    "code": "import os\ndef execute(input): return len(os.environ[\"TOKEN\"]) * input[\"times\"]",
    "input_schema": {"type": "object", "properties": {"times": {"type": "integer"}}, "required": ["times"]}
}' | id_of)
call POST "/v1/tools/$tool/execute" '{"input": {"times": 2}, "env": [{"name": "TOKEN", "secret_id": "'"$secret"'"}]}'
call GET '/v1/executions?limit=3'
