//! Any bytes as a Corefile: no panic, and the same text has the same meaning twice.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use switchyard_dns::corefile;

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    // Files of this machine are no part of the question.
    if text.contains("import") && text.contains('/') {
        return;
    }
    let parse = || corefile::parse(&text, "Corefile", Path::new("/nowhere"));
    if let Ok(parsed) = parse() {
        let _ = corefile::check_duplicates(&parsed, 53);
        assert_eq!(Ok(parsed.hash), parse().map(|again| again.hash));
    }
});
