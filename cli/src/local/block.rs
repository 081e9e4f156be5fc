//! Loopback addresses that no other run on this machine uses.

use anyhow::{Context, Result, bail};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

/// The most blocks that are tried before giving up.
const TRIES: usize = 64;
/// Networks in a block.
const NETWORKS: u8 = 16;

/// Sixteen /24 networks of 127/8. A listener on its last address holds it until it is dropped.
#[derive(Debug)]
pub struct Block {
    second: u8,
    third: u8,
    _held: TcpListener,
}

impl Block {
    /// Finds a block at random and holds it.
    ///
    /// # Errors
    /// When every block that was tried is in use.
    pub fn reserve() -> Result<Self> {
        for _ in 0..TRIES {
            let [a, b] = sealane_trust::random::<2>().context("no random bytes for an address block")?;
            // 127.0 to 127.15 are left alone: other software uses them.
            let (second, third) = (16 + a % 239, b & !(NETWORKS - 1));
            let lock = SocketAddr::from((Ipv4Addr::new(127, second, third + (NETWORKS - 1), 254), 47_007));
            if let Ok(held) = TcpListener::bind(lock) {
                return Ok(Block { second, third, _held: held });
            }
        }
        bail!("no free block of loopback addresses in {TRIES} tries: are many demos running?")
    }

    /// An address: of network 0 to 15 and host 1 to 253.
    #[must_use]
    pub fn address(&self, network: u8, host: u8) -> Ipv4Addr {
        Ipv4Addr::new(127, self.second, self.third + network % NETWORKS, host)
    }

    /// A socket address in the block.
    #[must_use]
    pub fn socket(&self, network: u8, host: u8, port: u16) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(self.address(network, host)), port)
    }

    /// One network in CIDR notation.
    #[must_use]
    pub fn range(&self, network: u8) -> String {
        format!("{}/24", self.address(network, 0))
    }
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "127.{}.{}.0/20", self.second, self.third)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_blocks_never_overlap() {
        let blocks: Vec<Block> = (0..20).map(|_| Block::reserve().unwrap()).collect();
        let mut names: Vec<String> = blocks.iter().map(ToString::to_string).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 20);
        assert_eq!(blocks[0].range(3), format!("{}/24", blocks[0].address(3, 0)));
    }
}
