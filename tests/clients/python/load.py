"""A load for redis-py, until standard input is closed: see tests/clients/README.md."""

import json
import sys
import threading
import time

import redis

CONNECTIONS = 4
KEYS = 250
# Each connection begins an operation this often, so that a slow machine is not measured instead of the cluster.
PERIOD_SECONDS = 0.01
ERROR_KINDS_MAX = 20


class Record:
    """Latencies by phase, and errors. Appending to a list needs no lock."""

    def __init__(self) -> None:
        self.phase = "start"
        self.latencies_ms: dict[str, list[float]] = {}
        self.failed: dict[str, int] = {}
        self.errors: dict[str, int] = {}
        self.lock = threading.Lock()
        self.stop = threading.Event()

    def done(self, phase: str, begun: float) -> None:
        self.latencies_ms.setdefault(phase, []).append((time.monotonic() - begun) * 1000)

    def fail(self, phase: str, what: str) -> None:
        with self.lock:
            kind = what[:200]
            if kind not in self.errors and len(self.errors) >= ERROR_KINDS_MAX:
                kind = "others"
            self.errors[kind] = self.errors.get(kind, 0) + 1
            self.failed[phase] = self.failed.get(phase, 0) + 1

    def figures(self) -> dict:
        phases = {}
        for phase, latencies_ms in self.latencies_ms.items():
            ordered = sorted(latencies_ms)
            phases[phase] = {
                "operations": len(ordered),
                "errors": self.failed.get(phase, 0),
                "p50_ms": ordered[len(ordered) // 2],
                "p99_ms": ordered[len(ordered) * 99 // 100],
                "max_ms": ordered[-1],
            }
        return {"client": "redis-py", "version": redis.__version__, "phases": phases, "errors": self.errors}


def work(client: redis.RedisCluster, number: int, record: Record) -> None:
    """Writes keys of its own and reads them back, one after the other. What a failed write left is not known."""
    written: dict[str, set[bytes | None]] = {}
    following = time.monotonic()
    count = 0
    while not record.stop.is_set():
        key = f"redis-py-load:{number}:{count // 2 % KEYS}"
        phase, begun = record.phase, time.monotonic()
        try:
            if count % 2 == 0:
                value = str(count).encode()
                possible = written.get(key, {None})
                written[key] = possible | {value}
                client.set(key, value)
                written[key] = {value}
            elif (found := client.get(key)) not in written[key]:
                record.fail(phase, f"GET: a wrong value: {found!r}, not {written[key]!r}")
        except Exception as error:  # whatever a program would see
            record.fail(phase, f"{'GET' if count % 2 else 'SET'}: {type(error).__name__}: {error}")
        record.done(phase, begun)
        count += 1
        following = max(following + PERIOD_SECONDS, time.monotonic())
        record.stop.wait(following - time.monotonic())


def load(client: redis.RedisCluster) -> None:
    record = Record()
    threads = [threading.Thread(target=work, args=(client, number, record)) for number in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    print("ready", flush=True)
    for line in sys.stdin:
        record.phase = line.strip()
    record.stop.set()
    for thread in threads:
        thread.join()
    print(json.dumps(record.figures()))
