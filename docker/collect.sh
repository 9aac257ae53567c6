#!/usr/bin/env bash
# Lays out the files of an image that holds nothing but what programs need: docker/collect.sh DIR PROGRAM...
#   DIR/common      shared libraries, the loader, accounts, certificates, the demo model, and `moesaic` for health checks
#   DIR/PROGRAM     one folder a program, to be laid over it
# /usr/share/moesaic/packages.txt in it names the Debian packages whose files were taken, with their versions.
# shellcheck source-path=SCRIPTDIR source=../ops/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../ops/lib.sh"

(($# >= 2)) || fail "usage: docker/collect.sh DIR PROGRAM..."
target=$1
shift
common=$target/common
[[ ! -e $target ]] || fail "$target exists"
for program in "$@"; do [[ -x $program ]] || fail "there is no program $program"; done

begin "finding the libraries of $*"
mapfile -t libraries < <(ldd "$@" | awk '$2 == "=>" && $3 ~ "^/" {print $3} $1 ~ "^/.*ld-linux" {print $1}' | sort -u)
((${#libraries[@]} > 0)) || fail "ldd names no library of $*"
if ldd "$@" | grep 'not found'; then fail "libraries are missing"; fi # ldd itself ends with 0 then

# The package that a file came with; with merged /usr it may be known by either of two names.
package_of() {
  local path
  for path in "$1" "/usr$1" "${1#/usr}"; do
    if dpkg-query -S "$path" 2>/dev/null | cut -d : -f 1; then return; fi
  done
  fail "$1 belongs to no package"
}

begin "copying ${#libraries[@]} libraries"
mkdir -p "$common"/{usr/bin,usr/lib,usr/share/moesaic/models,etc,tmp,var/lib/moesaic/keys}
# Merged /usr, as in Debian: the loader's path is part of every program.
for folder in lib lib64; do
  mkdir -p "$common/usr/$folder"
  ln -s "usr/$folder" "$common/$folder"
done
for library in "${libraries[@]}"; do install -D -m 755 "$library" "$common$library"; done
packages=()
for library in "${libraries[@]}"; do packages+=("$(package_of "$library")"); done
dpkg-query -W -f='${Package} ${Version}\n' "${packages[@]}" | sort -u >"$common/usr/share/moesaic/packages.txt"

begin "adding accounts, the demo model and the programs"
printf 'moesaic:x:10001:10001::/var/lib/moesaic:/usr/sbin/nologin\n' >"$common/etc/passwd"
printf 'moesaic:x:10001:\n' >"$common/etc/group"
printf 'hosts: files dns\n' >"$common/etc/nsswitch.conf"
chmod 1777 "$common/tmp"
chmod 700 "$common/var/lib/moesaic/keys"
cp -r "$root/configs/models/ernie-vl-demo" "$common/usr/share/moesaic/models/"
rm -rf "$common/usr/share/moesaic/models/ernie-vl-demo/"{eval,calibration}
for program in "$@"; do
  name=${program##*/}
  if [[ $name == moesaic ]]; then place=$common; else place=$target/$name; fi
  install -D -m 755 "$program" "$place/usr/bin/$name"
  strip --strip-unneeded "$place/usr/bin/$name"
done
