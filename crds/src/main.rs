//! Writes the CustomResourceDefinitions as YAML into each folder given, or to standard output.

use std::path::PathBuf;
use std::{env, fs, io};

use io::Write;

fn main() -> io::Result<()> {
    let folders: Vec<PathBuf> = env::args_os().skip(1).map(PathBuf::from).collect();
    for (name, yaml) in annulus_crds::manifests() {
        if folders.is_empty() {
            io::stdout().write_all(yaml.as_bytes())?;
        }
        for folder in &folders {
            fs::create_dir_all(folder)?;
            fs::write(folder.join(&name), &yaml)?;
        }
    }
    Ok(())
}
