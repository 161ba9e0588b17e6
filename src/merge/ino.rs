//! One number space for the inodes of several devices. Source: overlayfs.rst, "Inode properties" (xino).

/// The device index sits in these bits, as the kernel puts the filesystem index into the high bits of `xino`.
const DEVICE_SHIFT: u32 = 56;
/// So many devices have a part of the number space; the index after the last is the counter's.
pub const DEVICES: u8 = 0x7f;
/// Numbers from here up are given by a counter: collisions, and real numbers that do not fit.
pub const FIRST_COUNTED: u64 = (DEVICES as u64) << DEVICE_SHIFT;
/// The mount's root.
pub const ROOT: u64 = 1;

/// The number shown for the real inode `real` of the device with index `device`; nothing if it does not fit, or
/// is taken by the root.
pub fn pack(device: u8, real: u64) -> Option<u64> {
    if device >= DEVICES || real >> DEVICE_SHIFT != 0 {
        return None;
    }
    let packed = (u64::from(device) << DEVICE_SHIFT) | real;
    (packed > ROOT).then_some(packed)
}

/// A number that fits for the real inode `real`, where the own number does not or another device may have the same. The same
/// one each time; two objects with one are so unlikely that those who meet them need only not mix them up.
pub fn fold(device: u64, real: u64) -> u64 {
    let mut mixed = real ^ device.rotate_left(32) ^ 0x9e37_79b9_7f4a_7c15;
    // Source: the finalizer of MurmurHash3.
    for factor in [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53] {
        mixed = (mixed ^ (mixed >> 33)).wrapping_mul(factor);
    }
    (mixed ^ (mixed >> 33)) >> (64 - DEVICE_SHIFT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folded_numbers_fit_and_differ() {
        let devices = (1 << 32 | 5)..(1 << 32 | 9);
        let all = devices.flat_map(|device| (0..5000).map(move |real| fold(device, real << 50 | real)));
        let all: Vec<u64> = all.collect();
        let different: std::collections::HashSet<_> = all.iter().collect();
        assert_eq!(different.len(), all.len());
        assert!(all.iter().all(|&folded| pack(3, folded).is_some()));
        assert_eq!(fold(7, 1 << 60), fold(7, 1 << 60));
    }

    #[test]
    fn a_single_device_keeps_its_numbers() {
        assert_eq!(pack(0, 4711), Some(4711));
        assert_eq!(pack(1, 4711), Some((1 << 56) | 4711));
    }

    #[test]
    fn what_does_not_fit_is_left_to_the_counter() {
        assert_eq!(pack(0, 1 << 56), None);
        assert_eq!(pack(0, 0), None);
        assert_eq!(pack(0, ROOT), None);
        assert_eq!(pack(0x7f, 5), None);
    }
}
