use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::corefile::{ConfigError, Token};
use crate::server::everywhere;

/// Reads where an endpoint is to listen: `:8080` (all addresses), `localhost:9153`,
/// `10.0.0.1:8080`, `[fd00::1]:8080`. Other host names are not looked up.
///
/// # Errors
/// When it is none of those.
pub fn listen_address(token: &Token) -> Result<SocketAddr, ConfigError> {
    let wrong = || {
        token.error(format!(
            "`{token}` is no address to listen on; expected one such as :8080, localhost:8080, \
             10.0.0.1:8080 or [fd00::1]:8080"
        ))
    };
    let (host, port) = token.rsplit_once(':').ok_or_else(wrong)?;
    let port = port.parse().map_err(|_| wrong())?;
    let address = match host {
        "" => everywhere(),
        "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
        host => {
            let bare = host
                .strip_prefix('[')
                .and_then(|host| host.strip_suffix(']'));
            let address: IpAddr = bare.unwrap_or(host).parse().map_err(|_| wrong())?;
            if address.is_ipv6() != bare.is_some() {
                return Err(wrong());
            }
            address
        }
    };
    Ok(SocketAddr::new(address, port))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::corefile::Location;

    #[test]
    fn addresses_are_read_and_nonsense_is_refused() {
        let read = |text: &str| {
            let file = Arc::from("Corefile");
            let at = Location { file, line: 7 };
            let text = text.into();
            listen_address(&Token { text, at })
        };
        for (text, address) in [
            ("localhost:9153", "127.0.0.1:9153"),
            ("10.0.0.1:0", "10.0.0.1:0"),
            ("[fd00::1]:8080", "[fd00::1]:8080"),
        ] {
            assert_eq!(
                read(text).map(|read| read.to_string()),
                Ok(address.to_owned())
            );
        }
        assert!(read(":8080").is_ok_and(|read| read.ip().is_unspecified()));
        for text in [
            "8080",
            "fd00::1:8080",
            "[10.0.0.1]:80",
            "host:80",
            ":x",
            ":65536",
            "",
        ] {
            let error = read(text).map_err(|error| error.to_string());
            assert!(
                error.is_err_and(|text| text.starts_with("Corefile:7: ")),
                "{text}"
            );
        }
    }
}
