//! Network addresses as people write them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// `host:port`, where the host is a name, an IPv4 address or an IPv6 address in brackets. Names are
/// resolved when they are used.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// The host, without brackets and in lower case.
    host: String,
    port: u16,
}

impl Address {
    /// The host, without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, never 0.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether the host is `0.0.0.0` or `[::]`: good for listening, but nobody can dial it.
    pub(super) fn is_unspecified(&self) -> bool {
        self.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified())
    }

    /// Whether two servers that listen on these addresses of one machine would want the same port of it, as
    /// far as that can be told without asking a resolver: `localhost` is `127.0.0.1` or `[::1]`, but those two
    /// are ports of their own.
    pub(super) fn clashes_with(&self, other: &Self) -> bool {
        self.port == other.port
            && self
                .places()
                .iter()
                .any(|place| other.places().iter().any(|taken| taken == place))
    }

    /// What the host may stand for: the IP addresses where they are known, else the name.
    fn places(&self) -> Vec<HostPlace<'_>> {
        let name = self.host.trim_end_matches('.');
        if name == "localhost" {
            let loopbacks: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
            return loopbacks.map(HostPlace::Ip).to_vec();
        }
        vec![match name.parse::<IpAddr>() {
            Ok(ip) => HostPlace::Ip(ip.to_canonical()),
            Err(_) => HostPlace::Name(name),
        }]
    }
}

/// What a host stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HostPlace<'a> {
    Ip(IpAddr),
    Name(&'a str),
}

impl FromStr for Address {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (host, port) = text.rsplit_once(':').ok_or("it has no port")?;
        let port = port
            .parse()
            .ok()
            .filter(|port| *port > 0)
            .ok_or("its port is not between 1 and 65535")?;
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        if let Some(ipv6) = bracketed {
            let ipv6: Ipv6Addr = ipv6
                .parse()
                .map_err(|_| "what stands in the brackets is no IPv6 address")?;
            return Ok(Self {
                host: ipv6.to_string(),
                port,
            });
        }
        let is_name = |character: char| character.is_ascii_alphanumeric() || "-_.".contains(character);
        if host.is_empty() || !host.chars().all(is_name) {
            return Err("its host is neither a name nor an IP address (IPv6 goes in brackets)");
        }
        Ok(Self {
            host: host.to_ascii_lowercase(),
            port,
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Address;

    #[test]
    fn names_and_ip_addresses_are_addresses() {
        for (text, shown) in [
            ("127.0.0.1:7101", "127.0.0.1:7101"),
            ("KV-1.example.com:1", "kv-1.example.com:1"),
            ("[::1]:65535", "[::1]:65535"),
            ("[0:0:0:0:0:0:0:1]:80", "[::1]:80"),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), shown);
        }
    }

    #[test]
    fn addresses_clash_when_they_are_one_port_of_one_host() {
        let clash = |left: &str, right: &str| {
            let [left, right] = [left, right].map(|text| text.parse::<Address>().unwrap());
            assert_eq!(left.clashes_with(&right), right.clashes_with(&left));
            left.clashes_with(&right)
        };
        for (left, right) in [
            ("localhost:1", "127.0.0.1:1"),
            ("LOCALHOST.:1", "[::1]:1"),
            ("localhost:1", "localhost:1"),
            ("[::ffff:10.0.0.1]:1", "10.0.0.1:1"),
            ("kv-1.example.com.:1", "KV-1.example.com:1"),
        ] {
            assert!(clash(left, right), "{left} {right}");
        }
        for (left, right) in [
            ("localhost:1", "127.0.0.1:2"),
            ("localhost:1", "127.0.0.2:1"),
            ("127.0.0.1:1", "[::1]:1"),
            ("kv-1:1", "kv-2:1"),
        ] {
            assert!(!clash(left, right), "{left} {right}");
        }
    }

    #[test]
    fn what_cannot_be_dialled_is_no_address() {
        for wrong in [
            "",
            "host",
            ":1",
            "host:",
            "host:0",
            "host:65536",
            "::1:80",
            "[::1]",
            "[x]:1",
            "a b:1",
            "h:1:2",
        ] {
            assert!(wrong.parse::<Address>().is_err(), "{wrong}");
        }
    }
}
