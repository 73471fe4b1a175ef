# shellcheck shell=bash
# kind in Docker. Phones live in a container's network namespace on kind's network: they reach nodes as a phone on the
# same LAN would, and have no route to pods and Services.
# KIND_NODE_IMAGE: another node image, one that is there already where none can be pulled.

name=kubepbx
phones_container=$name-phones
pods=10.244.0.0/16
services=10.96.0.0/16

lacks() {
  [ "$(uname -s)" = Linux ] || { echo "needs Linux: phones reach nodes by Docker's bridge"; return; }
  [ "$(id -u)" -eq 0 ] || { echo "needs root: phones live in a network namespace"; return; }
  local program missing=
  for program in docker kind kubectl helm nsenter nft ip flock busybox; do
    command -v "$program" >/dev/null || missing+=" $program"
  done
  [ -z "$missing" ] || { echo "not installed:$missing"; return; }
  timeout 20 docker info >/dev/null 2>&1 || echo "Docker does not answer"
}

workers() { kind get nodes --name $name 2>/dev/null | grep worker | sort; }
address_of() { docker inspect --format '{{(index .NetworkSettings.Networks "kind").IPAddress}}' "$1"; }
kubectl_() { kubectl --kubeconfig "$state/kubeconfig" --request-timeout 10s "$@"; }

provider_up() {
  if [ -e "$state/ready" ] && healthy; then
    say "up and well"
    return
  fi
  [ "$(recorded)" = "" ] || { say "what is there is not well: it is made anew"; stage "down" provider_down; }
  mkdir -p "$state"
  chmod 700 "$state"
  echo kind >"$state/provider"
  stage "kind" kind create cluster --config "$here/kind.yaml" --kubeconfig "$state/kubeconfig" \
    ${KIND_NODE_IMAGE:+--image "$KIND_NODE_IMAGE"}
  stage "nodes ready" nodes_ready
  stage "phones" phones_up
  touch "$state/ready"
  say "up: KUBECONFIG=$state/kubeconfig"
}

nodes_ready() {
  kubectl_ wait --for=condition=Ready node --all --timeout=180s --request-timeout 190s >/dev/null
  until_ok 60 kubectl_ get serviceaccount default
  kubectl_ -n kube-system rollout status deployment/coredns --timeout=120s --request-timeout 130s >/dev/null
}

# The node image is there already, and has a `sleep`.
phones_up() {
  local worker image
  read -r worker < <(workers)
  image=$(docker inspect --format '{{.Image}}' "$worker")
  docker run --detach --name $phones_container --network kind --entrypoint sleep "$image" infinity >/dev/null
  # What phones send to pods or Services goes nowhere, and is counted.
  in_phones nft -f - <<END
table ip leaks {
  counter seen {}
  chain output {
    type filter hook output priority raw
    ip daddr { $pods, $services } counter name seen drop
  }
  chain input {
    type filter hook input priority raw
    ip saddr { $pods, $services } counter name seen drop
  }
}
END
}

phones_namespace() { echo "/proc/$(docker inspect --format '{{.State.Pid}}' $phones_container)/ns/net"; }
in_phones() { nsenter --net="$(phones_namespace)" "$@"; }

healthy() {
  local node
  for node in $(workers); do provider_join "$node" || return 1; done
  in_phones nft list counter ip leaks seen >/dev/null 2>&1 || return 1
  kubectl_ wait --for=condition=Ready node --all --timeout=20s --request-timeout 30s >/dev/null 2>&1
}

provider_down() {
  docker rm --force --volumes $phones_container >/dev/null 2>&1 || true
  kind delete cluster --name $name --kubeconfig "$state/kubeconfig"
  rm -rf "$state"
}

provider_load() {
  local archive
  for archive; do kind load image-archive "$archive" --name $name; done
}

provider_env() {
  local node list='' lan
  lan=$(docker network inspect --format '{{range .IPAM.Config}}{{println .Subnet}}{{end}}' kind | awk '/[.]/ && !seen++')
  for node in $(workers); do list+=" $node=$(address_of "$node")"; done
  cat <<END
PROVIDER=kind
KUBECONFIG='$state/kubeconfig'
KUBECTL='$(command -v kubectl)'
HELM='$(command -v helm)'
NODES='${list# }'
PHONES='nsenter --net=$(phones_namespace)'
PHONES_ADDRESS=$(address_of $phones_container)
PHONES_NETWORK=$lan
NODES_NETWORK=$lan
PODS_NETWORK=$pods
SERVICES_NETWORK=$services
VERBS='cut join route unroute leaks forget-leaks signal restart-api'
LOGS=''
END
}

# A node's cable at Docker's end: its own end and its routes stay as they are.
cable() {
  local peer link
  peer=$(docker exec "$1" cat /sys/class/net/eth0/iflink)
  link=$(ip -o link | sed -n "s/^$peer: \([^:@]*\).*/\1/p")
  [ -n "$link" ] || fail "$1 has no cable here"
  ip link set "$link" "$2"
}

provider_cut() { cable "$1" down; }
provider_join() { cable "$1" up; }
provider_route() { in_phones ip route replace "$1" via "$(address_of "$2")"; }
provider_unroute() { in_phones ip route del "$1"; }
provider_leaks() { in_phones nft list counter ip leaks seen | grep -oE 'packets [0-9]+' | cut -d' ' -f2; }
provider_forget_leaks() { in_phones nft reset counter ip leaks seen >/dev/null; }
provider_signal() { docker exec "$2" ctr --namespace k8s.io tasks kill --signal "$1" "${3#containerd://}"; }
provider_restart_api() {
  # shellcheck disable=SC2016 # For the shell that runs it.
  docker exec $name-control-plane sh -c 'crictl stop --timeout 0 $(crictl ps --quiet --name kube-apiserver)' >/dev/null
  until_ok 120 kubectl_ get --raw /readyz
}
