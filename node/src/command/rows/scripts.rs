//! Rows of the commands that run scripts.

use super::{Command, Flags, Group, KeyAccess, Keys, NS, Run, helps, plain};
use crate::commands::scripts;
use crate::error::Outcome;
use crate::exclusive::Exclusive;
use crate::execute::Context;
use crate::resp::{Args, Reply};

type ScriptFn = for<'a> fn(&mut Context<'a>, &mut Exclusive<'a>, Args<'_>, &mut Reply) -> Outcome;

const E: Flags = NS.and(Flags::MOVABLE_KEYS).and(Flags::NO_MANDATORY_KEYS);
const ER: Flags = E.and(Flags::READ);

/// A command that runs a script.
const fn script(
    (name, flags, access): (&'static str, Flags, KeyAccess),
    (since, summary): (&'static str, &'static str),
    run: ScriptFn,
) -> Command {
    Command {
        name,
        arity: -3,
        flags,
        keys: Keys::of_script(access),
        group: Group::Scripting,
        since,
        summary,
        run: Run::Script(run),
    }
}

pub(super) const SCRIPTS: &[Command] = &[
    script(
        ("eval", E, KeyAccess::Update),
        ("2.6.0", "Runs a script."),
        scripts::eval,
    ),
    script(
        ("eval_ro", ER, KeyAccess::Read),
        ("7.0.0", "Runs a script that doesn't write."),
        scripts::eval_ro,
    ),
    script(
        ("evalsha", E, KeyAccess::Update),
        ("2.6.0", "Runs a script that the node knows, by its SHA-1."),
        scripts::evalsha,
    ),
    script(
        ("evalsha_ro", ER, KeyAccess::Read),
        (
            "7.0.0",
            "Runs a script that the node knows and that doesn't write.",
        ),
        scripts::evalsha_ro,
    ),
];

/// What looks after scripts takes no slot.
const SN: Flags = NS.and(Flags::NO_SLOT);

pub(super) const SCRIPT: &[Command] = &[
    plain(
        Group::Scripting,
        ("debug", 3, SN),
        ("3.2.0", "Refuses: scripts can't be debugged here."),
        scripts::debug,
    ),
    plain(
        Group::Scripting,
        ("exists", -3, SN),
        ("2.6.0", "Returns which scripts the node knows."),
        scripts::exists,
    ),
    plain(
        Group::Scripting,
        ("flush", -2, SN),
        ("2.6.0", "Forgets all scripts."),
        scripts::flush,
    ),
    plain(
        Group::Scripting,
        ("kill", 2, SN),
        ("2.6.0", "Ends the scripts that run and have not written."),
        scripts::kill,
    ),
    plain(
        Group::Scripting,
        ("load", 3, SN),
        ("2.6.0", "Makes a script known without running it."),
        scripts::load,
    ),
    plain(
        Group::Scripting,
        ("show", 3, SN),
        ("8.0.0", "Returns the source of a script that the node knows."),
        scripts::show,
    ),
    helps(Group::Scripting, "5.0.0"),
];
