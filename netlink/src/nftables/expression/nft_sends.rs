//! What nft 1.0.6 sends for rules (`nft --debug=mnl`, of a little-endian machine): read, and
//! written again, it is the same to the byte. What nft says of sets besides their names
//! (`NFTA_LOOKUP_SET_ID`, `NFTA_DYNSET_SET_ID`) is left out here, as we do, and what it says
//! of some rules and not of others: `NFTA_BITWISE_OP` 0, and in `NFTA_NAT_FLAGS` that there is
//! a port.

use super::{Expression, read_all};
use crate::writer::Writer;

/// A rule, and below it its `NFTA_RULE_EXPRESSIONS` in hexadecimal.
const SENT: &str = include_str!("nft_sends.txt");

fn bytes(hexadecimal: &str) -> Vec<u8> {
    let digits: Vec<u8> = hexadecimal.bytes().collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

#[test]
#[cfg(target_endian = "little")]
fn what_nft_sends_is_what_is_written() {
    let lines: Vec<&str> = SENT.lines().collect();
    assert_eq!(lines.len(), 60);
    for pair in lines.chunks(2) {
        let [rule, hexadecimal] = pair else {
            panic!("a rule without its bytes");
        };
        let sent = bytes(hexadecimal.trim());
        let expressions = read_all(&sent).unwrap();
        let other = |one: &Expression| matches!(one, Expression::Other { .. });
        assert!(!expressions.iter().any(other), "{rule}");
        let mut writer = Writer::new();
        for expression in &expressions {
            expression.write(&mut writer);
        }
        assert_eq!(writer.bytes(), Some(&sent[..]), "{rule}");
    }
}
