# shellcheck shell=bash
# shellcheck disable=SC2154  # what ../cluster.sh and ../lib.sh set
# Sourced by ../cluster.sh: each service under a supervisor of its own, a loop that starts it again when it dies.
# pid/NAME.supervisor and pid/NAME.pid hold process ids, pid/NAME.restarts a count; pid/NAME.gave_up: it cannot start.

readonly kQuickDeaths=5      # lives shorter than 2 s in a row, with a status that says "bad configuration", before giving up
readonly kLongestPause=3.2   # seconds between two starts

# is_ours PID NAME: a live process that carries NAME on its command line; pids are reused.
is_ours() {
  local words word=
  { mapfile -d '' -t words <"/proc/$1/cmdline"; } 2>/dev/null || return
  for word in "${words[@]}"; do [[ $word != "$2" ]] || break; done
  [[ $word == "$2" && $(awk '/^State:/ {print $2}' "/proc/$1/status" 2>/dev/null) != Z ]]
}

# Prints the pid of the service; fails if it does not run.
pid_of() {
  local pid
  pid=$(cat "$state/pid/$1.pid" 2>/dev/null) && [[ -n $pid ]] && is_ours "$pid" "$1" && echo "$pid"
}

supervisor_of() {
  local pid
  pid=$(cat "$state/pid/$1.supervisor" 2>/dev/null) && [[ -n $pid ]] && is_ours "$pid" "$1" && echo "$pid"
}

restarts_of() { cat "$state/pid/$1.restarts" 2>/dev/null || echo 0; }

# ready | not ready | frozen | dead
condition_of() {
  local pid
  pid=$(pid_of "$1") || {
    echo dead
    return
  }
  if [[ $(awk '/^State:/ {print $2}' "/proc/$pid/status" 2>/dev/null) == T ]]; then
    echo frozen
  elif [[ $(curl -s -o /dev/null -m 2 -w '%{http_code}' "$(admin_url "$1")/ready") == 200 ]]; then
    echo ready
  else
    echo "not ready"
  fi
}

start() {
  local name=$1
  supervisor_of "$name" >/dev/null && return
  rm -f "$state/pid/$name".*
  command_of "$name" >"$state/command/$name"
  (
    export_settings
    cd "$root" || exit
    exec {lock_fd}>&-
    exec env STATE="$state" setsid "$root/ops/cluster.sh" supervise "$name" </dev/null >>"$state/log/$name.log" 2>&1
  ) &
  disown
}

# Runs until it is told to end; then the service ends first.
supervise() {
  local name=$1 status pause=0.1 born quick=0 arguments
  trap - ERR
  set +e
  echo $BASHPID >"$state/pid/$name.supervisor"
  echo 0 >"$state/pid/$name.restarts"
  mapfile -t arguments <"$state/command/$name"
  # $! and not a variable: it is set by the fork itself.
  trap 'trap "" TERM; [[ -z ${!:-} ]] || { kill -TERM "$!" 2>/dev/null && wait "$!"; }; rm -f "$state/pid/$name.pid"; exit 0' TERM
  while :; do
    born=$SECONDS
    "${arguments[@]}" &
    echo "$!" >"$state/pid/$name.pid"
    wait "$!"
    status=$?
    echo "supervisor: $name ended with status $status after $((SECONDS - born)) s"
    if ((SECONDS - born > 10)); then pause=0.1 quick=0; fi
    if ((SECONDS - born < 2 && (status == 2 || status == 3))); then quick=$((quick + 1)); else quick=0; fi
    if ((quick == kQuickDeaths)); then
      touch "$state/pid/$name.gave_up"
      exit 1
    fi
    echo $(($(restarts_of "$name") + 1)) >"$state/pid/$name.restarts"
    sleep "$pause" &
    wait $!
    pause=$(awk -v p="$pause" -v most="$kLongestPause" 'BEGIN {p *= 2; print p < most ? p : most}')
  done
}

# ask_to_end NAME: once, because a second signal would cut the drain short; through its supervisor where there is one.
ask_to_end() {
  local service='' asked
  if service=$(pid_of "$1"); then kill -CONT "$service" 2>/dev/null || true; fi
  asked=$(supervisor_of "$1") || asked=$service
  [[ -z $asked ]] || kill -TERM "$asked" 2>/dev/null || true
}

# Gateways first and shards last, so that open requests find what they need until they end.
stop_processes() {
  local prefix file name
  for prefix in gateway decoder vision router shard; do
    local wave=()
    for file in "$state"/pid/"$prefix"-*.supervisor "$state"/pid/"$prefix"-*.pid; do
      [[ -f $file ]] || continue
      name=${file##*/}
      name=${name%.*}
      [[ " ${wave[*]} " == *" $name "* ]] || wave+=("$name")
    done
    for name in "${wave[@]}"; do ask_to_end "$name"; done
    for name in "${wave[@]}"; do wait_for_end "$name"; done
  done
}

# wait_for_end NAME: as long as draining may take, then kills.
wait_for_end() {
  local deadline=$((SECONDS + ${MOESAIC_LIMITS_DRAIN_SECONDS:-10} + 5)) pid
  while pid=$(supervisor_of "$1") || pid=$(pid_of "$1"); do
    if ((SECONDS >= deadline)); then
      echo "$1 did not end in time and is killed" >&2
      kill -KILL "$pid" 2>/dev/null || true
    fi
    sleep 0.05
  done
}
