// go-redis in cluster mode against a Redis Cluster: see tests/clients/README.md.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	batch    = 100
	counters = 100
	group    = 10
)

type checked struct{ errors int }

type gaveUp struct{}

// fail prints the first five errors in full and gives up at twenty.
func (c *checked) fail(format string, arguments ...any) {
	c.errors++
	if c.errors <= 5 {
		fmt.Fprintf(os.Stderr, "error: "+format+"\n", arguments...)
	}
	if c.errors >= 20 {
		panic(gaveUp{})
	}
}

func expect[T comparable](c *checked, what string, found T, err error, wanted T) {
	switch {
	case err != nil:
		c.fail("%s: %v", what, err)
	case found != wanted:
		c.fail("%s: got %v, not %v", what, found, wanted)
	}
}

func work(ctx context.Context, client *redis.ClusterClient, keys int, c *checked) {
	defer func() {
		if problem := recover(); problem != nil {
			if _, known := problem.(gaveUp); !known {
				panic(problem)
			}
			fmt.Fprintf(os.Stderr, "error: gave up after %d errors\n", c.errors)
		}
	}()
	prefix := fmt.Sprintf("go-redis-%d-%d", os.Getpid(), time.Now().UnixNano())
	key := func(i int) string { return fmt.Sprintf("%s:%d", prefix, i) }

	for i := range keys {
		found, err := client.Set(ctx, key(i), fmt.Sprintf("value %d", i), 0).Result()
		expect(c, fmt.Sprintf("SET %d", i), found, err, "OK")
	}
	for i := range keys {
		found, err := client.Get(ctx, key(i)).Result()
		expect(c, fmt.Sprintf("GET %d", i), found, err, fmt.Sprintf("value %d", i))
	}

	for first := 0; first < keys; first += group {
		var pairs, names []string
		for i := first; i < min(first+group, keys); i++ {
			name := fmt.Sprintf("{%s-%d}:%d", prefix, first, i)
			names = append(names, name)
			pairs = append(pairs, name, fmt.Sprintf("tagged %d", i))
		}
		found, err := client.MSet(ctx, pairs).Result()
		expect(c, fmt.Sprintf("MSET %d", first), found, err, "OK")
		values, err := client.MGet(ctx, names...).Result()
		expect(c, fmt.Sprintf("MGET %d", first), len(values), err, len(names))
		for n, value := range values {
			expect(c, fmt.Sprintf("MGET %d, value %d", first, n), value, nil, any(fmt.Sprintf("tagged %d", first+n)))
		}
	}

	for i := range keys {
		found, err := client.Expire(ctx, key(i), 1000*time.Second).Result()
		expect(c, fmt.Sprintf("EXPIRE %d", i), found, err, true)
		left, err := client.TTL(ctx, key(i)).Result()
		if err != nil || left <= 900*time.Second || left > 1000*time.Second {
			c.fail("TTL %d: got %v, %v", i, left, err)
		}
	}

	several := min(counters, keys)
	for i := range keys {
		found, err := client.Incr(ctx, fmt.Sprintf("%s-counter:%d", prefix, i%several)).Result()
		expect(c, fmt.Sprintf("INCR %d", i), found, err, int64(i/several+1))
	}

	for first := 0; first < keys; first += batch {
		last := min(first+batch, keys)
		answers, err := client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
			for i := first; i < last; i++ {
				pipe.Set(ctx, key(i), fmt.Sprintf("piped %d", i), 0)
			}
			return nil
		})
		expect(c, fmt.Sprintf("pipeline of SET from %d", first), len(answers), err, last-first)
		answers, err = client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
			for i := first; i < last; i++ {
				pipe.Get(ctx, key(i))
			}
			return nil
		})
		expect(c, fmt.Sprintf("pipeline of GET from %d", first), len(answers), err, last-first)
		for n, answer := range answers {
			text, ok := answer.(*redis.StringCmd)
			if !ok {
				c.fail("pipeline of GET from %d: answer %d is a %T", first, n, answer)
				continue
			}
			expect(c, fmt.Sprintf("piped GET %d", first+n), text.Val(), text.Err(), fmt.Sprintf("piped %d", first+n))
		}
	}

	for i := range keys {
		found, err := client.Del(ctx, key(i)).Result()
		expect(c, fmt.Sprintf("DEL %d", i), found, err, 1)
		if value, err := client.Get(ctx, key(i)).Result(); !errors.Is(err, redis.Nil) {
			c.fail("GET %d after DEL: got %q, %v", i, value, err)
		}
	}
	features(ctx, client, c)
	nearCaches(ctx, client, address(), c)
}

const compareAndDelete = `if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end return 0`

// features is what clients build on top: transactions, scripts, messages.
func features(ctx context.Context, client *redis.ClusterClient, c *checked) {
	prefix := fmt.Sprintf("go-redis-features-%d-%d", os.Getpid(), time.Now().UnixNano())

	key := fmt.Sprintf("{%s}:transaction", prefix)
	answers, err := client.TxPipelined(ctx, func(pipe redis.Pipeliner) error {
		pipe.Set(ctx, key, 1, 0)
		pipe.Incr(ctx, key)
		return nil
	})
	expect(c, "transaction", len(answers), err, 2)
	found, err := client.Get(ctx, key).Result()
	expect(c, "GET after transaction", found, err, "2")

	lock := prefix + ":lock"
	script := redis.NewScript(compareAndDelete)
	if err := client.Set(ctx, lock, "mine", 0).Err(); err != nil {
		c.fail("SET before script: %v", err)
	}
	// The first run finds no script of that sum on the node and sends it.
	count, err := script.Run(ctx, client, []string{lock}, "other").Int()
	expect(c, "script that refuses", count, err, 0)
	count, err = script.Run(ctx, client, []string{lock}, "mine").Int()
	expect(c, "script that deletes", count, err, 1)

	hear := func(what string, listener *redis.PubSub, publish func(channel, message string) error, channel string) {
		defer func() {
			if err := listener.Close(); err != nil {
				c.fail("%s: closing: %v", what, err)
			}
		}()
		limited, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		if _, err := listener.Receive(limited); err != nil {
			c.fail("%s: subscribing: %v", what, err)
			return
		}
		if err := publish(channel, "hello"); err != nil {
			c.fail("%s: publishing: %v", what, err)
			return
		}
		message, err := listener.ReceiveMessage(limited)
		if err != nil {
			c.fail("%s: %v", what, err)
			return
		}
		expect(c, what, message.Payload, nil, "hello")
	}
	channel, shard := prefix+":channel", prefix+":shard"
	hear("message", client.Subscribe(ctx, channel), func(channel, message string) error {
		return client.Publish(ctx, channel, message).Err()
	}, channel)
	hear("sharded message", client.SSubscribe(ctx, shard), func(channel, message string) error {
		return client.SPublish(ctx, channel, message).Err()
	}, shard)
}

func main() {
	if len(os.Args) < 3 || len(os.Args) > 4 {
		fmt.Fprintln(os.Stderr, "usage: go-redis HOST PORT [KEYS|load]")
		os.Exit(2)
	}
	options := &redis.ClusterOptions{
		Addrs:    []string{address()},
		Password: os.Getenv("ANNULUS_PASSWORD"),
	}
	if folder := os.Getenv("ANNULUS_BINDING"); folder != "" {
		bind(options, folder)
	}
	client := redis.NewClusterClient(options)
	keys := 10000
	if len(os.Args) == 4 && os.Args[3] == "load" {
		if err := load(context.Background(), client); err != nil {
			fmt.Fprintln(os.Stderr, "error:", err)
			os.Exit(1)
		}
		return
	}
	if len(os.Args) == 4 {
		number, err := strconv.Atoi(os.Args[3])
		if err != nil || number < 1 {
			fmt.Fprintf(os.Stderr, "KEYS must be a positive number, not %q\n", os.Args[3])
			os.Exit(2)
		}
		keys = number
	}
	c := &checked{}
	begin := time.Now()
	work(context.Background(), client, keys, c)
	if err := client.Close(); err != nil {
		c.fail("closing: %v", err)
	}
	fmt.Printf("client=go-redis version=%s keys=%d errors=%d seconds=%.1f\n", version(), keys, c.errors, time.Since(begin).Seconds())
	if c.errors > 0 {
		os.Exit(1)
	}
}

func version() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, module := range info.Deps {
			if module.Path == "github.com/redis/go-redis/v9" {
				return module.Version
			}
		}
	}
	return "unknown"
}
