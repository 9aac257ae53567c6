#!/usr/bin/env bash
# Proves the two commands of README.md on a machine that has nothing installed: a minimal Debian 12 in a directory of its own.
#   ops/dev/prove_fresh.sh DIR test [arguments of ops/test.sh]
#   ops/dev/prove_fresh.sh DIR run  [arguments of ops/run.sh]    waits until the server is ready, asks one question, stops it
#   ops/dev/prove_fresh.sh DIR exec COMMAND...                   any other command, in the copy of the repository
# DIR must not exist; it is removed at the end unless KEEP=1. REUSE=1 goes on in a DIR kept earlier (quicker, and no proof).
# What is tried is a clone of HEAD. Needs root, debootstrap and git; package mirror and proxies are those of this machine.
# The server listens on this machine's loopback, port ${PORT:-8080}.
# shellcheck source-path=SCRIPTDIR source=../lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

(($# >= 2)) || fail "usage: ops/dev/prove_fresh.sh DIR test|run|exec [arguments]"
target=$1
what=$2
shift 2
((EUID == 0)) || fail "a chroot needs root"
for tool in debootstrap git unshare curl; do
  command -v "$tool" >/dev/null || fail "$tool is missing"
done
[[ $target == /* ]] || target=$PWD/$target
repository=$target/src/moesaic
started=$SECONDS

lap() {
  printf '==> %s: %d s\n' "$step" $((SECONDS - started))
  started=$SECONDS
}

server=
clean_up() {
  [[ -z $server ]] || kill -KILL "$server" 2>/dev/null || true # takes the server with it
  [[ ${KEEP:-} == 1 || ${REUSE:-} == 1 ]] || rm -rf --one-file-system "$target"
}

# Prints "uri suite component" for each Debian 12 archive that this machine's own apt knows.
# shellcheck disable=SC2016
archives() {
  apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
    awk '$2 ~ /^bookworm(-updates|-security)?$/ && $3 == "main"' | sort -u
}

create() {
  local mirror
  mirror=$(archives | awk '$2 == "bookworm" {print $1; exit}')
  [[ -n $mirror ]] || fail "this machine's apt names no archive of Debian 12 (bookworm)"
  begin "creating a minimal Debian 12 in $target"
  debootstrap --variant=minbase bookworm "$target" "$mirror" >"$target.log" 2>&1 || fail "debootstrap, see $target.log"
  rm -f "$target.log"
  archives | sed 's/^/deb /' >"$target/etc/apt/sources.list"
  apt-config dump | grep -E '^Acquire::(https?::[Pp]roxy|Check-Valid-Until|Check-Date) ' >"$target/etc/apt/apt.conf.d/99host" || true
  cp /etc/resolv.conf /etc/hosts "$target/etc/"
  printf '#!/bin/sh\nexit 101\n' >"$target/usr/sbin/policy-rc.d" # packages start no services
  chmod +x "$target/usr/sbin/policy-rc.d"
  lap
}

# What runs a command in the new system, in the repository, with namespaces of its own for mounts and processes: when it ends
# or is killed nothing stays behind. The command itself is the only child.
# shellcheck disable=SC2016
inside=(unshare --mount --pid --fork --kill-child bash -euc '
  mount --bind "$1" "$1" # a root that is a mount, as `ip netns exec` wants it
  mount -t proc proc "$1/proc"
  mount -t sysfs sysfs "$1/sys"
  mount --rbind /dev "$1/dev"
  mount -t tmpfs tmpfs "$1/tmp"
  exec chroot "$1" /usr/bin/env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 "${@:2}"
' inside "$target" ${http_proxy:+http_proxy="$http_proxy"} ${https_proxy:+https_proxy="$https_proxy"} ${no_proxy:+no_proxy="$no_proxy"}
  bash -c 'cd /src/moesaic && exec "$@"' bash)

serve_and_ask() {
  local port=${PORT:-8080} arguments=() answer
  [[ $port == 8080 ]] || arguments=(--http-port "$port")
  "${inside[@]}" ops/run.sh "${arguments[@]}" "$@" &
  server=$!
  until curl -sf "http://127.0.0.1:$port/ready" >/dev/null; do
    kill -0 "$server" 2>/dev/null || fail "the server ended before it was ready"
    sleep 1
  done
  lap
  begin "asking a question"
  answer=$(curl -sS "http://127.0.0.1:$port/v1/chat/completions" -H 'Content-Type: application/json' \
    -d '{"messages": [{"role": "user", "content": "Who are you?"}]}')
  printf '%s\n' "$answer"
  [[ $answer == *'I am a small demo model'* ]] || fail "not the answer that was expected"
  lap
  begin "stopping the server"
  kill -TERM "$(cat "/proc/$server/task/$server/children")"
  wait "$server"
  server=
  lap
}

[[ ${REUSE:-} == 1 || ! -e $target ]] || fail "$target exists (REUSE=1 goes on in it)"
trap clean_up EXIT
[[ -d $target/usr ]] || create
begin "cloning $(git -C "$root" rev-parse --short HEAD)"
if [[ -d $repository/.git ]]; then
  git -C "$repository" fetch -q "$root" HEAD
  git -C "$repository" reset -q --hard FETCH_HEAD
else
  git clone -q --no-hardlinks "$root" "$repository"
fi
lap
begin "$what in the new system"
case $what in
  test) "${inside[@]}" ops/test.sh "$@" ;;
  run) serve_and_ask "$@" ;;
  exec) "${inside[@]}" "$@" ;;
  *) fail "unknown: $what (test, run or exec)" ;;
esac
lap
