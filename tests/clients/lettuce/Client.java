// lettuce in cluster mode against a Redis Cluster: see tests/clients/README.md.

import io.lettuce.core.KeyValue;
import io.lettuce.core.LettuceVersion;
import io.lettuce.core.RedisException;
import io.lettuce.core.RedisFuture;
import io.lettuce.core.RedisURI;
import io.lettuce.core.ScriptOutputType;
import io.lettuce.core.TrackingArgs;
import io.lettuce.core.TransactionResult;
import io.lettuce.core.api.StatefulRedisConnection;
import io.lettuce.core.cluster.RedisClusterClient;
import io.lettuce.core.cluster.SlotHash;
import io.lettuce.core.cluster.api.StatefulRedisClusterConnection;
import io.lettuce.core.cluster.api.async.RedisAdvancedClusterAsyncCommands;
import io.lettuce.core.cluster.api.sync.RedisAdvancedClusterCommands;
import io.lettuce.core.cluster.pubsub.StatefulRedisClusterPubSubConnection;
import io.lettuce.core.pubsub.RedisPubSubAdapter;
import io.lettuce.core.support.caching.CacheAccessor;
import io.lettuce.core.support.caching.CacheFrontend;
import io.lettuce.core.support.caching.ClientSideCaching;
import java.time.Duration;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.function.BooleanSupplier;
import java.util.function.Function;
import java.util.function.Predicate;
import java.util.function.Supplier;
import java.util.logging.LogManager;
import java.util.stream.IntStream;

public final class Client {
  private static final int BATCH = 100;
  private static final int COUNTERS = 100;
  private static final int GROUP = 10;

  // The one option that is not the default, a minute: twenty errors of a lost node would take that many minutes.
  private static final Duration COMMAND_MAX = Duration.ofSeconds(5);

  private static final Duration HEAR_MAX = Duration.ofSeconds(10);
  private static final Duration RETURN_MAX = Duration.ofSeconds(60);

  @SuppressWarnings("serial")
  private static final class GaveUp extends RuntimeException {}

  /** Counts errors, prints the first five and gives up at twenty. */
  private static final class Checked {
    int errors = 0;

    void fail(String what) {
      errors += 1;
      if (errors <= 5) {
        System.err.println("error: " + what);
      }
      if (errors >= 20) {
        throw new GaveUp();
      }
    }

    <T> void expectThat(String what, Supplier<T> call, Predicate<T> isRight, String wanted) {
      T found;
      try {
        found = call.get();
      } catch (RedisException error) {
        fail(what + ": " + error);
        return;
      }
      if (!isRight.test(found)) {
        fail(what + ": got " + found + wanted);
      }
    }

    <T> void expect(String what, Supplier<T> call, T wanted) {
      expectThat(what, call, found -> Objects.equals(found, wanted), ", not " + wanted);
    }
  }

  /** The answers of commands that were sent together. */
  private static List<Object> answers(List<RedisFuture<?>> futures) {
    List<Object> found = new ArrayList<>();
    for (RedisFuture<?> future : futures) {
      try {
        found.add(future.get(COMMAND_MAX.toMillis(), TimeUnit.MILLISECONDS));
      } catch (ExecutionException | TimeoutException error) {
        throw new RedisException(error);
      } catch (InterruptedException error) {
        throw new IllegalStateException(error);
      }
    }
    return found;
  }

  private static void work(StatefulRedisClusterConnection<String, String> connection, int keys, Checked check) {
    RedisAdvancedClusterCommands<String, String> client = connection.sync();
    String prefix = "lettuce-" + ProcessHandle.current().pid() + "-" + System.nanoTime();

    for (int i = 0; i < keys; i++) {
      int n = i;
      check.expect("SET " + n, () -> client.set(prefix + ":" + n, "value " + n), "OK");
    }
    for (int i = 0; i < keys; i++) {
      int n = i;
      check.expect("GET " + n, () -> client.get(prefix + ":" + n), "value " + n);
    }

    for (int group = 0; group < keys; group += GROUP) {
      Map<String, String> pairs = new LinkedHashMap<>();
      for (int i = group; i < Math.min(group + GROUP, keys); i++) {
        pairs.put("{" + prefix + "-" + group + "}:" + i, "tagged " + i);
      }
      check.expect("MSET " + group, () -> client.mset(pairs), "OK");
      List<KeyValue<String, String>> wanted =
          pairs.entrySet().stream().map(pair -> KeyValue.just(pair.getKey(), pair.getValue())).toList();
      check.expect("MGET " + group, () -> client.mget(pairs.keySet().toArray(String[]::new)), wanted);
    }

    for (int i = 0; i < keys; i++) {
      String key = prefix + ":" + i;
      check.expect("EXPIRE " + i, () -> client.expire(key, 1000), true);
      check.<Long>expectThat("TTL " + i, () -> client.ttl(key), seconds -> seconds > 900 && seconds <= 1000, "");
    }

    int counters = Math.min(COUNTERS, keys);
    for (int i = 0; i < keys; i++) {
      String key = prefix + "-counter:" + i % counters;
      check.expect("INCR " + i, () -> client.incr(key), (long) (i / counters + 1));
    }

    // Commands for all nodes are written when they are flushed.
    RedisAdvancedClusterAsyncCommands<String, String> async = connection.async();
    connection.setAutoFlushCommands(false);
    for (int start = 0; start < keys; start += BATCH) {
      List<Integer> batch = IntStream.range(start, Math.min(start + BATCH, keys)).boxed().toList();
      Function<Function<Integer, RedisFuture<?>>, List<Object>> piped = command -> {
        List<RedisFuture<?>> sent = new ArrayList<>();
        batch.forEach(i -> sent.add(command.apply(i)));
        connection.flushCommands();
        return answers(sent);
      };
      check.expect("pipeline of SET from " + start,
          () -> piped.apply(i -> async.set(prefix + ":" + i, "piped " + i)), batch.stream().map(i -> (Object) "OK").toList());
      check.expect("pipeline of GET from " + start,
          () -> piped.apply(i -> async.get(prefix + ":" + i)), batch.stream().map(i -> (Object) ("piped " + i)).toList());
    }
    connection.setAutoFlushCommands(true);

    for (int i = 0; i < keys; i++) {
      int n = i;
      check.expect("DEL " + n, () -> client.del(prefix + ":" + n), 1L);
    }
    for (int i = 0; i < keys; i++) {
      int n = i;
      check.expect("GET " + n + " after DEL", () -> client.get(prefix + ":" + n), null);
    }
  }

  private static final String COMPARE_AND_DELETE =
      "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end return 0";

  /** The connection to the node that has the key: transactions and tracking are of one connection. */
  private static StatefulRedisConnection<String, String> nodeOf(
      StatefulRedisClusterConnection<String, String> connection, String key) {
    return connection.getConnection(connection.getPartitions().getPartitionBySlot(SlotHash.getSlot(key)).getNodeId());
  }

  /** What a subscription brings. */
  private static BlockingQueue<String> mailbox(StatefulRedisClusterPubSubConnection<String, String> listener) {
    BlockingQueue<String> mailbox = new LinkedBlockingQueue<>();
    listener.addListener(new RedisPubSubAdapter<String, String>() {
      @Override
      public void message(String channel, String message) {
        mailbox.add(channel + " " + message);
      }

      @Override
      public void smessage(String channel, String message) {
        mailbox.add("sharded " + channel + " " + message);
      }
    });
    return mailbox;
  }

  private static String next(BlockingQueue<String> mailbox, Duration max) {
    try {
      return mailbox.poll(max.toMillis(), TimeUnit.MILLISECONDS);
    } catch (InterruptedException error) {
      throw new IllegalStateException(error);
    }
  }

  /** Tries until it works or the time is over; whether it did. */
  private static boolean eventually(Duration max, BooleanSupplier attempt) {
    long end = System.nanoTime() + max.toNanos();
    while (System.nanoTime() < end) {
      try {
        if (attempt.getAsBoolean()) {
          return true;
        }
        Thread.sleep(20);
      } catch (RedisException error) {
        // Tried again.
      } catch (InterruptedException error) {
        throw new IllegalStateException(error);
      }
    }
    return false;
  }

  /** What clients build on top: transactions, scripts, messages, caches of their own. */
  private static void features(
      RedisClusterClient cluster, StatefulRedisClusterConnection<String, String> connection, Checked check) {
    RedisAdvancedClusterCommands<String, String> client = connection.sync();
    String prefix = "lettuce-features-" + ProcessHandle.current().pid() + "-" + System.nanoTime();

    String key = prefix + ":transaction";
    check.expect("transaction", () -> {
      var node = nodeOf(connection, key).sync();
      node.multi();
      node.set(key, "1");
      node.incr(key);
      TransactionResult result = node.exec();
      return result.stream().toList();
    }, List.<Object>of("OK", 2L));

    String lock = prefix + ":lock";
    String[] locks = {lock};
    check.expect("SET before script", () -> client.set(lock, "mine"), "OK");
    check.expect("script that refuses",
        () -> client.<Long>eval(COMPARE_AND_DELETE, ScriptOutputType.INTEGER, locks, "other"), 0L);
    check.expect("script that deletes",
        () -> client.<Long>eval(COMPARE_AND_DELETE, ScriptOutputType.INTEGER, locks, "mine"), 1L);
    check.expect("script by its sum", () -> {
      String sum = client.scriptLoad("return {KEYS[1], ARGV[1]}");
      return client.<List<String>>evalsha(sum, ScriptOutputType.MULTI, locks, "x");
    }, List.of(lock, "x"));

    try (StatefulRedisClusterPubSubConnection<String, String> listener = cluster.connectPubSub()) {
      BlockingQueue<String> mailbox = mailbox(listener);
      String channel = prefix + ":channel";
      listener.sync().subscribe(channel);
      check.<Long>expectThat("PUBLISH", () -> client.publish(channel, "hello"), Objects::nonNull, "");
      check.expect("message", () -> next(mailbox, HEAR_MAX), channel + " hello");

      String shard = prefix + ":shard";
      listener.sync().ssubscribe(shard);
      check.expect("SPUBLISH", () -> client.spublish(shard, "there"), 1L);
      check.expect("sharded message", () -> next(mailbox, HEAR_MAX), "sharded " + shard + " there");
    }

    // A cache is of one connection, and so, in a cluster, of one node's keys.
    try (StatefulRedisClusterConnection<String, String> caching = cluster.connect()) {
      String cached = prefix + ":cached";
      client.set(cached, "old");
      Map<String, String> held = new ConcurrentHashMap<>();
      CacheFrontend<String, String> cache = ClientSideCaching.enable(
          CacheAccessor.forMap(held), nodeOf(caching, cached), TrackingArgs.Builder.enabled());
      check.expect("read into the client's cache", () -> cache.get(cached), "old");
      check.expect("what the cache holds", () -> held.get(cached), "old");
      client.set(cached, "new");
      check.expect("the client's cache follows",
          () -> eventually(HEAR_MAX, () -> "new".equals(cache.get(cached))), true);
      cache.close();
    }
  }

  /** A node restarts; the same connections reach every slot again, and hear messages again. */
  private static void comeBack(RedisClusterClient cluster, StatefulRedisClusterConnection<String, String> connection,
      String restart, Checked check) throws Exception {
    RedisAdvancedClusterCommands<String, String> client = connection.sync();
    String prefix = "lettuce-restart-" + ProcessHandle.current().pid() + "-" + System.nanoTime();
    try (StatefulRedisClusterPubSubConnection<String, String> listener = cluster.connectPubSub()) {
      BlockingQueue<String> mailbox = mailbox(listener);
      String channel = prefix + ":channel";
      listener.sync().subscribe(channel);

      Process process = new ProcessBuilder("sh", "-c", restart)
          .redirectOutput(ProcessBuilder.Redirect.to(new java.io.File("/dev/stderr")))
          .redirectError(ProcessBuilder.Redirect.INHERIT).start();
      int status = process.waitFor();
      if (status != 0) {
        check.fail(restart + ": exit status " + status);
      }

      long end = System.nanoTime() + RETURN_MAX.toNanos();
      for (int i = 0; i < 200; i++) {
        String key = prefix + ":" + i;
        String value = "value " + i;
        Duration left = Duration.ofNanos(Math.max(end - System.nanoTime(), Duration.ofSeconds(1).toNanos()));
        check.expect("key " + i + " after the restart", () -> eventually(left, () -> {
          client.set(key, value);
          return value.equals(client.get(key));
        }), true);
      }
      check.expect("message after the restart", () -> eventually(RETURN_MAX, () -> {
        client.publish(channel, "again");
        return (channel + " again").equals(next(mailbox, Duration.ofMillis(500)));
      }), true);
    }
  }

  public static void main(String[] arguments) throws Exception {
    if (arguments.length < 2 || arguments.length > 3) {
      System.err.println("usage: Client HOST PORT [KEYS]");
      System.exit(2);
    }
    // Reconnecting is part of the test, and what comes of it is checked.
    LogManager.getLogManager().reset();
    int keys = arguments.length == 3 ? Integer.parseInt(arguments[2]) : 10_000;
    Checked check = new Checked();
    long begin = System.nanoTime();
    RedisURI.Builder uri = RedisURI.builder().withHost(arguments[0]).withPort(Integer.parseInt(arguments[1])).withTimeout(COMMAND_MAX);
    String password = System.getenv("ANNULUS_PASSWORD");
    if (password != null && !password.isEmpty()) {
      uri.withPassword(password.toCharArray());
    }
    RedisClusterClient cluster = RedisClusterClient.create(uri.build());
    try (StatefulRedisClusterConnection<String, String> connection = cluster.connect()) {
      work(connection, keys, check);
      features(cluster, connection, check);
      String restart = System.getenv("ANNULUS_RESTART");
      if (restart != null && !restart.isEmpty()) {
        comeBack(cluster, connection, restart, check);
      }
    } catch (GaveUp gaveUp) {
      System.err.println("error: gave up after " + check.errors + " errors");
    } catch (RedisException error) {
      check.errors += 1;
      System.err.println("error: " + error + (error.getCause() == null ? "" : ": " + error.getCause()));
    }
    cluster.shutdown(Duration.ZERO, Duration.ofSeconds(2));
    System.out.printf("client=lettuce version=%s keys=%d errors=%d seconds=%.1f%n",
        LettuceVersion.getVersion(), keys, check.errors, (System.nanoTime() - begin) / 1e9);
    System.exit(check.errors > 0 ? 1 : 0);
  }
}
