//! The first line of a script: `#!lua flags=no-writes,allow-oom`.

use crate::commands::text;
use crate::error::CommandError;

/// What a script's first line says of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ScriptFlags {
    /// It doesn't write.
    pub no_writes: bool,
}

/// The flags, and where the program begins: at the end of that line, if there is one.
pub fn parse(source: &[u8]) -> Result<(ScriptFlags, usize), CommandError> {
    let mut flags = ScriptFlags::default();
    if !source.starts_with(b"#!") {
        return Ok((flags, 0));
    }
    let end = source
        .iter()
        .position(|&byte| byte == b'\n')
        .ok_or(CommandError::Fixed("ERR Invalid script shebang"))?;
    let refused = |what: &str, word: &[u8]| CommandError::Other(format!("ERR {what}: {}", text(word)));
    let mut words = source[..end]
        .split(|&byte| byte == b' ')
        .filter(|word| !word.is_empty());
    match words.next() {
        Some(b"#!lua") => {}
        engine => {
            return Err(refused(
                "Unexpected engine in script shebang",
                engine.unwrap_or_default(),
            ));
        }
    }
    for word in words {
        let list = word
            .strip_prefix(b"flags=")
            .ok_or_else(|| refused("Unknown lua shebang option", word))?;
        if list.is_empty() {
            continue;
        }
        for flag in list.split(|&byte| byte == b',') {
            match flag {
                b"no-writes" => flags.no_writes = true,
                // Commands that need memory are refused one by one, and no node here has stale data.
                b"allow-oom" | b"allow-stale" => {}
                b"no-cluster" => {
                    return Err(CommandError::Fixed(
                        "ERR Can not run script on cluster, 'no-cluster' flag is set.",
                    ));
                }
                b"allow-cross-slot-keys" => {
                    return Err(CommandError::Fixed(
                        "ERR allow-cross-slot-keys is not available: a script works in one slot",
                    ));
                }
                _ => return Err(refused("Unexpected flag in script shebang", flag)),
            }
        }
    }
    Ok((flags, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_line_has_flags() {
        let flags = |no_writes| ScriptFlags { no_writes };
        let table = [
            ("return 1", Ok((flags(false), 0))),
            ("#!lua\nreturn 1", Ok((flags(false), 5))),
            ("#!lua flags=\nreturn 1", Ok((flags(false), 12))),
            ("#!lua flags=no-writes,allow-oom\n", Ok((flags(true), 31))),
            ("#!lua", Err("ERR Invalid script shebang")),
            ("#!js\n", Err("ERR Unexpected engine in script shebang: #!js")),
            ("#!lua name=x\n", Err("ERR Unknown lua shebang option: name=x")),
            ("#!lua flags=x\n", Err("ERR Unexpected flag in script shebang: x")),
            (
                "#!lua flags=no-writes,\n",
                Err("ERR Unexpected flag in script shebang: "),
            ),
            (
                "#!lua flags=no-cluster\n",
                Err("ERR Can not run script on cluster, 'no-cluster' flag is set."),
            ),
        ];
        for (source, expected) in table {
            let found = parse(source.as_bytes()).map_err(|error| error.to_string());
            assert_eq!(found, expected.map_err(str::to_owned), "{source:?}");
        }
    }
}
