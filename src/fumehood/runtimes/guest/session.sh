# Executes a session's cells in bash, inside the sandbox. Its last argument is the number of its channel's descriptor.
# Messages start with `PID MORE `; to here a cell's text follows, from here JSON as in session.py. What cells print goes by
# the ordinary streams. Names that start with __ are its own.
rm -f -- "$0"
__channel=$1
shift

__send() { printf '%d 0 %s' "$$" "$1" >&"$__channel"; }

# Reads one message's text into __cell; returns non-zero at the end.
__receive() {
  local piece more
  __cell=
  while :; do
    # One read takes one message; the dot keeps what lies at its end.
    piece=$(dd bs=131072 count=1 status=none <&"$__channel"; printf .)
    piece=${piece%.}
    [ -n "$piece" ] || return 1
    more=${piece#* }
    __cell+=${more#* }
    [ "${more%% *}" = 1 ] || return 0
  done
}

__report() {
  trap : INT
  local ok=true
  if [ "$1" != 0 ]; then
    ok=false
    __send '{"type": "error", "name": "exit status", "value": "'"$1"'", "traceback": "exit status '"$1"'\n"}'
  fi
  __send '{"type": "done", "ok": '$ok'}'
}

# Cells are not evaluated in a function: what one declares must reach the next. Ctrl-C ends the command that runs and breaks
# every loop, this one too, which then begins anew.
__main='
while __receive; do
  __whole=
  trap "break 1000 2>/dev/null" INT
  eval "$__cell" 63>&-
  __report $?
  __whole=1
done
if [ -z "$__whole" ]; then
  __report 130
  eval "$__main"
fi'
__whole=1
trap : INT
__send '{"type": "ready"}'
eval "$__main"
