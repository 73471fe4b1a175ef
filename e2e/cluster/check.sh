# shellcheck shell=bash
# A self-test of the cluster that is up, whoever provides it: all that tests lean on, asked of real pods and from where
# phones live. What a provider cannot do it does not list among its VERBS, and is said not to be checked.

space=kubepbx-check
image=docker.io/$space/web:1
on_pod=8080 on_host=18080 on_phone=18081 on_machine=18082

check() {
  command -v busybox >/dev/null || fail "not installed: busybox, a static one (make cluster-tools)"
  eval "$(provider_env)"
  export KUBECONFIG
  local from=$SECONDS
  scratch=$(mktemp -d)
  trap check_over EXIT
  read -r -a phones <<<"$PHONES"

  stage "check: image loaded" check_image
  stage "check: pods on every node" check_pods
  stage "check: pod to pod" check_pod_to_pod
  stage "check: names" check_names
  stage "check: Service" check_service
  stage "check: token, log, port-forward" check_by_api
  stage "check: phone to node" check_phone_to_node
  stage "check: pod to phone" check_pod_to_phone
  check_if signal "a frozen container" check_frozen
  check_if cut "a node cut off" check_cut
  check_if route "load balancer's address" check_load_balancer
  check_if restart-api "API server killed, back" check_restart
  check_if leaks "leaked packets counted" check_leaks
  say "checked in $((SECONDS - from)) s"
}

check_if() {
  if [[ " $VERBS " = *" $1 "* ]]; then stage "check: $2" "$3"; else say "not checked, $PROVIDER does not have \`$1\`: $2"; fi
}

# Whatever was pulled out or frozen by a check that failed is put back.
check_over() {
  local status=$? node
  if [[ " $VERBS " = *" cut "* ]]; then
    for node in "${!web[@]}"; do provider_join "$node" || true; done
  fi
  helper_over
  if [ $status -ne 0 ]; then
    say "check failed; what there is:"
    "$KUBECTL" --request-timeout 10s get node,pod --all-namespaces -o wide >&2 || true
    "$KUBECTL" --request-timeout 10s -n $space get event >&2 || true
  fi
  "$KUBECTL" --request-timeout 10s delete namespace $space --ignore-not-found --wait=false >/dev/null || true
  rm -rf "$scratch"
}

k() { "$KUBECTL" --request-timeout 30s -n $space "$@"; }

# Web servers that say which node they run on and whom they see.
check_image() {
  mkdir -p "$scratch/image/www/cgi-bin"
  cp "$(command -v busybox)" "$scratch/image/busybox"
  who /busybox >"$scratch/image/www/cgi-bin/who"
  chmod +x "$scratch/image/www/cgi-bin/who"
  printf 'FROM scratch\nCOPY busybox /busybox\nCOPY www /www\n' >"$scratch/image/Containerfile"
  image_archive "$scratch/image" $image "$scratch/web.tar"
  provider_load "$scratch/web.tar"
}

# shellcheck disable=SC2016 # For the shell that runs it.
who() { printf '#!%s sh\necho "Content-Type: text/plain"\necho\necho "$NODE $REMOTE_ADDR"\n' "$1"; }

check_pods() {
  "$KUBECTL" --request-timeout 60s delete namespace $space --ignore-not-found >/dev/null
  "$KUBECTL" --request-timeout 30s create namespace $space >/dev/null
  until_ok 30 k get serviceaccount default
  { servers web "$on_pod" false; servers host "$on_host" true; } | k apply --server-side -f - >/dev/null
  k rollout status daemonset/web --timeout 90s >/dev/null
  k rollout status daemonset/host --timeout 90s >/dev/null
  declare -gA web=() host=() pod_ip=() node_ip=()
  local app pod node ip machine
  while read -r app pod node ip machine; do
    if [ "$app" = web ]; then web[$node]=$pod pod_ip[$node]=$ip; else host[$node]=$pod node_ip[$node]=$machine; fi
  done < <(k get pod -o 'jsonpath={range .items[*]}{.metadata.labels.app} {.metadata.name} {.spec.nodeName} {.status.podIP} {.status.hostIP}{"\n"}{end}')
  read -r first second _ <<<"${!web[*]}"
  [ -n "$second" ] || { say "pods on one node only: $first"; return 1; }
}

servers() {
  cat <<END
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: $1, namespace: $space}
spec:
  selector: {matchLabels: {app: $1}}
  template:
    metadata: {labels: {app: $1}}
    spec:
      hostNetwork: $3
      dnsPolicy: ClusterFirstWithHostNet
      terminationGracePeriodSeconds: 0
      securityContext: {runAsNonRoot: true, runAsUser: 65534, seccompProfile: {type: RuntimeDefault}}
      containers:
      - name: web
        image: $image
        imagePullPolicy: Never
        command: [/busybox, sh, -c, "echo served on \$NODE; exec /busybox httpd -f -p 0.0.0.0:$2 -h /www"]
        env: [{name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}]
        readinessProbe: {tcpSocket: {port: $2}, periodSeconds: 1}
        securityContext: {readOnlyRootFilesystem: true, allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
---
apiVersion: v1
kind: Service
metadata: {name: $1, namespace: $space}
spec: {selector: {app: $1}, ports: [{port: 80, targetPort: $2}]}
---
END
}

# Who is seen where: each prints the server's node and the address that it saw.
from_pod() { k exec "$1" -- /busybox timeout 3 /busybox wget -qO- "http://$2/cgi-bin/who"; }
from_phone() { "${phones[@]}" timeout 3 busybox wget -qO- "http://$1/cgi-bin/who"; }

# answers EXPECTED COMMAND...: it says so within half a minute. EXPECTED is a pattern.
answers() { until_ok 30 matches "$@"; }
# shellcheck disable=SC2053 # A pattern.
matches() { local said; said=$("${@:2}" 2>&1); [[ $said = $1 ]] || { echo "'$said', not '$1'"; return 1; }; }
# silent COMMAND...: within half a minute it gets no answer.
silent() { until_ok 30 fails "$@"; }
fails() { ! "$@"; }

check_pod_to_pod() {
  local from to
  for from in "${!web[@]}"; do
    for to in "${!web[@]}"; do
      # From another node the pod itself is seen.
      [ "$from" = "$to" ] || answers "$to ${pod_ip[$from]}" from_pod "${web[$from]}" "${pod_ip[$to]}:$on_pod"
    done
  done
}

check_names() {
  local pod
  for pod in "${web[@]}" "${host[@]}"; do
    answers '* *' from_pod "$pod" web
    answers '* *' from_pod "$pod" "web.$space.svc.cluster.local"
    answers "*$(k get service web -o 'jsonpath={.spec.clusterIP}')*" \
      k exec "$pod" -- /busybox nslookup "web.$space.svc.cluster.local"
  done
}

# By its address, from pods and from nodes, and every pod behind it has its turn.
check_service() {
  local node to virtual
  virtual=$(k get service web -o 'jsonpath={.spec.clusterIP}')
  for node in "${!web[@]}"; do
    for to in "${!web[@]}"; do
      answers "$to *" from_pod "${web[$node]}" "$virtual"
      answers "$to *" from_pod "${host[$node]}" "$virtual"
    done
  done
}

check_by_api() {
  local node
  for node in "${!web[@]}"; do
    answers "served on $node" k logs "${web[$node]}"
    answers '*.*.*' k exec "${web[$node]}" -- /busybox cat /var/run/secrets/kubernetes.io/serviceaccount/token
    # Itself, not a shell around it: this is who is ended.
    "$KUBECTL" -n $space port-forward "${web[$node]}" "$on_machine:$on_pod" >/dev/null 2>&1 &
    echo $! >"$scratch/helper.pid"
    answers "$node *" timeout 3 busybox wget -qO- "http://127.0.0.1:$on_machine/cgi-bin/who"
    helper_over
  done
}

# By the addresses that `env` gives: what listens on the node, and a port that Kubernetes opens there for a Service.
check_phone_to_node() {
  local entry port
  k patch service web --type merge -p '{"spec": {"type": "NodePort"}}' >/dev/null
  port=$(k get service web -o 'jsonpath={.spec.ports[0].nodePort}')
  for entry in $NODES; do
    [ -n "${host[${entry%%=*}]:-}" ] || { say "no pod comes to node ${entry%%=*}"; return 1; }
    answers "${entry%%=*} $PHONES_ADDRESS" from_phone "${entry#*=}:$on_host"
    answers '* *' from_phone "${entry#*=}:$port"
  done
}

# A phone sees the node that the pod is on, never the pod.
check_pod_to_phone() {
  local node
  mkdir -p "$scratch/phone/cgi-bin"
  who "$(command -v busybox)" >"$scratch/phone/cgi-bin/who"
  chmod +x "$scratch/phone/cgi-bin/who"
  NODE=phone "${phones[@]}" busybox httpd -f -p "0.0.0.0:$on_phone" -h "$scratch/phone" &
  echo $! >"$scratch/helper.pid"
  for node in "${!web[@]}"; do
    answers "phone ${node_ip[$node]}" from_pod "${web[$node]}" "$PHONES_ADDRESS:$on_phone"
  done
  helper_over
}

# Ends what a check has running beside it.
helper_over() {
  [ -e "$scratch/helper.pid" ] || return 0
  kill "$(cat "$scratch/helper.pid")" 2>/dev/null || true
  rm "$scratch/helper.pid"
}

check_frozen() {
  local container
  container=$(k get pod "${host[$second]}" -o 'jsonpath={.status.containerStatuses[0].containerID}')
  provider_signal STOP "$second" "$container"
  silent from_phone "${node_ip[$second]}:$on_host"
  provider_signal CONT "$second" "$container"
  answers "$second *" from_phone "${node_ip[$second]}:$on_host"
}

check_cut() {
  provider_cut "$second"
  silent from_phone "${node_ip[$second]}:$on_host"
  silent from_pod "${web[$first]}" "${pod_ip[$second]}:$on_pod"
  answers "$first *" from_phone "${node_ip[$first]}:$on_host"
  provider_join "$second"
  answers "$second *" from_phone "${node_ip[$second]}:$on_host"
  answers "$second *" from_pod "${web[$first]}" "${pod_ip[$second]}:$on_pod"
}

# The address leads to one node, and pods there see who calls.
check_load_balancer() {
  local cloud=203.0.113.80
  k patch service web --type merge -p '{"spec": {"type": "LoadBalancer", "externalTrafficPolicy": "Local"}}' >/dev/null
  k patch service web --type merge --subresource status \
    -p "{\"status\": {\"loadBalancer\": {\"ingress\": [{\"ip\": \"$cloud\"}]}}}" >/dev/null
  provider_route $cloud "$second"
  answers "$second $PHONES_ADDRESS" from_phone $cloud
  provider_unroute $cloud
  silent from_phone $cloud
}

# Pods serve meanwhile, and what was told before is still known.
check_restart() {
  local was
  was=$(k get pod "${web[$first]}" -o 'jsonpath={.metadata.uid}')
  provider_restart_api
  answers "$first *" from_phone "${node_ip[$first]}:$on_host"
  answers "$was" k get pod "${web[$first]}" -o 'jsonpath={.metadata.uid}'
  answers "$second *" from_pod "${web[$first]}" "${pod_ip[$second]}:$on_pod"
}

check_leaks() {
  local node
  provider_forget_leaks
  for node in "${!web[@]}"; do answers "$node *" from_phone "${node_ip[$node]}:$on_host"; done
  matches 0 provider_leaks
  fails from_phone "${pod_ip[$first]}:$on_pod"
  fails from_phone "$(k get service web -o 'jsonpath={.spec.clusterIP}')"
  [ "$(provider_leaks)" -ge 2 ]
  provider_forget_leaks
  matches 0 provider_leaks
}
