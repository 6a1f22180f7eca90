use std::fmt;

/// A record or question type (RFC 1035 §3.2.2 and the IANA registry).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Rtype(pub u16);

macro_rules! numbers {
    ($type:ident, $other:literal, $($name:ident = $number:literal, $text:literal;)*) => {
        impl $type {
            $(#[doc = $text] pub const $name: Self = Self($number);)*

            /// The mnemonic, where there is one.
            #[must_use]
            pub const fn mnemonic(self) -> Option<&'static str> {
                match self.0 {
                    $($number => Some($text),)*
                    _ => None,
                }
            }

            /// The number of a mnemonic in any case, or of the generic form of RFC 3597.
            #[must_use]
            pub fn from_text(text: &str) -> Option<Self> {
                $(if text.eq_ignore_ascii_case($text) { return Some(Self($number)); })*
                let number = text.get(..$other.len()).filter(|start| start.eq_ignore_ascii_case($other));
                number.and_then(|_| text.get($other.len()..)?.parse().ok()).map(Self)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.mnemonic() {
                    Some(text) => f.write_str(text),
                    None => write!(f, "{}{}", $other, self.0),
                }
            }
        }
    };
}

numbers! { Rtype, "TYPE",
    A = 1, "A"; NS = 2, "NS"; CNAME = 5, "CNAME"; SOA = 6, "SOA"; MB = 7, "MB"; MG = 8, "MG";
    MR = 9, "MR"; NULL = 10, "NULL"; PTR = 12, "PTR"; HINFO = 13, "HINFO"; MINFO = 14, "MINFO";
    MX = 15, "MX"; TXT = 16, "TXT"; RP = 17, "RP"; AFSDB = 18, "AFSDB"; SIG = 24, "SIG";
    KEY = 25, "KEY"; AAAA = 28, "AAAA"; LOC = 29, "LOC"; SRV = 33, "SRV"; NAPTR = 35, "NAPTR";
    KX = 36, "KX"; CERT = 37, "CERT"; DNAME = 39, "DNAME"; OPT = 41, "OPT"; APL = 42, "APL";
    DS = 43, "DS"; SSHFP = 44, "SSHFP"; RRSIG = 46, "RRSIG"; NSEC = 47, "NSEC";
    DNSKEY = 48, "DNSKEY"; NSEC3 = 50, "NSEC3"; NSEC3PARAM = 51, "NSEC3PARAM"; TLSA = 52, "TLSA";
    SMIMEA = 53, "SMIMEA"; CDS = 59, "CDS"; CDNSKEY = 60, "CDNSKEY";
    OPENPGPKEY = 61, "OPENPGPKEY"; CSYNC = 62, "CSYNC"; ZONEMD = 63, "ZONEMD";
    SVCB = 64, "SVCB"; HTTPS = 65, "HTTPS"; SPF = 99, "SPF"; TSIG = 250, "TSIG";
    IXFR = 251, "IXFR"; AXFR = 252, "AXFR"; ANY = 255, "ANY"; URI = 256, "URI"; CAA = 257, "CAA";
}

/// A response code, extended ones of EDNS included (RFC 1035 §4.1.1, RFC 6895 §2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Rcode(pub u16);

numbers! { Rcode, "RCODE",
    NOERROR = 0, "NOERROR"; FORMERR = 1, "FORMERR"; SERVFAIL = 2, "SERVFAIL";
    NXDOMAIN = 3, "NXDOMAIN"; NOTIMP = 4, "NOTIMP"; REFUSED = 5, "REFUSED";
    YXDOMAIN = 6, "YXDOMAIN"; YXRRSET = 7, "YXRRSET"; NXRRSET = 8, "NXRRSET";
    NOTAUTH = 9, "NOTAUTH"; NOTZONE = 10, "NOTZONE"; BADVERS = 16, "BADVERS";
    BADCOOKIE = 23, "BADCOOKIE";
}

/// A class (RFC 1035 §3.2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Class(pub u16);

numbers! { Class, "CLASS",
    IN = 1, "IN"; CS = 2, "CS"; CH = 3, "CH"; HS = 4, "HS"; NONE = 254, "NONE"; ANY = 255, "ANY";
}

/// What a message asks for (RFC 1035 §4.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Opcode(pub u8);

impl Opcode {
    /// A question.
    pub const QUERY: Self = Self(0);
    /// RFC 1996.
    pub const NOTIFY: Self = Self(4);
    /// RFC 2136.
    pub const UPDATE: Self = Self(5);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_read_and_written_by_name_and_by_number() {
        assert_eq!(Rtype::from_text("aaaa"), Some(Rtype::AAAA));
        assert_eq!(Rtype::from_text("TYPE65280"), Some(Rtype(65280)));
        assert_eq!(Rtype::from_text("TYPE65536"), None);
        assert_eq!(Rtype::from_text("nonsense"), None);
        assert_eq!(Rtype(65280).to_string(), "TYPE65280");
        assert_eq!(Rcode::NXDOMAIN.to_string(), "NXDOMAIN");
    }
}
