//! The slow log: the latest commands that took long, with what is needed to know them again.
//!
//! Of a command's arguments only the first are kept, and of each only its beginning; passwords are not.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::clients::Client;
use crate::resp::Args;

const ARGS_MAX: usize = 32;
const ARG_BYTES_MAX: usize = 128;
const REDACTED: &[u8] = b"(redacted)";

/// A command that took long.
#[derive(Debug)]
pub struct SlowCommand {
    /// When it ended, in seconds since the Unix epoch.
    pub at_s: u64,
    /// How long it took.
    pub took_us: u64,
    /// Its arguments, shortened.
    pub args: Vec<Box<[u8]>>,
    /// Who sent it.
    pub client: SocketAddr,
    /// The client's name.
    pub client_name: String,
}

impl SlowCommand {
    /// What is kept of a command.
    pub fn new(args: Args<'_>, took_us: u64, at_s: u64, client: &Client) -> Self {
        Self {
            at_s,
            took_us,
            args: shortened(args),
            client: client.remote,
            client_name: client.introduction.lock().name.clone(),
        }
    }
}

fn shortened(args: Args<'_>) -> Vec<Box<[u8]>> {
    let kept = if args.len() > ARGS_MAX {
        ARGS_MAX - 1
    } else {
        args.len()
    };
    let mut words: Vec<Box<[u8]>> = args
        .from(0)
        .take(kept)
        .enumerate()
        .map(|(place, arg)| {
            if is_secret(args, place) {
                return REDACTED.into();
            }
            let Some((begin, rest)) = arg.split_at_checked(ARG_BYTES_MAX) else {
                return arg.into();
            };
            if rest.is_empty() {
                return arg.into();
            }
            let mut word = begin.to_vec();
            word.extend_from_slice(format!("... ({} more bytes)", rest.len()).as_bytes());
            word.into()
        })
        .collect();
    if args.len() > kept {
        let note = format!("... ({} more arguments)", args.len() - kept);
        words.push(note.into_bytes().into());
    }
    words
}

/// Whether the argument is, or may be, a user's name or password.
fn is_secret(args: Args<'_>, place: usize) -> bool {
    let name = args.at(0);
    if name.eq_ignore_ascii_case(b"auth") {
        return place > 0;
    }
    if name.eq_ignore_ascii_case(b"hello") {
        return (1..place)
            .rev()
            .take(2)
            .any(|before| args.at(before).eq_ignore_ascii_case(b"auth"));
    }
    false
}

#[derive(Debug, Default)]
struct Log {
    /// The latest in front, each with its number.
    commands: VecDeque<(u64, Arc<SlowCommand>)>,
    next_id: u64,
}

/// The commands that took long.
#[derive(Debug, Default)]
pub struct SlowLog {
    log: Mutex<Log>,
}

impl SlowLog {
    /// Adds a command, and forgets the oldest ones that are too many then.
    pub fn push(&self, command: SlowCommand, len_max: usize) {
        let mut log = self.log.lock();
        let id = log.next_id;
        log.next_id += 1;
        log.commands.push_front((id, Arc::new(command)));
        log.commands.truncate(len_max);
    }

    /// So many at most, the latest first, with their numbers.
    pub fn latest(&self, count: usize) -> Vec<(u64, Arc<SlowCommand>)> {
        let log = self.log.lock();
        log.commands.iter().take(count).cloned().collect()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.log.lock().commands.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets all; numbers go on.
    pub fn clear(&self) {
        self.log.lock().commands = VecDeque::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::OwnedArgs;

    fn kept(words: &[&str]) -> Vec<String> {
        let mut args = OwnedArgs::default();
        for word in words {
            args.push(word.as_bytes());
        }
        shortened(args.as_args())
            .iter()
            .map(|word| word.escape_ascii().to_string())
            .collect()
    }

    #[test]
    fn what_is_kept_of_a_command() {
        assert_eq!(kept(&["SET", "a", "b"]), ["SET", "a", "b"]);
        let fits = "x".repeat(128);
        assert_eq!(kept(&["ECHO", &fits]), ["ECHO", &fits]);
        let cut = format!("{fits}... (2 more bytes)");
        assert_eq!(kept(&["ECHO", &format!("{fits}yz")]), ["ECHO", &cut]);
        assert_eq!(kept(&["DEL"; 32]).len(), 32);
        let many = kept(&["DEL"; 40]);
        assert_eq!((many.len(), many[31].as_str()), (32, "... (9 more arguments)"));
    }

    #[test]
    fn passwords_are_not_kept() {
        assert_eq!(kept(&["auth", "pw"]), ["auth", "(redacted)"]);
        assert_eq!(kept(&["AUTH", "me", "pw"]), ["AUTH", "(redacted)", "(redacted)"]);
        assert_eq!(
            kept(&["HELLO", "3", "AUTH", "me", "pw", "SETNAME", "x"]),
            ["HELLO", "3", "AUTH", "(redacted)", "(redacted)", "SETNAME", "x"]
        );
    }
}
