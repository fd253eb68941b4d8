# shellcheck shell=bash
# Clusters that aren't ours: used as they are when KUBECONFIG names one.
#
# Not tried on the machine that this was written on, which has neither kind nor another cluster
# (except for a KUBECONFIG that names our own cluster under another path).

# The person's cluster, not ours.
chosen_kubeconfig() {
  [[ -n ${KUBECONFIG:-} && ! $KUBECONFIG -ef $own_kubeconfig ]] && echo "$KUBECONFIG"
}

# Not `command -v`, which would find our function of that name.
any_kubectl() {
  if type -P kubectl >/dev/null; then command kubectl "$@"; else "$kubernetes_bin/kubectl" "$@"; fi
}

ensure() {
  local chosen
  if chosen=$(chosen_kubeconfig); then
    type -P kubectl >/dev/null || [[ -x $kubernetes_bin/kubectl ]] || cannot_run \
      "KUBECONFIG is set, but there is no kubectl to use it with" "install kubectl, or unset KUBECONFIG"
    if any_kubectl --request-timeout=5s get --raw=/readyz >/dev/null 2>&1; then
      say "Using the cluster of KUBECONFIG=$chosen"
      echo "$chosen"
      return
    fi
    say "KUBECONFIG=$chosen doesn't answer; using the development cluster instead."
  fi
  require_machine
  up "$1"
  echo "$own_kubeconfig"
}

load_image_where_used() {
  local name=$1 tar=$2 context
  if ! chosen_kubeconfig >/dev/null; then
    [[ -e $complete_file ]] || fail "no cluster is up; start it with: $here/cluster up"
    [[ $(owner) == "$cluster_dir" ]] || fail "the cluster that is up belongs to $(owner)"
    load_image "$name" "$tar"
    return
  fi
  context=$(any_kubectl config current-context)
  if [[ $context == kind-* ]]; then
    kind load image-archive "$tar" --name "${context#kind-}" >&2
  else
    fail "the cluster of KUBECONFIG ($context) takes no image from a file: push it to a registry that the cluster can pull from (for example: skopeo copy oci-archive:$tar docker://REGISTRY/$name) and set IMAGE_REGISTRY=REGISTRY"
  fi
}
