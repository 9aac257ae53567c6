#!/usr/bin/env bash
# Builds the images moesaic/TARGET:VERSION, from a base pinned by digest: docker/build.sh [TARGET...] (default: all)
#   BASE=IMAGE@sha256:...   the base to use; without a digest (default debian:bookworm-slim) the tag is looked up now, and the
#                           digest found is used, printed, and put into the images' labels
# Needs docker with a running engine. REPOSITORY=moesaic is what stands before the slash.
# shellcheck source-path=SCRIPTDIR source=../ops/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../ops/lib.sh"

base=${BASE:-debian:bookworm-slim}
repository=${REPOSITORY:-moesaic}
targets=("$@")
((${#targets[@]} > 0)) || targets=(gateway vision-encoder router expert-shard decoder all-in-one)
cd "$root"
command -v docker >/dev/null || fail "docker is missing"

if [[ $base != *@sha256:* ]]; then
  begin "looking up the digest of $base"
  docker pull --quiet "$base" >/dev/null
  base=$(docker image inspect --format '{{index .RepoDigests 0}}' "$base")
fi
[[ $base =~ @sha256:[0-9a-f]{64}$ ]] || fail "no digest for $base"
printf 'base: %s\n' "$base"

version=$(sed -n 's/^project(.* VERSION \([0-9.]*\).*/\1/p' CMakeLists.txt)
revision=$(git rev-parse HEAD)
[[ -z $(git status --porcelain) ]] || revision+=-dirty
created=$(git log -1 --format=%cI)
for target in "${targets[@]}"; do
  begin "building $repository/$target:$version"
  docker build --file docker/Dockerfile --target "$target" --tag "$repository/$target:$version" \
    --build-arg "BASE=$base" --build-arg "BASE_DIGEST=${base#*@}" --build-arg "VERSION=$version" \
    --build-arg "REVISION=$revision" --build-arg "CREATED=$created" .
done
