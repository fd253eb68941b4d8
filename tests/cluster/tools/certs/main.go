// Certs makes the keys, certificates and kubeconfigs of the development cluster.
//
// What is there already is kept, so that a node can be added to a running cluster.
package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// The cluster is made anew by every `up`; a year outlives any of them.
const validity = 365 * 24 * time.Hour

type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

type identity struct {
	file          string
	commonName    string
	organizations []string
	hosts         []string // names and addresses of a server; none for a client
}

type maker struct {
	folder string
	server string
}

func main() {
	folder := flag.String("dir", "", "the folder to write to")
	apiAddress := flag.String("api-address", "", "the API server's address")
	apiPort := flag.Int("api-port", 6443, "the API server's port")
	serviceAddress := flag.String("service-address", "", "the address of the Service kubernetes")
	nodes := flag.String("nodes", "", "name=address of every node, separated by commas")
	flag.Parse()
	m := maker{folder: *folder, server: fmt.Sprintf("https://%s:%d", *apiAddress, *apiPort)}
	if err := m.makeAll(*apiAddress, *serviceAddress, *nodes); err != nil {
		fmt.Fprintln(os.Stderr, "certs:", err)
		os.Exit(1)
	}
}

func (m maker) makeAll(apiAddress, serviceAddress, nodes string) error {
	if err := os.MkdirAll(m.folder, 0o700); err != nil {
		return err
	}
	ca, err := m.authority("ca", "annulus-dev-cluster")
	if err != nil {
		return err
	}
	// Headers of the front proxy name any user they like, so it must not share the clients' authority.
	frontProxyCA, err := m.authority("front-proxy-ca", "annulus-dev-cluster-front-proxy")
	if err != nil {
		return err
	}
	etcdCA, err := m.authority("etcd-ca", "annulus-dev-cluster-etcd")
	if err != nil {
		return err
	}
	if err := m.serviceAccountKey(); err != nil {
		return err
	}

	issue := func(ca authority, identities ...identity) {
		for _, id := range identities {
			err = errors.Join(err, m.issue(ca, id))
		}
	}
	issue(etcdCA,
		identity{file: "etcd", commonName: "etcd", hosts: []string{"127.0.0.1", "localhost"}},
		identity{file: "etcd-client", commonName: "kube-apiserver"},
	)
	issue(frontProxyCA, identity{file: "front-proxy", commonName: "front-proxy-client"})
	issue(ca,
		identity{file: "kube-apiserver", commonName: "kube-apiserver", hosts: []string{
			apiAddress, serviceAddress, "127.0.0.1", "localhost", "kubernetes", "kubernetes.default",
			"kubernetes.default.svc", "kubernetes.default.svc.cluster.local",
		}},
		identity{file: "kubelet-client", commonName: "kube-apiserver-kubelet-client", organizations: []string{"system:masters"}},
		identity{file: "admin", commonName: "annulus-dev-admin", organizations: []string{"system:masters"}},
		identity{file: "kube-controller-manager", commonName: "system:kube-controller-manager"},
		identity{file: "kube-scheduler", commonName: "system:kube-scheduler"},
		identity{file: "kube-proxy", commonName: "system:kube-proxy"},
	)
	users := []string{"admin", "kube-controller-manager", "kube-scheduler", "kube-proxy"}
	for _, node := range strings.Split(nodes, ",") {
		name, address, found := strings.Cut(node, "=")
		if !found {
			return fmt.Errorf("-nodes: %q is not name=address", node)
		}
		user := "kubelet-" + name
		issue(ca,
			identity{file: user, commonName: "system:node:" + name, organizations: []string{"system:nodes"}},
			identity{file: user + "-serving", commonName: name, hosts: []string{name, address}},
		)
		users = append(users, user)
	}
	for _, user := range users {
		err = errors.Join(err, m.kubeconfig(user))
	}
	return err
}

func (m maker) path(name string) string { return filepath.Join(m.folder, name) }

func (m maker) exists(name string) bool {
	_, err := os.Stat(m.path(name))
	return err == nil
}

func (m maker) authority(file, commonName string) (authority, error) {
	if m.exists(file + ".crt") {
		return m.loadAuthority(file)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return authority{}, err
	}
	template, err := newTemplate(pkix.Name{CommonName: commonName})
	if err != nil {
		return authority{}, err
	}
	template.IsCA = true
	template.BasicConstraintsValid = true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature | x509.KeyUsageCRLSign
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return authority{}, err
	}
	if err := m.writePair(file, der, key); err != nil {
		return authority{}, err
	}
	return m.loadAuthority(file)
}

func (m maker) loadAuthority(file string) (authority, error) {
	certificateDER, err := m.readPEM(file + ".crt")
	if err != nil {
		return authority{}, err
	}
	keyDER, err := m.readPEM(file + ".key")
	if err != nil {
		return authority{}, err
	}
	certificate, err := x509.ParseCertificate(certificateDER)
	if err != nil {
		return authority{}, err
	}
	key, err := x509.ParseECPrivateKey(keyDER)
	return authority{certificate, key}, err
}

func (m maker) issue(ca authority, id identity) error {
	if m.exists(id.file + ".crt") {
		return nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template, err := newTemplate(pkix.Name{CommonName: id.commonName, Organization: id.organizations})
	if err != nil {
		return err
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	if len(id.hosts) > 0 {
		// etcd's gateway dials its own serving port, so a server is a client as well.
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	for _, host := range id.hosts {
		if address := net.ParseIP(host); address != nil {
			template.IPAddresses = append(template.IPAddresses, address)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.certificate, key.Public(), ca.key)
	if err != nil {
		return err
	}
	return m.writePair(id.file, der, key)
}

func newTemplate(subject pkix.Name) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      subject,
		// Clocks that are set back a little while the cluster runs don't break it.
		NotBefore: now.Add(-time.Hour),
		NotAfter:  now.Add(validity),
	}, err
}

func (m maker) serviceAccountKey() error {
	if m.exists("service-account.pub") {
		return nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return err
	}
	return errors.Join(
		m.writeKey("service-account", key),
		m.writePEM("service-account.pub", "PUBLIC KEY", public),
	)
}

// writePair writes the certificate last: it stands for the pair when asked what is there already.
func (m maker) writePair(file string, certificate []byte, key *ecdsa.PrivateKey) error {
	if err := m.writeKey(file, key); err != nil {
		return err
	}
	return m.writePEM(file+".crt", "CERTIFICATE", certificate)
}

func (m maker) writeKey(file string, key crypto.PrivateKey) error {
	der, err := x509.MarshalECPrivateKey(key.(*ecdsa.PrivateKey))
	if err != nil {
		return err
	}
	return m.writePEM(file+".key", "EC PRIVATE KEY", der)
}

func (m maker) writePEM(file, kind string, der []byte) error {
	return os.WriteFile(m.path(file), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}

func (m maker) readPEM(file string) ([]byte, error) {
	content, err := os.ReadFile(m.path(file))
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(content)
	if block == nil {
		return nil, fmt.Errorf("%s holds no PEM", file)
	}
	return block.Bytes, nil
}

// kubeconfig embeds what it refers to, so that the file can be copied elsewhere.
func (m maker) kubeconfig(user string) error {
	embedded := make(map[string]string)
	for _, file := range []string{"ca.crt", user + ".crt", user + ".key"} {
		content, err := os.ReadFile(m.path(file))
		if err != nil {
			return err
		}
		embedded[file] = base64.StdEncoding.EncodeToString(content)
	}
	content := fmt.Sprintf(`apiVersion: v1
kind: Config
clusters:
- name: annulus-dev
  cluster:
    server: %s
    certificate-authority-data: %s
users:
- name: %s
  user:
    client-certificate-data: %s
    client-key-data: %s
contexts:
- name: annulus-dev
  context:
    cluster: annulus-dev
    user: %s
current-context: annulus-dev
`, m.server, embedded["ca.crt"], user, embedded[user+".crt"], embedded[user+".key"], user)
	return os.WriteFile(m.path(user+".kubeconfig"), []byte(content), 0o600)
}
