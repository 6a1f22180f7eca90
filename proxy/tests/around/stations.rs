use std::net::UdpSocket;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use netlink_packet_core::DecodeError;
use netlink_packet_route::RouteNetlinkMessage;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::gettid;
use switchyard_proxy::devices::{DeviceWatch, Devices, Port};
use switchyard_proxy::rtnetlink::{Listed, Watch};
use switchyard_proxy::stations::{Station, StationWatch, Stations};

use crate::namespace::{in_own_network, run};

const WAIT: Duration = Duration::from_secs(5);
const QUIET: Duration = Duration::from_millis(300);
const PAUSE: Duration = Duration::from_millis(20);
const MAC: &str = "02:00:00:00:00:01";

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

type Job = Box<dyn FnOnce() + Send>;

/// A thread in a network namespace of its own, as a pod is.
struct Pod {
    thread: i32,
    jobs: Sender<Job>,
    done: Receiver<()>,
}

impl Pod {
    fn start() -> Self {
        let (jobs, to_do) = mpsc::channel::<Job>();
        let (tell, done) = mpsc::channel();
        let (tell_thread, thread) = mpsc::channel();
        thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            tell_thread.send(gettid().as_raw()).unwrap();
            for job in to_do {
                job();
                tell.send(()).unwrap();
            }
        });
        Self {
            thread: thread.recv().unwrap(),
            jobs,
            done,
        }
    }

    /// Does this in the pod; a panic there is one here.
    fn run(&self, job: impl FnOnce() + Send + 'static) {
        self.jobs.send(Box::new(job)).unwrap();
        self.done.recv().unwrap();
    }
}

/// A bridge with a port, the other end of which is in a pod.
fn bridge_to_pod() -> Pod {
    let pod = Pod::start();
    run("ip link add br0 type bridge");
    run("ip addr add 10.9.0.1/24 dev br0");
    run("ip link set br0 up");
    run(&format!(
        "ip link add port0 type veth peer name eth0 address {MAC} netns {}",
        pod.thread
    ));
    run("ip link set port0 master br0");
    run("ip link set port0 up");
    pod.run(|| {
        run("ip addr add 10.9.0.2/24 dev eth0");
        run("ip link set eth0 up");
    });
    pod
}

fn index(name: &str) -> u32 {
    nix::net::if_::if_nametoindex(name).unwrap()
}

fn station() -> Station {
    let bridge = index("br0");
    let mac = [2, 0, 0, 0, 0, 1];
    Station { bridge, mac }
}

/// Has the pod ask for the address of the bridge.
fn send(pod: &Pod) {
    pod.run(|| {
        let socket = UdpSocket::bind("10.9.0.2:0").unwrap();
        socket.send_to(b"x", "10.9.0.1:9").unwrap();
    });
}

fn until<T>(what: impl Fn() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = what() {
            return found;
        }
        assert!(started.elapsed() < WAIT, "did not come");
        thread::sleep(PAUSE);
    }
}

/// The addresses that the kernel says are the bridge's own or its ports'.
fn own_addresses() -> Vec<[u8; 6]> {
    let read = |line: &str| {
        let mut mac = [0; 6];
        let text = line.split(' ').next().unwrap();
        for (to, byte) in mac.iter_mut().zip(text.split(':')) {
            *to = u8::from_str_radix(byte, 16).unwrap();
        }
        mac
    };
    let entries = run("bridge fdb show br br0");
    let own = entries
        .lines()
        .filter(|line| line.contains("master br0 permanent"));
    own.map(read).collect()
}

fn port() -> Port {
    Port {
        index: index("port0"),
        bridge: index("br0"),
    }
}

#[test]
fn a_pod_behind_a_bridge_is_found_and_forgotten() {
    in_own_network(|| {
        let pod = bridge_to_pod();
        run("ip link add veth0 type veth peer name veth1"); // a port that leads nowhere else
        run("ip link set veth0 master br0");
        run("ip link set veth0 up");
        run("ip link set veth1 up");
        until(|| Devices::list().unwrap().port(port().index));
        let devices = Devices::list().unwrap();
        assert_eq!(devices.ports().collect::<Vec<_>>(), [port()]);
        assert!(devices.get(port().index).is_none());
        assert!(devices.get(index("br0")).unwrap().is_plain_bridge);

        send(&pod);
        let found = until(|| Stations::list().unwrap().get(station()));
        assert_eq!(found, port().index);
        // The addresses of the bridge and of its port are none of them.
        let own = own_addresses();
        assert!(own.len() >= 2, "{own:?}");
        let stations = Stations::list().unwrap();
        assert!(
            stations
                .iter()
                .all(|(station, _)| !own.contains(&station.mac)),
            "{stations:?} has of {own:?}"
        );

        // A port to which the bridge does not send leads to no pod.
        run("bridge link set dev port0 state 0");
        assert_eq!(Devices::list().unwrap().ports().count(), 0);
        run("bridge link set dev port0 state 3");
        assert_eq!(Devices::list().unwrap().ports().count(), 1);

        run("ip link del port0");
        assert_eq!(Devices::list().unwrap().ports().count(), 0);
        assert_eq!(Stations::list().unwrap().get(station()), None);
    });
}

#[test]
fn a_port_that_a_spanning_tree_holds_back_leads_to_no_pod() {
    in_own_network(|| {
        let _pod = bridge_to_pod();
        until(|| Devices::list().unwrap().port(port().index));
        run("ip link set br0 type bridge stp_state 1");
        run("ip link set port0 down");
        run("ip link set port0 up"); // it listens and learns for 30 s
        assert_eq!(Devices::list().unwrap().ports().count(), 0);
        assert_eq!(Stations::list().unwrap().get(station()), None);
    });
}

/// A kernel may be built without VLANs in bridges; there is no such bridge then.
#[test]
fn a_bridge_that_looks_at_vlans_is_no_plain_one() {
    in_own_network(|| {
        run("ip link add br0 type bridge");
        let is_plain = || {
            let devices = Devices::list().unwrap();
            devices.get(index("br0")).unwrap().is_plain_bridge
        };
        assert!(is_plain());
        let filtering = [
            "link",
            "set",
            "br0",
            "type",
            "bridge",
            "vlan_filtering",
            "1",
        ];
        let output = Command::new("ip").args(filtering).output().unwrap();
        let refusal = String::from_utf8_lossy(&output.stderr);
        assert_eq!(is_plain(), refusal.contains("not supported"), "{refusal}");
    });
}

#[test]
fn reports_what_a_bridge_learns_and_forgets() {
    in_own_network(|| {
        let pod = bridge_to_pod();
        let port = port();
        runtime().block_on(async {
            let mut devices = DeviceWatch::open().unwrap();
            let mut watch = StationWatch::open().unwrap();
            let mut stations = watch.current().clone();
            send(&pod);
            while stations.get(station()).is_none() {
                let new = tokio::time::timeout(WAIT, watch.changed()).await;
                stations = new.unwrap().unwrap();
            }
            assert_eq!(stations.get(station()), Some(port.index));
            while devices.current().port(port.index).is_none() {
                let new = tokio::time::timeout(WAIT, devices.changed()).await;
                new.unwrap().unwrap();
            }

            let gone = station();
            run("ip link del port0");
            while stations.get(gone).is_some() {
                let new = tokio::time::timeout(WAIT, watch.changed()).await;
                stations = new.unwrap().unwrap();
            }
            while devices.current().ports().count() != 0 {
                let new = tokio::time::timeout(WAIT, devices.changed()).await;
                new.unwrap().unwrap();
            }
        });
    });
}

/// How often [`Counted`] was listed.
static LISTINGS: AtomicUsize = AtomicUsize::new(0);

/// The stations, counting how often they are asked for.
#[derive(Default, PartialEq)]
struct Counted(Stations);

impl Listed for Counted {
    const SUBJECT: &'static str = Stations::SUBJECT;
    const GROUPS: &'static [u32] = Stations::GROUPS;

    fn request() -> RouteNetlinkMessage {
        LISTINGS.fetch_add(1, Ordering::Relaxed);
        Stations::request()
    }

    fn take(&mut self, message: &[u8]) -> Result<(), DecodeError> {
        self.0.take(message)
    }

    fn concerns(notice: &[u8]) -> bool {
        Stations::concerns(notice)
    }
}

#[test]
fn what_arp_learns_is_no_reason_to_list() {
    in_own_network(|| {
        run("ip link add br0 type bridge");
        run("ip link add veth0 type veth peer name veth1");
        run("ip link set veth0 master br0");
        runtime().block_on(async {
            let mut watch = Watch::<Counted>::open().unwrap();
            assert_eq!(LISTINGS.load(Ordering::Relaxed), 1);
            for last in 2..100 {
                run(&format!(
                    "ip neigh add 10.9.0.{last} lladdr {MAC} nud reachable dev br0"
                ));
            }
            assert!(tokio::time::timeout(QUIET, watch.changed()).await.is_err());
            assert_eq!(LISTINGS.load(Ordering::Relaxed), 1);

            run(&format!("bridge fdb add {MAC} dev veth0 master static"));
            let new = tokio::time::timeout(WAIT, watch.changed()).await;
            let stations = &new.unwrap().unwrap().0;
            assert_eq!(stations.get(station()), Some(index("veth0")));
        });
    });
}
