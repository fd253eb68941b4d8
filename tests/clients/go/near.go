package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/rueidis"
)

// followsWithin is how soon a cache inside a client must have what another client wrote.
const followsWithin = time.Second

// nearCaches are those of rueidis, for a whole cluster, and of go-redis, whose cache is of one node only.
func nearCaches(ctx context.Context, other *redis.ClusterClient, address string, c *checked) {
	username, password := "default", os.Getenv("ANNULUS_PASSWORD")
	var secure *tls.Config
	if folder := os.Getenv("ANNULUS_BINDING"); folder != "" {
		for name, into := range map[string]*string{"username": &username, "password": &password} {
			text, err := os.ReadFile(filepath.Join(folder, name))
			if err != nil {
				c.fail("near cache: %v", err)
				return
			}
			*into = string(text)
		}
		config, err := trusting(folder)
		if err != nil {
			c.fail("near cache: %v", err)
			return
		}
		secure = config
	}
	if password == "" {
		username = ""
	}

	cluster, err := rueidis.NewClient(rueidis.ClientOption{
		InitAddress: []string{address},
		Username:    username,
		Password:    password,
		TLSConfig:   secure,
		ShuffleInit: true,
	})
	if err != nil {
		c.fail("rueidis: %v", err)
		return
	}
	defer cluster.Close()
	fromMemory := false
	follows(ctx, "rueidis", other, c, func(key string) (string, error) {
		reply := cluster.DoCache(ctx, cluster.B().Get().Key(key).Cache(), time.Minute)
		fromMemory = fromMemory || reply.IsCacheHit()
		return reply.ToString()
	})
	expect(c, "rueidis: anything from memory", fromMemory, nil, true)

	// The node that has the key is asked by itself.
	key := fmt.Sprintf("near-%d", time.Now().UnixNano())
	owner, err := other.MasterForKey(ctx, key)
	if err != nil {
		c.fail("go-redis: owner of %s: %v", key, err)
		return
	}
	node := redis.NewClient(&redis.Options{
		Addr:                  owner.Options().Addr,
		Username:              username,
		Password:              password,
		TLSConfig:             secure,
		Protocol:              3,
		ClientSideCacheConfig: &redis.ClientSideCacheConfig{MaxEntries: 1000},
	})
	defer func() {
		if err := node.Close(); err != nil {
			c.fail("go-redis: closing: %v", err)
		}
	}()
	followsKey(ctx, "go-redis", key, other, c, func(key string) (string, error) { return node.Get(ctx, key).Result() })
}

func follows(ctx context.Context, who string, other *redis.ClusterClient, c *checked, get func(string) (string, error)) {
	for number := range 3 {
		key := fmt.Sprintf("near-%s-%d-%d", who, time.Now().UnixNano(), number)
		followsKey(ctx, who, key, other, c, get)
	}
}

// followsKey has another client change a key that was read twice.
func followsKey(ctx context.Context, who, key string, other *redis.ClusterClient, c *checked, get func(string) (string, error)) {
	set := func(value string) {
		if err := other.Set(ctx, key, value, time.Minute).Err(); err != nil {
			c.fail("%s: SET: %v", who, err)
		}
	}
	set("old")
	for _, what := range []string{"read into the cache", "read from it"} {
		found, err := get(key)
		expect(c, who+": "+what, found, err, "old")
	}
	set("new")
	for begun := time.Now(); ; {
		found, err := get(key)
		if err == nil && found == "new" {
			return
		}
		if time.Since(begun) > followsWithin {
			c.fail("%s: %q, %v a second after it was changed", who, found, err)
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// address is what the cluster is first asked at.
func address() string { return net.JoinHostPort(os.Args[1], os.Args[2]) }
