# shellcheck shell=bash
# A cluster that is there already, by KUBECONFIG. Tests make and delete namespaces in it, and install CRDs and a chart.
# Optional, what cannot be known from outside:
#   KUBEPBX_CLUSTER_NODES   'NAME=ADDRESS ...' where phones reach nodes, where it is not their InternalIP
#   KUBEPBX_CLUSTER_PHONES  the command before a phone's, to run it elsewhere than here ('nsenter --net=/run/netns/lab')
#   KUBEPBX_CLUSTER_LOAD    a command that gives an image archive, its argument, to every node ('minikube image load')

lacks() {
  [ -n "${KUBECONFIG:-}" ] || [ "$(recorded)" = existing ] || { echo "KUBECONFIG is not set"; return; }
  local program missing=
  for program in kubectl helm ip flock busybox; do
    command -v "$program" >/dev/null || missing+=" $program"
  done
  [ -z "$missing" ] || { echo "not installed:$missing"; return; }
  local said config=${KUBECONFIG:-$state/kubeconfig}
  said=$(KUBECONFIG=$config kubectl --request-timeout 10s get --raw /readyz 2>&1) || echo "KUBECONFIG=$config: ${said##*$'\n'}"
}

# What was given is kept: later verbs, and an `up` without it, mean the same cluster.
provider_up() {
  if [ -n "${KUBECONFIG:-}" ]; then
    mkdir -p "$state"
    chmod 700 "$state"
    kubectl config view --raw --flatten --minify >"$state/kubeconfig.half"
    mv "$state/kubeconfig.half" "$state/kubeconfig"
    declare -p KUBEPBX_CLUSTER_{NODES,PHONES,LOAD} 2>/dev/null >"$state/given" || true
    echo existing >"$state/provider"
  fi
  kubectl_ wait --for=condition=Ready node --all --timeout=60s --request-timeout 70s >/dev/null
  say "existing: $(kubectl_ config current-context)"
}

kubectl_() { kubectl --kubeconfig "$state/kubeconfig" --request-timeout 10s "$@"; }

# Nothing in the cluster is touched.
provider_down() { rm -rf "$state"; }

provider_load() {
  local archive load
  . "$state/given"
  [ -n "${KUBEPBX_CLUSTER_LOAD:-}" ] || fail "KUBEPBX_CLUSTER_LOAD was not set at \`up\`: how does an image get into this cluster?"
  read -r -a load <<<"$KUBEPBX_CLUSTER_LOAD"
  for archive; do "${load[@]}" "$archive"; done
}

provider_env() {
  local nodes route
  . "$state/given"
  # Those that ordinary pods come to.
  # shellcheck disable=SC2016 # For kubectl.
  nodes=${KUBEPBX_CLUSTER_NODES:-$(kubectl_ get node -o go-template='
    {{- range .items}}{{$open := true}}{{range .spec.taints}}{{if eq .effect "NoSchedule" "NoExecute"}}{{$open = false}}{{end}}{{end}}
    {{- if $open}} {{.metadata.name}}={{range .status.addresses}}{{if eq .type "InternalIP"}}{{.address}}{{end}}{{end}}{{end}}{{end}}')}
  nodes=$(xargs <<<"$nodes")
  route=$(${KUBEPBX_CLUSTER_PHONES:-} ip -4 route get "$(cut -d' ' -f1 <<<"${nodes#*=}")")
  cat <<END
PROVIDER=existing
KUBECONFIG='$state/kubeconfig'
KUBECTL='$(command -v kubectl)'
HELM='$(command -v helm)'
NODES='$nodes'
PHONES='${KUBEPBX_CLUSTER_PHONES:-}'
PHONES_ADDRESS=$(grep -oE 'src [0-9.]+' <<<"$route" | cut -d' ' -f2)
PHONES_NETWORK=''
NODES_NETWORK=''
PODS_NETWORK=''
SERVICES_NETWORK=''
VERBS=''
LOGS=''
END
}
