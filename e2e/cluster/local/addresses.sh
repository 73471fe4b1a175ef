# shellcheck shell=bash
# shellcheck disable=SC2034 # Read by the files beside this one.
# Names and addresses of the local cluster. All of them live in its own network namespaces; the machine has one door in,
# a port on its loopback.

# `state` is the folder of the running cluster (run).
door=127.0.0.1:${KUBEPBX_CLUSTER_PORT:-16443}
# Everything that the machine shares (namespaces, control groups) is named by this: another name, port and state folder
# make a second cluster beside the first.
prefix=${KUBEPBX_CLUSTER_PREFIX:-kpbx}

lan=172.31.0.0/24
lan_gateway=172.31.0.1
phones_net=172.31.1.0/24
phones_gateway=172.31.1.1
phones_address=172.31.1.2

pods=10.244.0.0/16
services=10.96.0.0/16
api_service=10.96.0.1
dns_service=10.96.0.10

nodes=(node1 node2)
declare -gA address=([cp]=172.31.0.10 [node1]=172.31.0.11 [node2]=172.31.0.12)
declare -gA pods_of=([node1]=10.244.1.0/24 [node2]=10.244.2.0/24)

netns() { echo "/run/netns/$prefix-$1"; }
# inside NAMESPACE COMMAND...; `ip netns exec` would mount /sys anew and hide the control groups from kubelet.
inside() { nsenter --net="$(netns "$1")" "${@:2}"; }
ip_in() { ip -n "$prefix-$1" "${@:2}"; }
