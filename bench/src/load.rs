//! Connections that send requests and count replies, all on one thread.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::protocol::{Protocol, key};
use crate::random::{Popularity, Random};

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Load {
    /// Of a hundred requests, so many are reads.
    pub reads_percent: u64,
    /// Which keys.
    pub popularity: Popularity,
    /// Length of values.
    pub value_bytes: usize,
    /// Requests that a connection sends before it waits for their replies.
    pub pipeline: usize,
    /// Connections.
    pub connections: usize,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Replies.
    pub operations: u64,
    /// How long that took.
    pub took: Duration,
    /// From when a request was due to its reply, in microseconds; empty unless there was a rate.
    pub latency_us: Histogram<u64>,
}

impl Outcome {
    /// Replies a second.
    #[expect(clippy::cast_precision_loss, reason = "fewer than 2^52")]
    pub fn per_second(&self) -> f64 {
        self.operations as f64 / self.took.as_secs_f64()
    }
}

struct Connection {
    stream: TcpStream,
    input: Vec<u8>,
    output: Vec<u8>,
    sent: usize,
    /// When each request without a reply was due; only the first of a pipeline is kept.
    due: Instant,
    outstanding: usize,
    is_writable: bool,
}

/// Open connections to one server.
pub struct Client {
    protocol: Protocol,
    connections: Vec<Connection>,
    poll: Poll,
    random: Random,
}

/// When requests are sent.
#[derive(Debug, Clone, Copy)]
pub enum Pace {
    /// As soon as the replies of a connection are there.
    Closed,
    /// So many a second, whether or not replies are there.
    Rate(f64),
}

impl Client {
    /// Connects.
    pub fn connect(protocol: Protocol, address: SocketAddr, connections: usize) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut open = Vec::with_capacity(connections);
        for index in 0..connections {
            let stream = std::net::TcpStream::connect(address)?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            let mut stream = TcpStream::from_std(stream);
            poll.registry().register(
                &mut stream,
                Token(index),
                Interest::READABLE.add(Interest::WRITABLE),
            )?;
            open.push(Connection {
                stream,
                input: Vec::new(),
                output: Vec::new(),
                sent: 0,
                due: Instant::now(),
                outstanding: 0,
                is_writable: true,
            });
        }
        Ok(Self {
            protocol,
            connections: open,
            poll,
            random: Random::new(42),
        })
    }

    /// Sets every key once.
    pub fn fill(&mut self, keys: u64, value_bytes: usize, ttl_s: Option<u32>) -> io::Result<()> {
        const BATCH: u64 = 64;
        let value = vec![b'v'; value_bytes];
        let mut next = 0;
        let protocol = self.protocol;
        self.drive(
            |_, out, _| {
                let upto = (next + BATCH).min(keys);
                for number in next..upto {
                    protocol.set(&key(number), &value, ttl_s, out);
                }
                let added = upto - next;
                next = upto;
                usize::try_from(added).unwrap_or_default()
            },
            Pace::Closed,
            None,
        )?;
        Ok(())
    }

    /// Puts the load on the server for that long.
    pub fn run(&mut self, load: &Load, pace: Pace, time: Duration) -> io::Result<Outcome> {
        let value = vec![b'v'; load.value_bytes];
        let protocol = self.protocol;
        let mut random = self.random.clone();
        self.random = Random::new(self.random.next());
        self.drive(
            |_, out, _| {
                for _ in 0..load.pipeline {
                    let key = key(load.popularity.draw(&mut random));
                    if random.next() % 100 < load.reads_percent {
                        protocol.get(&key, out);
                    } else {
                        protocol.set(&key, &value, None, out);
                    }
                }
                load.pipeline
            },
            pace,
            Some(time),
        )
    }

    /// Calls `next` for more requests of a connection until the time is over, or, without one, until there are
    /// no more; then waits for what is outstanding.
    fn drive(
        &mut self,
        mut next: impl FnMut(usize, &mut Vec<u8>, u64) -> usize,
        pace: Pace,
        time: Option<Duration>,
    ) -> io::Result<Outcome> {
        let begin = Instant::now();
        let mut latency_us = Histogram::new_with_bounds(1, 60_000_000, 3).map_err(io::Error::other)?;
        let mut operations = 0;
        let mut events = Events::with_capacity(1024);
        let mut batches: u64 = 0;
        let mut turn = 0;
        let mut exhausted = false;
        loop {
            let now = Instant::now();
            let over = exhausted || time.is_some_and(|time| now - begin >= time);
            if over
                && self
                    .connections
                    .iter()
                    .all(|connection| connection.outstanding == 0)
            {
                return Ok(Outcome {
                    operations,
                    took: begin.elapsed(),
                    latency_us,
                });
            }
            let mut waits = Duration::from_millis(100);
            if !over {
                match pace {
                    Pace::Closed => {
                        for (index, connection) in self.connections.iter_mut().enumerate() {
                            if connection.outstanding == 0 && !exhausted {
                                connection.due = now;
                                connection.outstanding = next(index, &mut connection.output, batches);
                                exhausted = connection.outstanding == 0;
                                batches += 1;
                                connection.flush()?;
                            }
                        }
                    }
                    Pace::Rate(per_second) => {
                        // A request that is due waits for a free connection; its time runs meanwhile.
                        loop {
                            #[expect(clippy::cast_precision_loss, reason = "fewer than 2^52")]
                            let due = begin + Duration::from_secs_f64(batches as f64 / per_second);
                            if due > now {
                                waits = due - now;
                                break;
                            }
                            let count = self.connections.len();
                            let free = (0..count)
                                .map(|step| (turn + step) % count)
                                .find(|&index| self.connections[index].outstanding == 0);
                            let Some(index) = free else { break };
                            turn = (index + 1) % count;
                            let connection = &mut self.connections[index];
                            connection.due = due;
                            connection.outstanding = next(index, &mut connection.output, batches);
                            batches += 1;
                            connection.flush()?;
                        }
                    }
                }
            }
            // The poll's clock ticks in milliseconds: shorter waits are spent looking.
            let timeout = if waits < Duration::from_millis(1) {
                Duration::ZERO
            } else {
                waits
            };
            self.poll.poll(&mut events, Some(timeout))?;
            for event in &events {
                let connection = &mut self.connections[event.token().0];
                if event.is_writable() {
                    connection.is_writable = true;
                    connection.flush()?;
                }
                if event.is_readable() {
                    let replies = connection.read(self.protocol)?;
                    if replies > 0 {
                        operations += replies;
                        if let Pace::Rate(_) = pace {
                            let waited = connection.due.elapsed().as_micros();
                            latency_us
                                .record(u64::try_from(waited).unwrap_or(u64::MAX).max(1))
                                .map_err(io::Error::other)?;
                        }
                    }
                }
            }
        }
    }
}

impl Connection {
    fn flush(&mut self) -> io::Result<()> {
        while self.is_writable && self.sent < self.output.len() {
            match self.stream.write(&self.output[self.sent..]) {
                Ok(written) => self.sent += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.is_writable = false,
                Err(error) => return Err(error),
            }
        }
        if self.sent == self.output.len() {
            self.output.clear();
            self.sent = 0;
        }
        Ok(())
    }

    /// Reads what is there and returns the number of replies.
    fn read(&mut self, protocol: Protocol) -> io::Result<u64> {
        const CHUNK: usize = 64 << 10;
        let mut replies = 0;
        loop {
            let filled = self.input.len();
            self.input.resize(filled + CHUNK, 0);
            let read = match self.stream.read(&mut self.input[filled..]) {
                Ok(0) => return Err(io::Error::other("the server closed a connection")),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                Err(error) => return Err(error),
            };
            self.input.truncate(filled + read);
            let mut done = 0;
            while let Some((len, is_error)) = protocol.reply(&self.input[done..]) {
                if is_error {
                    let text = String::from_utf8_lossy(&self.input[done..done + len]).into_owned();
                    return Err(io::Error::other(format!("the server answered {text}")));
                }
                done += len;
                replies += 1;
            }
            self.input.drain(..done);
            if read < CHUNK {
                break;
            }
        }
        self.outstanding -= usize::try_from(replies).unwrap_or_default();
        Ok(replies)
    }
}
