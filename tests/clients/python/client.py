"""redis-py in cluster mode against a Redis Cluster: see tests/clients/README.md."""

import os
import pathlib
import sys
import time

import redis
from load import load
from redis.cache import CacheConfig

BATCH = 100
COUNTERS = 100
GROUP = 10
# How soon a cache inside a client must have what another client wrote.
FOLLOWS_WITHIN_S = 1


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


COMPARE_AND_DELETE = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end return 0"


def heard(listener, receive, channel: str, data: str) -> bool:
    """Whether the message comes within ten seconds."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        message = receive(listener)
        if message and message["data"] == data.encode() and message["channel"] == channel.encode():
            return True
    return False


def features(client: redis.RedisCluster, options: dict, check: Checked) -> None:
    """What clients build on top: transactions, scripts, messages, caches of their own."""
    prefix = f"redis-py-features-{os.getpid()}-{time.time_ns()}"

    key = f"{{{prefix}}}:transaction"
    with client.pipeline(transaction=True) as pipe:
        pipe.set(key, "1")
        pipe.incr(key)
        check.expect("transaction", pipe.execute, lambda answers: len(answers) == 2 and answers[1] == 2)

    lock = f"{prefix}:lock"
    client.set(lock, "mine")
    check.expect("script that refuses", lambda: client.eval(COMPARE_AND_DELETE, 1, lock, "other"), 0)
    check.expect("script that deletes", lambda: client.eval(COMPARE_AND_DELETE, 1, lock, "mine"), 1)
    sha = client.script_load("return {KEYS[1], ARGV[1]}")
    check.expect("script by its sum", lambda: client.evalsha(sha, 1, lock, "x"), [lock.encode(), b"x"])

    channel = f"{prefix}:channel"
    with client.pubsub(ignore_subscribe_messages=True) as listener:
        listener.subscribe(channel)
        end = time.monotonic() + 10
        # The subscription is confirmed by a message that is ignored.
        while not listener.subscribed and time.monotonic() < end:
            listener.get_message(timeout=0.1)
        listener.get_message(timeout=1)
        client.publish(channel, "hello")
        receive = lambda source: source.get_message(timeout=0.1)
        check.expect("message", lambda: heard(listener, receive, channel, "hello"), True)

    shard = f"{prefix}:shard"
    with client.pubsub(ignore_subscribe_messages=True) as listener:
        listener.ssubscribe(shard)
        listener.get_sharded_message(timeout=1)
        client.spublish(shard, "there")
        receive = lambda source: source.get_sharded_message(timeout=0.1)
        check.expect("sharded message", lambda: heard(listener, receive, shard, "there"), True)

    # redis-py refuses to cache what servers before 7.4 answer.
    version = client.info("server", target_nodes=client.get_random_node())["redis_version"]
    if tuple(int(part) for part in version.split(".")[:2]) < (7, 4):
        return

    cached = f"{prefix}:cached"
    client.set(cached, "old")
    caching = redis.RedisCluster(**options, protocol=3, cache_config=CacheConfig())
    check.expect("read into the client's cache", lambda: caching.get(cached), b"old")
    check.expect("read from it", lambda: caching.get(cached), b"old")
    client.set(cached, "new")

    def follows() -> bool:
        end = time.monotonic() + FOLLOWS_WITHIN_S
        while time.monotonic() < end:
            if caching.get(cached) == b"new":
                return True
        return False

    check.expect("the client's cache follows within a second", follows, True)
    caching.close()


class Binding(redis.CredentialProvider):
    """User and password as the files of a binding have them at that time."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder

    def get_credentials(self) -> tuple[str, str]:
        return (self.folder / "username").read_text(), (self.folder / "password").read_text()


def bound(folder: pathlib.Path) -> dict:
    options = {"credential_provider": Binding(folder)}
    if (authorities := folder / "ca.crt").exists():
        options |= {"ssl": True, "ssl_ca_certs": str(authorities), "ssl_check_hostname": False}
    return options


def main() -> int:
    if len(sys.argv) not in (3, 4):
        print("usage: client.py HOST PORT [KEYS|load]", file=sys.stderr)
        return 2
    host, port = sys.argv[1], int(sys.argv[2])
    options = {"host": host, "port": port}
    if binding := os.environ.get("ANNULUS_BINDING"):
        options |= bound(pathlib.Path(binding))
    else:
        options["password"] = os.environ.get("ANNULUS_PASSWORD") or None
    if sys.argv[3:] == ["load"]:
        load(redis.RedisCluster(**options))
        return 0
    keys = int(sys.argv[3]) if len(sys.argv) == 4 else 10_000
    check = Checked()
    begin = time.monotonic()
    try:
        client = redis.RedisCluster(**options)
    except redis.RedisError as error:
        check.fail(f"connecting: {type(error).__name__}: {error}")
    else:
        try:
            work(client, keys, check)
            features(client, options, check)
        except GaveUp:
            print(f"error: gave up after {check.errors} errors", file=sys.stderr)
        client.close()
    seconds = time.monotonic() - begin
    print(f"client=redis-py version={redis.__version__} keys={keys} errors={check.errors} seconds={seconds:.1f}")
    return 1 if check.errors else 0


if __name__ == "__main__":
    sys.exit(main())
