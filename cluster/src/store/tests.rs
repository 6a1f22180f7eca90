use super::*;
use crate::object::IpFamily;

fn slice(name: &str, service: Option<&str>) -> Arc<EndpointSlice> {
    Arc::new(EndpointSlice {
        name: ObjectName::new("ns", name),
        service: service.map(Arc::from),
        family: Some(IpFamily::V4),
        ports: Box::default(),
        endpoints: Box::default(),
        headless: false,
        trigger_unix_ns: None,
    })
}

fn apply(store: &mut Store, update: Update) -> Vec<Change> {
    let mut changes = Vec::new();
    store.apply(update, &mut |change| changes.push(change));
    changes
}

fn endpoints_of(service: &str) -> Change {
    Change::Endpoints {
        service: ObjectName::new("ns", service),
        trigger_unix_ns: None,
    }
}

#[test]
fn it_is_synced_once_every_needed_list_is_in() {
    let mut store = Store::new(&[Kind::Service, Kind::Node]);
    apply(&mut store, Update::ListStarted(Kind::Node));
    apply(&mut store, Update::ListDone(Kind::Node));
    assert_eq!(store.waiting_for(), [Kind::Service]);
    apply(&mut store, Update::ListDone(Kind::Service));
    assert!(store.synced());
}

#[test]
fn a_new_list_removes_what_it_does_not_name_at_its_end_only() {
    let mut store = Store::new(&[]);
    let put = |name| Update::Upsert(Object::EndpointSlice(slice(name, Some("svc"))));
    assert_eq!(apply(&mut store, put("a")), [endpoints_of("svc")]);
    apply(&mut store, put("b"));
    apply(&mut store, Update::ListStarted(Kind::EndpointSlice));
    assert_eq!(apply(&mut store, put("b")), []);
    assert_eq!(store.slices(&ObjectName::new("ns", "svc")).count(), 2);
    assert_eq!(
        apply(&mut store, Update::ListDone(Kind::EndpointSlice)),
        [endpoints_of("svc")]
    );
    assert_eq!(store.slices(&ObjectName::new("ns", "svc")).count(), 1);
}

#[test]
fn an_unreadable_object_keeps_its_last_good_form_over_a_new_list() {
    let mut store = Store::new(&[]);
    let name = ObjectName::new("ns", "a");
    let problem = crate::update::Problem {
        place: String::new(),
        field: String::new(),
        message: "no".to_owned(),
    };
    apply(
        &mut store,
        Update::Upsert(Object::EndpointSlice(slice("a", Some("svc")))),
    );
    apply(&mut store, Update::ListStarted(Kind::EndpointSlice));
    apply(
        &mut store,
        Update::Unreadable(Kind::EndpointSlice, name, problem),
    );
    assert_eq!(apply(&mut store, Update::ListDone(Kind::EndpointSlice)), []);
}

#[test]
fn a_slice_that_passes_to_another_service_changes_both() {
    let mut store = Store::new(&[]);
    apply(
        &mut store,
        Update::Upsert(Object::EndpointSlice(slice("a", Some("one")))),
    );
    let moved = Update::Upsert(Object::EndpointSlice(slice("a", Some("two"))));
    assert_eq!(
        apply(&mut store, moved),
        [endpoints_of("one"), endpoints_of("two")]
    );
    assert_eq!(store.slices(&ObjectName::new("ns", "one")).count(), 0);
}

#[test]
fn legacy_endpoints_count_only_where_there_is_no_slice() {
    let mut store = Store::new(&[]);
    let service = ObjectName::new("ns", "svc");
    let legacy = Arc::new(LegacyEndpoints {
        name: service.clone(),
        slices: Box::new([slice("svc-legacy", Some("svc"))]),
    });
    let names = |store: &Store| -> Vec<String> {
        store
            .slices(&service)
            .map(|slice| slice.name.name.to_string())
            .collect()
    };
    assert_eq!(
        apply(&mut store, Update::Upsert(Object::Endpoints(legacy))).len(),
        1
    );
    assert_eq!(names(&store), ["svc-legacy"]);
    apply(
        &mut store,
        Update::Upsert(Object::EndpointSlice(slice("real", Some("svc")))),
    );
    assert_eq!(names(&store), ["real"]);
    apply(
        &mut store,
        Update::Remove(Kind::EndpointSlice, ObjectName::new("ns", "real")),
    );
    assert_eq!(names(&store), ["svc-legacy"]);
}

fn pod(ip: &str) -> Arc<Pod> {
    Arc::new(Pod {
        name: ObjectName::new("ns", "pod"),
        ips: Box::new([ip.parse().unwrap()]),
        host_network: false,
    })
}

#[test]
fn changes_of_pods_carry_what_they_were() {
    let mut store = Store::new(&[Kind::Pod]);
    let (one, two) = (pod("10.1.0.1"), pod("10.1.0.2"));
    let put = |pod: &Arc<Pod>| Update::Upsert(Object::Pod(Arc::clone(pod)));
    let change = |old: Option<&Arc<Pod>>, new: Option<&Arc<Pod>>| Change::Pod {
        old: old.cloned(),
        new: new.cloned(),
    };
    assert_eq!(apply(&mut store, put(&one)), [change(None, Some(&one))]);
    assert_eq!(apply(&mut store, put(&one)), []);
    let both = change(Some(&one), Some(&two));
    assert_eq!(apply(&mut store, put(&two)), [both]);
    apply(&mut store, Update::ListStarted(Kind::Pod));
    let gone = apply(&mut store, Update::ListDone(Kind::Pod));
    assert_eq!(gone, [change(Some(&two), None)]);
    assert_eq!(store.count(Kind::Pod), 0);
}

#[test]
fn namespaces_come_and_go() {
    let mut store = Store::new(&[Kind::Namespace]);
    let name = ObjectName::cluster_wide("ns");
    let namespace = Arc::new(Namespace { name: name.clone() });
    let put = || Update::Upsert(Object::Namespace(Arc::clone(&namespace)));
    let change = Change::Namespace(name.clone());
    let changed = [change];
    assert_eq!(apply(&mut store, put()), changed);
    assert_eq!(apply(&mut store, put()), []);
    assert!(store.namespace("ns").is_some());
    let removed = apply(&mut store, Update::Remove(Kind::Namespace, name));
    assert_eq!(removed, changed);
    assert!(store.namespace("ns").is_none());
}

#[test]
fn slices_of_a_service_stand_in_the_order_of_their_names() {
    let mut store = Store::new(&[]);
    for name in ["c", "a", "d", "b", "a"] {
        let slice = slice(name, Some("svc"));
        apply(&mut store, Update::Upsert(Object::EndpointSlice(slice)));
    }
    let names: Vec<&str> = store
        .slices(&ObjectName::new("ns", "svc"))
        .map(|slice| &*slice.name.name)
        .collect();
    assert_eq!(names, ["a", "b", "c", "d"]);
}
