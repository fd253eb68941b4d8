package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	loadConnections = 4
	loadKeys        = 250
	// Each connection begins an operation this often, so that a slow machine is not measured instead of the cluster.
	loadPeriod    = 10 * time.Millisecond
	errorKindsMax = 20
)

type phaseFigures struct {
	Operations int     `json:"operations"`
	Errors     int     `json:"errors"`
	P50        float64 `json:"p50_ms"`
	P99        float64 `json:"p99_ms"`
	Max        float64 `json:"max_ms"`
}

// record has latencies by phase, and errors.
type record struct {
	mutex     sync.Mutex
	phase     string
	latencies map[string][]float64
	failed    map[string]int
	errors    map[string]int
}

func (r *record) current() string {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	return r.phase
}

func (r *record) enter(phase string) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	r.phase = phase
}

func (r *record) done(phase string, took time.Duration, problem string) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	r.latencies[phase] = append(r.latencies[phase], float64(took.Microseconds())/1000)
	if problem == "" {
		return
	}
	kind := problem[:min(len(problem), 200)]
	if _, known := r.errors[kind]; !known && len(r.errors) >= errorKindsMax {
		kind = "others"
	}
	r.errors[kind]++
	r.failed[phase]++
}

func (r *record) figures() map[string]any {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	phases := map[string]phaseFigures{}
	for phase, latencies := range r.latencies {
		slices.Sort(latencies)
		phases[phase] = phaseFigures{
			Operations: len(latencies),
			Errors:     r.failed[phase],
			P50:        latencies[len(latencies)/2],
			P99:        latencies[len(latencies)*99/100],
			Max:        latencies[len(latencies)-1],
		}
	}
	return map[string]any{"client": "go-redis", "version": version(), "phases": phases, "errors": r.errors}
}

// loadOne writes keys of its own and reads them back, one after the other. What a failed write left is not known.
func loadOne(ctx context.Context, client *redis.ClusterClient, number int, r *record, stop *atomic.Bool) {
	possible := map[string][]string{}
	ticker := time.NewTicker(loadPeriod)
	defer ticker.Stop()
	for count := 0; !stop.Load(); count++ {
		key := fmt.Sprintf("go-redis-load:%d:%d", number, count/2%loadKeys)
		phase, begun, problem := r.current(), time.Now(), ""
		if count%2 == 0 {
			value := strconv.Itoa(count)
			if err := client.Set(ctx, key, value, 0).Err(); err != nil {
				problem = "SET: " + err.Error()
				if len(possible[key]) == 0 {
					possible[key] = []string{""}
				}
				possible[key] = append(possible[key], value)
			} else {
				possible[key] = []string{value}
			}
		} else {
			found, err := client.Get(ctx, key).Result()
			switch {
			case err != nil && !errors.Is(err, redis.Nil):
				problem = "GET: " + err.Error()
			case !slices.Contains(possible[key], found):
				problem = fmt.Sprintf("GET: a wrong value: %q, not %q", found, possible[key])
			}
		}
		r.done(phase, time.Since(begun), problem)
		<-ticker.C
	}
}

// load works until standard input is closed; each line there is the name of a new phase.
func load(ctx context.Context, client *redis.ClusterClient) error {
	if err := client.Ping(ctx).Err(); err != nil {
		return err
	}
	r := &record{phase: "start", latencies: map[string][]float64{}, failed: map[string]int{}, errors: map[string]int{}}
	var stop atomic.Bool
	var group sync.WaitGroup
	for number := range loadConnections {
		group.Add(1)
		go func() {
			defer group.Done()
			loadOne(ctx, client, number, r, &stop)
		}()
	}
	fmt.Println("ready")
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		r.enter(lines.Text())
	}
	stop.Store(true)
	group.Wait()
	return json.NewEncoder(os.Stdout).Encode(r.figures())
}
