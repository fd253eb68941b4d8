//! Commands on the node.

use crate::clock;
use crate::commands::{integer, is_word};
use crate::error::{CommandError, Outcome};
use crate::execute::Context;
use crate::resp::{Args, Reply};

/// The version of Redis whose clients find what they expect.
pub const REDIS_VERSION: &str = "7.4.0";

/// The version of Annulus.
pub const ANNULUS_VERSION: &str = env!("CARGO_PKG_VERSION");

/// `TIME`
///
/// The one command that reads the clock itself: its microseconds are what it is asked for.
pub fn time(_: &mut Context<'_>, _: Args<'_>, reply: &mut Reply) -> Outcome {
    let now_us = clock::now_us();
    reply.array(2);
    for part in [now_us / 1_000_000, now_us % 1_000_000] {
        reply.bulk_integer(i64::try_from(part).unwrap_or(i64::MAX));
    }
    Ok(())
}

/// `ROLE`: a master without replicas.
pub fn role(_: &mut Context<'_>, _: Args<'_>, reply: &mut Reply) -> Outcome {
    reply.array(3);
    reply.bulk(b"master");
    reply.integer(0);
    reply.array(0);
    Ok(())
}

/// `WAIT numreplicas timeout`: no replica has acknowledged anything, and none ever will, so it doesn't wait.
pub fn wait(_: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    integer(args.at(1))?;
    if integer(args.at(2))
        .map_err(|_| CommandError::Fixed("ERR timeout is not an integer or out of range"))?
        < 0
    {
        return Err(CommandError::Fixed("ERR timeout is negative"));
    }
    reply.integer(0);
    Ok(())
}

/// `INFO [section [section …]]`
pub fn info(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let text = super::info::render(context, |section, is_default| {
        let mut asked = args.from(1);
        if args.len() == 1 {
            return is_default;
        }
        asked.any(|word| {
            is_word(word, section)
                || is_word(word, "all")
                || is_word(word, "everything")
                || (is_word(word, "default") && is_default)
        })
    });
    reply.verbatim(&text);
    Ok(())
}
