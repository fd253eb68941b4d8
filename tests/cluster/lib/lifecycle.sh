# shellcheck shell=bash
# The life of the cluster: up, down, and what is left when a run was killed.

up() {
  local wanted=$1 node added=()
  take_lock
  refuse_if_foreign
  if is_healthy; then
    for node in $(node_names "$wanted"); do
      [[ -e $pids_dir/$node.kubelet ]] || added+=("$node")
    done
    if ((${#added[@]} == 0)); then
      say "The cluster is up: $(running_nodes | wc -l) node(s), kubeconfig $own_kubeconfig"
      return
    fi
    steps_total=2
    step 1 "starting ${added[*]}" "about 5 s a node" "$logs_dir/up-nodes.log" start_nodes "${added[@]}"
    step 2 "waiting for ${added[*]} to be Ready" "about 10 s" "$logs_dir/up-ready.log" wait_for_nodes
    return
  fi
  if [[ -d $run_dir || -n $(own_processes) ]]; then
    say "Cleaning up what an earlier run has left …"
    clean_up
    forget_run
  fi
  mapfile -t added < <(node_names "$wanted")
  prepare
  refuse_if_addresses_taken
  mkdir -p "$run_dir" "$pids_dir" "$logs_dir" "$state_dir"
  echo "$cluster_dir" >"$owner_file"
  # Logs of the last run would be mistaken for this one's.
  rm -f "$logs_dir"/{etcd,kube-,node-,switch,audit}*
  step 6 "starting the control plane" "about 10 s" "$logs_dir/up-control-plane.log" bring_up_control_plane "${added[@]}"
  step 7 "starting ${added[*]}" "about 5 s a node" "$logs_dir/up-nodes.log" start_nodes "${added[@]}"
  step 8 "waiting for nodes to be Ready" "about 10 s" "$logs_dir/up-ready.log" wait_for_nodes
  step 9 "waiting for cluster DNS" "about 5 s" "$logs_dir/up-dns.log" start_dns
  touch "$complete_file"
  say "The cluster is up. To use it:"
  say "  export KUBECONFIG=$(printf %q "$own_kubeconfig") PATH=$(printf %q "$bin_dir"):\$PATH"
  say "To end it: $(printf %q "$here/cluster") down"
}

bring_up_control_plane() {
  save_machine
  raise_sysctl fs.inotify.max_user_instances 1024
  raise_sysctl fs.inotify.max_user_watches 131072
  modprobe --all --quiet overlay br_netfilter 2>/dev/null || true
  create_cgroup "$project/system"
  make_certificates "$@"
  load_own_images
  start_network
  start_control_plane
}

start_nodes() {
  local node
  make_certificates "$@"
  for node in "$@"; do start_node "$node"; done
}

wait_for_nodes() {
  local node
  for node in $(running_nodes); do
    wait_for 60 "readiness of $node" "$node.kubelet" node_is_ready "$node"
  done
}

node_is_ready() {
  [[ $(kubectl get node "$1" --output 'jsonpath={.status.conditions[?(@.type=="Ready")].status}') == True ]]
}

start_dns() {
  sed "s/@COREDNS_VERSION@/$coredns_version/" "$here/config/coredns.yaml" | kubectl apply --filename -
  kubectl --namespace kube-system rollout status deployment/coredns --timeout=60s
}

# Healthy: a run that got to its end, all of whose processes live, and whose API server answers.
is_healthy() {
  local file node
  [[ -e $complete_file && -x $kubernetes_bin/kubectl && -x $tools_bin/image && $(owner) == "$cluster_dir" ]] || return 1
  for file in "$pids_dir"/*; do
    is_running "$(basename "$file")" || { say "$(basename "$file") is not running"; return 1; }
  done
  api_is_ready || { say "the API server does not answer"; return 1; }
  # A node that a test has just cut off deserves a moment to come back.
  if kubectl get nodes --no-headers | awk '$2 != "Ready" { bad = 1 } END { exit !bad }'; then
    say "a node is not Ready; giving it a moment …"
    for node in $(running_nodes); do
      wait_for 20 "readiness of $node" "" node_is_ready "$node" || return 1
    done
  fi
}

down() {
  take_lock
  refuse_if_foreign
  if [[ ! -d $run_dir && -z $(own_processes) && ! -e $state_dir ]]; then
    rm -f "$lock_file"
    say "No development cluster is up."
    return
  fi
  clean_up
  local left
  left=$(leftovers)
  if [[ -n $left ]]; then
    say "error: something is left behind:"
    say "$left"
    exit 1
  fi
  forget_run
  rm -f "$lock_file"
  say "The cluster is down. Nothing is left: no process, mount, namespace, link, route, firewall chain or control group."
  say "Binaries and images are kept in $cluster_dir for the next start; the folder can be deleted."
}

# In this order: processes hold namespaces, and namespaces hold mounts, links and control groups.
clean_up() {
  local file
  end_processes
  ! ip link show "$host_link" >/dev/null 2>&1 || ip link delete "$host_link"
  remove_cgroups
  restore_sysctls
  # A recorded state folder may be that of a clone that is gone by now.
  for file in "$state_dir" "$(owner)/$project"; do
    [[ $file != "/$project" ]] || continue
    # The kernel takes a namespace's mounts away a moment after its last process.
    for _ in {1..50}; do
      rm -rf --one-file-system "$file" 2>/dev/null && break
      sleep 0.1
    done
  done
  rm -f "$own_kubeconfig"
}

# The record goes last: until then an interrupted clean-up can be begun again.
forget_run() { rm -rf --one-file-system "$run_dir"; }

# What of ours is still on this machine, a line each.
leftovers() {
  local pid hierarchy
  for pid in $(own_processes); do echo "process $pid: $(tr '\0' ' ' <"/proc/$pid/cmdline")"; done
  ip -oneline link show "$host_link" 2>/dev/null
  ip -4 route | grep -E "^$pod_prefix\.|^$machine_prefix\.|^${service_network%.0/16}\.|dev $host_link"
  grep -E " ($state_dir|$run_dir)[/ ]" /proc/self/mountinfo
  while read -r hierarchy; do
    [[ ! -d $hierarchy/$project ]] || echo "control group $hierarchy/$project"
  done < <(all_cgroup_hierarchies)
  [[ ! -e $saved_chains ]] || comm -13 "$saved_chains" <(host_chains)
  [[ ! -e $state_dir ]] || echo "folder $state_dir"
  return 0
}

status() {
  local file name owner
  owner=$(owner)
  if [[ -z $owner && -z $(own_processes) ]]; then
    say "No development cluster is up. Start it with: $here/cluster up"
    return 1
  fi
  echo "folder $owner"
  for file in "$pids_dir"/*; do
    name=$(basename "$file")
    if is_running "$name"; then
      # The process that counts is the one inside the namespaces.
      case $name in
        *.* | switch | node-*) echo "$name running, pid $(sandbox_pid "$name")" ;;
        *) echo "$name running, pid $(pid_of "$name")" ;;
      esac
    else
      echo "$name NOT RUNNING, log $logs_dir/$name.log"
    fi
  done
  is_healthy && kubectl get nodes --label-columns topology.kubernetes.io/zone --output wide
}
