//! Scripts: `EVAL`, `EVALSHA`, their read-only forms, and `SCRIPT`.

use crate::commands::is_word;
use crate::error::{CommandError, Outcome};
use crate::exclusive::Exclusive;
use crate::execute::Context;
use crate::resp::{Args, Reply, number};
use crate::script::{self, Request, Script, ScriptId};

const NO_SCRIPT: CommandError = CommandError::Fixed("NOSCRIPT No matching script. Please use EVAL.");

/// `EVAL script numkeys [key …] [arg …]`
pub fn eval<'a>(
    context: &mut Context<'a>,
    exclusive: &mut Exclusive<'a>,
    args: Args<'_>,
    reply: &mut Reply,
) -> Outcome {
    let script = context.space().scripts.lock().add(args.at(1))?;
    run(context, exclusive, (&script, false), args, reply)
}

/// `EVAL_RO script numkeys [key …] [arg …]`
pub fn eval_ro<'a>(
    context: &mut Context<'a>,
    exclusive: &mut Exclusive<'a>,
    args: Args<'_>,
    reply: &mut Reply,
) -> Outcome {
    let script = context.space().scripts.lock().add(args.at(1))?;
    run(context, exclusive, (&script, true), args, reply)
}

/// `EVALSHA sha1 numkeys [key …] [arg …]`
pub fn evalsha<'a>(
    context: &mut Context<'a>,
    exclusive: &mut Exclusive<'a>,
    args: Args<'_>,
    reply: &mut Reply,
) -> Outcome {
    let script = find(context, args)?;
    run(context, exclusive, (&script, false), args, reply)
}

/// `EVALSHA_RO sha1 numkeys [key …] [arg …]`
pub fn evalsha_ro<'a>(
    context: &mut Context<'a>,
    exclusive: &mut Exclusive<'a>,
    args: Args<'_>,
    reply: &mut Reply,
) -> Outcome {
    let script = find(context, args)?;
    run(context, exclusive, (&script, true), args, reply)
}

fn find(context: &Context<'_>, args: Args<'_>) -> Result<std::sync::Arc<Script>, CommandError> {
    ScriptId::parse(args.at(1))
        .and_then(|id| context.space().scripts.lock().find(id))
        .ok_or(NO_SCRIPT)
}

/// Runs a script, whose keys were counted when its slot was looked for.
fn run<'a>(
    context: &mut Context<'a>,
    exclusive: &mut Exclusive<'a>,
    (script, read_only): (&Script, bool),
    args: Args<'_>,
    reply: &mut Reply,
) -> Outcome {
    let keys = number::parse_i64(args.at(2)).and_then(|count| usize::try_from(count).ok());
    let keys = keys.unwrap_or(0);
    let request = Request {
        script,
        keys: args.skip(3).first(keys),
        argv: args.skip(3 + keys),
        read_only: read_only || script.flags.no_writes,
    };
    script::run(context, exclusive, &request, reply)
}

/// `SCRIPT LOAD script`
pub fn load(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let known = &context.space().scripts;
    let script = known.lock().add(args.at(2))?;
    script::check(&context.node.scripts, known, &script)?;
    reply.bulk(script.id.to_string().as_bytes());
    Ok(())
}

/// `SCRIPT EXISTS sha1 [sha1 …]`
pub fn exists(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    reply.array(args.len() - 2);
    for name in args.from(2) {
        let is_there = ScriptId::parse(name).is_some_and(|id| context.space().scripts.lock().has(id));
        reply.integer(is_there.into());
    }
    Ok(())
}

/// `SCRIPT SHOW sha1`
pub fn show(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let script = ScriptId::parse(args.at(2)).and_then(|id| context.space().scripts.lock().find(id));
    reply.bulk(script.ok_or(NO_SCRIPT)?.source());
    Ok(())
}

/// `SCRIPT FLUSH [ASYNC | SYNC]`: each thread throws its compiled scripts away before its next one.
pub fn flush(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let is_known = |word: &[u8]| is_word(word, "ASYNC") || is_word(word, "SYNC");
    if args.len() > 3 || !args.from(2).all(is_known) {
        return Err(CommandError::Fixed(
            "ERR SCRIPT FLUSH only support SYNC|ASYNC option",
        ));
    }
    context.space().scripts.lock().clear();
    if context.session.keyspace.tenant().is_none() {
        context.node.scripts.flush();
    }
    reply.ok();
    Ok(())
}

/// `SCRIPT KILL`
pub fn kill(context: &mut Context<'_>, _: Args<'_>, reply: &mut Reply) -> Outcome {
    context.node.scripts.kill(context.session.keyspace.id())?;
    reply.ok();
    Ok(())
}

/// `SCRIPT DEBUG …`
pub fn debug(_: &mut Context<'_>, _: Args<'_>, _: &mut Reply) -> Outcome {
    Err(CommandError::Fixed("ERR scripts can't be debugged here"))
}
