//! Who claims an address.

use switchyard_datapath::layout::address_flags;

/// How often an address is claimed, by what it is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Claims {
    pub(super) cluster: u32,
    pub(super) external: u32,
    pub(super) node: u32,
    /// Nobody claims it, but connections to it may go on.
    pub(super) is_draining: bool,
}

impl Claims {
    pub(super) const fn flags(&self) -> u32 {
        let mut flags = self.node;
        if self.cluster > 0 {
            flags |= address_flags::CLUSTER_IP;
        }
        if self.external > 0 {
            flags |= address_flags::EXTERNAL;
        }
        if flags == 0 && self.is_draining {
            return address_flags::DRAINING;
        }
        flags
    }

    /// How often it is claimed as what a flag says.
    pub(super) const fn by_flag(&mut self, flag: u32) -> &mut u32 {
        if flag == address_flags::CLUSTER_IP {
            &mut self.cluster
        } else {
            &mut self.external
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_what_all_that_claim_it_say() {
        let mut claims = Claims::default();
        assert_eq!(claims.flags(), 0);
        for flag in [address_flags::CLUSTER_IP, address_flags::EXTERNAL] {
            *claims.by_flag(flag) += 1;
        }
        claims.node = address_flags::LOCAL;
        let both = address_flags::CLUSTER_IP | address_flags::EXTERNAL;
        assert_eq!(claims.flags(), both | address_flags::LOCAL);
        claims.is_draining = true;
        assert_eq!(claims.flags(), both | address_flags::LOCAL, "claimed again");
        let left = Claims {
            is_draining: true,
            ..Claims::default()
        };
        assert_eq!(left.flags(), address_flags::DRAINING);
    }
}
