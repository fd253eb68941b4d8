"""redis-py in cluster mode against a Redis Cluster: see tests/clients/README.md."""

import os
import sys
import time

import redis

BATCH = 100
COUNTERS = 100
GROUP = 10


class GaveUp(Exception):
    pass


class Checked:
    """Counts errors, prints the first five and gives up at twenty."""

    def __init__(self) -> None:
        self.errors = 0

    def fail(self, what: str) -> None:
        self.errors += 1
        if self.errors <= 5:
            print(f"error: {what}", file=sys.stderr)
        if self.errors >= 20:
            raise GaveUp

    def expect(self, what: str, call, wanted) -> None:
        try:
            found = call()
        except redis.RedisError as error:
            self.fail(f"{what}: {type(error).__name__}: {error}")
            return
        if not (wanted(found) if callable(wanted) else found == wanted):
            self.fail(f"{what}: got {found!r}" + ("" if callable(wanted) else f", not {wanted!r}"))


def work(client: redis.RedisCluster, keys: int, check: Checked) -> None:
    prefix = f"redis-py-{os.getpid()}-{time.time_ns()}"

    for i in range(keys):
        check.expect(f"SET {i}", lambda: client.set(f"{prefix}:{i}", f"value {i}"), True)
    for i in range(keys):
        check.expect(f"GET {i}", lambda: client.get(f"{prefix}:{i}"), f"value {i}".encode())

    for group in range(0, keys, GROUP):
        pairs = {f"{{{prefix}-{group}}}:{i}": f"tagged {i}" for i in range(group, min(group + GROUP, keys))}
        check.expect(f"MSET {group}", lambda: client.mset(pairs), True)
    for group in range(0, keys, GROUP):
        members = range(group, min(group + GROUP, keys))
        names = [f"{{{prefix}-{group}}}:{i}" for i in members]
        check.expect(f"MGET {group}", lambda: client.mget(names), [f"tagged {i}".encode() for i in members])

    for i in range(keys):
        check.expect(f"EXPIRE {i}", lambda: client.expire(f"{prefix}:{i}", 1000), True)
        check.expect(f"TTL {i}", lambda: client.ttl(f"{prefix}:{i}"), lambda seconds: 900 < seconds <= 1000)

    counters = min(COUNTERS, keys)
    for i in range(keys):
        check.expect(f"INCR {i}", lambda: client.incr(f"{prefix}-counter:{i % counters}"), i // counters + 1)

    for start in range(0, keys, BATCH):
        batch = range(start, min(start + BATCH, keys))
        with client.pipeline() as pipe:
            for i in batch:
                pipe.set(f"{prefix}:{i}", f"piped {i}")
            check.expect(f"pipeline of SET from {start}", pipe.execute, [True] * len(batch))
        with client.pipeline() as pipe:
            for i in batch:
                pipe.get(f"{prefix}:{i}")
            check.expect(f"pipeline of GET from {start}", pipe.execute, [f"piped {i}".encode() for i in batch])

    for i in range(keys):
        check.expect(f"DEL {i}", lambda: client.delete(f"{prefix}:{i}"), 1)
    for i in range(keys):
        check.expect(f"GET {i} after DEL", lambda: client.get(f"{prefix}:{i}"), None)


def main() -> int:
    if len(sys.argv) not in (3, 4):
        print("usage: client.py HOST PORT [KEYS]", file=sys.stderr)
        return 2
    host, port = sys.argv[1], int(sys.argv[2])
    keys = int(sys.argv[3]) if len(sys.argv) == 4 else 10_000
    check = Checked()
    begin = time.monotonic()
    try:
        client = redis.RedisCluster(host=host, port=port, password=os.environ.get("ANNULUS_PASSWORD") or None)
    except redis.RedisError as error:
        check.fail(f"connecting: {type(error).__name__}: {error}")
    else:
        try:
            work(client, keys, check)
        except GaveUp:
            print(f"error: gave up after {check.errors} errors", file=sys.stderr)
        client.close()
    seconds = time.monotonic() - begin
    print(f"client=redis-py version={redis.__version__} keys={keys} errors={check.errors} seconds={seconds:.1f}")
    return 1 if check.errors else 0


if __name__ == "__main__":
    sys.exit(main())
