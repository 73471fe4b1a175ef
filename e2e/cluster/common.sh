# shellcheck shell=bash
# What every provider uses.

say() { echo "cluster: $*" >&2; }
fail() { say "$*"; exit 1; }

# stage NAME COMMAND...: says how long it took.
stage() {
  local name=$1 from=${EPOCHREALTIME/[.,]/} took
  shift
  "$@"
  took=$(((${EPOCHREALTIME/[.,]/} - from) / 10000))
  printf 'cluster: %-28s %4d.%02d s\n' "$name" $((took / 100)) $((took % 100)) >&2
}

# until_ok SECONDS COMMAND...: asks until the answer is yes, or fails with what it last said.
until_ok() {
  local end=$((SECONDS + $1)) said
  shift
  until said=$("$@" 2>&1); do
    if [ "$SECONDS" -ge "$end" ]; then
      say "in vain: $*: $said"
      return 1
    fi
    sleep 0.1
  done
}

# image_archive FOLDER NAME FILE: builds FOLDER's Containerfile and writes the image to FILE: without a daemon, in storage
# of its own that is gone afterwards, or where there is no buildah by Docker.
image_archive() (
  if ! command -v buildah >/dev/null; then
    docker build --quiet --tag "$2" --file "$1/Containerfile" "$1" >/dev/null && docker save --output "$3" "$2"
    exit
  fi
  storage=$(mktemp -d)
  export STORAGE_DRIVER=vfs BUILDAH_ISOLATION=chroot
  buildah_() { buildah --root "$storage/root" --runroot "$storage/run" "$@"; }
  trap 'rm -rf "$storage"' EXIT
  set -e
  buildah_ bud --quiet --tag "$2" --file "$1/Containerfile" "$1" >/dev/null
  rm -f "$3"
  buildah_ push --quiet "$2" "docker-archive:$3:$2"
)
