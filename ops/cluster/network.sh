# shellcheck shell=bash
# shellcheck disable=SC2154  # what ../cluster.sh sets
# Sourced by ../cluster.sh: a network namespace a node, joined by a bridge in the machine's own; or loopback.

use_netns() { ((EUID == 0)) && [[ ${NETNS:-yes} != no ]] && command -v ip >/dev/null; }

# A number of this state folder: prefix of all names and part of all addresses, so that two clusters do not meet.
run_number() { echo $(($(cksum <<<"$state" | cut -d ' ' -f 1) % 254 + 1)); }
prefix() { echo "moe$(run_number)"; }
subnet() { echo "10.87.$(run_number)"; }

network_name() { if use_netns; then echo "namespaces $(prefix)-*, $(subnet).0/24"; else echo "loopback, ${CARRIER:-shm}"; fi; }

node_index() {
  local i
  for i in "${!nodes[@]}"; do
    [[ ${nodes[i]} != "$1" ]] || {
      echo "$i"
      return
    }
  done
  fail "no node \"$1\"; there are: ${nodes[*]}"
}

address_of() {
  if ! use_netns; then
    echo 127.0.0.1
  elif [[ ${node_of[$1]} == host ]]; then
    echo "$(subnet).1"
  else
    echo "$(subnet).$((10 + $(node_index "${node_of[$1]}")))"
  fi
}

# First words of the command line of a process on another node, one a line.
namespace_prefix() {
  use_netns && [[ ${node_of[$1]} != host ]] || return 0
  printf '%s\n' ip netns exec "$(prefix)-${node_of[$1]}"
}

network_up() {
  use_netns || return 0
  local bridge node ns i
  bridge=$(prefix)
  if ! ip link show "$bridge" >/dev/null 2>&1; then
    ip link add "$bridge" type bridge
    ip addr add "$(subnet).1/24" dev "$bridge"
    ip link set "$bridge" up
  fi
  for i in "${!nodes[@]}"; do
    node=${nodes[i]}
    ns=$bridge-$node
    ip netns list | grep -qE "^$ns( |\$)" && continue
    ip netns add "$ns"
    ip link add "$bridge-$node" type veth peer name eth0 netns "$ns"
    ip link set "$bridge-$node" master "$bridge" up
    ip -n "$ns" addr add "$(subnet).$((10 + i))/24" dev eth0
    ip -n "$ns" link set eth0 up
    ip -n "$ns" link set lo up
  done
}

# Also what a crash left: everything with this cluster's prefix.
network_down() {
  ((EUID == 0)) && command -v ip >/dev/null || return 0
  local ns
  for ns in $(ip netns list | awk -v want="$(prefix)-" 'index($1, want) == 1 {print $1}'); do
    ip link del "$ns" 2>/dev/null || true # the end of the cable in this namespace; its peer goes with it
    ip netns del "$ns"
  done
  ip link del "$(prefix)" 2>/dev/null || true
}

network_link() {
  use_netns || fail "without namespaces there is no network of a node"
  node_index "$1" >/dev/null
  ip link set "$(prefix)-$1" "$2"
}
