//! How large the maps of a set are.

use switchyard_datapath::layout::limits;

/// How many entries the maps of a set have room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Sizes {
    pub(in super::super) services: u32,
    pub(in super::super) slots: u32,
    pub(in super::super) frontends: u32,
    pub(in super::super) ranges: u32,
}

impl Sizes {
    /// The smallest set: some hundred Services.
    pub(in super::super) const MIN: Self = Self {
        services: 1 << 10,
        slots: 1 << 13,
        frontends: 1 << 11,
        ranges: 1 << 8,
    };
    /// The largest set.
    pub(in super::super) const MAX: Self = Self {
        services: limits::SERVICES_MAX,
        slots: limits::SLOTS_MAX,
        frontends: limits::FRONTENDS_MAX,
        ranges: limits::RANGES_MAX,
    };

    /// Room for at least `needed` and as much again, so that growing is rare.
    pub(in super::super) fn for_need(needed: Self) -> Self {
        let room = |need: u32, min: u32, max: u32| {
            need.saturating_mul(2)
                .checked_next_power_of_two()
                .unwrap_or(max)
                .clamp(min, max)
        };
        Self {
            services: room(needed.services, Self::MIN.services, Self::MAX.services),
            slots: room(needed.slots, Self::MIN.slots, Self::MAX.slots),
            frontends: room(needed.frontends, Self::MIN.frontends, Self::MAX.frontends),
            ranges: room(needed.ranges, Self::MIN.ranges, Self::MAX.ranges),
        }
    }

    /// Both together.
    pub(in super::super) const fn and(&self, other: &Self) -> Self {
        Self {
            services: self.services.saturating_add(other.services),
            slots: self.slots.saturating_add(other.slots),
            frontends: self.frontends.saturating_add(other.frontends),
            ranges: self.ranges.saturating_add(other.ranges),
        }
    }

    /// Whether nothing of `needed` is more than there is room for.
    pub(in super::super) const fn hold(&self, needed: &Self) -> bool {
        needed.services <= self.services
            && needed.slots <= self.slots
            && needed.frontends <= self.frontends
            && needed.ranges <= self.ranges
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_have_room_for_as_much_again() {
        let of = |services, slots, frontends, ranges| Sizes {
            services,
            slots,
            frontends,
            ranges,
        };
        let none = Sizes::for_need(of(0, 0, 0, 0));
        assert_eq!(none, Sizes::MIN);
        let some = of(1000, 5000, 1025, 129);
        assert_eq!(Sizes::for_need(some), of(2048, 16_384, 4096, 512));
        assert!(Sizes::for_need(some).hold(&some));
        // Powers of two need no more than twice themselves.
        let even = of(1024, 8192, 2048, 256);
        assert_eq!(Sizes::for_need(even), of(2048, 16_384, 4096, 512));
        assert_eq!(Sizes::for_need(Sizes::MAX), Sizes::MAX);
        assert!(Sizes::for_need(Sizes::MAX).hold(&Sizes::MAX));
        let endless = of(u32::MAX, u32::MAX, u32::MAX, u32::MAX);
        assert_eq!(Sizes::for_need(endless), Sizes::MAX);
        assert!(!Sizes::MAX.hold(&endless));
        for one in [
            of(1025, 0, 0, 0),
            of(0, 8193, 0, 0),
            of(0, 0, 2049, 0),
            of(0, 0, 0, 257),
        ] {
            assert!(!Sizes::MIN.hold(&one), "{one:?}");
        }
    }
}
