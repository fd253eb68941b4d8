// ioredis in cluster mode against a Redis Cluster: see tests/clients/README.md.
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import process from 'node:process';
import { setTimeout as pause } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';

import { Cluster } from 'ioredis';

const BATCH = 100;
const COUNTERS = 100;
const GROUP = 10;
const CONNECT_MS_MAX = 20_000;
const HEAR_MS_MAX = 10_000;
const RETURN_MS_MAX = 60_000;

class GaveUp extends Error {}

// Counts errors, prints the first five and gives up at twenty.
class Checked {
  errors = 0;

  fail(what) {
    this.errors += 1;
    if (this.errors <= 5) console.error(`error: ${what}`);
    if (this.errors >= 20) throw new GaveUp();
  }

  async expect(what, promise, wanted) {
    let found;
    try {
      found = await promise;
    } catch (error) {
      this.fail(`${what}: ${error}`);
      return;
    }
    const isRight = typeof wanted === 'function' ? wanted(found) : isDeepStrictEqual(found, wanted);
    if (!isRight) {
      this.fail(`${what}: got ${JSON.stringify(found)}` + (typeof wanted === 'function' ? '' : `, not ${JSON.stringify(wanted)}`));
    }
  }
}

// A client that is ready. ioredis itself tries for ever.
async function connect(host, port, more = {}) {
  const password = process.env.ANNULUS_PASSWORD || undefined;
  const client = new Cluster([{ host, port }], { redisOptions: { password }, ...more });
  let last = 'no answer';
  client.on('error', (error) => {
    last = error.lastNodeError ?? error;
  });
  const deadline = new AbortController();
  const isReady = new Promise((resolve) => client.once('ready', () => resolve(true)));
  const isLate = pause(CONNECT_MS_MAX, false, { signal: deadline.signal }).catch(() => false);
  const ready = await Promise.race([isReady, isLate]);
  deadline.abort();
  if (ready) return client;
  client.disconnect();
  throw new Error(`connecting: not ready after ${CONNECT_MS_MAX / 1000} s: ${last}`);
}

function range(first, end) {
  return Array.from({ length: end - first }, (_, index) => first + index);
}

// A pipeline answers one pair of error and value for each command.
function answered(values) {
  return values.map((value) => [null, value]);
}

async function work(client, keys, check) {
  const prefix = `ioredis-${process.pid}-${process.hrtime.bigint()}`;

  for (let i = 0; i < keys; i++) await check.expect(`SET ${i}`, client.set(`${prefix}:${i}`, `value ${i}`), 'OK');
  for (let i = 0; i < keys; i++) await check.expect(`GET ${i}`, client.get(`${prefix}:${i}`), `value ${i}`);

  for (let group = 0; group < keys; group += GROUP) {
    const members = range(group, Math.min(group + GROUP, keys));
    const pairs = members.flatMap((i) => [`{${prefix}-${group}}:${i}`, `tagged ${i}`]);
    await check.expect(`MSET ${group}`, client.mset(pairs), 'OK');
  }
  for (let group = 0; group < keys; group += GROUP) {
    const members = range(group, Math.min(group + GROUP, keys));
    const names = members.map((i) => `{${prefix}-${group}}:${i}`);
    await check.expect(`MGET ${group}`, client.mget(names), members.map((i) => `tagged ${i}`));
  }

  for (let i = 0; i < keys; i++) {
    await check.expect(`EXPIRE ${i}`, client.expire(`${prefix}:${i}`, 1000), 1);
    await check.expect(`TTL ${i}`, client.ttl(`${prefix}:${i}`), (seconds) => seconds > 900 && seconds <= 1000);
  }

  const counters = Math.min(COUNTERS, keys);
  for (let i = 0; i < keys; i++) {
    await check.expect(`INCR ${i}`, client.incr(`${prefix}-counter:${i % counters}`), Math.floor(i / counters) + 1);
  }

  // A pipeline of ioredis stays within one node: its keys share a hash tag.
  for (let start = 0; start < keys; start += BATCH) {
    const batch = range(start, Math.min(start + BATCH, keys));
    const name = (i) => `{${prefix}-piped-${start}}:${i}`;
    const sets = client.pipeline(batch.map((i) => ['set', name(i), `piped ${i}`]));
    await check.expect(`pipeline of SET from ${start}`, sets.exec(), answered(batch.map(() => 'OK')));
    const gets = client.pipeline(batch.map((i) => ['get', name(i)]));
    await check.expect(`pipeline of GET from ${start}`, gets.exec(), answered(batch.map((i) => `piped ${i}`)));
    const dels = client.pipeline(batch.map((i) => ['del', name(i)]));
    await check.expect(`pipeline of DEL from ${start}`, dels.exec(), answered(batch.map(() => 1)));
  }

  // Commands for all nodes at once, none waiting for the one before.
  for (let start = 0; start < keys; start += BATCH) {
    const batch = range(start, Math.min(start + BATCH, keys));
    const sets = Promise.all(batch.map((i) => client.set(`${prefix}:${i}`, `at once ${i}`)));
    await check.expect(`SET at once from ${start}`, sets, batch.map(() => 'OK'));
    const gets = Promise.all(batch.map((i) => client.get(`${prefix}:${i}`)));
    await check.expect(`GET at once from ${start}`, gets, batch.map((i) => `at once ${i}`));
  }

  for (let i = 0; i < keys; i++) await check.expect(`DEL ${i}`, client.del(`${prefix}:${i}`), 1);
  for (let i = 0; i < keys; i++) await check.expect(`GET ${i} after DEL`, client.get(`${prefix}:${i}`), null);
}

const COMPARE_AND_DELETE = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end return 0";

// Whether the event brings this message on this channel in time. Listens from the call on.
function hears(listener, event, channel, message, within = HEAR_MS_MAX) {
  return new Promise((resolve) => {
    const end = (heard) => {
      clearTimeout(timer);
      listener.off(event, onMessage);
      resolve(heard);
    };
    const onMessage = (on, text) => {
      if (on === channel && text === message) end(true);
    };
    const timer = setTimeout(end, within, false);
    listener.on(event, onMessage);
  });
}

// What clients build on top: transactions, scripts, messages.
async function features(client, host, port, check) {
  const prefix = `ioredis-features-${process.pid}-${process.hrtime.bigint()}`;

  const key = `{${prefix}}:transaction`;
  const transaction = client.multi().set(key, '1').incr(key).exec();
  await check.expect('transaction', transaction, answered(['OK', 2]));

  const lock = `${prefix}:lock`;
  await check.expect('SET before script', client.set(lock, 'mine'), 'OK');
  await check.expect('script that refuses', client.eval(COMPARE_AND_DELETE, 1, lock, 'other'), 0);
  await check.expect('script that deletes', client.eval(COMPARE_AND_DELETE, 1, lock, 'mine'), 1);
  // A command of its own: asked for by its sum, and sent whole where the node doesn't know it.
  client.defineCommand('echoThroughAScript', { numberOfKeys: 1, lua: 'return {KEYS[1], ARGV[1]}' });
  await check.expect('script by its sum', client.echoThroughAScript(lock, 'x'), [lock, 'x']);

  const listener = await connect(host, port, { shardedSubscribers: true });
  const channel = `${prefix}:channel`;
  await check.expect('SUBSCRIBE', listener.subscribe(channel), 1);
  const heard = hears(listener, 'message', channel, 'hello');
  await check.expect('PUBLISH', client.publish(channel, 'hello'), (receivers) => Number.isInteger(receivers));
  await check.expect('message', heard, true);

  const shard = `${prefix}:shard`;
  await check.expect('SSUBSCRIBE', listener.ssubscribe(shard), 1);
  const heardThere = hears(listener, 'smessage', shard, 'there');
  await check.expect('SPUBLISH', client.spublish(shard, 'there'), 1);
  await check.expect('sharded message', heardThere, true);
  await listener.quit();
}

// Tries until it works or the time is over.
async function eventually(what, deadline, attempt, check) {
  for (;;) {
    let problem;
    try {
      if (await attempt()) return;
      problem = 'another value than was written';
    } catch (error) {
      problem = error;
    }
    if (Date.now() > deadline) {
      check.fail(`${what}: still ${problem}`);
      return;
    }
    await pause(50);
  }
}

// A node restarts; the same clients reach every slot again, and hear messages again.
async function comeBack(client, host, port, restart, check) {
  const prefix = `ioredis-restart-${process.pid}-${process.hrtime.bigint()}`;
  const listener = await connect(host, port);
  const channel = `${prefix}:channel`;
  await check.expect('SUBSCRIBE', listener.subscribe(channel), 1);

  const { status } = spawnSync('sh', ['-c', restart], { stdio: ['ignore', 2, 2] });
  if (status !== 0) check.fail(`${restart}: exit status ${status}`);

  const deadline = Date.now() + RETURN_MS_MAX;
  for (let i = 0; i < 200; i++) {
    const writesAndReads = async () => {
      await client.set(`${prefix}:${i}`, `value ${i}`);
      return (await client.get(`${prefix}:${i}`)) === `value ${i}`;
    };
    await eventually(`key ${i} after the restart`, deadline, writesAndReads, check);
  }
  const hearsAgain = async () => {
    const heard = hears(listener, 'message', channel, 'again', 500);
    await client.publish(channel, 'again');
    return heard;
  };
  await eventually('message after the restart', deadline, hearsAgain, check);
  listener.disconnect();
}

async function main() {
  const [host, portText, keysText = '10000', ...rest] = process.argv.slice(2);
  const [port, keys] = [Number(portText), Number(keysText)];
  if (!Number.isInteger(port) || !Number.isInteger(keys) || keys < 1 || rest.length > 0) {
    console.error('usage: client.mjs HOST PORT [KEYS]');
    return 2;
  }
  const check = new Checked();
  const begin = process.hrtime.bigint();
  let client;
  try {
    client = await connect(host, port);
    await work(client, keys, check);
    await features(client, host, port, check);
    if (process.env.ANNULUS_RESTART) await comeBack(client, host, port, process.env.ANNULUS_RESTART, check);
  } catch (error) {
    if (error instanceof GaveUp) {
      console.error(`error: gave up after ${check.errors} errors`);
    } else {
      check.errors += 1;
      console.error(`error: ${error.message}`);
    }
  }
  client?.disconnect();
  const seconds = Number(process.hrtime.bigint() - begin) / 1e9;
  const manifest = createRequire(import.meta.url).resolve('ioredis/package.json');
  const { version } = JSON.parse(readFileSync(manifest, 'utf8'));
  console.log(`client=ioredis version=${version} keys=${keys} errors=${check.errors} seconds=${seconds.toFixed(1)}`);
  return check.errors > 0 ? 1 : 0;
}

process.exit(await main());
