//! A program of tests/clients under load, beside whatever a scenario does.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use crate::cache::Cache;
use crate::clients::prepare;
use crate::kubernetes::repository;
use crate::report::ClientFigures;
use crate::wait::seconds;

/// A client that reads and writes until it is told to end.
pub struct LoadProgram {
    name: String,
    child: Child,
    phases: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl LoadProgram {
    /// Starts it, by the name that tests/clients/run knows; it is connected when this returns.
    pub async fn start(cache: &Cache<'_>, name: &str) -> Result<Self> {
        let mut command = Self::command(cache, name, "6379").await?;
        command.env("ANNULUS_PASSWORD", cache.password().await?);
        Self::run(name, command).await
    }

    /// Starts it with TLS as a tenant whose binding is projected into that folder; it reads the files each time it connects.
    pub async fn start_bound(cache: &Cache<'_>, name: &str, binding: &Path) -> Result<Self> {
        let mut command = Self::command(cache, name, "6380").await?;
        command.env("ANNULUS_BINDING", binding);
        Self::run(name, command).await
    }

    async fn command(cache: &Cache<'_>, name: &str, port: &str) -> Result<Command> {
        prepare(cache.kubernetes).await?;
        let mut command = Command::new(repository().join("tests/clients/run"));
        command.args([name, &cache.service_ip().await?, port, "load"]);
        Ok(command)
    }

    async fn run(name: &str, mut command: Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let phases = child.stdin.take().context("no standard input")?;
        let mut answers = BufReader::new(child.stdout.take().context("no standard output")?);
        let mut line = String::new();
        timeout(seconds(30), answers.read_line(&mut line))
            .await
            .with_context(|| format!("{name} was not connected within 30 s"))??;
        ensure!(
            line.trim() == "ready",
            "{name} said {line:?} instead of \"ready\""
        );
        Ok(Self {
            name: name.to_owned(),
            child,
            phases,
            answers,
        })
    }

    /// What follows is counted under that name.
    pub async fn phase(&mut self, name: &str) -> Result<()> {
        self.phases
            .write_all(format!("{name}\n").as_bytes())
            .await
            .with_context(|| format!("{} has ended", self.name))
    }

    /// Ends it; its figures.
    pub async fn finish(self) -> Result<ClientFigures> {
        let Self {
            name,
            mut child,
            phases,
            mut answers,
        } = self;
        drop(phases);
        let mut said = String::new();
        timeout(seconds(60), answers.read_to_string(&mut said))
            .await
            .with_context(|| format!("{name} did not end within 60 s"))??;
        let status = child.wait().await?;
        ensure!(status.success(), "{name} failed: {said}");
        serde_json::from_str(&said).with_context(|| format!("{name} said {said:?}"))
    }
}
