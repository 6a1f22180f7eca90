//! The programs of debug builds that tell of their decisions: they make the same, and say which.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, LazyLock, Mutex};

use aya_log::EbpfLogger;
use switchyard_datapath::layout::{Reason, TCP};
use switchyard_proxy::backend::ebpf::kernel_log::telling_object;

use crate::kernel::Kernel;
use crate::packets::{Build, SYN};
use crate::pair::{Link, Pair};
use crate::whole::world;
use crate::world::FAMILIES;

/// A port that masquerading keeps.
const PORT: u16 = 20_000;

/// Keeps the lines.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

impl log::Log for Lines {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        self.0.lock().unwrap().push(record.args().to_string());
    }

    fn flush(&self) {}
}

static TELLING: LazyLock<Mutex<Kernel>> =
    LazyLock::new(|| Mutex::new(Kernel::load(telling_object())));

/// A masqueraded flow, one packet more of it, and a port nobody has.
#[test]
fn what_is_decided_is_told() {
    let lines = Lines::default();
    let mut kernel = TELLING.lock().unwrap();
    let mut log = EbpfLogger::init_with_logger(kernel.object(), lines.clone()).unwrap();
    drop(kernel);
    for family in FAMILIES {
        let mut pair = Pair::of(TELLING.lock().unwrap(), world(family, TCP), Link::Ethernet);
        let packet = |port| {
            let vip = (family.vip(), port);
            let mut build = Build::new((family.outside(), PORT), vip, TCP);
            build.tcp_flags = SYN;
            build.whole()
        };
        for port in [80, 80, 81] {
            pair.through(&packet(port)).unwrap();
        }
        log.flush();
        let told = std::mem::take(&mut *lines.0.lock().unwrap());
        let (client, vip) = (show(family.outside()), show(family.vip()));
        let (endpoint, node) = (show(family.endpoint(1)), show(family.node()));
        let unknown = Reason::UnknownPort.number();
        let wanted = [
            format!("flow from port {PORT} to {vip} 80 goes to {endpoint} 8080"),
            format!("flow from {client} {PORT} to {endpoint} 8080 leaves from {node} {PORT}"),
            format!("refused for reason {unknown}: {client} {PORT} to {vip} 81"),
        ];
        assert_eq!(told, wanted);
    }
}

/// As programs show addresses: of IPv4 as IPv6 has them.
fn show(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}
