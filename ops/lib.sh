# shellcheck shell=bash
# Sourced by the scripts beside it: steps that say what they do, one line about what failed, Debian packages.
set -Eeuo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
step=starting

begin() {
  step=$1
  printf '==> %s\n' "$step"
}

fail() {
  trap - ERR
  printf '%s: failed: %s\n' "${0##*/}" "$1" >&2
  exit 1
}

fail_step() {
  local status=$?
  trap - ERR
  printf '%s: failed: %s (exit status %d)\n' "${0##*/}" "$step" "$status" >&2
  exit "$status"
}
trap fail_step ERR

# Compiler processes at once: one a core, but at most one per 1.5 GiB of free memory (the largest files take 0.8 GB).
jobs() {
  local cores slots
  cores=$(nproc)
  slots=$(awk '/^MemAvailable:/ {print int($2 / 1572864)}' /proc/meminfo)
  ((slots < 1)) && slots=1
  echo $((slots < cores ? slots : cores))
}

packages_of() {
  local set package command
  while read -r set package command; do
    [[ $set == "$1" ]] || continue
    # A package from elsewhere may bring the command, and stand in this one's way.
    [[ -n $command ]] && command -v "$command" >/dev/null && continue
    echo "$package"
  done <"$root/ops/packages.txt"
}

# Prints those of the packages named that are not installed.
missing_of() {
  comm -23 <(printf '%s\n' "$@" | sort -u) \
    <({ dpkg-query -W -f='${db:Status-Status} ${Package}\n' "$@" 2>/dev/null || true; } | awk '$1 == "installed" {print $2}' | sort -u)
}

apt_get() {
  local as_root=()
  ((EUID == 0)) || as_root=(sudo)
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -y -q -o DPkg::Lock::Timeout=300 "$@" |
    { grep --line-buffered -E '^(Need to get|After this|Fetched|Setting up|E:|W:|Err:)' || true; }
}

# install_packages SET...: installs what is missing of these sets of ops/packages.txt; does nothing, in under a second, where all is there.
install_packages() {
  local set names=() missing
  for set in "$@"; do
    mapfile -t -O "${#names[@]}" names < <(packages_of "$set")
  done
  command -v apt-get >/dev/null ||
    fail "this system has no apt; install what ops/packages.txt lists by hand, then: cmake --preset release && cmake --build --preset release"
  mapfile -t missing < <(missing_of "${names[@]}")
  ((${#missing[@]} == 0)) && return
  begin "installing ${#missing[@]} packages: ${missing[*]}"
  ((EUID == 0)) || command -v sudo >/dev/null ||
    fail "packages are missing and there is neither root nor sudo; as root: apt-get install --no-install-recommends ${missing[*]}"
  # Fresh images carry no package lists, and old lists name files that are gone: then update, once.
  if ! apt-cache show "${missing[@]}" >/dev/null 2>&1 || ! apt_get install --no-install-recommends "${missing[@]}"; then
    apt_get update
    apt_get install --no-install-recommends "${missing[@]}"
  fi
  mapfile -t missing < <(missing_of "${names[@]}")
  ((${#missing[@]} == 0)) || fail "not installed although apt-get ended well: ${missing[*]}"
}
