use std::path::Path;
use std::time::{Duration, Instant};

use super::certificate::FollowedCertificate;
use crate::corefile;
use crate::plugin::Environment;
use crate::server::Configuration;

fn write_pair(dir: &Path, name: &str) -> Vec<u8> {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).expect("it can be made");
    std::fs::write(dir.join("cert.pem"), made.cert.pem()).expect("written");
    std::fs::write(dir.join("key.pem"), made.signing_key.serialize_pem()).expect("written");
    made.cert.der().to_vec()
}

fn load(dir: &Path, lines: &str) -> Result<(), String> {
    let text = format!("tls://. {{\nroot {}\n{lines}\n}}", dir.display());
    let corefile = corefile::parse(&text, "Corefile", dir).expect("it parses");
    let configuration = Configuration::new(&corefile, &Environment::default());
    configuration.map(drop).map_err(|error| error.to_string())
}

#[test]
fn every_way_of_client_auth_loads_with_what_it_needs() {
    let dir = tempfile::tempdir().expect("a directory");
    write_pair(dir.path(), "dns.test");
    for how in ["nocert", "request", "require"] {
        let lines = format!("tls cert.pem key.pem {{\nclient_auth {how}\n}}");
        assert_eq!(load(dir.path(), &lines), Ok(()), "{how}");
    }
    for how in ["verify_if_given", "require_and_verify"] {
        let with_ca = format!("tls cert.pem key.pem cert.pem {{\nclient_auth {how}\n}}");
        assert_eq!(load(dir.path(), &with_ca), Ok(()), "{how}");
        let without = format!("tls cert.pem key.pem {{\nclient_auth {how}\n}}");
        let error = load(dir.path(), &without).expect_err("there is nobody to verify by");
        assert!(
            error.starts_with("Corefile:3: ") && error.contains("CA file"),
            "{error}"
        );
    }
}

#[test]
fn files_that_are_wrong_are_named() {
    let dir = tempfile::tempdir().expect("a directory");
    write_pair(dir.path(), "dns.test");
    let path = |name: &str| dir.path().join(name).display().to_string();
    for (lines, file) in [
        ("tls gone.pem key.pem", "gone.pem"),
        ("tls cert.pem gone.pem", "gone.pem"),
        ("tls key.pem key.pem", "key.pem"),
        ("tls cert.pem cert.pem", "cert.pem"),
    ] {
        let error = load(dir.path(), lines).expect_err("it can't be used");
        let expected = format!("Corefile:3: {}: ", path(file));
        assert!(error.starts_with(&expected), "{error}");
    }
    assert!(load(dir.path(), "tls cert.pem").is_err());
    assert!(load(dir.path(), "tls cert.pem key.pem {\nclient_auth maybe\n}").is_err());
}

#[test]
fn a_renewed_certificate_is_taken_and_a_broken_one_is_not() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = |name: &str| dir.path().join(name);
    let first = write_pair(dir.path(), "first.test");
    let followed = FollowedCertificate::load(path("cert.pem"), path("key.pem"));
    let followed = followed.expect("it can be read");
    let shown = || followed.current().cert[0].as_ref().to_vec();
    let later = |seconds| Instant::now() + Duration::from_secs(seconds);
    let touch = |seconds: u64| {
        let file = std::fs::File::options().append(true).open(path("cert.pem"));
        let time = std::time::SystemTime::now() + Duration::from_secs(seconds);
        file.and_then(|file| file.set_modified(time))
            .expect("touched");
    };

    let second = write_pair(dir.path(), "second.test");
    touch(10);
    followed.refresh(later(1));
    assert_eq!(shown(), first, "it was looked at a moment ago");
    followed.refresh(later(10));
    assert_eq!(shown(), second);

    std::fs::write(path("cert.pem"), "broken").expect("written");
    touch(20);
    followed.refresh(later(20));
    assert_eq!(shown(), second);
}
