//! What scenarios of clusters with copies have in common.

use std::collections::BTreeMap;
use std::time::Duration;

use annulus_crds::v1alpha1::ConditionType;
use annulus_ring::RingDocument;
use anyhow::{Result, ensure};

use crate::cache::Cache;
use crate::wait::until;

impl Cache<'_> {
    /// Waits until the ring is settled with that many members, and every slot has its copies.
    pub async fn whole(&self, nodes: usize, deadline: Duration) -> Result<RingDocument> {
        let document = self.settled(nodes, deadline).await?;
        self.condition(ConditionType::Degraded, "False", "AsSpecified", deadline)
            .await?;
        Ok(document)
    }

    /// Waits until each of those pods was replaced or restarted, and none is missing.
    pub async fn replaced(
        &self,
        lives: &BTreeMap<String, (Option<String>, i32)>,
        deadline: Duration,
    ) -> Result<()> {
        until("every pod replaced", deadline, async || {
            let now = self.lives().await?;
            let old = lives.iter().filter(|(pod, life)| now.get(*pod) == Some(*life));
            let old: Vec<_> = old.map(|(pod, _)| pod).collect();
            ensure!(old.is_empty() && now.len() == lives.len(), "still there: {old:?}");
            Ok(())
        })
        .await
    }

    /// Deletes the cluster and waits until its pods have ended, so that what follows has the machine to itself.
    pub async fn ended(&self, deadline: Duration) -> Result<()> {
        self.kubectl(&["delete", "cc", &self.name, "--wait=false"])
            .await?;
        until(&format!("end of {}", self.name), deadline, async || {
            let left: Vec<String> = self.pods().await?.into_keys().collect();
            ensure!(left.is_empty(), "still there: {left:?}");
            Ok(())
        })
        .await
    }
}
