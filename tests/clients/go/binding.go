package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/redis/go-redis/v9"
)

// bind takes user, password and whom to trust from the files of a binding, as they are when a connection is made.
func bind(options *redis.ClusterOptions, folder string) {
	read := func(name string) ([]byte, error) { return os.ReadFile(filepath.Join(folder, name)) }
	options.CredentialsProviderContext = func(context.Context) (string, string, error) {
		username, err1 := read("username")
		password, err2 := read("password")
		return string(username), string(password), errors.Join(err1, err2)
	}
	options.Dialer = func(ctx context.Context, network, address string) (net.Conn, error) {
		config, err := trusting(folder)
		if err != nil {
			return nil, err
		}
		dialer := tls.Dialer{NetDialer: &net.Dialer{Timeout: 5 * time.Second}, Config: config}
		return dialer.DialContext(ctx, network, address)
	}
}

// trusting is for connections to whoever the binding's authority vouches for.
func trusting(folder string) (*tls.Config, error) {
	authorities, err := os.ReadFile(filepath.Join(folder, "ca.crt"))
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(authorities) {
		return nil, errors.New("ca.crt holds no certificate")
	}
	// Nodes are known by addresses, which are in no certificate: any that the authority has signed will do.
	return &tls.Config{
		InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			_, err := state.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: pool})
			return err
		},
	}, nil
}
