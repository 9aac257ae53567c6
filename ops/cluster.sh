#!/usr/bin/env bash
# A whole cluster on this machine: every service a process of its own, restarted when it dies.
#   ops/cluster.sh up              builds what is missing, starts the cluster, returns when it is ready to serve
#   ops/cluster.sh status          pid, state and addresses of each service
#   ops/cluster.sh down            stops it (open requests may end first) and removes what it left
#   ops/cluster.sh top             a live view of members, experts and wires
#   ops/cluster.sh place FILE      another placement, while it runs
#   ops/cluster.sh kill NAME       SIGKILL, as a crash; it is started again
#   ops/cluster.sh freeze|thaw NAME  SIGSTOP, SIGCONT
#   ops/cluster.sh cut|mend NODE   takes a node's network away, gives it back (namespaces only)
# Run by root, each node of the profile is a network namespace and services speak tcp with CURVE; else all is on loopback.
# Environment:
#   PROFILE=FILE      default configs/profiles/cluster.yaml, which says what may stand in it
#   MODEL=DIR         default: the demo model. Another model has other experts: say PLACEMENT=FILE, or they are split evenly
#   NETNS=no          loopback even for root;  CARRIER=shm|ipc|tcp  what loopback uses (default shm)
#   STATE=DIR         keys, logs, pids (default build/cluster);  BIN=DIR  programs (default build/release/bin)
#   PORT_SHIFT=N      added to every port, for a second cluster beside the first;  TIMEOUT=60  seconds `up` waits
#   MOESAIC_A_B_C     any setting
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source-path=SCRIPTDIR source=cluster/profile.sh
source "$root/ops/cluster/profile.sh"
# shellcheck source-path=SCRIPTDIR source=cluster/network.sh
source "$root/ops/cluster/network.sh"
# shellcheck source-path=SCRIPTDIR source=cluster/processes.sh
source "$root/ops/cluster/processes.sh"

usage() { fail "usage: ops/cluster.sh up|status|down|top|place FILE|kill NAME|freeze NAME|thaw NAME|cut NODE|mend NODE"; }

state=$(realpath -m "${STATE:-$root/build/cluster}")
bin=$(realpath -m "${BIN:-$root/build/release/bin}")
profile=${PROFILE:-$root/configs/profiles/cluster.yaml}
shift_by=${PORT_SHIFT:-0}
patience=${TIMEOUT:-60}
[[ $shift_by =~ ^[0-9]+$ ]] || fail "PORT_SHIFT is \"$shift_by\": a number expected"

# One `up` or `down` of a state folder at a time; supervisors close the descriptor.
lock() {
  mkdir -p "$state"
  exec {lock_fd}>"$state/lock"
  flock -w 120 "$lock_fd" || fail "another ops/cluster.sh works on $state"
}

ensure_programs() {
  local role missing=()
  for role in "${roles[@]}"; do
    [[ -x $bin/moesaic-$role ]] || missing+=(--target "moesaic-$role")
  done
  [[ -x $bin/moesaic ]] || missing+=(--target moesaic)
  ((${#missing[@]} == 0)) && return
  [[ -z ${BIN:-} ]] || fail "programs are missing in $bin: ${missing[*]}"
  "$root/ops/build.sh" release "${missing[@]}" || exit # it has said why
}

make_keys() {
  local name owners=()
  [[ -f $state/keys/tool-admin.secret ]] || owners+=(tool/admin) # of `moesaic place`
  for name in "${names[@]}"; do
    [[ -f $state/keys/${role_of[$name]}-$name.secret ]] || owners+=("${role_of[$name]}/$name")
  done
  ((${#owners[@]} == 0)) || "$bin/moesaic" keys make-all --dir "$state/keys" "${owners[@]}" >/dev/null
}

# The gateway's word for the whole cluster.
is_serving() { [[ $(curl -s -o /dev/null -m 2 -w '%{http_code}' "$gateway_url/ready") == 200 ]]; }

explain_and_fail() {
  local name
  for name in "${names[@]}"; do
    [[ $(condition_of "$name") == ready ]] && continue
    printf -- '--- %s: %s; the end of %s:\n' "$name" "$(condition_of "$name")" "$state/log/$name.log"
    tail -n 15 "$state/log/$name.log" 2>/dev/null || true
  done >&2
  printf -- '--- %s/ready says: %s\n' "$gateway_url" "$(curl -s -m 2 "$gateway_url/ready" || true)" >&2
  fail "$1; ops/cluster.sh down stops what runs"
}

wait_until_serving() {
  local deadline=$((SECONDS + patience)) name
  until is_serving; do
    for name in "${names[@]}"; do
      [[ ! -f $state/pid/$name.gave_up ]] || explain_and_fail "$name ends at once, again and again"
    done
    ((SECONDS < deadline)) || explain_and_fail "not ready after $patience s"
    sleep 0.1
  done
}

show_urls() {
  local name
  printf '\nAPI      %s/v1/chat/completions\nmetrics' "$gateway_url"
  for name in "${names[@]}"; do printf ' %s=%s' "$name" "$(admin_url "$name")/metrics"; done
  printf '\n\nplacement\n'
  "$bin/moesaic" top --once --admin "$(admin_url "$router")" | sed '/^FROM /,$d' || printf '  not known: %s does not tell it\n' "$router"
  printf '\nTry:  curl %s/v1/chat/completions -H "Content-Type: application/json" -d '\''%s'\''\n' "$gateway_url" \
    '{"messages": [{"role": "user", "content": "Who are you?"}]}'
  printf 'Watch it: ops/cluster.sh top\n'
  [[ -z ${first_shard:-} ]] || printf 'Kill a shard while it answers:  ops/cluster.sh kill %s\n' "$first_shard"
  printf 'Logs: %s   Stop: ops/cluster.sh down\n' "$state/log"
}

up() {
  command -v curl >/dev/null || fail "curl is missing; ops/build.sh installs it"
  read_profile "$profile"
  ensure_programs
  lock
  if [[ -f $state/choice && $(<"$state/choice") != "$(choice)" ]]; then
    begin "stopping the cluster in $state, which was started otherwise"
    stop_all
  fi
  mkdir -p "$state/log" "$state/pid" "$state/command" "$state/run"
  chmod 700 "$state/run"
  choice >"$state/choice"
  cp "$profile" "$state/profile.yaml"
  begin "laying the network: $(network_name)"
  network_up
  make_keys
  begin "starting ${#names[@]} services"
  local name
  for name in "${names[@]}"; do start "$name"; done
  begin "waiting until $gateway_url/ready says so"
  wait_until_serving
  show_urls
}

# What `down` and the others act on: the cluster as it was started, not as the environment is now.
recall() {
  [[ -f $state/choice ]] || return 1
  local key value
  while IFS='=' read -r key value; do
    case $key in
      netns) NETNS=$value ;;
      carrier) CARRIER=$value ;;
      shift_by) shift_by=$value ;;
    esac
  done <"$state/choice"
  profile=$state/profile.yaml
  read_profile "$profile"
}

choice() {
  printf 'netns=%s\ncarrier=%s\nshift_by=%s\n' "$(use_netns && echo yes || echo no)" \
    "${CARRIER:-shm}" "$shift_by"
  printf '%s %s %s\n' "$bin" "${MODEL:-}" "${PLACEMENT:-}"
  env | grep '^MOESAIC_' | sort || true
  cat "$profile"
}

stop_all() {
  stop_processes
  network_down
  rm -rf "$state/pid" "$state/run" "$state/command" "$state/choice"
}

status() {
  recall || fail "no cluster is up in $state"
  local name condition all_ready=0
  printf '%-18s %-8s %-16s %-9s %s\n' name pid state restarts admin
  for name in "${names[@]}"; do
    condition=$(condition_of "$name") # before its pid, which may be a moment old
    printf '%-18s %-8s %-16s %-9s %s\n' "$name" "$(pid_of "$name" || echo -)" "$condition" \
      "$(restarts_of "$name")" "$(admin_url "$name")"
  done
  if is_serving; then echo "serving on $gateway_url"; else
    echo "not serving: $(curl -s -m 2 "$gateway_url/ready" || echo "$gateway_url does not answer")"
    all_ready=1
  fi
  return "$all_ready"
}

signal() {
  recall || fail "no cluster is up in $state"
  [[ -n ${role_of[$2]:-} ]] || fail "no service \"$2\"; there are: ${names[*]}"
  local pid
  pid=$(pid_of "$2") || fail "$2 does not run"
  kill "-$1" "$pid"
}

case ${1:-} in
  up) up ;;
  down)
    lock
    begin "stopping the cluster in $state"
    stop_all
    ;;
  status) status || exit 1 ;;
  top)
    recall || fail "no cluster is up in $state"
    exec "$bin/moesaic" top --admin "$(admin_url "$router")" "${@:2}"
    ;;
  place)
    (($# == 2)) || usage
    recall || fail "no cluster is up in $state"
    exec "$bin/moesaic" place "$2" --router "tcp://$(address_of "$router"):$(port_of "$router" control)" --keys "$state/keys"
    ;;
  kill | freeze | thaw)
    (($# == 2)) || usage
    case $1 in
      kill) signal KILL "$2" ;;
      freeze) signal STOP "$2" ;;
      thaw) signal CONT "$2" ;;
    esac
    ;;
  cut | mend)
    (($# == 2)) || usage
    recall || fail "no cluster is up in $state"
    network_link "$2" "$([[ $1 == cut ]] && echo down || echo up)"
    ;;
  supervise) supervise "$2" ;; # what `up` runs for each service
  *) usage ;;
esac
