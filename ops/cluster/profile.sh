# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154  # what ../cluster.sh reads and sets
# Sourced by ../cluster.sh: the profile, and what follows from it for each process.

declare -gA role_of=() node_of=() number_of=() own=() common=()
declare -ga names=() nodes=() roles=()
declare -g router='' first_shard='' gateway_url=''

# Lines "setting KEY VALUE" and "entry", "field KEY VALUE" of the subset of YAML that cluster.yaml describes.
# shellcheck disable=SC2016
profile_lines() {
  awk '
    function refuse(why) { printf "%s:%d: %s\n", FILENAME, FNR, why >"/dev/stderr"; exit 3 }
    function pair(text,   key, value) {
      if (!match(text, /^[a-z][a-z0-9_.-]*:/)) refuse("`key: value` expected")
      key = substr(text, 1, RLENGTH - 1); value = substr(text, RLENGTH + 1)
      sub(/[ ]+#.*$/, "", value); gsub(/^[ ]+|[ ]+$/, "", value)
      if (value ~ /^".*"$/) value = substr(value, 2, length(value) - 2)
      else if (value ~ /^[][{}&*!|>%@`"\x27]/) refuse("a plain value expected")
      return key " " value
    }
    /\t/ { refuse("a tab") }
    /^[ ]*(#|$)/ { next }
    /^(settings|services):[ ]*(#.*)?$/ { section = substr($1, 1, length($1) - 1); next }
    /^  - / && section == "services" { print "entry"; print "field " pair(substr($0, 5)); next }
    /^    [a-z]/ && section == "services" { print "field " pair(substr($0, 5)); next }
    /^  [a-z]/ && section == "settings" { print "setting " pair(substr($0, 3)); next }
    { refuse("not in the subset of YAML that profiles may use") }
  ' "$1"
}

# Names are short where the role is long: shard-0, vision-0.
short_role() {
  case $1 in
    expert-shard) echo shard ;;
    vision-encoder) echo vision ;;
    *) echo "$1" ;;
  esac
}

# add_entry ROLE NODES: one process a node; `fields` of the caller holds the entry's settings.
add_entry() {
  local role=$1 node name list key
  case $role in gateway | router | vision-encoder | expert-shard | decoder) ;; *) fail "$profile: no role \"$role\"" ;; esac
  IFS=', ' read -r -a list <<<"$2"
  ((${#list[@]} > 0)) || fail "$profile: an entry of role $role has no nodes"
  [[ " ${roles[*]} " == *" $role "* ]] || roles+=("$role")
  for node in "${list[@]}"; do
    [[ $node =~ ^[a-z0-9]{1,6}$ || $node == host ]] || fail "$profile: node \"$node\": 1 to 6 of a-z, 0-9"
    name=$(short_role "$role")-${counts[$role]:-0}
    counts[$role]=$((${counts[$role]:-0} + 1))
    number_of[$name]=$((counts[$role] - 1))
    names+=("$name")
    role_of[$name]=$role
    node_of[$name]=$node
    [[ $node == host || " ${nodes[*]} " == *" $node "* ]] || nodes+=("$node")
    for key in "${!fields[@]}"; do own[$name $key]=${fields[$key]}; done
  done
}

read_profile() {
  [[ -f $1 ]] || fail "there is no profile $1"
  local lines kind key value entry_role='' entry_nodes=''
  local -A counts=() fields=()
  lines=$(profile_lines "$1") || fail "profile $1"
  names=() nodes=() roles=() role_of=() node_of=() number_of=() own=() common=()
  while read -r kind key value; do
    case $kind in
      setting) common[$key]=$value ;;
      entry)
        [[ -z $entry_role ]] || add_entry "$entry_role" "$entry_nodes"
        fields=() entry_role='' entry_nodes=''
        ;;
      field)
        case $key in
          role) entry_role=$value ;;
          nodes) entry_nodes=$value ;;
          *) fields[$key]=$value ;;
        esac
        ;;
    esac
  done <<<"$lines"
  [[ -z $entry_role ]] || add_entry "$entry_role" "$entry_nodes"
  router='router-0'
  [[ -n ${role_of[$router]:-} && -n ${role_of["gateway-0"]:-} ]] || fail "$1: a gateway and a router are needed"
  [[ ${node_of["gateway-0"]} == host ]] || fail "$1: the first gateway belongs to node host, where its clients are"
  first_shard='shard-0'
  [[ -n ${role_of[$first_shard]:-} ]] || first_shard=''
  gateway_url=http://127.0.0.1:$(port_of gateway-0 http)
}

# port_of NAME control|dispatch|data|admin|http: on loopback all processes share an address, so every port is another.
port_of() {
  local number=${number_of[$1]} port
  case $2:${role_of[$1]} in
    control:router) port=$((7400 + 2 * number)) ;;
    data:router) port=$((7401 + 2 * number)) ;;
    data:expert-shard) port=$((7410 + number)) ;;
    data:decoder) port=$((7430 + number)) ;;
    data:vision-encoder) port=$((7450 + number)) ;;
    http:gateway) port=$((8080 + 10 * number)) ;;
    admin:vision-encoder) port=$((8081 + 10 * number)) ;;
    admin:router) port=$((8082 + 10 * number)) ;;
    admin:expert-shard) port=$((8083 + 10 * number)) ;;
    admin:decoder) port=$((8084 + 10 * number)) ;;
    admin:gateway) port=$((8085 + 10 * number)) ;;
    *) fail "$1 has no $2 port" ;;
  esac
  echo $((port + shift_by))
}

# Where NAME's data plane listens. Namespaces share this machine's files; with tcp alone they are as separate as machines.
listen_of() {
  local carrier=${CARRIER:-shm}
  use_netns && carrier=tcp
  case $carrier in
    tcp) echo "tcp://$(address_of "$1"):$(port_of "$1" data)" ;;
    ipc | shm) echo "$carrier://$state/run/$1.$carrier" ;;
    *) fail "CARRIER is \"$carrier\": shm, ipc or tcp expected" ;;
  esac
}

admin_url() { echo "http://$(admin_host "$1"):$(port_of "$1" admin)"; }

# Beyond loopback only in the namespaces of this machine.
admin_host() { if [[ ${node_of[$1]} == host ]]; then echo 127.0.0.1; else address_of "$1"; fi; }

# The command line of NAME, one argument a line.
command_of() {
  local name=$1 role=${role_of[$1]} key other endpoints=()
  local -A flags=([node.name]=$name [transport.keys]=$state/keys [admin.host]=$(admin_host "$name")
    [admin.port]=$(port_of "$name" admin))
  for other in "${names[@]}"; do
    [[ ${role_of[$other]} != router ]] || endpoints+=("$other=tcp://$(address_of "$other"):$(port_of "$other" control)")
  done
  [[ ${flags[admin.host]} == 127.* ]] || flags[admin.insecure_no_auth]=yes
  flags[router.endpoints]=$(IFS=, && echo "${endpoints[*]}")
  if [[ $role == router ]]; then
    flags[router.listen]=tcp://$(address_of "$name"):$(port_of "$name" control)
    flags[registry.file]=$state/run/$name.placement.yaml # as long as the cluster is up
  fi
  case $role in
    gateway) flags[http.port]=$(port_of "$name" http) ;;
    *) flags[transport.listen]=$(listen_of "$name") ;;
  esac
  for key in "${!own[@]}"; do [[ $key != "$name "* ]] || flags[${key#* }]=${own[$key]}; done
  flags[node.labels]=${flags[node.labels]:+${flags[node.labels]},}node=${node_of[$name]}
  namespace_prefix "$name"
  echo "$bin/moesaic-$role"
  for key in "${!flags[@]}"; do printf -- '--%s\n%s\n' "$(tr '._' '--' <<<"$key")" "${flags[$key]}"; done
}

# Settings of the profile as environment, so that each program takes those it knows; what the caller's environment has wins.
export_settings() {
  local key variable
  for key in "${!common[@]}"; do
    variable=MOESAIC_$(tr 'a-z.-' 'A-Z__' <<<"$key")
    [[ -n ${!variable+set} ]] || export "$variable=${common[$key]}"
  done
  if [[ -n ${MODEL:-} ]]; then
    MOESAIC_MODEL_DIR=$(realpath -m "$MODEL")
    export MOESAIC_MODEL_DIR MOESAIC_PLACEMENT_FILE=''
  else
    export MOESAIC_MODEL_DIR=${MOESAIC_MODEL_DIR:-$root/configs/models/ernie-vl-demo}
  fi
  if [[ -n ${PLACEMENT:-} ]]; then
    MOESAIC_PLACEMENT_FILE=$(realpath -m "$PLACEMENT")
    export MOESAIC_PLACEMENT_FILE
  fi
  local shards=0 name
  for name in "${names[@]}"; do [[ ${role_of[$name]} != expert-shard ]] || shards=$((shards + 1)); done
  export MOESAIC_ROUTER_SHARDS=${MOESAIC_ROUTER_SHARDS:-$shards}
}
