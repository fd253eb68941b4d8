# shellcheck shell=bash
# Images: made from static programs, and put where the nodes' container runtimes find them.

image_tar() { echo "$images_dir/$(tr -c 'a-zA-Z0-9.\n' - <<<"$1").tar"; }

# build_image NAME PROGRAM...: prints the path of the tar.
build_image() {
  local tar
  tar=$(image_tar "$1")
  mkdir -p "$images_dir"
  "$tools_bin/image" -name "$1" -out "$tar" "${@:2}"
  echo "$tar"
}

# load_image NAME TAR: into every node, and kept for the nodes that join later.
load_image() {
  local name=$1 tar=$2 full kept node pids=() pid
  [[ -r $tar ]] || fail "no such file: $tar"
  full=$("$tools_bin/image" -canonical -name "$name")
  mkdir -p "$loaded_dir"
  kept=$loaded_dir/$(basename "$(image_tar "$name")")
  [[ $tar -ef $kept ]] || cp "$tar" "$kept"
  for node in $(running_nodes); do
    import_image "$node" "$kept" "$full" &
    pids+=($!)
  done
  for pid in "${pids[@]}"; do
    wait "$pid" && continue
    # Or the nodes that join later would fail on it as well.
    rm -f "$kept"
    fail "$name could not be loaded"
  done
}

import_image() {
  local node=$1 tar=$2 full=$3 ctr=(ctr --namespace k8s.io images)
  in_node "$node" "${ctr[@]}" import --snapshotter "$(snapshotter)" - <"$tar" >&2
  # An archive can hold another name than the one asked for; a pod would then never start.
  if [[ -n $full && -z $(in_node "$node" "${ctr[@]}" list --quiet "name==$full") ]]; then
    fail "the archive doesn't hold $full; $node has: $(in_node "$node" "${ctr[@]}" list --quiet | tr '\n' ' ')"
  fi
}

import_loaded_images() {
  local tar
  for tar in "$loaded_dir"/*.tar; do import_image "$1" "$tar" ""; done
}

# The images that the cluster itself needs.
load_own_images() {
  mkdir -p "$loaded_dir"
  cp "$(build_image "$pause_image" "$tools_bin/pause")" "$(build_image "$coredns_image" "$coredns_bin/coredns")" "$loaded_dir/"
}

# The kernel can't stack an overlay on most overlays, such as a container's own root.
snapshotter() {
  if [[ $(stat -f -c %T "$cluster_dir") == overlayfs ]]; then echo native; else echo overlayfs; fi
}
