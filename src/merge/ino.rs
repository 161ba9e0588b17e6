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

#[cfg(test)]
mod tests {
    use super::*;

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
