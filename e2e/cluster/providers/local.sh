# shellcheck shell=bash
# A control plane and two nodes as processes in network namespaces of this machine. Linux, root; no Docker, no registry.

for part in addresses processes network build certs control-plane node; do
  # shellcheck source=/dev/null
  . "$here/local/$part.sh"
done

# lacks: what is missing here, or nothing.
lacks() {
  [ "$(uname -s)" = Linux ] || { echo "needs Linux"; return; }
  [ "$(id -u)" -eq 0 ] || { echo "needs root"; return; }
  local program missing=
  for program in etcd containerd ctr runc /usr/lib/cni/bridge conntrack nft ip nsenter openssl buildah gcc flock; do
    command -v "$program" >/dev/null || missing+=" $program"
  done
  [ -z "$missing" ] || { echo "not installed:$missing (make cluster-tools)"; return; }
  command -v go >/dev/null || all_built || echo "not installed: go (make cluster-tools)"
}

# What this cluster is made by: one that was made by something else is not taken for it.
made_by() {
  { kubernetes_home; coredns_home; helm_home; pause_home; door_home; cat "$here"/local/*.sh; } | sha256sum | cut -d' ' -f1
}

provider_up() {
  local from=$SECONDS
  if [ -e "$state/ready" ] && healthy; then
    say "up and well"
    return
  fi
  [ "$(recorded)" = "" ] || { say "what is there is not well, or other: it is made anew"; stage "down" down; }
  # First the record, then what it records: `down` finds whatever follows.
  mkdir -p "$state"/{logs,pids}
  chmod 700 "$state"
  echo local >"$state/provider"
  cgroups_up
  # In a control group of the cluster and without the lock: when `up` is killed, `down` need not wait for what it left
  # running, and ends it.
  (live_in up; exec 8>&-; make_cluster)
  say "up in $((SECONDS - from)) s: KUBECONFIG=$state/kubeconfig"
}

make_cluster() {
  stage "programs" build
  modules
  folders_up
  stage "certificates" certs_up
  stage "network" network_up
  stage "control plane" control_plane_up
  stage "containerd, kubelet, proxy" nodes_up
  stage "nodes ready" nodes_ready
  made_by >"$state/ready"
}

# The kernel's parts that are modules on most machines; what is built in or there already is left alone.
modules() {
  local module
  [ -d /proc/sys/net/bridge ] || modprobe br_netfilter
  for module in overlay veth bridge; do modprobe --quiet "$module" 2>/dev/null || true; done
}

nodes_up() {
  local node
  for node in "${nodes[@]}"; do node_up "$node"; done
}

nodes_ready() {
  until_ok 60 kubectl_ get node "${nodes[@]}"
  kubectl_ wait --for=condition=Ready node --all --timeout=60s --request-timeout 70s >/dev/null
  until_ok 60 kubectl_ get serviceaccount default
}

# Cables that a test left pulled are put back first.
healthy() {
  [ "$(cat "$state/ready")" = "$(made_by)" ] || return 1
  local node file
  for node in "${nodes[@]}"; do join_again "$node" || return 1; done
  for file in "$state"/pids/*; do
    grep -q "/$prefix/daemons" "/proc/$(cat "$file")/cgroup" 2>/dev/null || return 1
  done
  kubectl_ get --raw /readyz >/dev/null 2>&1 || return 1
  kubectl_ wait --for=condition=Ready node --all --timeout=20s --request-timeout 30s >/dev/null 2>&1
}

down() {
  processes_down
  network_down
  cgroups_down
  mounts_down
  folders_down
  # Not beyond a mount that is left, should there be one.
  rm -rf --one-file-system "$state"
}

# Mounts are the nodes' own and end with them; this is for what somebody made below the state folder by hand.
mounts_down() {
  local mount
  while read -r mount; do umount --lazy "$mount"; done < <(cut -d' ' -f2 /proc/mounts | grep "^$state/" | sort -r || true)
}

provider_down() { stage "down" down; }

provider_load() {
  local archive node
  for archive; do
    for node in "${nodes[@]}"; do ctr_ "$node" images import "$archive" >/dev/null; done
  done
}

provider_env() {
  local node list=
  for node in "${nodes[@]}"; do list+=" $node=${address[$node]}"; done
  cat <<END
PROVIDER=local
KUBECONFIG='$state/kubeconfig'
KUBECTL='$(kubernetes_home)/kubectl'
HELM='$(helm_home)/helm'
NODES='${list# }'
PHONES='nsenter --net=$(netns phones)'
PHONES_ADDRESS=$phones_address
PHONES_NETWORK=$phones_net
NODES_NETWORK=$lan
PODS_NETWORK=$pods
SERVICES_NETWORK=$services
VERBS='cut join route unroute leaks forget-leaks signal restart-api'
LOGS='$state/logs'
END
}

provider_cut() { cut_off "$1"; }
provider_join() { join_again "$1"; }
provider_route() { route_address "$@"; }
provider_unroute() { unroute_address "$@"; }
provider_leaks() { leaks; }
provider_forget_leaks() { forget_leaks; }
provider_signal() { ctr_ "$2" tasks kill --signal "$1" "${3#containerd://}"; }
provider_restart_api() { apiserver_again; }
