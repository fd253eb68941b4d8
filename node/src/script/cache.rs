//! The sources of scripts, by the SHA-1 that clients name them by.
//!
//! What was not used for longest goes when there are too many: a client that is told `NOSCRIPT` sends the source
//! again.

use std::fmt;
use std::sync::Arc;

use lru::LruCache;
use sha1::{Digest, Sha1};

use super::shebang::{self, ScriptFlags};
use crate::error::CommandError;

/// Scripts that are kept of the cluster's own, and of a tenant.
const SCRIPTS_MAX: usize = 2000;
const TENANT_SCRIPTS_MAX: usize = 500;
/// What their sources may take together.
const SOURCES_BYTES_MAX: usize = 8 << 20;
const TENANT_SOURCES_BYTES_MAX: usize = 1 << 20;
/// What one source may take.
pub const SOURCE_BYTES_MAX: usize = 1 << 20;

/// The SHA-1 of a script's source.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ScriptId([u8; 20]);

impl ScriptId {
    /// The name of a source.
    pub fn of(source: &[u8]) -> Self {
        Self(Sha1::digest(source).into())
    }

    /// The name in 40 hexadecimal digits.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let mut id = [0; 20];
        if text.len() != 2 * id.len() {
            return None;
        }
        for (byte, digits) in id.iter_mut().zip(text.chunks_exact(2)) {
            let digit = |digit: u8| char::from(digit).to_digit(16);
            let value = digit(digits[0])? << 4 | digit(digits[1])?;
            *byte = u8::try_from(value).ok()?;
        }
        Some(Self(id))
    }
}

impl fmt::Display for ScriptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A script that was sent.
pub struct Script {
    /// Its name.
    pub id: ScriptId,
    /// What its first line says of it.
    pub flags: ScriptFlags,
    source: Box<[u8]>,
    /// Where the program begins in the source: at the end of the first line, so that lines keep their numbers.
    begin: usize,
}

impl Script {
    /// The whole of it.
    pub fn source(&self) -> &[u8] {
        &self.source
    }

    /// What is to be compiled.
    pub fn program(&self) -> &[u8] {
        &self.source[self.begin..]
    }
}

/// The scripts that are known.
pub struct Cache {
    scripts: LruCache<ScriptId, Arc<Script>, foldhash::fast::RandomState>,
    bytes: usize,
    scripts_max: usize,
    bytes_max: usize,
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            scripts_max: SCRIPTS_MAX,
            bytes_max: SOURCES_BYTES_MAX,
            scripts: LruCache::unbounded_with_hasher(foldhash::fast::RandomState::default()),
            bytes: 0,
        }
    }
}

impl Cache {
    /// The same for a tenant, of which there may be many.
    pub fn small() -> Self {
        Self {
            scripts_max: TENANT_SCRIPTS_MAX,
            bytes_max: TENANT_SOURCES_BYTES_MAX,
            ..Self::default()
        }
    }

    /// Forgets all scripts.
    pub fn clear(&mut self) {
        self.scripts.clear();
        self.bytes = 0;
    }

    /// The script with this source.
    pub fn add(&mut self, source: &[u8]) -> Result<Arc<Script>, CommandError> {
        if source.len() > SOURCE_BYTES_MAX {
            return Err(CommandError::Fixed("ERR a script may have 1 MiB at most"));
        }
        let id = ScriptId::of(source);
        if let Some(script) = self.find(id) {
            return Ok(script);
        }
        let (flags, begin) = shebang::parse(source)?;
        let script = Arc::new(Script {
            id,
            flags,
            source: source.into(),
            begin,
        });
        self.bytes += source.len();
        self.scripts.put(id, Arc::clone(&script));
        while self.scripts.len() > self.scripts_max || self.bytes > self.bytes_max {
            let Some((_, oldest)) = self.scripts.pop_lru() else {
                break;
            };
            self.bytes -= oldest.source.len();
        }
        Ok(script)
    }

    /// The script of that name, which is the most recently used one from now on.
    pub fn find(&mut self, id: ScriptId) -> Option<Arc<Script>> {
        self.scripts.get(&id).cloned()
    }

    /// Whether there is a script of that name.
    pub fn has(&self, id: ScriptId) -> bool {
        self.scripts.contains(&id)
    }

    /// Forgets a script.
    pub fn remove(&mut self, id: ScriptId) {
        if let Some(script) = self.scripts.pop(&id) {
            self.bytes -= script.source.len();
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.scripts.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What their sources take.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sha_1() {
        let id = ScriptId::of(b"return 1");
        let text = "e0e1f9fabfc9d4800c877a703b823ac0578ff8db";
        assert_eq!(id.to_string(), text);
        assert!(ScriptId::parse(text.to_uppercase().as_bytes()) == Some(id));
        for wrong in ["", "e0", &text[1..], &text.replace('e', "g")] {
            assert!(ScriptId::parse(wrong.as_bytes()).is_none(), "{wrong}");
        }
    }

    #[test]
    fn the_oldest_scripts_go() {
        let mut cache = Cache::default();
        let source = |number: usize| format!("return {number}").into_bytes();
        for number in 0..=SCRIPTS_MAX {
            cache.add(&source(number)).unwrap();
            cache.find(ScriptId::of(&source(0))).unwrap();
        }
        assert_eq!(cache.len(), SCRIPTS_MAX);
        assert!(cache.has(ScriptId::of(&source(0))));
        assert!(!cache.has(ScriptId::of(&source(1))));
        let long = |byte| vec![byte; SOURCE_BYTES_MAX];
        for byte in 1..20 {
            cache.add(&long(byte)).unwrap();
            assert!(cache.bytes() <= SOURCES_BYTES_MAX);
        }
        cache.add(&vec![b'x'; SOURCE_BYTES_MAX + 1]).err().unwrap();
        cache.remove(ScriptId::of(&long(19)));
        assert_eq!(
            cache.bytes(),
            cache
                .scripts
                .iter()
                .map(|(_, script)| script.source.len())
                .sum::<usize>()
        );
    }
}
