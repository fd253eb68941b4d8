//! Files that are read again when they change.

use std::fmt::Display;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// How often the files are read again.
const REREAD: Duration = Duration::from_secs(1);

/// Why files can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// One of them can't be read.
    #[error("can't read {path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What is in them can't be used.
    #[error("{0}")]
    Content(String),
}

/// Files that belong together.
pub struct Followed {
    paths: Vec<PathBuf>,
}

impl Followed {
    /// Those files.
    pub fn new(paths: Vec<PathBuf>) -> Self {
        Self { paths }
    }

    /// What is in them now.
    pub fn read(&self) -> Result<Vec<Vec<u8>>, ReadError> {
        let read = |path: &PathBuf| {
            std::fs::read(path).map_err(|source| ReadError::File {
                path: path.clone(),
                source,
            })
        };
        self.paths.iter().map(read).collect()
    }

    /// Hands what is in them to `take` whenever that changed, until told to stop.
    ///
    /// Between two reads the files may be swapped, and then don't fit together: only what was wrong at two looks in a row
    /// is worth a warning.
    pub async fn follow<E: Display>(
        self,
        what: &str,
        stop: CancellationToken,
        mut take: impl FnMut(&[Vec<u8>]) -> Result<(), E>,
    ) {
        let mut taken = self.read().ok();
        let (mut problem, mut warned) = (None, None);
        while stop
            .run_until_cancelled(tokio::time::sleep(REREAD))
            .await
            .is_some()
        {
            let looked = match self.read() {
                Ok(contents) if taken.as_ref() == Some(&contents) => Ok(()),
                Ok(contents) => match take(&contents) {
                    Ok(()) => {
                        info!("{what} was read again");
                        taken = Some(contents);
                        Ok(())
                    }
                    Err(error) => Err(error.to_string()),
                },
                Err(error) => Err(error.to_string()),
            };
            let now = looked.err();
            if now.is_some() && now == problem && now != warned {
                warn!(error = now, "{what} can't be used, the last good one holds");
                warned.clone_from(&now);
            } else if now.is_none() {
                warned = None;
            }
            problem = now;
        }
    }
}
