# shellcheck shell=bash
# The cluster's authority, what it signs, and kubeconfigs made of that.

certs=$state/certs

certs_up() {
  mkdir -p "$certs"
  key "$certs/ca"
  openssl req -x509 -new -key "$certs/ca.key" -subj /CN=kubepbx-test-cluster -days 3650 -out "$certs/ca.crt" \
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign
  key "$certs/service-accounts"
  openssl pkey -in "$certs/service-accounts.key" -pubout -out "$certs/service-accounts.pub"

  local names=DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local
  certificate apiserver /CN=kube-apiserver "$names,DNS:localhost,IP:127.0.0.1,IP:$api_service,IP:${address[cp]}"
  certificate admin /O=system:masters/CN=admin
  certificate apiserver-to-kubelet /O=system:masters/CN=apiserver-to-kubelet
  certificate controller-manager /CN=system:kube-controller-manager
  certificate scheduler /CN=system:kube-scheduler
  certificate proxy /CN=system:kube-proxy
  certificate coredns /CN=coredns
  local node
  for node in "${nodes[@]}"; do
    certificate "$node" "/O=system:nodes/CN=system:node:$node" "DNS:$node,IP:${address[$node]}"
  done

  local inner=https://${address[cp]}:6443 name
  for name in controller-manager scheduler proxy coredns "${nodes[@]}"; do
    kubeconfig "$name" "$inner" >"$certs/$name.kubeconfig"
  done
  kubeconfig admin "https://$door" >"$state/kubeconfig.half"
  mv "$state/kubeconfig.half" "$state/kubeconfig"
}

key() { (umask 077 && openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1.key"); }

# certificate NAME SUBJECT [ALTERNATIVE NAMES]: both for clients and for servers.
certificate() {
  key "$certs/$1"
  openssl req -new -key "$certs/$1.key" -subj "$2" -out "$certs/$1.csr"
  openssl x509 -req -in "$certs/$1.csr" -CA "$certs/ca.crt" -CAkey "$certs/ca.key" -CAcreateserial -days 3650 \
    -out "$certs/$1.crt" -extfile <(
      echo extendedKeyUsage=clientAuth,serverAuth
      [ -z "${3:-}" ] || echo "subjectAltName=$3"
    ) 2>/dev/null
}

kubeconfig() {
  cat <<END
apiVersion: v1
kind: Config
current-context: kubepbx-local
contexts: [{name: kubepbx-local, context: {cluster: kubepbx-local, user: $1}}]
clusters:
- name: kubepbx-local
  cluster: {server: "$2", certificate-authority-data: $(base64 -w0 "$certs/ca.crt")}
users:
- name: $1
  user: {client-certificate-data: $(base64 -w0 "$certs/$1.crt"), client-key-data: $(base64 -w0 "$certs/$1.key")}
END
}
