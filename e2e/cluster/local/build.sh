# shellcheck shell=bash
# What a local cluster runs, built once a machine: each into a folder of its own in the cache, named by its version and
# by what it is made from. A folder appears there whole (renamed when all of it is done) or not at all.

cache=${XDG_CACHE_HOME:-$HOME/.cache}/kubepbx/cluster
# The oldest Go that builds all of them, and the one to get where there is an older one only.
go_oldest=1.26
go_version=1.26.8
kubernetes_version=1.34.4
coredns_version=1.12.1
helm_version=4.3.1

# made_from FOLDER: eight digits that change when a file of that folder does.
made_from() { (cd "$here/local/$1" && sha256sum -- * | sha256sum | cut -c1-8); }

# Where each is; `build` puts it there.
go_home() { echo "$cache/go-$go_version"; }
kubernetes_home() { echo "$cache/kubernetes-$kubernetes_version-$(made_from kubernetes)"; }
coredns_home() { echo "$cache/coredns-$coredns_version"; }
helm_home() { echo "$cache/helm-$helm_version"; }
pause_home() { echo "$cache/pause-$(made_from pause)"; }
door_home() { echo "$cache/door-$(made_from door)"; }

# built HOME RECIPE: runs RECIPE in an empty folder that becomes HOME.
built() {
  local home=$1 half
  [ -d "$home" ] && return
  mkdir -p "$cache"
  half=$(mktemp -d "$cache/.half-XXXXXX")
  # Not in a condition: `set -e` would be off in the recipe.
  (set -e; trap 'rm -rf "$half"' EXIT; stage "build ${home##*/}" "$2" "$half"; mv -T "$half" "$home")
  [ -d "$home" ]
}

all_built() {
  local home
  for home in "$(kubernetes_home)" "$(coredns_home)" "$(helm_home)" "$(pause_home)" "$(door_home)"; do
    [ -d "$home" ] || return 1
  done
}

# Two builds of one machine wait for each other.
build() {
  ! all_built || return 0
  mkdir -p "$cache"
  (
    flock 9
    chmod -fR u+w "$cache"/.half-* || true
    rm -rf "$cache"/.half-*
    go_new_enough || built "$(go_home)" make_go
    built "$(door_home)" make_door
    built "$(pause_home)" make_pause
    built "$(coredns_home)" make_coredns
    built "$(kubernetes_home)" make_kubernetes
    built "$(helm_home)" make_helm
  ) 9>"$cache/.lock"
}

go_new_enough() { printf 'go%s\n%s\n' "$go_oldest" "$(cd / && go env GOVERSION)" | sort --version-sort --check=quiet; }

# Any Go brings a newer one: it is a module like others, checked against Go's sums.
make_go() {
  local module
  module=golang.org/toolchain@v0.0.1-go$go_version.$(go env GOOS)-$(go env GOARCH)
  module=$(cd / && go mod download -json "$module" | sed -n 's/.*"Dir": "\(.*\)".*/\1/p')
  cp -r "$module/." "$1"
  # Modules hold no programs: it says so itself to those that know it.
  chmod -R u+w "$1"
  chmod +x "$1"/bin/* "$1"/pkg/tool/*/*
}

# Gently: what builds beside this shall go on. Static: images FROM scratch can hold it.
go_() {
  local go=go
  go_new_enough || go=$(go_home)/bin/go
  env GOFLAGS="${GOFLAGS:-} -p=2 -trimpath" CGO_ENABLED=0 nice -n 5 "$go" "$@"
}

make_door() { go_ -C "$here/local/door" build -ldflags '-s -w' -o "$1/door" .; }

make_coredns() { GOBIN=$1 go_ install -ldflags '-s -w' "github.com/coredns/coredns@v$coredns_version"; }

make_helm() {
  GOBIN=$1 go_ install -ldflags "-s -w -X helm.sh/helm/v4/internal/version.version=v$helm_version" \
    "helm.sh/helm/v4/cmd/helm@v$helm_version"
}

# One program under the names of all; clients refuse a server that does not know its version.
make_kubernetes() {
  local version=k8s.io/component-base/version name
  go_ -C "$here/local/kubernetes" build -o "$1/kubernetes" -ldflags "-s -w -X $version.gitVersion=v$kubernetes_version \
    -X $version.gitMajor=1 -X $version.gitMinor=34 -X $version.gitTreeState=clean" .
  for name in kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl; do
    ln -s kubernetes "$1/$name"
  done
}

make_pause() {
  gcc -static -Os -s -Wall -Werror -o "$1/pause" "$here/local/pause/pause.c"
  printf 'FROM scratch\nCOPY pause /pause\nENTRYPOINT ["/pause"]\n' >"$1/Containerfile"
  image_archive "$1" docker.io/kubepbx/pause:1 "$1/pause.tar"
}
