//! `SLOWLOG …`: the commands that took long.

use crate::commands::{integer, text};
use crate::error::{CommandError, Outcome};
use crate::execute::Context;
use crate::resp::{Args, Reply};

/// How many `SLOWLOG GET` shows when it isn't told.
const SHOWN_DEFAULT: usize = 10;

/// `SLOWLOG GET [count]`; -1 for all.
pub fn get(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let count = match args.get(2) {
        None => SHOWN_DEFAULT,
        Some(_) if args.len() > 3 => {
            return Err(CommandError::Other(format!(
                "ERR unknown subcommand or wrong number of arguments for '{}'. Try SLOWLOG HELP.",
                text(args.at(1))
            )));
        }
        Some(count) => match integer(count) {
            Ok(-1) => usize::MAX,
            Ok(count @ 0..) => usize::try_from(count).unwrap_or(usize::MAX),
            _ => {
                return Err(CommandError::Fixed(
                    "ERR count should be greater than or equal to -1",
                ));
            }
        },
    };
    let commands = context.space().slow_log.latest(count);
    reply.array(commands.len());
    for (id, command) in commands {
        reply.array(6);
        for number in [id, command.at_s, command.took_us] {
            reply.integer(i64::try_from(number).unwrap_or(i64::MAX));
        }
        reply.array(command.args.len());
        for arg in &command.args {
            reply.bulk(arg);
        }
        reply.bulk(command.client.to_string().as_bytes());
        reply.bulk(command.client_name.as_bytes());
    }
    Ok(())
}

/// `SLOWLOG LEN`
pub fn len(context: &mut Context<'_>, _: Args<'_>, reply: &mut Reply) -> Outcome {
    reply.count(context.space().slow_log.len());
    Ok(())
}

/// `SLOWLOG RESET`
pub fn reset(context: &mut Context<'_>, _: Args<'_>, reply: &mut Reply) -> Outcome {
    context.space().slow_log.clear();
    reply.ok();
    Ok(())
}
