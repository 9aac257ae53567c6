#!/usr/bin/env bash
# Makes the CURVE keys of all pods and prints their Secrets: ops/kubernetes/make_keys.sh DIR [STATEFULSET=PODS..] | kubectl apply -f -
# DIR keeps the keys; what it holds already is kept, so more pods can be added later. Guard it: whoever has it is the cluster.
# Without counts: as many pods as the production overlay may have. A pod gets the keys of its StatefulSet, and the public keys of all.
# BIN=DIR  where `moesaic` is (default build/release/bin);  NAMESPACE=moesaic
# shellcheck source-path=SCRIPTDIR source=../lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

(($# >= 1)) || fail "usage: ops/kubernetes/make_keys.sh DIR [STATEFULSET=PODS..]"
folder=$1
shift
bin=${BIN:-$root/build/release/bin}
counts=("$@")
((${#counts[@]} > 0)) || counts=(gateway=4 router=2 vision-encoder=4 decoder=8 expert-shard-low=2 expert-shard-high=2)

role_of() { case $1 in expert-shard-*) echo expert-shard ;; *) echo "$1" ;; esac }

owners=()
for entry in "${counts[@]}"; do
  [[ $entry =~ ^(gateway|router|vision-encoder|decoder|expert-shard-[a-z0-9-]+)=([0-9]{1,3})$ ]] ||
    fail "\"$entry\": STATEFULSET=PODS expected, with a StatefulSet of ops/kubernetes/base"
  set_name=${BASH_REMATCH[1]}
  role=$(role_of "$set_name")
  for ((pod = 0; pod < BASH_REMATCH[2]; ++pod)); do
    [[ -f $folder/$role-$set_name-$pod.secret ]] || owners+=("$role/$set_name-$pod")
  done
done
((${#owners[@]} == 0)) || "$bin/moesaic" keys make-all --dir "$folder" "${owners[@]}" >&2

for entry in "${counts[@]}"; do
  set_name=${entry%=*}
  role=$(role_of "$set_name")
  printf -- '---\napiVersion: v1\nkind: Secret\nmetadata:\n  name: moesaic-keys-%s\n  namespace: %s\n' "$set_name" "${NAMESPACE:-moesaic}"
  printf '  labels:\n    app.kubernetes.io/part-of: moesaic\ntype: Opaque\ndata:\n'
  printf '  known_keys: %s\n' "$(base64 -w 0 "$folder/known_keys")"
  for ((pod = 0; pod < ${entry#*=}; ++pod)); do
    file=$role-$set_name-$pod.secret
    printf '  %s: %s\n' "$file" "$(base64 -w 0 "$folder/$file")"
  done
done
