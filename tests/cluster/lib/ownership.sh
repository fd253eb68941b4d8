# shellcheck shell=bash
# What is ours on this machine, so that exactly that can be ended, and nothing else.
#
# Every process that we start is put into a control group of our name, and its children stay below
# it. So the group itself says which processes are ours: no pid file can be stale in a way that
# harms somebody else's process, and a run that was killed half-way is found in full.

is_cgroup2() { [[ $(stat -f -c %T /sys/fs/cgroup) == cgroup2fs ]]; }

# The mount points of the hierarchies in which nodes get a group of their own.
cgroup_hierarchies() {
  if is_cgroup2; then
    echo /sys/fs/cgroup
  else
    awk '$3 == "cgroup" { print $2 }' /proc/self/mounts
  fi
}

# Those in which there can be groups of ours: runc makes them in the hybrid's version 2 as well.
all_cgroup_hierarchies() { awk '$3 == "cgroup" || $3 == "cgroup2" { print $2 }' /proc/self/mounts; }

# One hierarchy is enough to know what is ours. With version 1 it is pids, which limits nothing here.
ownership_hierarchy() { if is_cgroup2; then echo /sys/fs/cgroup; else echo /sys/fs/cgroup/pids; fi; }

own_processes() {
  local group
  group=$(ownership_hierarchy)/$project
  [[ -d $group ]] || return 0
  find "$group" -name cgroup.procs -exec cat {} + 2>/dev/null || true
}

# create_cgroup PATH: in every hierarchy, ready to hold processes.
create_cgroup() {
  local hierarchy parent part controller file
  while read -r hierarchy; do
    parent=$hierarchy
    for part in ${1//\// }; do
      if is_cgroup2; then
        # A controller reaches a group only if its parent hands it down; not every kernel has all.
        for controller in cpuset cpu io memory pids hugetlb; do
          echo "+$controller" 2>/dev/null >"$parent/cgroup.subtree_control" || true
        done
      fi
      mkdir -p "$parent/$part"
      # A new cpuset of version 1 is empty, and takes no process until it is filled.
      for file in cpuset.cpus cpuset.mems; do
        if ! is_cgroup2 && [[ -e $parent/$file && -z $(<"$parent/$part/$file") ]]; then
          cat "$parent/$file" >"$parent/$part/$file"
        fi
      done
      parent=$parent/$part
    done
  done < <(cgroup_hierarchies)
}

remove_cgroups() {
  local hierarchy
  while read -r hierarchy; do
    # A group stays busy for a moment after its last process.
    for _ in {1..50}; do
      [[ -d $hierarchy/$project ]] || break
      find "$hierarchy/$project" -depth -type d -exec rmdir {} + 2>/dev/null && break
      sleep 0.1
    done
  done < <(all_cgroup_hierarchies)
}

# spawn NAME COMMAND...: a daemon of ours; its log and pid are kept under its name.
spawn() {
  local name=$1 group
  shift
  group=$(ownership_hierarchy)/$project/system
  (
    exec 9>&- </dev/null >>"$logs_dir/$name.log" 2>&1
    echo "$BASHPID" >"$group/cgroup.procs"
    # A clean environment: a proxy or a KUBECONFIG of the person's is not meant for the cluster.
    exec setsid env -i PATH="$PATH" HOME=/root "$@"
  ) &
  echo $! >"$pids_dir/$name"
  # It counts as ours, and as running, only once it is in the group.
  while kill -0 $! 2>/dev/null && ! is_running "$name"; do sleep 0.01; done
}

pid_of() { cat "$pids_dir/$1" 2>/dev/null; }

is_running() {
  local pid
  pid=$(pid_of "$1") && grep -q "/$project/" "/proc/$pid/cgroup" 2>/dev/null
}

end_processes() {
  local pids
  for _ in {1..100}; do
    mapfile -t pids < <(own_processes)
    ((${#pids[@]} > 0)) || return 0
    kill -KILL "${pids[@]}" 2>/dev/null || true
    sleep 0.1
  done
}

take_lock() {
  while true; do
    exec 9>"$lock_file"
    if ! flock --nonblock 9; then
      say "waiting for another \`cluster\` command to end …"
      flock 9
    fi
    # `down` deletes the file; a lock on a deleted one is no lock.
    [[ ! $lock_file -ef /proc/self/fd/9 ]] || return 0
  done
}

owner() { cat "$owner_file" 2>/dev/null || true; }

refuse_if_foreign() {
  local owner
  owner=$(owner)
  if [[ -n $owner && $owner != "$cluster_dir" && -n $(own_processes) ]]; then
    say "error: a development cluster already runs on this machine; its folder is $owner"
    say "Only one can run at a time. End it with: CLUSTER_DIR=$(printf %q "$owner") $(printf %q "$here/cluster") down"
    say "or use it: export KUBECONFIG=$(printf %q "$owner/kubeconfig")"
    exit 1
  fi
}

# The kubelet sets some of these for the whole machine, and we the last ones; `down` puts them back.
touched_sysctls=(
  vm.overcommit_memory vm.panic_on_oom kernel.panic kernel.panic_on_oops
  kernel.keys.root_maxkeys kernel.keys.root_maxbytes
  fs.inotify.max_user_instances fs.inotify.max_user_watches
)

sysctl_file() { echo "/proc/sys/${1//.//}"; }

save_machine() {
  local name
  for name in "${touched_sysctls[@]}"; do echo "$name $(<"$(sysctl_file "$name")")"; done >"$saved_sysctls"
  host_chains >"$saved_chains"
}

restore_sysctls() {
  local name value
  [[ -s $saved_sysctls ]] || return 0
  while read -r name value; do
    [[ $(<"$(sysctl_file "$name")") == "$value" ]] || echo "$value" >"$(sysctl_file "$name")"
  done <"$saved_sysctls"
}

raise_sysctl() {
  local file
  file=$(sysctl_file "$1")
  (($(<"$file") >= $2)) || echo "$2" >"$file"
}

# Chains such as ours on the host itself; there should never be any more of them than before.
host_chains() { { iptables-save 2>/dev/null || true; } | { grep -oE '^:(KUBE|CNI)-[^ ]+' || true; } | sort; }
