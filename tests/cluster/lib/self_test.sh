# shellcheck shell=bash
# Whether the cluster does what the project's tests rely on. Each check is one line of output.

test_namespace=annulus-self-test

in_test() { kubectl --namespace "$test_namespace" "$@"; }
in_pod() { in_test exec "$1" -- /usr/local/bin/echo "${@:2}"; }

# check WHAT COMMAND...: succeeds within a few seconds, or the self-test fails.
check() {
  local what=$1 started output
  shift
  started=$(date +%s%N)
  for _ in {1..20}; do
    if output=$("$@" 2>&1); then
      printf 'ok    %6d ms  %s\n' $((($(date +%s%N) - started) / 1000000)) "$what"
      return
    fi
    sleep 0.25
  done
  printf 'FAIL  %s\n' "$what"
  say "$output"
  say "The workload is left as it is; look at it with: kubectl --namespace $test_namespace get all"
  exit 1
}

self_test() {
  is_healthy || fail "no healthy cluster; start it with: $here/cluster up"
  check "image built and loaded into every node" load_image "$echo_image" "$(build_image "$echo_image" "$tools_bin/echo")"
  kubectl delete namespace "$test_namespace" --ignore-not-found >/dev/null
  check "StatefulSet of 3 pods Ready" start_workload
  check "pods are spread over the nodes" pods_are_spread
  local pod other ip
  for pod in echo-0 echo-1 echo-2; do
    ip=$(pod_ip "$pod")
    check "host reaches $pod at $ip" answers "$pod" curl -sS --noproxy '*' --max-time 2 "http://$ip:8080/"
    check "DNS of $pod gives $ip" dns_gives "$pod" "$ip"
    for other in echo-0 echo-1 echo-2; do
      check "$pod reaches $other by name" answers "$other" in_pod "$pod" get "http://$other.pods:8080/"
    done
    check "$pod reaches the Service, be it itself" reaches_all "$pod"
  done
  check "host reaches the Service's cluster address" answers echo- \
    curl -sS --noproxy '*' --max-time 2 "http://$(in_test get service echo --output 'jsonpath={.spec.clusterIP}')/"
  check "a name outside the cluster is refused at once" refused_with "no such host" in_pod echo-0 lookup no-such-name.example.
  check "kubectl logs" log_says_serves
  check "kubectl port-forward" port_forward_works
  check "pod security refuses a privileged pod" refused_with "violates PodSecurity" \
    in_test run forbidden --image="$echo_image" --privileged
  check "audit log names who wrote" grep -q '"username":"annulus-dev-admin".*"resource":"statefulsets"' "$logs_dir/audit.log"
  check "metrics of the API server" metric_is_there /metrics apiserver_request_total
  check "metrics of a kubelet" metric_is_there /api/v1/nodes/node-1/proxy/metrics kubelet_running_pods
  check "a deleted pod is replaced" pod_is_replaced
  check "namespace deleted" kubectl delete namespace "$test_namespace" --timeout=60s
}

start_workload() {
  kubectl apply --filename "$here/config/self-test.yaml"
  in_test rollout status statefulset/echo --timeout=60s
}

pod_ip() { in_test get pod "$1" --output 'jsonpath={.status.podIP}'; }

answers() { "${@:2}" | grep "^$1"; }

pods_are_spread() {
  local nodes used
  nodes=$(running_nodes | wc -l)
  used=$(in_test get pods --output 'jsonpath={.items[*].spec.nodeName}' | tr ' ' '\n' | sort -u | wc -l)
  ((used == (nodes < 3 ? nodes : 3)))
}

# Asked by another pod: a pod finds its own name in its hosts file.
dns_gives() { [[ $(in_pod "echo-$(((${1#echo-} + 1) % 3))" lookup "$1.pods.$test_namespace.svc.cluster.local") == "$2" ]]; }

# Often enough that the pod itself is among those that answer: that takes hairpin traffic.
reaches_all() {
  for _ in {1..8}; do in_pod "$1" get http://echo/; done
}

port_forward_works() {
  local port=18080 pid status=0
  # Not through a function: the pid has to be kubectl's own for it to be ended.
  KUBECONFIG=$own_kubeconfig "$kubernetes_bin/kubectl" --namespace "$test_namespace" port-forward pod/echo-0 \
    "$port:8080" >/dev/null 2>&1 &
  pid=$!
  # shellcheck disable=SC2064  # the pid of now is meant
  trap "kill $pid 2>/dev/null" EXIT
  wait_for 5 "forwarded port" "" curl -sS --noproxy '*' --max-time 1 "http://127.0.0.1:$port/" || status=$?
  kill "$pid" 2>/dev/null || status=$?
  wait "$pid" || true
  return "$status"
}

# refused_with TEXT COMMAND...: the command fails, for the reason that is expected.
refused_with() {
  local output
  if output=$("${@:2}" 2>&1); then return 1; fi
  echo "$output"
  [[ $output == *"$1"* ]]
}

log_says_serves() { in_test logs echo-0 | grep 'echo-0 serves'; }

# Reads to the end: a closed pipe would make kubectl fail.
metric_is_there() { kubectl get --raw="$1" | grep "^$2" >/dev/null; }

pod_is_replaced() {
  local before
  before=$(in_test get pod echo-1 --output 'jsonpath={.metadata.uid}')
  in_test delete pod echo-1 --wait=true
  in_test rollout status statefulset/echo --timeout=30s
  in_test wait pod/echo-1 --for=condition=Ready --timeout=30s
  [[ $(in_test get pod echo-1 --output 'jsonpath={.metadata.uid}') != "$before" ]]
}
