# shellcheck shell=bash
# A node: containerd, kubelet and kube-proxy in the node's network namespace, with mounts of their own. What they mount
# the machine never sees, and it is gone with their last process.

# Where these programs write whatever they are told: each node has its own folder there instead.
private_folders=(/run/containerd /var/lib/cni /var/lib/kubelet /var/log)
# What kubelet wants these to be. They are the machine's, so it is shown what it wants and leaves them alone.
declare -gA shown_settings=([vm/overcommit_memory]=1 [vm/panic_on_oom]=0 [kernel/panic]=10 [kernel/panic_on_oops]=1)

# The missing ones are made, and unmade by folders_down.
folders_up() {
  local folder
  for folder in "${private_folders[@]}"; do
    [ -d "$folder" ] || { echo "$folder" >>"$state/made-folders"; mkdir -p "$folder"; }
  done
}

folders_down() {
  [ -e "$state/made-folders" ] || return 0
  xargs -r rmdir --ignore-fail-on-non-empty <"$state/made-folders" 2>/dev/null || true
}

node_up() {
  local node=$1 home=$state/$1 bin
  bin=$(kubernetes_home)
  mkdir -p "$home"
  containerd_config "$node" >"$home/containerd.toml"
  network_config "$node" >"$home/network.conflist"
  kubelet_config "$node" >"$home/kubelet.yaml"
  proxy_config "$node" >"$home/proxy.yaml"
  daemon "$node" "$node-containerd" unshare --mount --propagation slave bash -c "$(own_mounts "$home")" \
    containerd --config "$home/containerd.toml"
  until_ok 30 ctr_ "$node" version
  ctr_ "$node" images import "$(pause_home)/pause.tar" >/dev/null
  daemon "$node" "$node-kubelet" nsenter --mount="/proc/$(pid_of "$node-containerd")/ns/mnt" \
    "$bin/kubelet" --config "$home/kubelet.yaml" --kubeconfig "$certs/$node.kubeconfig" \
    --hostname-override "$node" --node-ip "${address[$node]}"
  daemon "$node" "$node-proxy" "$bin/kube-proxy" --config "$home/proxy.yaml" --hostname-override "$node"
}

# own_mounts HOME: the script that hides the machine's folders behind a node's, then becomes what it is told.
own_mounts() {
  local folder setting
  echo 'set -e; mount --make-rshared /'
  for folder in "${private_folders[@]}"; do
    mkdir -p "$1$folder"
    echo "mount --bind '$1$folder' $folder"
  done
  for setting in "${!shown_settings[@]}"; do
    mkdir -p "$1/settings/${setting%/*}"
    echo "${shown_settings[$setting]}" >"$1/settings/$setting"
    echo "mount --bind '$1/settings/$setting' /proc/sys/$setting"
  done
  # shellcheck disable=SC2016 # For the shell that runs it.
  echo 'exec "$0" "$@"'
}

ctr_() { ctr --address "$state/$1/containerd.sock" --namespace k8s.io "${@:2}"; }

containerd_config() {
  cat <<END
version = 2
root = "$state/$1/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
[grpc]
address = "$state/$1/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
path = "$state/$1/opt"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "docker.io/kubepbx/pause:1"
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true
disable_apparmor = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "$state/$1"
END
}

# Masquerading is the node's own (network.sh).
network_config() {
  cat <<END
{"cniVersion": "0.4.0", "name": "pods", "plugins": [
  {"type": "bridge", "bridge": "pods", "isGateway": true, "ipMasq": false, "hairpinMode": true,
   "ipam": {"type": "host-local", "dataDir": "$state/$1/addresses",
            "ranges": [[{"subnet": "${pods_of[$1]}"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}
]}
END
}

kubelet_config() {
  cat <<END
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: ${address[$1]}
containerRuntimeEndpoint: unix://$state/$1/containerd.sock
clusterDomain: cluster.local
clusterDNS: [$dns_service]
resolvConf: ""
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $certs/ca.crt}}
authorization: {mode: Webhook}
tlsCertFile: $certs/$1.crt
tlsPrivateKeyFile: $certs/$1.key
cgroupDriver: cgroupfs
cgroupRoot: /$prefix/$1
failCgroupV1: false
failSwapOn: false
oomScoreAdj: 0
makeIPTablesUtilChains: false
evictionHard: {memory.available: 100Mi, nodefs.available: 0%, nodefs.inodesFree: 0%, imagefs.available: 0%, imagefs.inodesFree: 0%}
imageGCHighThresholdPercent: 100
nodeStatusUpdateFrequency: 5s
syncFrequency: 10s
END
}

proxy_config() {
  cat <<END
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
clusterCIDR: $pods
clientConnection: {kubeconfig: $certs/proxy.kubeconfig}
conntrack: {maxPerCore: 0}
oomScoreAdj: 0
END
}
