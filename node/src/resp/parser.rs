//! Reads commands out of a buffer of received bytes, without copying and without recursion.
//!
//! Invariants: what the parser keeps is bounded by what was received, never by what a length claims; bytes are
//! looked at once, however they were split on the way; arguments are ranges of the buffer, so that a
//! command costs no allocation. After an error the stream has no meaning and the connection must end.

use std::fmt;

use super::{inline, number};

/// A line that has no end after that many bytes is refused.
const LINE_BYTES_MAX: usize = 64 << 10;

/// Arguments that are kept room for between commands.
const SPANS_KEPT_MAX: usize = 1024;

/// Where an argument stands in its buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: usize,
    pub(super) end: usize,
}

/// What a connection may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Whether its user is known; strangers get tighter limits.
    pub authenticated: bool,
    /// The longest argument.
    pub bulk_bytes_max: usize,
}

impl Limits {
    /// The most arguments of a command.
    pub const ARGS_MAX: i64 = 1 << 20;
    /// The most arguments before authentication.
    pub const STRANGER_ARGS_MAX: i64 = 10;
    /// The longest argument before authentication.
    pub const STRANGER_BULK_BYTES_MAX: usize = 16 << 10;
    /// The longest argument unless configured.
    pub const BULK_BYTES_MAX_DEFAULT: usize = 512 << 20;
}

/// What was received is not the protocol. Displayed as the error reply that goes out before the close.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProtocolError {
    /// The number of arguments is not a number, or too high.
    InvalidMultibulkLength,
    /// Too many arguments before authentication.
    UnauthenticatedMultibulkLength,
    /// The number of arguments doesn't end.
    TooBigMultibulkCount,
    /// An argument doesn't begin with `$`.
    ExpectedDollar(u8),
    /// The length of an argument is not a number, or too high.
    InvalidBulkLength,
    /// Too long an argument before authentication.
    UnauthenticatedBulkLength,
    /// The length of an argument doesn't end.
    TooBigBulkCount,
    /// A length or an argument is not followed by CR LF.
    ExpectedLineEnd,
    /// A plain line doesn't end.
    TooBigInline,
    /// The quotes of a plain line don't match.
    UnbalancedQuotes,
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ERR Protocol error: ")?;
        match self {
            Self::InvalidMultibulkLength => f.write_str("invalid multibulk length"),
            Self::UnauthenticatedMultibulkLength => f.write_str("unauthenticated multibulk length"),
            Self::TooBigMultibulkCount => f.write_str("too big mbulk count string"),
            Self::ExpectedDollar(found) if found.is_ascii() => {
                write!(f, "expected '$', got '{}'", char::from(*found))
            }
            Self::ExpectedDollar(_) => f.write_str("expected '$', got ' '"),
            Self::InvalidBulkLength => f.write_str("invalid bulk length"),
            Self::UnauthenticatedBulkLength => f.write_str("unauthenticated bulk length"),
            Self::TooBigBulkCount => f.write_str("too big bulk count string"),
            Self::ExpectedLineEnd => f.write_str("expected CRLF"),
            Self::TooBigInline => f.write_str("too big inline request"),
            Self::UnbalancedQuotes => f.write_str("unbalanced quotes in request"),
        }
    }
}

impl std::error::Error for ProtocolError {}

/// The arguments of a command, its name included.
#[derive(Clone, Copy)]
pub struct Args<'a> {
    text: &'a [u8],
    spans: &'a [Span],
}

impl<'a> Args<'a> {
    /// How many there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// The argument at that index, if there is one.
    #[inline]
    pub fn get(&self, index: usize) -> Option<&'a [u8]> {
        self.spans.get(index).map(|span| &self.text[span.start..span.end])
    }

    /// The argument at an index that the command's arity guarantees.
    ///
    /// # Panics
    ///
    /// When there is no such argument.
    #[inline]
    pub fn at(&self, index: usize) -> &'a [u8] {
        let span = self.spans[index];
        &self.text[span.start..span.end]
    }

    /// The arguments from that index on.
    #[inline]
    pub fn from(&self, index: usize) -> impl ExactSizeIterator<Item = &'a [u8]> + Clone + use<'a> {
        let text = self.text;
        self.spans
            .get(index..)
            .unwrap_or_default()
            .iter()
            .map(move |span| &text[span.start..span.end])
    }

    /// The same arguments without the first ones.
    #[must_use]
    pub fn skip(&self, count: usize) -> Self {
        Self {
            text: self.text,
            spans: self.spans.get(count..).unwrap_or_default(),
        }
    }

    /// The first arguments, at most `count` of them.
    #[must_use]
    pub fn first(&self, count: usize) -> Self {
        Self {
            text: self.text,
            spans: self.spans.get(..count).unwrap_or(self.spans),
        }
    }
}

/// Arguments that outlive the buffer that they were received in.
#[derive(Debug, Default)]
pub struct OwnedArgs {
    text: Vec<u8>,
    spans: Vec<Span>,
}

impl From<Args<'_>> for OwnedArgs {
    fn from(args: Args<'_>) -> Self {
        let mut owned = Self {
            text: Vec::with_capacity(args.from(0).map(<[u8]>::len).sum()),
            spans: Vec::with_capacity(args.len()),
        };
        args.from(0).for_each(|arg| owned.push(arg));
        owned
    }
}

impl OwnedArgs {
    /// Adds an argument behind the others.
    pub fn push(&mut self, arg: &[u8]) {
        let start = self.text.len();
        self.text.extend_from_slice(arg);
        self.spans.push(Span {
            start,
            end: self.text.len(),
        });
    }

    /// The arguments.
    pub fn as_args(&self) -> Args<'_> {
        Args {
            text: &self.text,
            spans: &self.spans,
        }
    }

    /// What they take in memory.
    pub fn bytes(&self) -> usize {
        self.text.capacity() + self.spans.capacity() * size_of::<Span>()
    }
}

impl fmt::Debug for Args<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.from(0).map(<[u8]>::escape_ascii))
            .finish()
    }
}

/// What a parser knows of the command that it is reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing yet.
    Start,
    /// So many arguments are still to come, and the next begins with its length.
    Length { left: usize },
    /// So many arguments are still to come, and the next has this length.
    Bulk { left: usize, len: usize },
}

/// A command that was read and is to be executed later.
#[derive(Debug, Clone, Copy)]
pub struct Kept {
    /// Where its arguments begin and end among those of all kept commands, each of which has at most
    /// [`Limits::ARGS_MAX`].
    first_span: u32,
    end_span: u32,
}

/// Reads one command after the other.
#[derive(Debug)]
pub struct Parser {
    state: State,
    /// Bytes of the command that are done with.
    position: usize,
    /// The arguments of the commands that are kept, and of the one that is being read.
    spans: Vec<Span>,
    /// Where those of the one that is being read begin.
    first_span: usize,
    /// The words of a plain line, unescaped; spans refer to it when `is_inline`.
    inline_text: Vec<u8>,
    is_inline: bool,
}

impl Default for Parser {
    fn default() -> Self {
        Self::new()
    }
}

impl Parser {
    /// A parser at the start of a command.
    pub fn new() -> Self {
        Self {
            state: State::Start,
            position: 0,
            spans: Vec::new(),
            first_span: 0,
            inline_text: Vec::new(),
            is_inline: false,
        }
    }

    /// Goes on with the command that `input` begins with. `input` is everything received of it so far.
    /// `Ok(Some(length))`: it is complete and takes that many bytes; [`Self::args`] gives its arguments, of which
    /// there may be none. `Ok(None)`: more bytes are needed.
    #[inline]
    pub fn advance(&mut self, input: &[u8], limits: Limits) -> Result<Option<usize>, ProtocolError> {
        loop {
            match self.state {
                State::Start => match input.first() {
                    None => return Ok(None),
                    Some(b'*') => {
                        let Some(count) = self.header(input, limits)? else {
                            return Ok(None);
                        };
                        if count == 0 {
                            return Ok(Some(self.position));
                        }
                        self.state = State::Length { left: count };
                    }
                    Some(_) => return self.advance_inline(input),
                },
                State::Length { left } => {
                    let Some(len) = self.bulk_length(input, limits)? else {
                        return Ok(None);
                    };
                    self.state = State::Bulk { left, len };
                }
                State::Bulk { left, len } => {
                    let end = self.position + len;
                    let Some(line_end) = input.get(end..end + 2) else {
                        return Ok(None);
                    };
                    if line_end != b"\r\n" {
                        return Err(ProtocolError::ExpectedLineEnd);
                    }
                    self.spans.push(Span {
                        start: self.position,
                        end,
                    });
                    self.position = end + 2;
                    if left == 1 {
                        return Ok(Some(self.position));
                    }
                    self.state = State::Length { left: left - 1 };
                }
            }
        }
    }

    /// The arguments of the command that `input` begins with and [`Self::advance`] has just completed.
    #[inline]
    pub fn args<'a>(&'a self, input: &'a [u8]) -> Args<'a> {
        Args {
            text: if self.is_inline { &self.inline_text } else { input },
            spans: &self.spans[self.first_span..],
        }
    }

    /// Keeps the command that was just completed for later, and makes ready for the one behind it. `None` for a
    /// plain line, of which there can be only one: it is to be executed before more is read.
    #[inline]
    pub fn keep(&mut self) -> Option<Kept> {
        if self.is_inline {
            return None;
        }
        let first_span = u32::try_from(self.first_span).ok()?;
        let end_span = u32::try_from(self.spans.len()).ok()?;
        self.first_span = self.spans.len();
        self.state = State::Start;
        self.position = 0;
        Some(Kept { first_span, end_span })
    }

    /// The arguments of a kept command that `input` begins with.
    #[inline]
    pub fn kept_args<'a>(&'a self, kept: Kept, input: &'a [u8]) -> Args<'a> {
        Args {
            text: input,
            spans: &self.spans[kept.first_span as usize..kept.end_span as usize],
        }
    }

    /// Forgets the kept commands, and goes on with the one that is being read.
    #[inline]
    pub fn forget_kept(&mut self) {
        self.spans.drain(..self.first_span);
        self.first_span = 0;
        self.give_back();
    }

    /// Makes ready for the command behind the one that was completed, and forgets the kept ones.
    #[inline]
    pub fn finish(&mut self) {
        self.state = State::Start;
        self.position = 0;
        self.first_span = 0;
        self.spans.clear();
        if self.is_inline {
            self.is_inline = false;
            self.inline_text.clear();
        }
        self.give_back();
    }

    /// Gives back what only an unusual command needed.
    #[inline]
    fn give_back(&mut self) {
        if self.spans.capacity() > SPANS_KEPT_MAX {
            self.spans.shrink_to(SPANS_KEPT_MAX);
        }
    }

    /// How long the command will be at least, as far as is known: a claim of the client, so room may be made
    /// for it bit by bit only.
    pub fn needed_bytes(&self) -> usize {
        match self.state {
            State::Bulk { len, .. } => self.position + len + 2,
            State::Start | State::Length { .. } => self.position + 1,
        }
    }

    /// Bytes that the parser holds beside the buffer.
    pub fn held_bytes(&self) -> usize {
        self.spans.capacity() * size_of::<Span>() + self.inline_text.capacity()
    }

    fn header(&mut self, input: &[u8], limits: Limits) -> Result<Option<usize>, ProtocolError> {
        let Some(text) = self.length_line(input, ProtocolError::TooBigMultibulkCount)? else {
            return Ok(None);
        };
        let count = number::parse_i64(text).filter(|&count| count <= Limits::ARGS_MAX);
        let count = count.ok_or(ProtocolError::InvalidMultibulkLength)?;
        if count > Limits::STRANGER_ARGS_MAX && !limits.authenticated {
            return Err(ProtocolError::UnauthenticatedMultibulkLength);
        }
        self.position += text.len() + 3;
        // Redis takes an array of none, or of a negative number, for no command at all.
        Ok(Some(usize::try_from(count).unwrap_or(0)))
    }

    fn bulk_length(&mut self, input: &[u8], limits: Limits) -> Result<Option<usize>, ProtocolError> {
        match input.get(self.position) {
            None => return Ok(None),
            Some(b'$') => {}
            Some(&other) => return Err(ProtocolError::ExpectedDollar(other)),
        }
        let Some(text) = self.length_line(input, ProtocolError::TooBigBulkCount)? else {
            return Ok(None);
        };
        let len = number::parse_i64(text).and_then(|len| usize::try_from(len).ok());
        let len = len
            .filter(|&len| len <= limits.bulk_bytes_max)
            .ok_or(ProtocolError::InvalidBulkLength)?;
        if len > Limits::STRANGER_BULK_BYTES_MAX && !limits.authenticated {
            return Err(ProtocolError::UnauthenticatedBulkLength);
        }
        self.position += text.len() + 3;
        Ok(Some(len))
    }

    /// The line behind the type byte at `position`, once its CR LF has arrived.
    #[inline]
    fn length_line<'a>(
        &self,
        input: &'a [u8],
        too_long: ProtocolError,
    ) -> Result<Option<&'a [u8]>, ProtocolError> {
        let line = &input[self.position + 1..];
        let Some(len) = line.iter().position(|&byte| byte == b'\r') else {
            return if line.len() > LINE_BYTES_MAX {
                Err(too_long)
            } else {
                Ok(None)
            };
        };
        match line.get(len + 1) {
            None => Ok(None),
            Some(b'\n') => Ok(Some(&line[..len])),
            Some(_) => Err(ProtocolError::ExpectedLineEnd),
        }
    }

    fn advance_inline(&mut self, input: &[u8]) -> Result<Option<usize>, ProtocolError> {
        let unseen = &input[self.position..];
        let Some(offset) = unseen.iter().position(|&byte| byte == b'\n') else {
            self.position = input.len();
            return if input.len() > LINE_BYTES_MAX {
                Err(ProtocolError::TooBigInline)
            } else {
                Ok(None)
            };
        };
        let end = self.position + offset;
        if end > LINE_BYTES_MAX {
            return Err(ProtocolError::TooBigInline);
        }
        let line = &input[..end];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        self.is_inline = true;
        inline::split(line, &mut self.inline_text, &mut self.spans)
            .map_err(|inline::UnbalancedQuotes| ProtocolError::UnbalancedQuotes)?;
        self.position = end + 1;
        Ok(Some(self.position))
    }
}

#[cfg(test)]
mod tests;
