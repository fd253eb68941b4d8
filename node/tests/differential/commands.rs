//! Random commands.

/// Which commands there are to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Hash,
    Set,
    List,
    SortedSet,
    /// All of them, and those on strings and keys, on the same keys.
    Mixed,
}

/// How two replies are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compare {
    Exact,
    AnyOrder,
    /// Random elements, of which only how many there are is the same.
    Shape,
    /// A collection's form; strings have more forms than are told apart here.
    Form,
}

/// `SplitMix64`: the same numbers from the same seed.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x2545_f491_4f6c_dd1d).wrapping_add(1))
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }

    fn pick<'a, T: ?Sized>(&mut self, choices: &[&'a T]) -> &'a T {
        choices[self.below(choices.len())]
    }
}

/// Templates: a word with `%` stands for a random one, or for several, and `~`, `!` or `?` at the end says how to
/// compare; every other word is itself.
const HASHES: &[&str] = &[
    "HSET %k %m %v",
    "HSET %k %pairs",
    "HSET %k %bigpairs",
    "HSET %k %m %v %m",
    "HMSET %k %pairs",
    "HSETNX %k %m %v",
    "HGET %k %m",
    "HMGET %k %m*",
    "HGETALL %k ~",
    "HKEYS %k ~",
    "HVALS %k ~",
    "HDEL %k %m*",
    "HDEL %k %big",
    "HEXISTS %k %m",
    "HLEN %k",
    "HSTRLEN %k %m",
    "HINCRBY %k %m %i",
    "HINCRBY %k big %i",
    "HINCRBY %k big 9223372036854775807",
    "HINCRBY %k big -9223372036854775808",
    "HINCRBYFLOAT %k %m %n",
    "HRANDFIELD %k !",
    "HRANDFIELD %k %c !",
    "HRANDFIELD %k %c WITHVALUES !",
    "HRANDFIELD %k %c WITHVALUES X",
    "HSCAN %k 0 COUNT 5000 ~",
    "HSCAN %k 0 MATCH *1* COUNT 5000 ~",
    "HSCAN %k 0 COUNT 0",
    "HSCAN %k x",
    "HSCAN %k 0 FOO 1",
];

const SETS: &[&str] = &[
    "SADD %k %m*",
    "SADD %k %big",
    "SREM %k %m*",
    "SREM %k %big",
    "SISMEMBER %k %m",
    "SMISMEMBER %k %m*",
    "SCARD %k",
    "SMEMBERS %k ~",
    "SPOP %k !",
    "SPOP %k %c !",
    "SPOP %k %c X",
    "SRANDMEMBER %k !",
    "SRANDMEMBER %k %c !",
    "SMOVE %k %k %m",
    "SINTER %k* ~",
    "SUNION %k* ~",
    "SDIFF %k* ~",
    "SINTERSTORE %k %k*",
    "SUNIONSTORE %k %k*",
    "SDIFFSTORE %k %k*",
    "SINTERCARD 2 %k %k",
    "SINTERCARD 2 %k %k LIMIT %c",
    "SINTERCARD %q %k %k",
    "SINTERCARD 1 %k LIMIT",
    "SINTERCARD 1 %k FOO 1",
    "SSCAN %k 0 COUNT 5000 ~",
    "SSCAN %k 0 MATCH *1* COUNT 5000 ~",
];

const LISTS: &[&str] = &[
    "LPUSH %k %m*",
    "RPUSH %k %m*",
    "RPUSH %k %v",
    "RPUSH %k %big",
    "LPUSHX %k %m*",
    "RPUSHX %k %m*",
    "LPOP %k",
    "RPOP %k",
    "LPOP %k %c",
    "RPOP %k %c",
    "RPOP %k %c X",
    "LLEN %k",
    "LRANGE %k %x %x",
    "LRANGE %k 0 -1",
    "LINDEX %k %x",
    "LSET %k %x %v",
    "LINSERT %k BEFORE %m %v",
    "LINSERT %k AFTER %m %v",
    "LINSERT %k FOO %m %v",
    "LREM %k %x %m",
    "LTRIM %k %x %x",
    "LTRIM %k 0 20",
    "LPOS %k %m",
    "LPOS %k %m RANK %r",
    "LPOS %k %m COUNT %c",
    "LPOS %k %m RANK %r COUNT %c MAXLEN %c",
    "LPOS %k %m FOO 1",
    "LMOVE %k %k LEFT RIGHT",
    "LMOVE %k %k RIGHT LEFT",
    "LMOVE %k %k LEFT LEFT",
    "LMOVE %k %k RIGHT RIGHT",
    "LMOVE %k %k RIGHT FOO",
    "RPOPLPUSH %k %k",
    "LMPOP 2 %k %k LEFT",
    "LMPOP 2 %k %k RIGHT COUNT %c",
    "LMPOP %q %k %k LEFT",
    "LMPOP 1 %k FOO",
    "LMPOP 1 %k LEFT COUNT",
    "LMPOP 1 %k LEFT COUNT 1 X",
];

const SORTED_SETS: &[&str] = &[
    "ZADD %k %s %m",
    "ZADD %k %s %m %s %m",
    "ZADD %k %bigscores",
    "ZADD %k NX %s %m",
    "ZADD %k XX CH %s %m %s %m",
    "ZADD %k GT CH %s %m %s %m",
    "ZADD %k LT %s %m",
    "ZADD %k INCR %s %m",
    "ZADD %k NX INCR %s %m",
    "ZADD %k XX INCR %s %m",
    "ZADD %k XX GT INCR %s %m",
    "ZADD %k XX LT INCR %s %m",
    "ZADD %k NX XX %s %m",
    "ZADD %k GT LT %s %m",
    "ZADD %k GT NX %s %m",
    "ZADD %k INCR %s %m %s %m",
    "ZADD %k %s",
    "ZADD %k CH %s",
    "ZINCRBY %k %s %m",
    "ZREM %k %m*",
    "ZREM %k %big",
    "ZSCORE %k %m",
    "ZMSCORE %k %m*",
    "ZCARD %k",
    "ZCOUNT %k %e %e",
    "ZLEXCOUNT %z %l %l",
    "ZRANGE %k %x %x",
    "ZRANGE %k 0 -1 WITHSCORES",
    "ZRANGE %k %x %x WITHSCORES REV",
    "ZRANGE %k %e %e BYSCORE",
    "ZRANGE %k %e %e BYSCORE REV WITHSCORES",
    "ZRANGE %k %e %e BYSCORE LIMIT %x %x",
    "ZRANGE %k %e %e BYSCORE REV LIMIT %x %x",
    "ZADD %z 0 %m 0 %m 0 %m",
    "ZADD %z 0 %m 0 m1 0 a",
    "ZADD %z %bigequal",
    "ZREM %z %m*",
    "ZRANGE %z %l %l BYLEX",
    "ZRANGE %z %l %l BYLEX REV",
    "ZRANGE %z %l %l BYLEX LIMIT %x %x",
    "ZRANGE %z %l %l BYLEX WITHSCORES",
    "ZRANGE %k 0 -1 LIMIT %x %x",
    "ZRANGE %k 0 -1 LIMIT 1",
    "ZRANGE %k 0 -1 FOO",
    "ZREVRANGE %k %x %x",
    "ZREVRANGE %k %x %x WITHSCORES",
    "ZREVRANGE %k 0 -1 REV",
    "ZRANGEBYSCORE %k %e %e WITHSCORES",
    "ZRANGEBYSCORE %k %e %e LIMIT %x %x",
    "ZREVRANGEBYSCORE %k %e %e WITHSCORES LIMIT %x %x",
    "ZRANGEBYLEX %z %l %l",
    "ZRANGEBYLEX %z %l %l LIMIT %x %x",
    "ZREVRANGEBYLEX %z %l %l LIMIT 0 10",
    "ZRANGEBYLEX %k - + WITHSCORES",
    "ZRANGESTORE %k %k %x %x",
    "ZRANGESTORE %k %k %e %e BYSCORE LIMIT %x %x",
    "ZRANGESTORE %k %z %l %l BYLEX REV",
    "ZRANGESTORE %k %k 0 -1 WITHSCORES",
    "ZRANK %k %m",
    "ZREVRANK %k %m",
    "ZPOPMIN %k",
    "ZPOPMAX %k",
    "ZPOPMIN %k %c",
    "ZPOPMAX %k %c",
    "ZPOPMAX %k %c X",
    "ZMPOP 2 %k %k MIN",
    "ZMPOP 2 %k %k MAX COUNT %c",
    "ZMPOP %q %k %k MAX",
    "ZMPOP 1 %k FOO",
    "ZRANDMEMBER %k !",
    "ZRANDMEMBER %k %c !",
    "ZRANDMEMBER %k %c WITHSCORES !",
    "ZRANDMEMBER %k %c FOO",
    "ZREMRANGEBYRANK %k %x %x",
    "ZREMRANGEBYSCORE %k %e %e",
    "ZREMRANGEBYLEX %z %l %l",
    "ZUNION 2 %k %k WITHSCORES",
    "ZUNION 3 %k %k %k WEIGHTS %w %w %w WITHSCORES",
    "ZUNION 2 %k %k AGGREGATE MIN WITHSCORES",
    "ZUNION 2 %k %k AGGREGATE MAX WEIGHTS 1 2 WITHSCORES",
    "ZUNION 2 %k %k AGGREGATE FOO",
    "ZUNION 2 %k %k WEIGHTS 1",
    "ZUNION 2 %k %k WEIGHTS 1 x",
    "ZUNION %q %k %k",
    "ZINTER 2 %k %k WITHSCORES",
    "ZINTER 3 %k %k %k WEIGHTS %w %w %w AGGREGATE MAX WITHSCORES",
    "ZINTER 2 %k %k",
    "ZDIFF 2 %k %k WITHSCORES",
    "ZDIFF 3 %k %k %k",
    "ZDIFF 2 %k %k WEIGHTS 1 2",
    "ZUNIONSTORE %k 2 %k %k",
    "ZUNIONSTORE %k 2 %k %k WEIGHTS %w %w AGGREGATE MIN",
    "ZUNIONSTORE %k 2 %k %k WITHSCORES",
    "ZUNIONSTORE %k %q %k %k",
    "ZINTERSTORE %k 2 %k %k",
    "ZINTERSTORE %k 2 %k %k WEIGHTS %w %w",
    "ZDIFFSTORE %k 2 %k %k",
    "ZINTERCARD 2 %k %k",
    "ZINTERCARD 2 %k %k LIMIT %c",
    "ZINTERCARD 2 %k %k LIMIT",
    "ZSCAN %k 0 COUNT 5000 ~",
];

const KEYS: &[&str] = &[
    "SET %k %v",
    "SET %k %v GET",
    "SET %k %v NX GET",
    "SETNX %k %v",
    "GET %k",
    "GETSET %k %v",
    "GETDEL %k",
    "GETEX %k PERSIST",
    "MGET %k %k %k",
    "APPEND %k x",
    "STRLEN %k",
    "SETRANGE %k 1 x",
    "GETRANGE %k 0 -1",
    "INCR %k",
    "INCRBYFLOAT %k 1",
    "TYPE %k",
    "DEL %k",
    "EXISTS %k %k",
    "COPY %k %k",
    "COPY %k %k REPLACE",
    "RENAME %k %k",
    "RENAMENX %k %k",
    "EXPIRE %k 1000",
    "PERSIST %k",
    "TTL %k",
];

/// What is the same only where nothing was stored that came out of other collections in another order.
const FORMS: &[&str] = &["OBJECT ENCODING %k ?", "TYPE %k", "TTL %k"];

pub fn any(kind: Kind, random: &mut Random) -> (Vec<Vec<u8>>, Compare) {
    let templates = match kind {
        Kind::Hash => HASHES,
        Kind::Set => SETS,
        Kind::List => LISTS,
        Kind::SortedSet => SORTED_SETS,
        Kind::Mixed => random.pick(&[KEYS, HASHES, SETS, LISTS, SORTED_SETS, KEYS]),
    };
    // Sets of sets are sources of sorted ones.
    let templates = match (kind, random.below(30)) {
        (Kind::SortedSet, 0) => SETS,
        (Kind::Hash | Kind::List, 0) => FORMS,
        (_, 1) => KEYS,
        _ => templates,
    };
    let template = random.pick(templates);
    let mut command = Vec::new();
    let mut compare = Compare::Exact;
    for word in template.split(' ') {
        match word {
            "~" => compare = Compare::AnyOrder,
            "!" => compare = Compare::Shape,
            "?" => compare = Compare::Form,
            _ => expand(word, random, &mut command),
        }
    }
    (command, compare)
}

fn expand(word: &str, random: &mut Random, command: &mut Vec<Vec<u8>>) {
    let times = 1 + random.below(4);
    let many = 100 + random.below(60);
    match word {
        "%k*" => (0..times).for_each(|_| command.push(key(random))),
        "%m*" => (0..times).for_each(|_| command.push(member(random))),
        "%big" => (0..many).for_each(|_| command.push(many_member(random))),
        "%pairs" => {
            for _ in 0..times {
                command.push(member(random));
                command.push(value(random));
            }
        }
        "%bigpairs" => {
            for _ in 0..many {
                command.push(many_member(random));
                command.push(value(random));
            }
        }
        "%bigscores" => {
            for _ in 0..many {
                command.push(random.below(20).to_string().into_bytes());
                command.push(many_member(random));
            }
        }
        "%bigequal" => {
            for _ in 0..many {
                command.push(b"0".to_vec());
                command.push(many_member(random));
            }
        }
        "%k" => command.push(key(random)),
        // A sorted set with equal scores only: elsewhere ranges of the alphabet mean nothing.
        "%z" => command.push(b"{t}equal".to_vec()),
        "%m" => command.push(member(random)),
        "%v" => command.push(value(random)),
        _ => {
            let choices = choices(word);
            let word = if choices.is_empty() {
                word
            } else {
                random.pick(choices)
            };
            command.push(word.as_bytes().to_vec());
        }
    }
}

/// What a word of numbers, ranges or ends stands for; nothing for a word that is itself.
fn choices(word: &str) -> &'static [&'static str] {
    match word {
        "%i" => &["1", "-5", "0", "9223372036854775808", "x", "1.5", ""],
        "%n" => &["1", "-5", "0.25", "1e3", "x", "inf", "nan", "", " 1", "3.0"],
        "%s" => &[
            "1",
            "2",
            "3",
            "-1",
            "0",
            "-0",
            "1.5",
            "-2.25",
            "inf",
            "-inf",
            "1e3",
            "x",
            "nan",
            "1e400",
            "1e-400",
            "0.1",
            "100000000000000000",
            "",
        ],
        "%w" => &["1", "2", "-1", "0", "0.5", "inf", "2", "3"],
        "%e" => &[
            "-inf", "+inf", "inf", "0", "1", "(1", "(2", "1.5", "-1", "(-inf", "(inf", "3", "x", "(", "10",
            "nan",
        ],
        "%l" => &[
            "-", "+", "[", "(", "[a", "(a", "[m1", "(m1", "[m2", "(m3", "[1", "x", "", "[zz", "--",
        ],
        "%c" => &[
            "0",
            "1",
            "2",
            "3",
            "5",
            "1000",
            "-1",
            "-4",
            "x",
            "9223372036854775807",
        ],
        "%q" => &["0", "1", "2", "1000", "-1", "x"],
        "%r" => &["0", "1", "2", "-1", "-2", "100", "x", "9223372036854775807"],
        "%x" => &[
            "0",
            "1",
            "2",
            "3",
            "10",
            "-1",
            "-2",
            "-3",
            "-10",
            "100",
            "-100",
            "130",
            "x",
            "9223372036854775807",
            "-9223372036854775807",
            "-9223372036854775808",
        ],
        _ => &[],
    }
}

fn key(random: &mut Random) -> Vec<u8> {
    format!("{{t}}{}", random.below(4)).into_bytes()
}

fn member(random: &mut Random) -> Vec<u8> {
    match random.below(20) {
        0 => Vec::new(),
        1 => vec![b'x'; 64],
        2 => vec![b'x'; 65],
        3 => b"-7".to_vec(),
        4 => many_member(random),
        5..=8 => random.below(4).to_string().into_bytes(),
        _ => format!("m{}", random.below(9)).into_bytes(),
    }
}

fn many_member(random: &mut Random) -> Vec<u8> {
    random.below(400).to_string().into_bytes()
}

fn value(random: &mut Random) -> Vec<u8> {
    match random.below(12) {
        0 => Vec::new(),
        1 => vec![b'v'; 64],
        2 => vec![b'v'; 65],
        // More digits before and behind the point than these would be rounded in Redis.
        3 => b"9007199254740993".to_vec(),
        4 => b"3.5".to_vec(),
        5 => b"1e2".to_vec(),
        6 if random.below(20) == 0 => vec![b'v'; 9000],
        _ => random.below(100).to_string().into_bytes(),
    }
}
