//! Reads a pipeline's next commands before they are executed, so that what their keys need is on its way from memory.

use crate::resp::{Args, Kept, Limits, Parser, ProtocolError};
use crate::store::{Keyspace, PREFETCH_MAX, Store};

/// A command that is to be executed next.
#[derive(Debug, Clone, Copy, Default)]
pub struct Next {
    /// `None`: it is the one that the parser has just completed.
    kept: Option<Kept>,
    /// Bytes that it takes.
    pub len: usize,
}

impl Next {
    /// Its arguments; `input` begins with it.
    #[inline]
    pub fn args<'a>(&self, parser: &'a Parser, input: &'a [u8]) -> Args<'a> {
        match self.kept {
            Some(kept) => parser.kept_args(kept, input),
            None => parser.args(input),
        }
    }
}

/// The commands that were read ahead, in order.
#[derive(Debug)]
pub struct LookAhead {
    commands: [Next; PREFETCH_MAX],
    next: usize,
    end: usize,
    /// What stands behind them is not the protocol.
    error: Option<ProtocolError>,
}

impl LookAhead {
    /// Nothing is read yet.
    pub fn new() -> Self {
        Self {
            commands: Default::default(),
            next: 0,
            end: 0,
            error: None,
        }
    }

    /// The command that `input` begins with; `None` when it is not complete.
    #[inline]
    pub fn next(
        &mut self,
        parser: &mut Parser,
        input: &[u8],
        limits: Limits,
        store: (&Store, &Keyspace),
    ) -> Result<Option<Next>, ProtocolError> {
        if self.next == self.end {
            self.read(parser, input, limits, store);
        }
        match self.commands[..self.end].get(self.next) {
            Some(command) => Ok(Some(*command)),
            None => self.error.take().map_or(Ok(None), Err),
        }
    }

    /// The command was executed.
    #[inline]
    pub fn done(&mut self, parser: &mut Parser) {
        let was_kept = self.commands[self.next].kept.is_some();
        self.next += 1;
        if self.next == self.end {
            if was_kept {
                parser.forget_kept();
            } else {
                parser.finish();
            }
        }
    }

    /// No more is executed for now: what was read and not executed will be read again.
    #[inline]
    pub fn end(&self, parser: &mut Parser) {
        if self.next < self.end {
            parser.finish();
        }
    }

    fn read(&mut self, parser: &mut Parser, input: &[u8], limits: Limits, store: (&Store, &Keyspace)) {
        (self.next, self.end) = (0, 0);
        if self.error.is_some() {
            return;
        }
        // A stranger's next command may be one that makes it known.
        let count_max = if limits.authenticated { PREFETCH_MAX } else { 1 };
        let mut read = 0;
        while self.end < count_max {
            match parser.advance(&input[read..], limits) {
                Ok(None) => break,
                Ok(Some(len)) => {
                    let is_last = count_max == 1 || input.len() == read + len;
                    // A single command is at hand already.
                    let kept = if is_last && self.end == 0 {
                        None
                    } else {
                        parser.keep()
                    };
                    let ends = kept.is_none();
                    self.commands[self.end] = Next { kept, len };
                    self.end += 1;
                    read += len;
                    if ends {
                        break;
                    }
                }
                Err(error) => {
                    self.error = Some(error);
                    break;
                }
            }
        }
        if self.end > 1 {
            let mut begin = 0;
            let keys = self.commands[..self.end].iter().filter_map(|command| {
                let args = command.args(parser, &input[begin..]);
                begin += command.len;
                // Nearly all commands have their only key there; for others the hint is of no use.
                args.get(1)
            });
            let (store, keyspace) = store;
            store.prefetch(keyspace, keys);
        }
    }
}
