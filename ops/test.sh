#!/usr/bin/env bash
# Installs what is missing, builds and runs the tests:
#   ops/test.sh            release build, every test but those labelled long
#   ops/test.sh LABEL...   release build, the tests with one of these labels (tests/README.md lists them)
#   ops/test.sh asan|tsan  the sanitizer build and what makes sense under it
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

preset=release
choice=(-LE '^long$')
case ${1:-} in
  asan)
    preset=asan
    choice=(-LE '^(long|timing|wide)$')
    ;;
  tsan)
    # Debian's CAF and libzmq are not instrumented: with a real scheduler, and where a frame crosses
    # ZeroMQ's threads, even a correct program is reported.
    preset=tsan
    choice=(-LE '^(long|timing|wide|caf-threads)$' -E 'Ipc|Tcp|Zmq|Curve|MixedCarrier')
    ;;
  ?*)
    labels=$(IFS='|' && echo "$*")
    choice=(-L "^($labels)\$")
    ;;
esac
install_packages build test
"$root/ops/build.sh" "$preset" || exit # it has said why
begin "testing $preset"
ctest --test-dir "$root/build/$preset" -j "$(nproc)" --output-on-failure --no-tests=error "${choice[@]}"
