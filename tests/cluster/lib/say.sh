# shellcheck shell=bash
# What a person sees. All of it goes to stderr: stdout is for results that a script reads.

exit_cannot_run=3
steps_total=9

say() { printf '%s\n' "$*" >&2; }

fail() {
  say "error: $*"
  exit 1
}

# The machine lacks something that no retry will bring.
cannot_run() {
  say "The development cluster can't run here: $1"
  say "Instead: $2"
  exit "$exit_cannot_run"
}

show_log() {
  [[ -s $1 ]] || return 0
  say "--- last lines of $1"
  tail -n 20 "$1" >&2
  say "---"
}

# step NUMBER TITLE ESTIMATE LOG COMMAND...: runs a command with a counter of the time it takes.
step() {
  local number=$1 title=$2 estimate=$3 log=$4 started=$SECONDS seconds=0 pid status=0
  shift 4
  local line="[$number/$steps_total] $title ($estimate) …"
  mkdir -p "$(dirname "$log")"
  # A terminal gets a live counter; a log file gets a sign of life now and then.
  local live=no
  if [[ -t 2 ]]; then
    live=yes
    printf '%s' "$line" >&2
  else
    say "$line"
  fi
  # A process group of its own, so that an interrupted build can be ended with all its children.
  set -m
  ("$@") >"$log" 2>&1 </dev/null &
  pid=$!
  set +m
  # shellcheck disable=SC2064  # the pid of now is meant
  trap "kill -- -$pid 2>/dev/null; say; say 'interrupted; the next \`up\` begins with cleaning up'; exit 130" INT TERM
  while kill -0 "$pid" 2>/dev/null; do
    sleep 0.2
    ((SECONDS - started > seconds)) || continue
    seconds=$((SECONDS - started))
    if [[ $live == yes ]]; then
      printf '\r%s %s' "$line" "$(duration "$seconds")" >&2
    elif ((seconds % 15 == 0)); then
      say "      … $(duration "$seconds")"
    fi
  done
  wait "$pid" || status=$?
  trap - INT TERM
  if [[ $live == yes ]]; then
    printf '\r%s ' "$line" >&2
  else
    printf '      ' >&2
  fi
  if ((status != 0)); then
    say "failed after $(duration $((SECONDS - started)))"
    show_log "$log"
    exit "$status"
  fi
  say "done in $(duration $((SECONDS - started)))"
}

step_cached() { say "[$1/$steps_total] $2: ready"; }

duration() {
  if (($1 < 60)); then echo "$1 s"; else echo "$(($1 / 60)) min $(($1 % 60)) s"; fi
}

# wait_for SECONDS WHAT COMPONENT COMMAND...: polls a condition, and gives up at once when the
# component that should bring it about has died.
wait_for() {
  local deadline=$((SECONDS + $1)) what=$2 component=$3
  shift 3
  until "$@" >/dev/null 2>&1; do
    if [[ -n $component ]] && ! is_running "$component"; then
      say "$component ended while waiting for $what"
      show_log "$logs_dir/$component.log"
      return 1
    fi
    if ((SECONDS >= deadline)); then
      say "no $what in time"
      [[ -z $component ]] || show_log "$logs_dir/$component.log"
      return 1
    fi
    sleep 0.1
  done
}
