# shellcheck shell=bash
# Network namespaces: a control plane and nodes on one bridge, phones behind it on a subnet of their own.

namespaces=(cp "${nodes[@]}" wan phones)

network_up() {
  local name node
  # `ip netns` makes this folder, and a mount of it.
  mountpoint --quiet /run/netns || touch "$state/made-netns"
  for name in "${namespaces[@]}"; do
    ip netns add "$prefix-$name"
    ip_in "$name" link set lo up
  done
  # Bridged frames of the nodes are not wan's to filter, what it routes is. In a node they are: a ClusterIP whose pod is
  # on the caller's own bridge needs it.
  setting wan net/ipv4/ip_forward 1
  setting wan net/bridge/bridge-nf-call-iptables 0
  ip_in wan link add lan type bridge
  ip_in wan address add "$lan_gateway/24" dev lan
  ip_in wan link set lan up
  leg wan phones phones "$phones_address" "$phones_gateway"
  ip_in wan address add "$phones_gateway/24" dev phones
  for name in cp "${nodes[@]}"; do
    leg wan "$name" "$name" "${address[$name]}" "$lan_gateway"
    ip_in wan link set "$name" master lan
    for node in "${nodes[@]}"; do
      [ "$node" = "$name" ] || ip_in "$name" route add "${pods_of[$node]}" via "${address[$node]}"
    done
  done
  for node in "${nodes[@]}"; do node_network "$node"; done
  watch_for_leaks
}

# leg FROM LINK NAMESPACE ADDRESS GATEWAY: a cable from LINK in FROM to eth0 in NAMESPACE.
leg() {
  ip_in "$1" link add "$2" type veth peer name eth0 netns "$prefix-$3"
  ip_in "$1" link set "$2" up
  ip_in "$3" address add "$4/24" dev eth0
  ip_in "$3" link set eth0 up
  ip_in "$3" route add default via "$5"
}

setting() { inside "$1" sh -c "echo $3 >/proc/sys/$2"; }

node_network() {
  setting "$1" net/ipv4/ip_forward 1
  setting "$1" net/bridge/bridge-nf-call-iptables 1
  # Outside pods and Services nobody knows a pod's address.
  inside "$1" nft -f - <<END
table ip outside {
  chain postrouting {
    type nat hook postrouting priority srcnat
    ip saddr $pods ip daddr != { $pods, $services } masquerade
  }
}
END
}

# Pod and Service addresses mean nothing outside. What wan is to route of them is counted and dropped, before it could
# lack a route. For an address that a cloud would give (see route_address) there are routes instead.
watch_for_leaks() {
  inside wan nft -f - <<END
table ip leaks {
  counter seen {}
  chain prerouting {
    type filter hook prerouting priority raw
    ip daddr { $pods, $services } counter name seen drop
    ip saddr { $pods, $services } counter name seen drop
  }
}
END
}

leaks() { inside wan nft list counter ip leaks seen | grep -oE 'packets [0-9]+' | cut -d' ' -f2; }
forget_leaks() { inside wan nft reset counter ip leaks seen >/dev/null; }

# Pulls a node's cable, and puts it back.
cut_off() { ip_in wan link set "$1" down; }
join_again() { ip_in wan link set "$1" up; }

# route_address ADDRESS NODE: what a cloud does for a load balancer's address.
route_address() { ip_in wan route replace "$1" via "${address[$2]}"; }
unroute_address() { ip_in wan route del "$1"; }

# Whatever of it there is. The interfaces go with their namespaces.
network_down() {
  local name
  for name in "${namespaces[@]}"; do
    [ ! -e "$(netns "$name")" ] || ip netns delete "$prefix-$name"
  done
  if [ -e "$state/made-netns" ] && [ -z "$(ls -A /run/netns)" ]; then
    umount /run/netns 2>/dev/null || true
    rmdir /run/netns 2>/dev/null || true
  fi
}
