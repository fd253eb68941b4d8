//! `CLIENT TRACKING` and its kin: what a client with a cache of its own is told.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::commands::{integer, is_word, text};
use crate::error::{CommandError, Outcome};
use crate::execute::Context;
use crate::resp::{Args, Reply};
use crate::tracking::{Consent, Mode, Redirect, TrackingOptions};

/// The options of `CLIENT TRACKING`, as they were given.
#[derive(Default)]
struct Given<'a> {
    redirect: Option<Redirect>,
    broadcast: bool,
    consents: Vec<Consent>,
    no_loop: bool,
    prefixes: Vec<&'a [u8]>,
}

impl<'a> Given<'a> {
    fn parse(context: &Context<'_>, args: Args<'a>) -> Result<Self, CommandError> {
        let mut given = Self::default();
        let mut words = args.from(3);
        while let Some(word) = words.next() {
            if is_word(word, "REDIRECT") {
                let id = words.next().ok_or(CommandError::Syntax)?;
                if given.redirect.is_some() {
                    return Err(CommandError::Fixed(
                        "ERR A client can only redirect to a single other client",
                    ));
                }
                given.redirect = Some(redirect(context, id)?);
            } else if is_word(word, "PREFIX") {
                given.prefixes.push(words.next().ok_or(CommandError::Syntax)?);
            } else if is_word(word, "BCAST") {
                given.broadcast = true;
            } else if is_word(word, "OPTIN") {
                given.consents.push(Consent::OptIn);
            } else if is_word(word, "OPTOUT") {
                given.consents.push(Consent::OptOut);
            } else if is_word(word, "NOLOOP") {
                given.no_loop = true;
            } else {
                return Err(CommandError::Syntax);
            }
        }
        Ok(given)
    }

    /// What they make of the options that the client has.
    fn over(self, current: &TrackingOptions) -> Result<TrackingOptions, CommandError> {
        const SWITCH_BROADCAST: &str = "ERR You can't switch BCAST mode on/off before disabling tracking for this \
                                        client, and then re-enabling it with a different mode.";
        const SWITCH_CONSENT: &str = "ERR You can't switch OPTIN/OPTOUT mode before disabling tracking for this \
                                      client, and then re-enabling it with a different mode.";
        let refused = |text| Err(CommandError::Fixed(text));
        if !self.broadcast && !self.prefixes.is_empty() {
            return refused("ERR PREFIX option requires BCAST mode to be enabled");
        }
        if current.mode != Mode::Off && self.broadcast != (current.mode == Mode::Broadcast) {
            return refused(SWITCH_BROADCAST);
        }
        if self.broadcast && !self.consents.is_empty() {
            return refused("ERR OPTIN and OPTOUT are not compatible with BCAST");
        }
        let consent = self.consents.first().copied().unwrap_or(Consent::Always);
        if self.consents.iter().any(|other| *other != consent) {
            return refused("ERR You can't specify both OPTIN mode and OPTOUT mode");
        }
        let mode = if self.broadcast {
            Mode::Broadcast
        } else {
            Mode::Keys(consent)
        };
        let (opt_in, opt_out) = (Mode::Keys(Consent::OptIn), Mode::Keys(Consent::OptOut));
        if [(opt_in, opt_out), (opt_out, opt_in)].contains(&(current.mode, mode)) {
            return refused(SWITCH_CONSENT);
        }
        let mut prefixes = current.prefixes.clone();
        check_overlap(&prefixes, &self.prefixes)?;
        prefixes.extend(self.prefixes.into_iter().map(Box::from));
        if self.broadcast && prefixes.is_empty() {
            prefixes.insert(Box::default());
        }
        Ok(TrackingOptions {
            mode,
            no_loop: self.no_loop,
            redirect: self.redirect,
            is_broken: false,
            prefixes,
            // Goes on counting.
            invalidations: current.invalidations,
        })
    }
}

fn redirect(context: &Context<'_>, id: &[u8]) -> Result<Redirect, CommandError> {
    let client = u64::try_from(integer(id)?)
        .ok()
        .and_then(|id| context.node.clients.find(id))
        .filter(|client| client.tenant() == context.session.keyspace.id())
        .ok_or(CommandError::Fixed(
            "ERR The client ID you want redirect to does not exist",
        ))?;
    Ok(Redirect {
        id: client.id,
        target: Arc::downgrade(&client),
    })
}

/// A key must not begin in two ways, or its change would be told twice.
fn check_overlap(existing: &BTreeSet<Box<[u8]>>, given: &[&[u8]]) -> Outcome {
    let overlap = |one: &[u8], other: &[u8]| one.starts_with(other) || other.starts_with(one);
    let refused = |prefix: &[u8], which: &str, other: &[u8]| {
        Err(CommandError::Other(format!(
            "ERR Prefix '{}' overlaps with {which} prefix '{}'. Prefixes for a single client must not overlap.",
            text(prefix),
            text(other)
        )))
    };
    for (place, prefix) in given.iter().enumerate() {
        if let Some(other) = existing.iter().find(|other| overlap(prefix, other)) {
            return refused(prefix, "an existing", other);
        }
        if let Some(other) = given[place + 1..].iter().find(|other| overlap(prefix, other)) {
            return refused(prefix, "another provided", other);
        }
    }
    Ok(())
}

/// `CLIENT TRACKING ON | OFF [REDIRECT id] [PREFIX prefix …] [BCAST] [OPTIN] [OPTOUT] [NOLOOP]`
pub fn tracking(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let given = Given::parse(context, args)?;
    let (store, session) = (&context.node.store, &mut *context.session);
    match args.at(2) {
        on if is_word(on, "ON") => {
            let options = given.over(&session.client.tracking.lock())?;
            session.tracked_reads = match options.mode {
                Mode::Keys(consent) => Some(consent),
                Mode::Off | Mode::Broadcast => None,
            };
            session
                .keyspace
                .space(store)
                .tracking
                .enable(&session.client, options);
        }
        off if is_word(off, "OFF") => session.end_tracking(store),
        _ => return Err(CommandError::Syntax),
    }
    reply.ok();
    Ok(())
}

/// `CLIENT CACHING YES | NO`
pub fn caching(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    const NOT_TRACKING: &str = "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN \
                                or OPTOUT mode enabled";
    const NOT_OPT_IN: &str = "ERR CLIENT CACHING YES is only valid when tracking is enabled in OPTIN mode.";
    const NOT_OPT_OUT: &str = "ERR CLIENT CACHING NO is only valid when tracking is enabled in OPTOUT mode.";
    let session = &mut *context.session;
    let refusal = match (session.client.tracking.lock().mode, args.at(2)) {
        (Mode::Off, _) => Some(NOT_TRACKING),
        (mode, yes) if is_word(yes, "YES") => (mode != Mode::Keys(Consent::OptIn)).then_some(NOT_OPT_IN),
        (mode, no) if is_word(no, "NO") => (mode != Mode::Keys(Consent::OptOut)).then_some(NOT_OPT_OUT),
        _ => return Err(CommandError::Syntax),
    };
    if let Some(text) = refusal {
        return Err(CommandError::Fixed(text));
    }
    session.caching_said = true;
    reply.ok();
    Ok(())
}

/// `CLIENT GETREDIR`
pub fn getredir(context: &mut Context<'_>, _: Args<'_>, reply: &mut Reply) -> Outcome {
    reply.integer(context.session.client.tracking.lock().redirect_id());
    Ok(())
}

/// `CLIENT TRACKINGINFO`
///
/// Two fields are not Redis's: `invalidations` were posted since tracking began, all of them before this reply in the stream;
/// `leases` is 1 while nobody else can have changed a slot that is served here.
pub fn trackinginfo(context: &mut Context<'_>, _: Args<'_>, reply: &mut Reply) -> Outcome {
    // Invalidations are posted, and counted, under this lock.
    let options = context.session.client.tracking.lock();
    context.session.collect_before_reply(reply);
    let options = options.clone();
    let is_alone = context.node.is_alone();
    let is_said = context.session.caching_said;
    let is_mode = |mode| options.mode == mode;
    let flags: Vec<&str> = [
        (is_mode(Mode::Off), "off"),
        (!is_mode(Mode::Off), "on"),
        (is_mode(Mode::Broadcast), "bcast"),
        (is_mode(Mode::Keys(Consent::OptIn)), "optin"),
        (is_mode(Mode::Keys(Consent::OptIn)) && is_said, "caching-yes"),
        (is_mode(Mode::Keys(Consent::OptOut)), "optout"),
        (is_mode(Mode::Keys(Consent::OptOut)) && is_said, "caching-no"),
        (options.no_loop, "noloop"),
        (options.is_broken, "broken_redirect"),
    ]
    .into_iter()
    .filter_map(|(is_set, flag)| is_set.then_some(flag))
    .collect();
    reply.map(5);
    reply.bulk(b"flags");
    reply.set(flags.len());
    for flag in flags {
        reply.bulk(flag.as_bytes());
    }
    reply.bulk(b"redirect");
    reply.integer(options.redirect_id());
    reply.bulk(b"prefixes");
    reply.array(options.prefixes.len());
    for prefix in &options.prefixes {
        reply.bulk(prefix);
    }
    reply.bulk(b"invalidations");
    reply.integer(i64::try_from(options.invalidations).unwrap_or(i64::MAX));
    reply.bulk(b"leases");
    reply.integer(is_alone.into());
    Ok(())
}
