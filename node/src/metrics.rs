//! What `/metrics` shows.
//!
//! Nothing is counted here: every scrape reads the counters where they are. Labels have few values, each of them
//! known beforehand: commands of the table (those that were called), members of the ring, tenants and groups of the tenants
//! document, two directions. Never a key, a client or an address.

mod groups;
mod tenants;
mod tls;

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::clock;
use crate::cluster::ClusterState;
use crate::command::table;
use crate::heap;
use crate::node::Node;
use crate::peer::{OwnCredentials, PeerContext, PeersUp};
use crate::tls::ClientTls;

/// Where the numbers come from.
#[derive(Clone)]
pub struct Sources {
    /// The data path.
    pub node: Arc<Node>,
    /// What clients with TLS are shown.
    pub tls: Option<Arc<ClientTls>>,
    /// What only members of a ring have.
    pub member: Option<MemberSources>,
}

/// What only members of a ring have.
#[derive(Clone)]
pub struct MemberSources {
    /// The place in the ring.
    pub state: Arc<ClusterState>,
    /// The peer protocol.
    pub peer: Arc<PeerContext>,
    /// Who answered the last exchange.
    pub peers_up: Arc<PeersUp>,
    /// What it proves itself with.
    pub credentials: Option<Arc<OwnCredentials>>,
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources")
            .field("is_member", &self.member.is_some())
            .finish_non_exhaustive()
    }
}

/// All metrics of a node.
pub struct Metrics(Registry);

impl Metrics {
    /// Metrics that are read from these sources.
    pub fn new(sources: Sources) -> Self {
        let mut registry = Registry::default();
        let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("annulus_build", "The version of this node", build);
        registry.register_collector(Box::new(sources));
        Self(registry)
    }

    /// The metrics now, in the `OpenMetrics` text format.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.0)?;
        Ok(text)
    }
}

impl Collector for Sources {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page {
            encoder: &mut encoder,
        };
        self.encode_store(&mut page)?;
        self.encode_traffic(&mut page)?;
        self.encode_tls(&mut page)?;
        self.encode_commands(&mut page)?;
        self.encode_pubsub(&mut page)?;
        self.encode_hot_keys(&mut page)?;
        tenants::encode(&self.node, &mut page)?;
        groups::encode(&self.node, &mut page)?;
        if let Some(member) = &self.member {
            member.encode(&mut page)?;
        }
        self.encode_process(&mut page)
    }
}

impl Sources {
    fn encode_store(&self, page: &mut Page<'_, '_>) -> fmt::Result {
        let (store, totals) = (&self.node.store, self.node.stats.totals());
        page.gauge(
            "annulus_keys",
            "Entries in the store, those included that expired and are not removed yet",
            None,
            store.all_keys(),
        )?;
        let used = "What the entries cost: keys, values and overhead";
        page.gauge(
            "annulus_memory_used",
            used,
            Some(&Unit::Bytes),
            store.used_bytes(),
        )?;
        page.gauge(
            "annulus_connections_memory_used",
            "What connections hold of the budget: large requests and replies that are under way",
            Some(&Unit::Bytes),
            store.connection_bytes(),
        )?;
        let budget = "What the entries, and large requests and replies under way, may take together";
        page.gauge(
            "annulus_memory_budget",
            budget,
            Some(&Unit::Bytes),
            store.budget_bytes(),
        )?;
        page.gauge(
            "annulus_memory_withheld",
            "What of the budget entries may not have now, because the process takes more memory than is counted",
            Some(&Unit::Bytes),
            store.withheld_bytes(),
        )?;
        let scripts = &self.node.scripts;
        let script_bytes = scripts.state_bytes() + self.node.store.own.cached_scripts().1;
        page.gauge(
            "annulus_scripts_memory_used",
            "What scripts take beside the entries: their sources and the Lua states of the threads",
            Some(&Unit::Bytes),
            script_bytes as u64,
        )?;
        page.counter(
            "annulus_hits",
            "Key look-ups of reading commands that found the key",
            None,
            totals.keyspace_hits,
        )?;
        page.counter(
            "annulus_misses",
            "Key look-ups of reading commands that did not",
            None,
            totals.keyspace_misses,
        )?;
        page.counter(
            "annulus_evictions",
            "Entries removed to stay within the memory budget",
            None,
            totals.evicted_keys,
        )?;
        page.counter(
            "annulus_expirations",
            "Entries removed because their time was over",
            None,
            totals.expired_keys,
        )
    }

    fn encode_traffic(&self, page: &mut Page<'_, '_>) -> fmt::Result {
        let totals = self.node.stats.totals();
        page.gauge(
            "annulus_connections",
            "Clients connected now",
            None,
            self.node.stats.connections_open(),
        )?;
        let accepted = "Client connections accepted";
        page.counter(
            "annulus_connections_accepted",
            accepted,
            None,
            totals.connections_accepted,
        )?;
        let rejected = "Client connections refused because there were too many";
        page.counter(
            "annulus_connections_rejected",
            rejected,
            None,
            totals.connections_rejected,
        )?;
        let evicted = "Client connections closed because their buffers had no room in the memory budget";
        page.counter(
            "annulus_connections_evicted",
            evicted,
            None,
            totals.clients_evicted,
        )?;
        let protocol = "Client connections closed because what they sent is not the protocol";
        page.counter("annulus_protocol_errors", protocol, None, totals.protocol_errors)?;
        page.counter(
            "annulus_error_replies",
            "Error replies of any kind, MOVED included",
            None,
            totals.error_replies,
        )?;
        page.counter(
            "annulus_moved_replies",
            "Replies that sent a client to another member",
            None,
            totals.moved_replies,
        )?;
        page.counter(
            "annulus_copy_reads",
            "Reads answered from copies of slots that other members serve",
            None,
            totals.copy_reads,
        )?;
        let received = "Bytes received from clients";
        page.counter(
            "annulus_network_received",
            received,
            Some(&Unit::Bytes),
            totals.net_input_bytes,
        )?;
        let sent = "Bytes sent to clients";
        page.counter(
            "annulus_network_sent",
            sent,
            Some(&Unit::Bytes),
            totals.net_output_bytes,
        )
    }

    fn encode_commands(&self, page: &mut Page<'_, '_>) -> fmt::Result {
        let totals = self.node.stats.command_totals();
        let rows = || {
            table()
                .names()
                .iter()
                .zip(&totals)
                .filter(|(_, counts)| counts.calls + counts.rejected > 0)
        };
        let calls = rows().map(|(name, counts)| (name.as_str(), counts.calls));
        page.counters("annulus_commands", "Commands executed, by name", "command", calls)?;
        let errors = rows().map(|(name, counts)| (name.as_str(), counts.failed + counts.rejected));
        let help = "Commands that were refused before execution or answered an error, by name";
        page.counters("annulus_command_errors", help, "command", errors)
    }

    fn encode_pubsub(&self, page: &mut Page<'_, '_>) -> fmt::Result {
        let (pubsub, totals) = (&self.node.store.own.pubsub, self.node.stats.totals());
        let names = [
            ("channel", pubsub.channels.len() as u64),
            ("pattern", pubsub.patterns() as u64),
            ("shardchannel", pubsub.shards.len() as u64),
        ];
        let help = "Channels and patterns that clients of this node are subscribed to";
        page.gauges("annulus_pubsub_names", help, "kind", names.into_iter())?;
        page.gauge(
            "annulus_tracked_keys",
            "Keys that clients are told of when they change",
            None,
            self.node.store.own.tracking.keys() as u64,
        )?;
        let relay = &self.node.relay.counters;
        let forwards = [
            ("sent", relay.sent.get()),
            ("dropped", relay.dropped.get()),
            ("received", relay.received.get()),
        ];
        let help = "Published messages that other members took (sent), that they didn't get (dropped), and that came \
                    from them (received); one message counts for each member";
        page.counters("annulus_pubsub_forwards", help, "outcome", forwards.into_iter())?;
        page.counter(
            "annulus_slow_clients_closed",
            "Client connections closed because they didn't read messages that they had subscribed to",
            None,
            totals.slow_clients_closed,
        )
    }

    fn encode_hot_keys(&self, page: &mut Page<'_, '_>) -> fmt::Result {
        let (store, now_ms) = (&self.node.store, clock::now_ms());
        let tenants = store.spaces();
        let spaces = std::iter::once(&store.own).chain(tenants.iter().map(AsRef::as_ref));
        let hottest = spaces.filter_map(|space| space.hot_keys.hottest(now_ms).into_iter().next());
        let hottest = hottest.max_by_key(|hot| hot.reads_per_second + hot.writes_per_second);
        let (reads, writes) = hottest.map_or((0, 0), |hot| (hot.reads_per_second, hot.writes_per_second));
        let kinds = [("read", reads), ("write", writes)];
        let help = "Uses a second of the key that clients of this node use most, estimated; which one it is, HOTKEYS tells";
        page.gauges("annulus_hottest_key_uses", help, "kind", kinds.into_iter())?;
        let mirrors = &store.mirrors;
        page.gauge(
            "annulus_mirrored_keys",
            "Hot keys of other members' slots that this node answers for",
            None,
            mirrors.len(store.journal.clock().now_ms()) as u64,
        )?;
        page.counter(
            "annulus_mirror_reads",
            "Reads answered from mirrors of hot keys",
            None,
            mirrors.served.get(),
        )?;
        let help = "Values of hot keys asked for at their owners";
        page.counter("annulus_mirror_fetches", help, None, mirrors.fetched.get())
    }

    fn encode_process(&self, page: &mut Page<'_, '_>) -> fmt::Result {
        if let Some(bytes) = heap::resident_bytes() {
            let help = "Memory of the process that is in RAM; the difference to annulus_memory_used_bytes is buffers and fragmentation";
            page.gauge("process_resident_memory", help, Some(&Unit::Bytes), bytes)?;
        }
        let help = "When the process started, since the Unix epoch";
        page.gauge(
            "process_start_time",
            help,
            Some(&Unit::Seconds),
            self.node.started_at_ms / 1000,
        )
    }
}

impl MemberSources {
    fn encode(&self, page: &mut Page<'_, '_>) -> fmt::Result {
        let (slots, progress) = (self.state.slot_counts(), self.state.progress());
        page.gauge(
            "annulus_ring_epoch",
            "The epoch of the adopted ring; 0 before the first",
            None,
            progress.epoch.0,
        )?;
        page.gauge(
            "annulus_slots_owned",
            "Slots that this node reads and writes",
            None,
            slots.owned.into(),
        )?;
        let frozen = "Slots that refuse writes for the moment in which they are handed over";
        page.gauge("annulus_slots_frozen", frozen, None, slots.frozen.into())?;
        let settled = "1 when no handoff of this epoch towards this node is left to be done";
        page.gauge("annulus_handoff_settled", settled, None, progress.settled.into())?;
        let counters = &self.peer.counters;
        let slots = [("in", counters.slots_in.get()), ("out", counters.slots_out.get())];
        page.counters(
            "annulus_handoff_slots",
            "Slots taken over (in) and handed over (out)",
            "direction",
            slots.into_iter(),
        )?;
        let bytes = [("in", counters.bytes_in.get()), ("out", counters.bytes_out.get())];
        let help =
            "Keys and values received (in) and sent (out) by handoffs, those of repeated attempts included";
        page.counters_in(
            "annulus_handoff",
            help,
            Some(&Unit::Bytes),
            "direction",
            bytes.into_iter(),
        )?;
        let help = "Attempts to take a slot over that failed and were begun again";
        page.counter(
            "annulus_handoff_failures",
            help,
            None,
            counters.pulls_failed.get(),
        )?;
        let peers = self.peers_up.lock().clone();
        let help = "1 when the member answered the last exchange of epochs, 0 when it did not";
        page.gauges(
            "annulus_peer_up",
            help,
            "peer",
            peers.iter().map(|(peer, &up)| (peer.as_str(), u64::from(up))),
        )
    }
}

/// Writes families.
struct Page<'a, 'e> {
    encoder: &'a mut DescriptorEncoder<'e>,
}

impl Page<'_, '_> {
    fn gauge(&mut self, name: &str, help: &str, unit: Option<&Unit>, value: u64) -> fmt::Result {
        let gauge = ConstGauge::new(value);
        gauge.encode(
            self.encoder
                .encode_descriptor(name, &sentence(help), unit, gauge.metric_type())?,
        )
    }

    fn counter(&mut self, name: &str, help: &str, unit: Option<&Unit>, value: u64) -> fmt::Result {
        let counter = ConstCounter::new(value);
        counter.encode(
            self.encoder
                .encode_descriptor(name, &sentence(help), unit, counter.metric_type())?,
        )
    }

    fn counters<'v>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl Iterator<Item = (&'v str, u64)>,
    ) -> fmt::Result {
        self.counters_in(name, help, None, label, values)
    }

    fn counters_in<'v>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        label: &str,
        values: impl Iterator<Item = (&'v str, u64)>,
    ) -> fmt::Result {
        let kind = ConstCounter::new(0_u64).metric_type();
        let mut family = self
            .encoder
            .encode_descriptor(name, &sentence(help), unit, kind)?;
        for (value_of_label, value) in values {
            ConstCounter::new(value).encode(family.encode_family(&[(label, value_of_label)])?)?;
        }
        Ok(())
    }

    /// By two labels, each with its name.
    fn counters_by_two<'v>(
        &mut self,
        name: &str,
        help: &str,
        values: impl Iterator<Item = ([(&'v str, &'v str); 2], u64)>,
    ) -> fmt::Result {
        let kind = ConstCounter::new(0_u64).metric_type();
        let mut family = self
            .encoder
            .encode_descriptor(name, &sentence(help), None, kind)?;
        for (labels, value) in values {
            ConstCounter::new(value).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn gauges<'v>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl Iterator<Item = (&'v str, u64)>,
    ) -> fmt::Result {
        self.gauges_in(name, help, None, label, values)
    }

    fn gauges_in<'v>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        label: &str,
        values: impl Iterator<Item = (&'v str, u64)>,
    ) -> fmt::Result {
        let kind = ConstGauge::new(0_u64).metric_type();
        let mut family = self
            .encoder
            .encode_descriptor(name, &sentence(help), unit, kind)?;
        for (value_of_label, value) in values {
            ConstGauge::new(value).encode(family.encode_family(&[(label, value_of_label)])?)?;
        }
        Ok(())
    }
}

/// Registered metrics get their full stop by the registry, collected ones don't.
fn sentence(help: &str) -> String {
    format!("{help}.")
}
