# shellcheck shell=bash
# etcd, API server, controller manager, scheduler and the cluster's DNS, as processes in the namespace cp.

kube() { "$(kubernetes_home)/$1" "${@:2}"; }
kubectl_() { kube kubectl --kubeconfig "$state/kubeconfig" --request-timeout 10s "$@"; }

control_plane_up() {
  local bin
  bin=$(kubernetes_home)
  # The cluster lives no longer than the machine is up: nothing has to reach the disk.
  daemon cp etcd etcd --data-dir "$state/etcd" --unsafe-no-fsync --logger zap --log-level warn \
    --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
    --listen-peer-urls http://127.0.0.1:2380
  apiserver_up
  daemon machine door "$(door_home)/door" "$door" "$(netns cp)" "${address[cp]}:6443"
  until_ok 120 kubectl_ get --raw /readyz
  daemon cp controller-manager "$bin/kube-controller-manager" --kubeconfig "$certs/controller-manager.kubeconfig" \
    --leader-elect=false --use-service-account-credentials --root-ca-file "$certs/ca.crt" \
    --service-account-private-key-file "$certs/service-accounts.key" \
    --cluster-cidr "$pods" --service-cluster-ip-range "$services" \
    --cluster-signing-cert-file "$certs/ca.crt" --cluster-signing-key-file "$certs/ca.key"
  daemon cp scheduler "$bin/kube-scheduler" --kubeconfig "$certs/scheduler.kubeconfig" --leader-elect=false
  dns_up
}

apiserver_up() {
  daemon cp apiserver "$(kubernetes_home)/kube-apiserver" \
    --etcd-servers http://127.0.0.1:2379 \
    --advertise-address "${address[cp]}" --secure-port 6443 \
    --tls-cert-file "$certs/apiserver.crt" --tls-private-key-file "$certs/apiserver.key" \
    --client-ca-file "$certs/ca.crt" --authorization-mode Node,RBAC --enable-admission-plugins NodeRestriction \
    --service-cluster-ip-range "$services" --enable-aggregator-routing --allow-privileged \
    --service-account-issuer https://kubernetes.default.svc.cluster.local \
    --service-account-key-file "$certs/service-accounts.pub" \
    --service-account-signing-key-file "$certs/service-accounts.key" \
    --kubelet-preferred-address-types InternalIP --kubelet-certificate-authority "$certs/ca.crt" \
    --kubelet-client-certificate "$certs/apiserver-to-kubelet.crt" \
    --kubelet-client-key "$certs/apiserver-to-kubelet.key"
}

# Ends it without a word, as a crash would, and starts it again.
apiserver_again() {
  local pid
  pid=$(pid_of apiserver)
  kill -KILL "$pid"
  until_ok 10 gone "$pid"
  rm "$state/pids/apiserver"
  apiserver_up
  until_ok 120 kubectl_ get --raw /readyz
}

# CoreDNS beside the control plane, behind the Service that clusters have for it. Times to live as clusters have them.
dns_up() {
  cat >"$state/Corefile" <<END
.:53 {
  bind ${address[cp]}
  errors
  kubernetes cluster.local in-addr.arpa {
    kubeconfig $certs/coredns.kubeconfig
    pods insecure
    ttl 30
  }
  loadbalance
}
END
  kubectl_ apply --server-side -f - >/dev/null <<END
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: coredns}
rules:
- {apiGroups: [""], resources: [endpoints, services, pods, namespaces], verbs: [list, watch]}
- {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: coredns}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: coredns}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: coredns}]
---
apiVersion: v1
kind: Service
metadata: {name: kube-dns, namespace: kube-system}
spec:
  clusterIP: $dns_service
  ports: [{name: dns, port: 53, protocol: UDP}, {name: dns-tcp, port: 53, protocol: TCP}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: kube-dns-by-hand, namespace: kube-system, labels: {kubernetes.io/service-name: kube-dns}}
addressType: IPv4
ports: [{name: dns, port: 53, protocol: UDP}, {name: dns-tcp, port: 53, protocol: TCP}]
endpoints: [{addresses: ["${address[cp]}"], conditions: {ready: true}}]
END
  daemon cp coredns "$(coredns_home)/coredns" -conf "$state/Corefile"
}
