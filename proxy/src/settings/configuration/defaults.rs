//! Values of what is not said.

use std::net::IpAddr;

use super::{Configuration, Span};

pub(super) const BIND_ADDRESS: &str = "0.0.0.0";
pub(super) const HEALTHZ_ADDRESS: &str = "0.0.0.0:10256";
pub(super) const METRICS_ADDRESS: &str = "127.0.0.1:10249";
/// For nodes whose `bindAddress` is of IPv6.
const HEALTHZ_ADDRESS_V6: &str = "[::]:10256";
const METRICS_ADDRESS_V6: &str = "[::1]:10249";
pub(super) const CONTENT_TYPE: &str = "application/vnd.kubernetes.protobuf";
pub(super) const QPS: i64 = 5;
pub(super) const BURST: i64 = 10;
pub(super) const LOG_FORMAT: &str = "text";
pub(super) const LOG_FLUSH_FREQUENCY: Span = Span::seconds(5);
pub(super) const MASQUERADE_BIT: i64 = 14;
pub(super) const SYNC_PERIOD: Span = Span::seconds(30);
pub(super) const OOM_SCORE_ADJ: i64 = -999;
pub(super) const CONNTRACK_MAX_PER_CORE: i64 = 32_768;
pub(super) const CONNTRACK_MIN: i64 = 131_072;
pub(super) const TCP_ESTABLISHED: Span = Span::seconds(24 * 3600);
pub(super) const TCP_CLOSE_WAIT: Span = Span::seconds(3600);
pub(super) const CONFIG_SYNC_PERIOD: Span = Span::seconds(15 * 60);
/// What the reference has for `minSyncPeriod`, except in ipvs mode. Ours is what the last sync
/// took, and this at most.
const MIN_SYNC_PERIOD: Span = Span::seconds(1);

impl Configuration {
    /// In a file, nothing and zero mean the default in these fields, as with the reference:
    /// tools write files with every field.
    pub(super) fn fill_in(&mut self) {
        let default = Self::default();
        let text = |field: &mut String, value: &str| {
            if field.is_empty() {
                value.clone_into(field);
            }
        };
        text(&mut self.bind_address, BIND_ADDRESS);
        let is_v6 = self
            .bind_address
            .parse()
            .is_ok_and(|ip: IpAddr| ip.is_ipv6());
        let (healthz, metrics) = if is_v6 {
            (HEALTHZ_ADDRESS_V6, METRICS_ADDRESS_V6)
        } else {
            (HEALTHZ_ADDRESS, METRICS_ADDRESS)
        };
        text(&mut self.healthz_bind_address, healthz);
        text(&mut self.metrics_bind_address, metrics);
        let client = &mut self.client_connection;
        text(&mut client.content_type, CONTENT_TYPE);
        if client.qps.as_f64() == Some(0.0) {
            client.qps = default.client_connection.qps;
        }
        if client.burst == 0 {
            client.burst = BURST;
        }
        text(&mut self.logging.format, LOG_FORMAT);
        for (span, value) in [
            (&mut self.logging.flush_frequency, LOG_FLUSH_FREQUENCY),
            (&mut self.config_sync_period, CONFIG_SYNC_PERIOD),
            (&mut self.iptables.sync_period, SYNC_PERIOD),
            (&mut self.ipvs.sync_period, SYNC_PERIOD),
            (&mut self.nftables.sync_period, SYNC_PERIOD),
        ] {
            if span.is_zero() {
                *span = value;
            }
        }
        for least in [
            &mut self.iptables.min_sync_period,
            &mut self.ipvs.min_sync_period,
            &mut self.nftables.min_sync_period,
        ] {
            *least = least.filter(|least| !least.is_zero());
        }
    }

    /// What is in force, as the reference would write it: the mode that counts is named, and
    /// what only one mode uses stands in the section of that mode alone.
    #[must_use]
    pub fn in_force(&self) -> Self {
        let mut all = self.clone();
        if all.mode.is_empty() {
            "iptables".clone_into(&mut all.mode);
        }
        if all.detect_local_mode.is_empty() {
            "ClusterCIDR".clone_into(&mut all.detect_local_mode);
        }
        let (is_ipvs, is_nftables) = (all.mode == "ipvs", all.mode == "nftables");
        if is_nftables && all.node_port_addresses.is_empty() {
            all.node_port_addresses = vec!["primary".to_owned()];
        }
        let by_iptables = !is_ipvs && !is_nftables;
        for (counts, period, least, usual) in [
            (
                by_iptables,
                &mut all.iptables.sync_period,
                &mut all.iptables.min_sync_period,
                MIN_SYNC_PERIOD,
            ),
            (
                is_ipvs,
                &mut all.ipvs.sync_period,
                &mut all.ipvs.min_sync_period,
                Span::ZERO,
            ),
            (
                is_nftables,
                &mut all.nftables.sync_period,
                &mut all.nftables.min_sync_period,
                MIN_SYNC_PERIOD,
            ),
        ] {
            if counts {
                *least = least.or(Some(usual));
            } else {
                (*period, *least) = (Span::ZERO, Some(Span::ZERO));
            }
        }
        all.iptables.masquerade_all &= !is_nftables;
        all.nftables.masquerade_all &= is_nftables;
        all
    }
}
