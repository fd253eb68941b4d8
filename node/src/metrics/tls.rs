//! Connections with TLS, and until when certificates are valid.

use std::fmt;
use std::sync::atomic::Ordering;

use super::{Page, Sources};

impl Sources {
    pub(super) fn encode_tls(&self, page: &mut Page<'_, '_>) -> fmt::Result {
        let peers = self
            .member
            .as_ref()
            .and_then(|member| member.credentials.as_ref());
        let valid_until_s = [
            ("client", self.tls.as_ref().and_then(|tls| tls.valid_until_s())),
            ("peer", peers.and_then(|own| own.valid_until_s())),
        ];
        let valid_until_s = valid_until_s
            .into_iter()
            .filter_map(|(purpose, until_s)| Some((purpose, u64::try_from(until_s?).ok()?)));
        page.gauges(
            "annulus_certificate_expiry_timestamp_seconds",
            "Until when the certificate is valid that this node shows, in seconds since 1970",
            "purpose",
            valid_until_s,
        )?;
        page.counter(
            "annulus_tls_handshakes_failed",
            "Client connections closed because their TLS handshake failed, or took too long",
            None,
            self.node.stats.totals().tls_handshakes_failed,
        )?;
        let secure = self.node.clients.all();
        let secure = secure
            .iter()
            .filter(|client| client.secure.load(Ordering::Relaxed));
        let secure = secure.count() as u64;
        page.gauge(
            "annulus_tls_connections",
            "Clients connected now with TLS",
            None,
            secure,
        )
    }
}
