// network-policies enforces NetworkPolicies on one node of the development cluster: nothing that could be had for it does.
//
// It covers what is written in networking.k8s.io/v1 but for named ports and `ipBlock.except`, which it reports and
// admits nothing by. IPv4, TCP and UDP. Traffic between the machines themselves is admitted, as most network plugins do
// it: so is the host's, that is, the tests'. Rules follow a change within a second or so; a new pod has none until then.
package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
)

const (
	entrance = "ANNULUS-POLICIES"
	// Changes come in bursts.
	pause = 100 * time.Millisecond
)

func policiesCommand() *cobra.Command {
	var kubeconfig, node, machines string
	command := &cobra.Command{
		Use:   "network-policies",
		Short: "Enforces NetworkPolicies on a node of the development cluster",
		RunE: func(command *cobra.Command, _ []string) error {
			config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
			if err != nil {
				return err
			}
			client, err := kubernetes.NewForConfig(config)
			if err != nil {
				return err
			}
			return enforce(command, client, node, machines)
		},
	}
	command.Flags().StringVar(&kubeconfig, "kubeconfig", "", "how to reach the API server")
	command.Flags().StringVar(&node, "node", "", "whose pods are guarded")
	command.Flags().StringVar(&machines, "machines", "", "the machines' own network, which is admitted")
	return command
}

func enforce(command *cobra.Command, client kubernetes.Interface, node, machines string) error {
	factory := informers.NewSharedInformerFactory(client, 0)
	policies := factory.Networking().V1().NetworkPolicies()
	namespaces := factory.Core().V1().Namespaces()
	pods := factory.Core().V1().Pods()
	changed := make(chan struct{}, 1)
	note := func(any) {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	handler := cache.ResourceEventHandlerFuncs{AddFunc: note, UpdateFunc: func(_, new any) { note(new) }, DeleteFunc: note}
	for _, informer := range []cache.SharedIndexInformer{policies.Informer(), namespaces.Informer(), pods.Informer()} {
		if _, err := informer.AddEventHandler(handler); err != nil {
			return err
		}
	}
	factory.Start(command.Context().Done())
	factory.WaitForCacheSync(command.Context().Done())
	last := ""
	for range changed {
		time.Sleep(pause)
		world := world{node: node, machines: machines, namespaces: map[string]labels.Set{}}
		everyPolicy, err1 := policies.Lister().List(labels.Everything())
		everyNamespace, err2 := namespaces.Lister().List(labels.Everything())
		everyPod, err3 := pods.Lister().List(labels.Everything())
		if err := errors.Join(err1, err2, err3); err != nil {
			return err
		}
		for _, namespace := range everyNamespace {
			world.namespaces[namespace.Name] = namespace.Labels
		}
		world.policies, world.pods = everyPolicy, everyPod
		rules := world.rules()
		if rules == last {
			continue
		}
		if err := install(rules); err != nil {
			fmt.Fprintln(os.Stderr, err)
			time.AfterFunc(time.Second, func() { note(nil) })
			continue
		}
		last = rules
	}
	return nil
}

// install replaces all rules at once.
func install(rules string) error {
	restore := exec.Command("iptables-restore", "--noflush", "--wait", "5")
	restore.Stdin = strings.NewReader(rules)
	if said, err := restore.CombinedOutput(); err != nil {
		return fmt.Errorf("iptables-restore: %w: %s\n%s", err, bytes.TrimSpace(said), rules)
	}
	jump := []string{"FORWARD", "--jump", entrance}
	if exec.Command("iptables", append([]string{"--wait", "--check"}, jump...)...).Run() == nil {
		return nil
	}
	insert := exec.Command("iptables", "--wait", "--insert", "FORWARD", "1", "--jump", entrance)
	if said, err := insert.CombinedOutput(); err != nil {
		return fmt.Errorf("iptables: %w: %s", err, bytes.TrimSpace(said))
	}
	return nil
}

// world is what rules follow from.
type world struct {
	node, machines string
	namespaces     map[string]labels.Set
	policies       []*networking.NetworkPolicy
	pods           []*core.Pod
}

// rules are the input of iptables-restore.
func (w *world) rules() string {
	var chains, lines []string
	first := []string{
		"--match conntrack --ctstate ESTABLISHED,RELATED --jump RETURN",
		"--source " + w.machines + " --jump RETURN",
	}
	for _, rule := range first {
		lines = append(lines, "--append "+entrance+" "+rule)
	}
	slices.SortFunc(w.pods, func(a, b *core.Pod) int {
		return strings.Compare(a.Namespace+"/"+a.Name, b.Namespace+"/"+b.Name)
	})
	slices.SortFunc(w.policies, func(a, b *networking.NetworkPolicy) int {
		return strings.Compare(a.Namespace+"/"+a.Name, b.Namespace+"/"+b.Name)
	})
	for _, pod := range w.pods {
		if pod.Spec.NodeName != w.node || !hasAddress(pod) {
			continue
		}
		for _, direction := range []networking.PolicyType{networking.PolicyTypeEgress, networking.PolicyTypeIngress} {
			admitted, guarded := w.admitted(pod, direction)
			if !guarded {
				continue
			}
			sum := sha256.Sum256([]byte(pod.Namespace + "/" + pod.Name))
			chain := fmt.Sprintf("ANNULUS-%.2s-%s", strings.ToUpper(string(direction)), hex.EncodeToString(sum[:6]))
			chains = append(chains, chain)
			own := "--destination"
			if direction == networking.PolicyTypeEgress {
				own = "--source"
			}
			lines = append(lines, fmt.Sprintf("--append %s %s %s/32 --jump %s", entrance, own, pod.Status.PodIP, chain))
			for _, match := range admitted {
				lines = append(lines, fmt.Sprintf("--append %s %s --jump RETURN", chain, match))
			}
			lines = append(lines, "--append "+chain+" --jump REJECT")
		}
	}
	var all strings.Builder
	all.WriteString("*filter\n:" + entrance + " - [0:0]\n")
	for _, chain := range chains {
		all.WriteString(":" + chain + " - [0:0]\n")
	}
	all.WriteString(strings.Join(lines, "\n") + "\nCOMMIT\n")
	return all.String()
}

// admitted are the matches of what a pod may receive or send, and whether any policy says something about it.
func (w *world) admitted(pod *core.Pod, direction networking.PolicyType) (matches []string, guarded bool) {
	for _, policy := range w.policies {
		if policy.Namespace != pod.Namespace || !selects(&policy.Spec.PodSelector, pod.Labels) ||
			!slices.Contains(policy.Spec.PolicyTypes, direction) {
			continue
		}
		guarded = true
		if direction == networking.PolicyTypeIngress {
			for _, rule := range policy.Spec.Ingress {
				matches = append(matches, w.matches(policy, "--source", rule.From, rule.Ports)...)
			}
		} else {
			for _, rule := range policy.Spec.Egress {
				matches = append(matches, w.matches(policy, "--destination", rule.To, rule.Ports)...)
			}
		}
	}
	slices.Sort(matches)
	return slices.Compact(matches), guarded
}

func (w *world) matches(policy *networking.NetworkPolicy, side string, peers []networking.NetworkPolicyPeer, ports []networking.NetworkPolicyPort) []string {
	from := []string{""}
	if len(peers) > 0 {
		from = nil
		for _, address := range w.addresses(policy, peers) {
			from = append(from, side+" "+address)
		}
	}
	to := []string{""}
	if len(ports) > 0 {
		to = nil
		for _, port := range ports {
			protocol := core.ProtocolTCP
			if port.Protocol != nil {
				protocol = *port.Protocol
			}
			match := "--protocol " + strings.ToLower(string(protocol))
			if port.Port != nil {
				number := port.Port.IntValue()
				if number == 0 {
					fmt.Fprintf(os.Stderr, "%s/%s: named ports are not covered\n", policy.Namespace, policy.Name)
					continue
				}
				last := number
				if port.EndPort != nil {
					last = int(*port.EndPort)
				}
				match += fmt.Sprintf(" --dport %d:%d", number, last)
			}
			to = append(to, match)
		}
	}
	var all []string
	for _, source := range from {
		for _, port := range to {
			all = append(all, strings.TrimSpace(source+" "+port))
		}
	}
	return all
}

// addresses of all who are meant.
func (w *world) addresses(policy *networking.NetworkPolicy, peers []networking.NetworkPolicyPeer) []string {
	var all []string
	for _, peer := range peers {
		if peer.IPBlock != nil {
			prefix, err := netip.ParsePrefix(peer.IPBlock.CIDR)
			if err != nil || len(peer.IPBlock.Except) > 0 {
				fmt.Fprintf(os.Stderr, "%s/%s: this ipBlock is not covered\n", policy.Namespace, policy.Name)
				continue
			}
			all = append(all, prefix.String())
			continue
		}
		for _, pod := range w.pods {
			if !hasAddress(pod) || (peer.PodSelector != nil && !selects(peer.PodSelector, pod.Labels)) {
				continue
			}
			if peer.NamespaceSelector == nil && pod.Namespace != policy.Namespace {
				continue
			}
			if peer.NamespaceSelector != nil && !selects(peer.NamespaceSelector, w.namespaces[pod.Namespace]) {
				continue
			}
			all = append(all, pod.Status.PodIP+"/32")
		}
	}
	return all
}

func selects(selector *meta.LabelSelector, of labels.Set) bool {
	parsed, err := meta.LabelSelectorAsSelector(selector)
	return err == nil && parsed.Matches(of)
}

// hasAddress says whether a pod has an address of its own now. Those that have ended have none any more.
func hasAddress(pod *core.Pod) bool {
	address, err := netip.ParseAddr(pod.Status.PodIP)
	ended := pod.Status.Phase == core.PodSucceeded || pod.Status.Phase == core.PodFailed
	return err == nil && address.Is4() && !pod.Spec.HostNetwork && !ended
}
