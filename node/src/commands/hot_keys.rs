//! `HOTKEYS`: the keys that are used most.

use annulus_ring::Slot;

use crate::commands::{integer, is_word};
use crate::error::{CommandError, Outcome};
use crate::execute::Context;
use crate::resp::{Args, Reply};

/// How many are shown when it isn't told.
const SHOWN_DEFAULT: usize = 10;

/// `HOTKEYS [COUNT count]`
///
/// What clients did in the last second on this node, as far as a sample of the commands tells. Each cluster node knows of
/// its own slots only.
pub fn hot_keys(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let count = match (args.get(1), args.get(2), args.len()) {
        (None, _, _) => SHOWN_DEFAULT,
        (Some(word), Some(count), 3) if is_word(word, "COUNT") => {
            usize::try_from(integer(count)?).map_err(|_| CommandError::OffsetOutOfRange)?
        }
        _ => return Err(CommandError::Syntax),
    };
    let mut hottest = context.space().hot_keys.hottest(context.now_ms);
    hottest.truncate(count);
    reply.array(hottest.len());
    for hot in hottest {
        reply.map(5);
        reply.bulk(b"key");
        reply.bulk(&hot.key);
        for (name, number) in [
            ("slot", u64::from(Slot::for_key(&hot.key).number())),
            ("reads-per-second", hot.reads_per_second),
            ("writes-per-second", hot.writes_per_second),
            ("permille", hot.permille),
        ] {
            reply.bulk(name.as_bytes());
            reply.integer(i64::try_from(number).unwrap_or(i64::MAX));
        }
    }
    Ok(())
}
