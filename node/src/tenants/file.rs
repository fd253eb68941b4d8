//! `--tenants-file`: the document as Kubernetes mounts it, read again every second.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use annulus_proto::tenants::TenantsDocument;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::node::Node;

/// How often the file is read again.
const REREAD: Duration = Duration::from_secs(1);

/// Takes over what the file says now; a file that isn't there says nothing.
fn read(node: &Node, path: &Path) -> Result<(), String> {
    let content = match std::fs::read(path) {
        Ok(content) => content,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(format!("can't be read: {error}")),
    };
    let document = TenantsDocument::from_json(&content).map_err(|error| error.to_string())?;
    node.adopt_tenants(document).map_err(|error| error.to_string())?;
    Ok(())
}

/// Takes over what the file says now and follows it until told to stop. While it is missing or spoilt, the last document
/// holds. The first look is over when this returns a future.
pub fn follow_file(
    node: Arc<Node>,
    path: &Path,
    stop: CancellationToken,
) -> impl Future<Output = ()> + Send + 'static {
    let path = path.to_owned();
    let mut problem = None;
    let mut look = move || {
        let now = read(&node, &path).err();
        if let Some(error) = now.as_ref().filter(|_| now != problem) {
            warn!(path = %path.display(), error, "the tenants file can't be used, the last tenants hold");
        }
        problem = now;
    };
    look();
    async move {
        while stop
            .run_until_cancelled(tokio::time::sleep(REREAD))
            .await
            .is_some()
        {
            look();
        }
    }
}
