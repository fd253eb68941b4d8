//! `annulus-operator ring`: draws a cluster's ring in the terminal.

use std::io::{IsTerminal as _, Read as _, Write as _};
use std::path::PathBuf;

use annulus_ring::{DrawOptions, RING_DOCUMENT_KEY, RingDocument, draw};
use clap::{Args, ValueEnum};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};

/// Draw a cluster's ring.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("source").required(true))]
pub struct RingArgs {
    /// The `CacheCluster`'s name.
    #[arg(group = "source")]
    name: Option<String>,

    /// Its namespace; the kubeconfig's when absent.
    #[arg(long, short, conflicts_with = "file")]
    namespace: Option<String>,

    /// Draw the ring document in this file instead, `-` for standard input.
    #[arg(long, short, group = "source", value_name = "FILE")]
    file: Option<PathBuf>,

    /// Columns to use.
    #[arg(long, default_value_t = 72, value_parser = clap::value_parser!(u16).range(40..=200))]
    width: u16,

    /// Whether to use colours.
    #[arg(long, default_value = "auto")]
    colour: Colour,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Colour {
    /// On a terminal.
    Auto,
    /// Also into a file or pipe.
    Always,
    /// Letters instead.
    Never,
}

/// Reads the document and prints the drawing; the error says what could not be read.
pub async fn run(args: RingArgs) -> Result<(), String> {
    let (title, json) = match (&args.file, &args.name) {
        (Some(file), _) => (String::new(), read_file(file)?),
        (None, Some(name)) => (name.clone(), read_cluster(args.namespace.as_deref(), name).await?),
        (None, None) => return Err("give a CacheCluster's name, or --file".to_owned()),
    };
    let document =
        RingDocument::from_json(&json).map_err(|error| format!("that is no ring document: {error}"))?;
    let colour = match args.colour {
        Colour::Auto => std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
        Colour::Always => true,
        Colour::Never => false,
    };
    let drawing = draw(
        &document,
        &DrawOptions {
            title,
            width: args.width,
            colour,
        },
    );
    // A reader that has seen enough, such as `head`, is no failure.
    match std::io::stdout().write_all(drawing.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(format!("can't print: {error}")),
        _ => Ok(()),
    }
}

fn read_file(file: &std::path::Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let read = if file.as_os_str() == "-" {
        std::io::stdin().read_to_end(&mut bytes)
    } else {
        std::fs::File::open(file).and_then(|mut opened| opened.read_to_end(&mut bytes))
    };
    read.map(|_| bytes)
        .map_err(|error| format!("can't read {}: {error}", file.display()))
}

async fn read_cluster(namespace: Option<&str>, name: &str) -> Result<Vec<u8>, String> {
    let client = Client::try_default()
        .await
        .map_err(|error| format!("no Kubernetes cluster to ask: {error}"))?;
    let namespace = namespace.unwrap_or(client.default_namespace()).to_owned();
    let maps: Api<ConfigMap> = Api::namespaced(client, &namespace);
    let map_name = format!("{name}-ring");
    let map = maps
        .get_opt(&map_name)
        .await
        .map_err(|error| format!("can't read ConfigMap {namespace}/{map_name}: {error}"))?;
    let json = map
        .and_then(|map| map.data)
        .and_then(|mut data| data.remove(RING_DOCUMENT_KEY));
    json.map(String::into_bytes).ok_or_else(|| {
        format!("CacheCluster {namespace}/{name} has no ring yet (no {RING_DOCUMENT_KEY} in ConfigMap {map_name}); see kubectl -n {namespace} get cc")
    })
}
