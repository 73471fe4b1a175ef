# shellcheck shell=bash
# Processes of the cluster outlive the shell that starts them. Each is born into a control group of the cluster, and so
# is all that it starts: to end them is to end what is in those groups, whatever forked from whom.

# The roots of the control groups: one a hierarchy (version 1, beside which runc may use an empty one of version 2), or
# the one of version 2.
cgroup_roots() {
  if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
    echo /sys/fs/cgroup
  else
    local root
    for root in /sys/fs/cgroup/*/; do
      [ -e "$root/cgroup.procs" ] && [ ! -L "${root%/}" ] && echo "${root%/}"
    done
  fi
}

# What makes the cluster in /kpbx/up, what it then consists of in /kpbx/daemons, a node's pods in /kpbx/NODE.
cgroups_up() {
  local root group
  while read -r root; do
    for group in "$prefix" "$prefix/up" "$prefix/daemons" "${nodes[@]/#/$prefix/}"; do
      mkdir -p "$root/$group"
      # In version 2 a group's controllers are handed down by the one above.
      [ ! -e "$root/cgroup.controllers" ] || hand_down "$(dirname "$root/$group")"
      # A new cpuset of version 1 is empty, and nothing may run in it.
      [ ! -e "$root/$group/cpuset.mems" ] || [ -e "$root/cgroup.controllers" ] || {
        cat "$root/cpuset.cpus" >"$root/$group/cpuset.cpus"
        cat "$root/cpuset.mems" >"$root/$group/cpuset.mems"
      }
    done
  done < <(cgroup_roots)
}

hand_down() {
  local controllers controller
  read -r -a controllers <"$1/cgroup.controllers" || true
  for controller in "${controllers[@]}"; do
    echo "+$controller" >"$1/cgroup.subtree_control" 2>/dev/null || true
  done
}

# live_in GROUP: the calling shell, and what it starts from now on, lives in that group of the cluster.
live_in() {
  local root
  while read -r root; do echo "$BASHPID" >"$root/$prefix/$1/cgroup.procs"; done < <(cgroup_roots)
}

# daemon NAMESPACE NAME COMMAND...: starts it there (`machine`: no namespace), its output in a log, its number in a file.
daemon() {
  local namespace=$1 name=$2
  shift 2
  [ "$namespace" = machine ] || set -- nsenter --net="$(netns "$namespace")" "$@"
  (
    live_in daemons
    echo "$BASHPID" >"$state/pids/$name"
    # Whoever brings the cluster up may hold a lock or a pipe, which would be held for as long as this runs.
    for open in /proc/self/fd/*; do
      [ "${open##*/}" -le 2 ] || eval "exec ${open##*/}>&-"
    done
    exec setsid "$@" >>"$state/logs/$name.log" 2>&1 </dev/null
  ) &
  until_ok 5 test -s "$state/pids/$name"
}

pid_of() { cat "$state/pids/$1"; }
# Gone, or dead and not yet buried.
gone() { ! grep -q '^State:[[:space:]]*[^ZX]' "/proc/$1/status" 2>/dev/null; }

# The control groups of the cluster, innermost first.
cgroups() {
  local root
  while read -r root; do
    [ ! -d "$root/$prefix" ] || find "$root/$prefix" -depth -type d
  done < <(cgroup_roots)
}

# members: who lives in them.
members() { cgroups | while read -r group; do cat "$group/cgroup.procs" 2>/dev/null || true; done | sort -un; }

# A frozen group does not hear that it is to end.
thaw() {
  local group
  while read -r group; do
    [ ! -e "$group/freezer.state" ] || echo THAWED >"$group/freezer.state"
    [ ! -e "$group/cgroup.freeze" ] || echo 0 >"$group/cgroup.freeze"
  done < <(cgroups)
}

# Ends them all, at once: what they would tidy up is thrown away anyway.
processes_down() {
  local end=$((SECONDS + 60)) left
  while left=$(members) && [ -n "$left" ]; do
    thaw
    [ "$SECONDS" -lt "$end" ] || fail "processes that do not end: $(ps -o pid=,stat=,comm= -p "${left//$'\n'/,}")"
    # shellcheck disable=SC2086 # One a word.
    kill -KILL $left 2>/dev/null || true
    sleep 0.05
  done
}

cgroups_down() {
  local group
  while read -r group; do
    # A group is busy for a moment after its last process has gone.
    until_ok 5 rmdir "$group"
  done < <(cgroups)
}
